//! What comes from outside: operators, facts, the resource that effects reach, fail-over.

use super::claim::claim_is_open;
use super::{COOL_DOWN, demand};
use crate::mechanism::Mechanism;
use crate::property::Violation;
use crate::protocol::Protocol;
use crate::state::{Guard, Phase, State};
use crate::witness::Witness;

impl Protocol {
    pub(crate) fn need(&self, state: &mut State, k: usize) -> Option<()> {
        demand(!state.slots[k].needed)?;
        state.slots[k].needed = true;
        Some(())
    }

    /// An operator places a hold. It raises the fence, so that a claim that looked before loses.
    pub(crate) fn hold(&self, state: &mut State, k: usize) -> Option<()> {
        demand(self.config.operator)?;
        if self.has(Mechanism::HoldRaisesFence) {
            demand(!claim_is_open(state))?;
            state.granted = state.granted.max(self.raise_fence(state));
        }
        state.slots[k].held_back = COOL_DOWN;
        Some(())
    }

    pub(super) fn ask(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let session = &mut state.sessions[s];
        demand(self.config.operator && session.phase == Phase::Live)?;
        let share = &mut session.shares[k];
        demand(share.row.is_some() && !share.guard.locks_row())?;
        share.asked = true;
        Some(())
    }

    /// What an operator must not do; this one even writes an end to history.
    pub(super) fn delete_work(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        demand(!self.has(Mechanism::BreakSession))?;
        let share = &mut state.sessions[s].shares[k];
        let is_locked = share.guard.locks_row() || (share.body && self.has(Mechanism::WorkLock));
        demand(share.row.is_some() && !is_locked)?;
        share.row = None;
        Some(())
    }

    /// The replica has not heard of the latest claim, and knows everything else.
    pub(super) fn fail_over(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        demand(self.config.failover && !claim_is_open(state))?;
        let fence = state.fence;
        let share = &mut state.sessions[s].shares[k];
        let is_locked = share.guard.locks_row() || share.body;
        demand(share.row == Some(fence) && !is_locked)?;
        share.row = None;
        state.fence -= 1;
        Some(())
    }

    /// The holder begins an effect of more than one step, with trust.
    pub(super) fn effect_begins(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        self.may_act(state, s, k)?;
        state.sessions[s].shares[k].effect = true;
        Some(())
    }

    /// The effect's last step. Nothing says that its process has noticed yet that its trust is over.
    pub(super) fn effect_steps(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let session = &mut state.sessions[s];
        demand(session.phase == Phase::Live && std::mem::take(&mut session.shares[k].effect))?;
        let believes = self.believes(&state.sessions[s]);
        if !believes && self.has(Mechanism::StepLooks) {
            self.note(Witness::EffectCutShort, true);
        } else if state.holder(k).is_some_and(|(holder, _)| holder != s) {
            state.violation = Some(Violation::StepBesideHolder);
        }
        Some(())
    }

    /// The holder's effect reaches the resource at once.
    pub(super) fn effect(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let fence = self.may_act(state, s, k)?;
        self.apply(state, k, fence);
        Some(())
    }

    /// The holder's effect is sent, and is late.
    pub(super) fn late_effect(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let fence = self.may_act(state, s, k)?;
        demand(state.slots[k].late.is_none())?;
        state.slots[k].late = Some(fence);
        Some(())
    }

    pub(crate) fn arrive(&self, state: &mut State, k: usize) -> Option<()> {
        let fence = state.slots[k].late.take()?;
        self.note(Witness::LateEffectRefused, fence < state.slots[k].highest);
        self.apply(state, k, fence);
        Some(())
    }

    fn may_act(&self, state: &State, s: usize, k: usize) -> Option<u8> {
        let session = &state.sessions[s];
        let Guard::Held { fence } = session.shares[k].guard else {
            return None;
        };
        (self.config.effects && self.believes(session)).then_some(fence)
    }

    fn apply(&self, state: &mut State, k: usize, fence: u8) {
        let highest = &mut state.slots[k].highest;
        if fence < *highest && !self.has(Mechanism::ResourceFence) {
            state.violation = Some(Violation::OldEffectApplied);
        }
        *highest = fence.max(*highest);
    }
}
