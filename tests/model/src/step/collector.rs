//! The collector: it watches leases on its own clock and expires the dead.

use super::{COOL_DOWN, demand};
use crate::mechanism::Mechanism;
use crate::property::Violation;
use crate::protocol::Protocol;
use crate::state::{MOST_SLOTS, Phase, State, Watch};
use crate::witness::Witness;

impl Protocol {
    /// One read of all leases, and the judgement on them.
    pub(crate) fn sweep(&self, state: &mut State) -> Option<()> {
        demand(self.has(Mechanism::Collector))?;
        let anew = self.has(Mechanism::JumpBrake) && state.jumped != 0;
        self.note(Witness::JumpSeen, anew);
        state.jumped = 0;
        for session in &mut state.sessions {
            let Some(left) = session.lease else { continue };
            let age = match session.watch {
                _ if anew => 0,
                Watch::Seen(age) | Watch::Written(age) => age,
                Watch::Condemned { unchanged: true } => self.config.interval,
                Watch::Unseen | Watch::Condemned { unchanged: false } => 0,
            };
            let is_past = left == 0 || (left > self.config.interval && self.has(Mechanism::FarAhead));
            let is_dead = is_past && (age >= self.config.interval || !self.has(Mechanism::Grace));
            session.watch = if is_dead {
                Watch::Condemned { unchanged: true }
            } else {
                Watch::Seen(age)
            };
        }
        Some(())
    }

    /// Of what it has watched, the next one goes on with what was written down: the ages of leases whose deadlines had passed. They grow no older until
    /// it looks, and each is as true as it was, for no clock of the database's is in it.
    pub(crate) fn restart_collector(&self, state: &mut State) -> Option<()> {
        state.jumped = 0;
        for session in &mut state.sessions {
            let is_past = |left: u8| left == 0 || left > self.config.interval;
            let written = match session.watch {
                Watch::Seen(age) | Watch::Written(age) if session.lease.is_some_and(is_past) => Some(age),
                Watch::Condemned { unchanged: true } => Some(self.config.interval),
                _ => None,
            };
            let written = written.filter(|_| self.has(Mechanism::Sightings));
            session.watch = written.map_or(Watch::Unseen, Watch::Written);
        }
        Some(())
    }

    /// The transaction that expires one session: both its rows locked, the deadline read again, works ended, the row deleted.
    pub(crate) fn expire(&self, state: &mut State, s: usize) -> Option<()> {
        let session = &state.sessions[s];
        if let Some(recorded) = session.recorded {
            return self.cascade(state, s, recorded);
        }
        let Watch::Condemned { unchanged } = session.watch else {
            return None;
        };
        demand(self.has(Mechanism::ExplicitEnd) || !session.shares.iter().any(|share| share.body))?;
        let only_ends = !self.has(Mechanism::ExplicitEnd);
        demand(!self.is_locked(session) || (only_ends && self.is_locked_by_ends_only(state, s)))?;
        let left = session.lease?;
        let is_past = left == 0 || (left > self.config.interval && self.has(Mechanism::FarAhead));
        let lives = (self.has(Mechanism::Recheck) && !is_past) || (self.has(Mechanism::SeenLease) && !unchanged);
        if lives {
            self.note(Witness::Reprieved, true);
            state.sessions[s].watch = if unchanged {
                Watch::Seen(self.config.interval)
            } else {
                Watch::Unseen
            };
            return Some(());
        }
        if only_ends {
            let session = &mut state.sessions[s];
            session.recorded = Some(session.shares.map(|share| share.row));
            return Some(());
        }
        let has_work = session.shares.iter().any(|share| share.row.is_some());
        if has_work && !self.has(Mechanism::ExpiredRows) {
            state.violation = Some(Violation::History);
        }
        self.delete(state, s);
        Some(())
    }

    fn is_locked_by_ends_only(&self, state: &State, s: usize) -> bool {
        let mut session = state.sessions[s];
        for share in &mut session.shares {
            if share.guard.locks_row() {
                share.guard = crate::state::Guard::None;
            }
        }
        !self.is_locked(&session)
    }

    /// The second half without [`Mechanism::ExplicitEnd`]: the session's row is deleted, and its works with it, whatever history says by now.
    fn cascade(&self, state: &mut State, s: usize, recorded: [Option<u8>; MOST_SLOTS]) -> Option<()> {
        let shares = &state.sessions[s].shares;
        demand(!shares.iter().any(|share| share.guard.locks_row()))?;
        if shares.map(|share| share.row) != recorded {
            state.violation = Some(Violation::History);
        }
        self.delete(state, s);
        Some(())
    }

    fn delete(&self, state: &mut State, s: usize) {
        let session = &mut state.sessions[s];
        let is_believed = session.phase == Phase::Live && session.trust > 0;
        self.note(Witness::ExpiredUnaware, session.phase == Phase::Live);
        session.lease = None;
        session.recorded = None;
        for (share, slot) in session.shares.iter_mut().zip(&mut state.slots) {
            if share.row.take().is_some() {
                slot.held_back = COOL_DOWN;
            }
        }
        if is_believed && state.violation.is_none() {
            state.violation = Some(Violation::ExpiredBeliever);
        }
    }
}
