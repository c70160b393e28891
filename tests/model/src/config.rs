//! What a run of the model covers: how many of everything, which faults, and which mechanism is switched off.

use crate::mechanism::Mechanism;

/// Which way the database's clock may jump, any number of times and at any moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// It never jumps.
    Steady,
    /// Ahead only.
    Ahead,
    /// Back only.
    Back,
    /// Both ways, but not twice between two sweeps of the collector, so that it sees every jump.
    Sparse,
    /// Both ways.
    Both,
}

/// One run of the model.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many components run at once, each with one session that it believes in.
    pub clients: usize,
    /// How many sessions exist at once, those of the dead among them; at most [`MOST_SESSIONS`](crate::state::MOST_SESSIONS).
    pub sessions: usize,
    /// How many slots the machine has; at most [`MOST_SLOTS`](crate::state::MOST_SLOTS).
    pub slots: usize,
    /// How many ticks of time one heartbeat gives.
    pub interval: u8,
    /// How the database's clock may jump.
    pub clock: Clock,
    /// Transactions of a session and of a work that stay open for long.
    pub bodies: bool,
    /// Effects outside the database, at once and late.
    pub effects: bool,
    /// Machines stop being eligible when work is finished, and become so again.
    pub facts: bool,
    /// Operators break sessions, ask works to stop and place holds.
    pub operator: bool,
    /// Components close their sessions.
    pub close: bool,
    /// The database fails over to a replica that has not heard of a claim: two believe then, and only their fences tell the later one.
    pub failover: bool,
    /// The mechanisms that are switched off.
    pub without: &'static [Mechanism],
    /// Sessions and slots that differ only in their number count as one state. Off, a trace is easier to read.
    pub symmetry: bool,
}

impl Config {
    /// Two components, two sessions, one slot, an interval of two ticks, a clock that jumps ahead: claims, ends, heartbeats, crashes, the collector.
    #[must_use]
    pub const fn core() -> Self {
        Self {
            clients: 2,
            sessions: 2,
            slots: 1,
            interval: 2,
            clock: Clock::Ahead,
            bodies: false,
            effects: false,
            facts: false,
            operator: false,
            close: false,
            failover: false,
            without: &[],
            symmetry: true,
        }
    }

    /// The same with one mechanism switched off.
    #[must_use]
    pub const fn without(self, without: &'static [Mechanism]) -> Self {
        Self { without, ..self }
    }

    /// The same with another clock.
    #[must_use]
    pub const fn clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// How many ticks ahead a deadline lies that the database's clock, by jumping back, has left hours away.
    #[must_use]
    pub const fn far_ahead(&self) -> u8 {
        self.interval + 2
    }

    /// Whether a mechanism is at work.
    #[must_use]
    pub fn has(&self, mechanism: Mechanism) -> bool {
        !self.without.contains(&mechanism)
    }
}
