//! A session: start, heartbeat, loss, end, and transactions in its name.

use super::demand;
use crate::action::SessionAction;
use crate::mechanism::Mechanism;
use crate::protocol::Protocol;
use crate::state::{Beat, End, Guard, Phase, Session, Stage, State, Watch};
use crate::witness::Witness;

impl Protocol {
    /// Both rows are inserted; trust counts from before that, like that of a heartbeat, and is there when the answer is.
    pub(crate) fn start(&self, state: &mut State) -> Option<()> {
        let live = state.sessions.iter().filter(|s| s.phase == Phase::Live).count();
        demand(live < self.config.clients)?;
        let sessions = &mut state.sessions[..self.config.sessions];
        let free = sessions.iter_mut().find(|session| session.phase == Phase::Free)?;
        *free = Session {
            phase: Phase::Live,
            lease: Some(self.config.interval),
            beat: Beat::Renewed(0),
            ..Session::FREE
        };
        Some(())
    }

    pub(crate) fn session_step(&self, state: &mut State, s: usize, action: SessionAction) -> Option<()> {
        let interval = self.config.interval;
        let session = &mut state.sessions[s];
        match action {
            SessionAction::Beat => {
                demand(self.believes(session) && session.beat == Beat::Idle)?;
                session.beat = Beat::Sent(0);
            }
            SessionAction::BeatLands => {
                let Beat::Sent(age) = session.beat else { return None };
                demand(session.recorded.is_none())?;
                let renewed = self.renew(session);
                if session.phase == Phase::Dead {
                    self.note(Witness::StrayLanded, renewed);
                    session.beat = Beat::Idle;
                    return Some(());
                }
                // Whoever looks at the count does not look at the age.
                let age = if renewed || !self.has(Mechanism::BeatRowCount) {
                    age
                } else {
                    0
                };
                session.beat = if renewed {
                    Beat::Renewed(age)
                } else {
                    Beat::Refused(age)
                };
            }
            SessionAction::BeatAnswered => self.beat_answered(session)?,
            SessionAction::BeatGivenUp => {
                demand(session.beat != Beat::Idle)?;
                session.beat = Beat::Idle;
            }
            SessionAction::Notice => {
                demand(session.phase == Phase::Live && session.trust == 0 && self.has(Mechanism::TrustWindow))?;
                self.lose(session);
            }
            SessionAction::Crash => {
                demand(session.phase == Phase::Live)?;
                session.bury(Phase::Dead);
            }
            SessionAction::Close => self.close(session)?,
            SessionAction::Break => {
                demand(self.config.operator && session.recorded.is_none())?;
                demand(session.lease? > 0)?;
                session.lease = Some(0);
                self.changed(session);
                self.note(Witness::Broken, self.believes(session));
            }
            SessionAction::Body => {
                demand(self.config.bodies && self.believes(session) && !session.body && session.recorded.is_none())?;
                self.check_row(session).then(|| session.body = true);
            }
            SessionAction::BodyLands => {
                demand(session.body)?;
                session.body = false;
                self.note(Witness::LateBodyLanded, session.trust == 0 && session.lease == Some(0));
                if session.lease.is_none() {
                    state.violation = Some(crate::property::Violation::StaleCommit);
                }
            }
            SessionAction::BodyVanishes => {
                demand(session.body)?;
                session.body = false;
            }
        }
        debug_assert!(
            state.sessions[s].trust <= interval,
            "trust is never longer than the interval"
        );
        Some(())
    }

    /// The one UPDATE of a heartbeat. Whether it renewed a row.
    fn renew(&self, session: &mut Session) -> bool {
        let Some(left) = session.lease else { return false };
        if left == 0 {
            return false;
        }
        // greatest(deadline + 1 ms, now() + interval): after a jump back of the clock the deadline hardly moves.
        let renewed = left.max(self.config.interval);
        session.lease = Some(renewed);
        if renewed != left || self.has(Mechanism::EveryBeatShows) {
            self.changed(session);
        }
        true
    }

    fn beat_answered(&self, session: &mut Session) -> Option<()> {
        let beat = std::mem::replace(&mut session.beat, Beat::Idle);
        let age = match beat {
            Beat::Idle | Beat::Sent(_) => return None,
            Beat::Refused(_) if self.has(Mechanism::BeatRowCount) => {
                self.lose(session);
                return Some(());
            }
            Beat::Refused(age) | Beat::Renewed(age) => age,
        };
        let trust = if self.has(Mechanism::TrustFromSent) {
            self.config.interval.saturating_sub(age)
        } else {
            self.config.interval
        };
        session.trust = session.trust.max(trust);
        if session.trust > 0 {
            session.phase = Phase::Live;
        }
        for share in &mut session.shares {
            if let (true, Guard::Held { fence }) = (share.asked, share.guard) {
                share.guard = Guard::Ending {
                    fence,
                    end: End::Cancel,
                    stage: Stage::Sent,
                    dropped: true,
                };
                self.note(Witness::AskedAndLetGo, true);
            }
        }
        Some(())
    }

    /// The session is lost, for good if its loss latches.
    fn lose(&self, session: &mut Session) {
        let may_return = !self.has(Mechanism::Latch) && matches!(session.beat, Beat::Sent(_) | Beat::Renewed(_));
        session.bury(if may_return { Phase::Lost } else { Phase::Dead });
    }

    /// A transaction's first statement. A process that finds its session's row gone has lost it.
    pub(super) fn check_row(&self, session: &mut Session) -> bool {
        let lives = session.lease.is_some();
        if !lives {
            self.lose(session);
        }
        lives
    }

    /// One transaction: locks the session's row, cancels its works, deletes it. What cannot be told the database is a crash.
    fn close(&self, session: &mut Session) -> Option<()> {
        demand(self.config.close && self.believes(session) && session.lease.is_some())?;
        demand(!self.is_locked(session))?;
        self.note(
            Witness::ClosedWithWork,
            session.shares.iter().any(|share| share.row.is_some()),
        );
        for share in &mut session.shares {
            share.row = None;
        }
        session.lease = None;
        session.bury(Phase::Dead);
        Some(())
    }

    /// Whether somebody's transaction keeps the session, or a work of it, from being deleted.
    pub(super) fn is_locked(&self, session: &Session) -> bool {
        let share_locks = self.has(Mechanism::KeyShare);
        let of_share = |share: &crate::state::Share| match share.guard {
            // The foreign key's own check locks the row when the work is inserted, whatever the claim did before.
            Guard::Claiming { .. } => true,
            Guard::Looking { .. } => share_locks,
            guard => guard.locks_row() || (share.body && (share_locks || self.has(Mechanism::WorkLock))),
        };
        session.recorded.is_some() || (session.body && share_locks) || session.shares.iter().any(of_share)
    }

    /// The lease is not what the collector has seen any more.
    fn changed(&self, session: &mut Session) {
        session.watch = match session.watch {
            Watch::Written(age) if !self.has(Mechanism::SightingOfLease) => Watch::Written(age),
            Watch::Unseen | Watch::Seen(_) | Watch::Written(_) => Watch::Unseen,
            Watch::Condemned { .. } => Watch::Condemned { unchanged: false },
        };
    }
}
