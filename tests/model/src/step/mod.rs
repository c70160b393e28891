//! What each action does, one file a subject. `None` from any of them: it cannot happen in this state.

mod claim;
mod collector;
mod end;
mod outside;
mod session;
mod time;

use crate::action::SlotAction;
use crate::protocol::Protocol;
use crate::state::State;

/// For how many ticks a cool-down, a backoff or an operator's hold lasts.
pub(crate) const COOL_DOWN: u8 = 1;

impl Protocol {
    pub(crate) fn slot_step(&self, state: &mut State, s: usize, k: usize, action: SlotAction) -> Option<()> {
        match action {
            SlotAction::Look => self.look(state, s, k),
            SlotAction::Claim => self.claim(state, s, k),
            SlotAction::LookGivenUp => self.look_given_up(state, s, k),
            SlotAction::ClaimLands => self.claim_lands(state, s, k),
            SlotAction::ClaimVanishes => self.claim_vanishes(state, s, k),
            SlotAction::ClaimAnswered => self.claim_answered(state, s, k),
            SlotAction::ClaimSettled => self.claim_settled(state, s, k),
            SlotAction::ClaimQueued => self.claim_queued(state, s, k),
            SlotAction::End(end) => self.end(state, s, k, end),
            SlotAction::EndRuns => self.end_runs(state, s, k),
            SlotAction::EndLands => self.end_lands(state, s, k),
            SlotAction::EndVanishes => self.end_vanishes(state, s, k),
            SlotAction::Drop => self.drop_guard(state, s, k),
            SlotAction::Body => self.work_body(state, s, k),
            SlotAction::BodyLands => self.work_body_lands(state, s, k),
            SlotAction::BodyVanishes => self.work_body_vanishes(state, s, k),
            SlotAction::EffectBegins => self.effect_begins(state, s, k),
            SlotAction::EffectSteps => self.effect_steps(state, s, k),
            SlotAction::Effect => self.effect(state, s, k),
            SlotAction::LateEffect => self.late_effect(state, s, k),
            SlotAction::Ask => self.ask(state, s, k),
            SlotAction::DeleteWork => self.delete_work(state, s, k),
            SlotAction::FailOver => self.fail_over(state, s, k),
        }
    }
}

/// `Some` if it holds: a condition for `?`.
fn demand(holds: bool) -> Option<()> {
    holds.then_some(())
}
