//! The ends of a work, its guard's drop, and transactions of a long work.

use super::claim::released;
use super::{COOL_DOWN, demand};
use crate::mechanism::Mechanism;
use crate::property::Violation;
use crate::protocol::Protocol;
use crate::state::{End, Guard, Phase, Stage, State};
use crate::witness::Witness;

impl Protocol {
    pub(super) fn end(&self, state: &mut State, s: usize, k: usize, end: End) -> Option<()> {
        let session = &mut state.sessions[s];
        demand(self.believes(session))?;
        let guard = &mut session.shares[k].guard;
        let Guard::Held { fence } = *guard else { return None };
        *guard = Guard::Ending {
            fence,
            end,
            stage: Stage::Sent,
            dropped: false,
        };
        Some(())
    }

    /// The DELETE by the whole key. A process that was frozen since it looked at its clock may come here late.
    pub(super) fn end_runs(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let session = &mut state.sessions[s];
        let share = &mut session.shares[k];
        let Guard::Ending {
            fence,
            end,
            stage: Stage::Sent,
            dropped,
        } = share.guard
        else {
            return None;
        };
        demand(!share.body)?;
        if share.row == Some(fence) {
            share.guard = Guard::Ending {
                fence,
                end,
                stage: Stage::Open,
                dropped,
            };
            return Some(());
        }
        self.note(Witness::EndTooLate, !dropped);
        share.guard = Guard::None;
        if !self.has(Mechanism::EndRowCount) {
            state.violation = Some(Violation::StaleCommit);
            self.leave(state, k, end);
        }
        Some(())
    }

    pub(super) fn end_lands(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let share = &mut state.sessions[s].shares[k];
        let Guard::Ending {
            end,
            stage: Stage::Open,
            dropped,
            ..
        } = share.guard
        else {
            return None;
        };
        share.row = None;
        share.asked = false;
        share.guard = Guard::None;
        self.note(Witness::Released, dropped);
        self.leave(state, k, end);
        Some(())
    }

    /// What an end leaves behind besides history.
    fn leave(&self, state: &mut State, k: usize, end: End) {
        let slot = &mut state.slots[k];
        match end {
            End::Finish => slot.needed &= !self.config.facts,
            End::Fail => slot.held_back = COOL_DOWN,
            End::Cancel => {}
        }
    }

    pub(super) fn end_vanishes(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let session = &mut state.sessions[s];
        let Guard::Ending {
            fence,
            stage: Stage::Open,
            dropped,
            ..
        } = session.shares[k].guard
        else {
            return None;
        };
        session.shares[k].guard = match (session.phase, dropped) {
            (Phase::Live, true) => released(fence),
            (Phase::Live, false) if self.has(Mechanism::DoneAfterCommit) => {
                self.note(Witness::EndVanished, true);
                Guard::Held { fence }
            }
            _ => Guard::None,
        };
        Some(())
    }

    /// The guard is dropped, or the future of its end half-way.
    pub(super) fn drop_guard(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let guard = &mut state.sessions[s].shares[k].guard;
        let queued = match *guard {
            Guard::Held { fence } => released(fence),
            Guard::Ending {
                fence,
                stage: Stage::Sent,
                dropped: false,
                ..
            } => released(fence),
            Guard::Ending {
                fence,
                end,
                stage: Stage::Open,
                dropped: false,
            } => Guard::Ending {
                fence,
                end,
                stage: Stage::Open,
                dropped: true,
            },
            _ => return None,
        };
        *guard = if self.has(Mechanism::ReleaseQueue) {
            queued
        } else {
            Guard::None
        };
        Some(())
    }

    pub(super) fn work_body(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let session = &mut state.sessions[s];
        demand(self.config.bodies && self.believes(session) && session.recorded.is_none())?;
        let Guard::Held { fence } = session.shares[k].guard else {
            return None;
        };
        if self.check_row(session) {
            let share = &mut session.shares[k];
            demand(share.row == Some(fence) || !self.has(Mechanism::WorkLock))?;
            share.body = true;
        }
        Some(())
    }

    pub(super) fn work_body_lands(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let share = &mut state.sessions[s].shares[k];
        demand(share.body)?;
        share.body = false;
        if share.row.is_none() {
            state.violation = Some(Violation::StaleCommit);
        }
        Some(())
    }

    pub(super) fn work_body_vanishes(&self, state: &mut State, s: usize, k: usize) -> Option<()> {
        let share = &mut state.sessions[s].shares[k];
        demand(share.body)?;
        share.body = false;
        Some(())
    }
}
