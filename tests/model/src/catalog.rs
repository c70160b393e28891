//! The runs that are published: what holds, what the model shows about clocks, and what each mechanism is for.

use crate::config::{Clock, Config};
use crate::mechanism::Mechanism::{self, *};
use crate::property::{I2, I3, I5, I6, I7, I8, L1, L2, R};

/// A configuration with a name.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// What it is about.
    pub name: &'static str,
    /// What it covers.
    pub config: Config,
}

/// Claims, ends, heartbeats, crashes, the collector; nothing else. One subject at a time is added to it, because they multiply.
const CORE: Config = Config::core();

/// Nothing is broken in these, and they take a minute: a test looks at all of them.
pub const QUICK: [Run; 4] = [
    Run {
        name: "transactions, facts, a clock that jumps ahead; interval 1",
        config: Config {
            interval: 1,
            bodies: true,
            facts: true,
            ..CORE
        },
    },
    Run {
        name: "operators and closing, a clock that jumps ahead; interval 1",
        config: Config {
            interval: 1,
            operator: true,
            close: true,
            ..CORE
        },
    },
    Run {
        name: "outside effects, a steady clock; interval 1",
        config: Config {
            interval: 1,
            effects: true,
            clock: Clock::Steady,
            ..CORE
        },
    },
    Run {
        name: "a clock that jumps both ways, not twice between two sweeps",
        config: CORE.clock(Clock::Sparse),
    },
];

/// Nothing is broken in these either, and they take minutes.
pub const COMPLETE: [Run; 4] = [
    Run {
        name: "operators and closing, a clock that jumps ahead",
        config: Config {
            operator: true,
            close: true,
            ..CORE
        },
    },
    Run {
        name: "closing, a clock that jumps back",
        config: Config {
            close: true,
            clock: Clock::Back,
            ..CORE
        },
    },
    Run {
        name: "two slots, three sessions; interval 1, a steady clock",
        config: Config {
            interval: 1,
            sessions: 3,
            slots: 2,
            clock: Clock::Steady,
            ..CORE
        },
    },
    Run {
        name: "a clock that jumps both ways, at any time",
        config: Config {
            clock: Clock::Both,
            ..CORE
        },
    },
];

/// A mechanism that is switched off, and what must notice.
#[derive(Clone, Copy, Debug)]
pub struct Ablation {
    /// What the run covers, without the mechanism.
    pub config: Config,
    /// The property that breaks first.
    pub caught_by: &'static str,
    /// A property that breaks later and shows what the first one leads to.
    pub leads_to: Option<&'static str>,
}

/// The database fails over to a replica that has not heard of a claim.
pub const FAIL_OVER: Config = Config {
    failover: true,
    clock: Clock::Steady,
    ..CORE
};
const BODIES: Config = Config { bodies: true, ..CORE };

const fn without(without: &'static [Mechanism], config: Config, caught_by: &'static str) -> Ablation {
    Ablation {
        config: config.without(without),
        caught_by,
        leads_to: None,
    }
}

const fn leads_to(property: &'static str, ablation: Ablation) -> Ablation {
    Ablation {
        leads_to: Some(property),
        ..ablation
    }
}

/// One for each mechanism.
pub const ABLATIONS: [Ablation; 27] = [
    without(&[KeyShare], BODIES, I2),
    // Of a pair, the first alone breaks nothing: see the README.
    without(&[WorkLock, BreakSession], BODIES, I2),
    leads_to(I3, without(&[BeatRowCount], CORE, L2)),
    without(&[EndRowCount], CORE, I2),
    without(&[ResourceFence], Config { effects: true, ..CORE }, R),
    without(&[Settle], CORE, I7),
    without(&[TrustWindow], CORE, I3),
    without(&[StepLooks], Config { effects: true, ..CORE }, I3),
    leads_to(I3, without(&[Grace], CORE, L2)),
    without(&[Sightings], CORE, L1),
    without(&[SightingOfLease], CORE.clock(Clock::Back), L2),
    without(&[JumpBrake, EveryBeatShows], CORE.clock(Clock::Sparse), L2),
    without(&[Latch], CORE, I7),
    without(&[ExpiredRows], CORE, I5),
    without(&[BreakSession], CORE, I3),
    leads_to(I3, without(&[TrustFromSent], CORE, L2)),
    without(&[DoneAfterCommit], CORE, I7),
    without(&[ClaimCompare], Config { facts: true, ..CORE }, I8),
    without(&[Recheck, SeenLease], CORE.clock(Clock::Back), L2),
    without(&[SeenLease], CORE.clock(Clock::Both), L2),
    without(&[EveryBeatShows], CORE.clock(Clock::Both), L2),
    without(&[FarAhead], CORE.clock(Clock::Back), L1),
    without(&[ExplicitEnd], CORE, I5),
    without(&[HoldRaisesFence], Config { operator: true, ..CORE }, I8),
    without(&[ClockedFence], FAIL_OVER, I6),
    without(&[Collector], CORE, L1),
    without(&[ReleaseQueue], CORE, I7),
];
