//! A claim: look, compare and set, commit, and what becomes of it when the commit is not answered.

use super::demand;
use crate::mechanism::Mechanism;
use crate::property::Violation;
use crate::protocol::Protocol;
use crate::state::{End, Guard, Phase, Share, Stage, State};
use crate::witness::Witness;

impl Protocol {
    /// The transaction's first two statements: the session's row, and the candidate with its fence.
    pub(super) fn look(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let eligible = state.is_eligible(k);
        let session = &mut state.sessions[s];
        let is_idle = session.shares[k].guard == Guard::None;
        demand(self.believes(session) && is_idle && session.recorded.is_none())?;
        if self.check_row(session) {
            demand(eligible)?;
            session.shares[k].guard = Guard::Looking { fresh: true };
        }
        Some(())
    }

    pub(super) fn look_given_up(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let share = &mut state.sessions[s].shares[k];
        demand(matches!(share.guard, Guard::Looking { .. }))?;
        share.guard = Guard::None;
        Some(())
    }

    /// Raises the fence and inserts the work and its start. From here to its end the transaction holds the machine's row.
    pub(super) fn claim(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let Guard::Looking { fresh } = state.sessions[s].shares[k].guard else {
            return None;
        };
        demand(!claim_is_open(state))?;
        let compares = self.has(Mechanism::ClaimCompare);
        if let Some((other, _)) = state.holder(k) {
            // The primary key waits for whoever is just deleting the row.
            demand(!state.sessions[other].shares[k].guard.locks_row())?;
        }
        let lost = (compares && !fresh) || state.holder(k).is_some() || state.sessions[s].lease.is_none();
        if lost {
            self.note(Witness::LostRace, true);
            state.sessions[s].shares[k].guard = Guard::None;
            return Some(());
        }
        if !state.is_eligible(k) {
            state.violation = Some(Violation::NotEligible);
        }
        state.sessions[s].shares[k].guard = Guard::Claiming { given_up: false };
        Some(())
    }

    pub(super) fn claim_lands(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let Guard::Claiming { given_up } = state.sessions[s].shares[k].guard else {
            return None;
        };
        let fence = self.raise_fence(state);
        if fence <= state.granted {
            state.violation = Some(Violation::FenceFell);
        }
        state.granted = state.granted.max(fence);
        let has_lost_it =
            |other: &crate::state::Session| other.lease.is_none() && other.shares[k].guard.fence().is_some();
        self.note(Witness::TakeOver, state.sessions.iter().any(has_lost_it));
        let session = &mut state.sessions[s];
        session.shares[k].row = Some(fence);
        session.shares[k].guard = match (given_up, session.phase) {
            (false, _) => Guard::Claimed { fence },
            (true, Phase::Live) if self.has(Mechanism::Settle) => {
                self.note(Witness::ClaimLandedLate, true);
                released(fence)
            }
            (true, _) => Guard::None,
        };
        Some(())
    }

    /// To the database's clock, which is above every fence that was ever granted: all were its time once.
    pub(super) fn raise_fence(&self, state: &mut State) -> u8 {
        let clock = if self.has(Mechanism::ClockedFence) {
            state.granted + 1
        } else {
            0
        };
        state.raise_fence(clock)
    }

    pub(super) fn claim_vanishes(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let share = &mut state.sessions[s].shares[k];
        demand(matches!(share.guard, Guard::Claiming { .. }))?;
        share.guard = Guard::None;
        self.note(Witness::ClaimSettledVanished, true);
        Some(())
    }

    pub(super) fn claim_answered(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let (share, fence) = claimed(state, s, k)?;
        share.guard = Guard::Held { fence };
        Some(())
    }

    /// The work's row tells, and is asked again until nothing of the claim can be on its way any more.
    pub(super) fn claim_settled(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let settles = self.has(Mechanism::Settle);
        let (share, fence) = claimed(state, s, k)?;
        share.guard = if settles && share.row == Some(fence) {
            self.note(Witness::ClaimSettledLanded, true);
            Guard::Held { fence }
        } else {
            Guard::None
        };
        Some(())
    }

    /// The caller is told that the outcome is unknown, and the queue has the claim's id.
    pub(super) fn claim_queued(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let share = &mut state.sessions[s].shares[k];
        share.guard = match share.guard {
            Guard::Claiming { given_up: false } => Guard::Claiming { given_up: true },
            Guard::Claimed { fence } if self.has(Mechanism::Settle) => released(fence),
            _ => return None,
        };
        Some(())
    }
}

/// Only one transaction at a time has the machine's row.
pub(super) fn claim_is_open(state: &State) -> bool {
    let mut shares = state.sessions.iter().flat_map(|session| &session.shares);
    shares.any(|share| matches!(share.guard, Guard::Claiming { .. }))
}

/// An entry of the release queue.
pub(super) fn released(fence: u8) -> Guard {
    Guard::Ending {
        fence,
        end: End::Cancel,
        stage: Stage::Sent,
        dropped: true,
    }
}

fn claimed(state: &mut State, s: usize, k: usize) -> Option<(&mut Share, u8)> {
    let share = &mut state.sessions[s].shares[k];
    let Guard::Claimed { fence } = share.guard else {
        return None;
    };
    Some((share, fence))
}
