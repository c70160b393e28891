//! Time: all clocks run alike; the database's may also jump.

use crate::config::Clock;
use crate::mechanism::Mechanism;
use crate::protocol::Protocol;
use crate::state::{Beat, Phase, State, Watch};

impl Protocol {
    pub(crate) fn tick(&self, state: &mut State) -> Option<()> {
        let interval = self.config.interval;
        for slot in &mut state.slots {
            slot.held_back = slot.held_back.saturating_sub(1);
        }
        for session in &mut state.sessions {
            session.trust = session.trust.saturating_sub(1);
            session.lease = session.lease.map(|left| {
                if left == self.config.far_ahead() {
                    left
                } else {
                    left.saturating_sub(1)
                }
            });
            let older = |age: u8| (age + 1).min(interval);
            session.beat = match session.beat {
                // Nobody waits for the answer any more; it may still take effect.
                Beat::Sent(_) if session.phase == Phase::Dead => Beat::Sent(0),
                Beat::Sent(age) => Beat::Sent(older(age)),
                // It would give no trust any more.
                Beat::Renewed(age) if older(age) == interval && self.has(Mechanism::TrustFromSent) => Beat::Idle,
                Beat::Renewed(age) => Beat::Renewed(older(age)),
                Beat::Refused(age) => Beat::Refused(older(age)),
                Beat::Idle => Beat::Idle,
            };
            if let Watch::Seen(age) = &mut session.watch {
                *age = (*age + 1).min(interval);
            }
        }
        Some(())
    }

    /// The database's clock jumps by one tick. A deadline that has passed has passed by as little as the jump needs.
    pub(crate) fn jump(&self, state: &mut State, by: i8) -> Option<()> {
        let most = self.config.far_ahead();
        let moved = |left: u8| {
            if by > 0 {
                left.saturating_sub(1)
            } else {
                (left + 1).min(most)
            }
        };
        let mut watched = false;
        for session in &mut state.sessions {
            session.lease = session.lease.map(moved);
            watched |= session.watch != Watch::Unseen;
        }
        if by > 0 {
            for slot in &mut state.slots {
                slot.held_back = slot.held_back.saturating_sub(1);
            }
        }
        // What a collector that watches nothing would forget makes no difference. One way, any jump is like any other; both ways, they cancel out.
        let limit = if self.config.clock == Clock::Both { 2 } else { 1 };
        state.jumped = if watched {
            (state.jumped + by).clamp(-limit, limit)
        } else {
            0
        };
        Some(())
    }
}
