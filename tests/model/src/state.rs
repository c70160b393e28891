//! One state of the world: what the database holds, what each component knows, and what is on its way between them.
//!
//! Times are relative: a lease says how many ticks are left, not when it ends. Fences are ranks: see the module `symmetry`. Both keep the
//! number of states finite although time and fences grow without bound.

use crate::property::Violation;

/// The most sessions that a state has room for.
pub const MOST_SESSIONS: usize = 3;
/// The most slots that a state has room for.
pub const MOST_SLOTS: usize = 2;

/// What a session is to the process that started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// There is no such session; a new one may take the place.
    Free,
    /// A process runs with it, believing or not having looked at the clock for a while.
    Live,
    /// Lost, in a process that may come to believe in it again: only without [`Latch`](crate::Mechanism::Latch).
    Lost,
    /// Lost, closed or crashed: nobody acts in its name any more. What it left in the database and on its way there is still around.
    Dead,
}

/// The heartbeat on its way; each age is in ticks since it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Beat {
    /// None is.
    Idle,
    /// The request is.
    Sent(u8),
    /// The lease was renewed, and the answer is on its way.
    Renewed(u8),
    /// No row was renewed, and the answer is on its way; with the age, for processes that do not look at the count.
    Refused(u8),
}

/// What the collector makes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Watch {
    /// Not seen since its lease last changed.
    Unseen,
    /// Seen unchanged for so many ticks of the collector's own clock.
    Seen(u8),
    /// A collector before it has written down that it saw the lease for so long, and it has not looked yet.
    Written(u8),
    /// Called dead by the last sweep, to be expired.
    Condemned {
        /// Whether the lease is still what that sweep saw.
        unchanged: bool,
    },
}

/// How a work is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// With success: the machine is not eligible any more.
    Finish,
    /// With a failure: a backoff follows.
    Fail,
    /// Without a verdict.
    Cancel,
}

/// How far the transaction of an end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// On its way to the database; it holds nothing there.
    Sent,
    /// It has deleted the work's row and waits for its COMMIT, which may never come.
    Open,
}

/// What a process has in hand of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guard {
    /// Nothing.
    None,
    /// A claim's transaction has found the slot eligible. `fresh`: the machine's fence is still what it saw.
    Looking {
        /// Whether the compare-and-set would succeed.
        fresh: bool,
    },
    /// The claim's transaction has raised the fence and inserted its rows, and waits for its COMMIT. `given_up`: nobody waits for the answer.
    Claiming {
        /// Whether the claim was left to the release queue, or its process is dead.
        given_up: bool,
    },
    /// The claim has committed, and nobody has been told.
    Claimed {
        /// The claim's fence.
        fence: u8,
    },
    /// The guard is in the user's hands.
    Held {
        /// The claim's fence.
        fence: u8,
    },
    /// An end is under way.
    Ending {
        /// The claim's fence.
        fence: u8,
        /// How.
        end: End,
        /// How far.
        stage: Stage,
        /// Whether the guard was dropped and the release queue ends the work.
        dropped: bool,
    },
}

impl Guard {
    /// The fence of the claim that is in hand.
    #[must_use]
    pub fn fence(&self) -> Option<u8> {
        match *self {
            Self::None | Self::Looking { .. } | Self::Claiming { .. } => None,
            Self::Claimed { fence } | Self::Held { fence } | Self::Ending { fence, .. } => Some(fence),
        }
    }

    /// Whether an end has locked the work's row.
    #[must_use]
    pub fn locks_row(&self) -> bool {
        matches!(self, Self::Ending { stage: Stage::Open, .. })
    }
}

/// One session's share of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share {
    /// The work's row with its fence.
    pub row: Option<u8>,
    /// An operator asks for it back: `work.stop_requested`.
    pub asked: bool,
    /// What the process has in hand.
    pub guard: Guard,
    /// A transaction of the work is open.
    pub body: bool,
    /// The holder is in the middle of an effect outside the database.
    pub effect: bool,
}

/// One session: its rows, its process, and the collector's view of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session {
    /// What it is to its process.
    pub phase: Phase,
    /// For how many ticks more the process believes.
    pub trust: u8,
    /// The rows in `session` and `session_lease`: how many ticks the deadline lies ahead, by the database's clock. Zero: it has passed.
    /// [`Config::far_ahead`](crate::Config::far_ahead): by so much that it makes no difference when.
    pub lease: Option<u8>,
    /// The heartbeat on its way.
    pub beat: Beat,
    /// A transaction of the session is open.
    pub body: bool,
    /// What the collector makes of it.
    pub watch: Watch,
    /// The works that a collector has written history for and not yet deleted: only without [`ExplicitEnd`](crate::Mechanism::ExplicitEnd).
    pub recorded: Option<[Option<u8>; MOST_SLOTS]>,
    /// What it has of each slot.
    pub shares: [Share; MOST_SLOTS],
}

/// What a slot is to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// For how many ticks more a hold, a cool-down or a backoff keeps it from being claimed.
    pub held_back: u8,
    /// The machine is fit for the slot's process, as far as facts go.
    pub needed: bool,
    /// The highest fence that the resource outside has seen.
    pub highest: u8,
    /// An effect on its way to the resource, with its fence.
    pub late: Option<u8>,
}

/// One state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// `machine.fence`.
    pub fence: u8,
    /// The highest fence that was ever granted; differs from `fence` only after a fail-over.
    pub granted: u8,
    /// By how many ticks the database's clock has jumped since the collector's last sweep.
    pub jumped: i8,
    /// The slots.
    pub slots: [Slot; MOST_SLOTS],
    /// The sessions.
    pub sessions: [Session; MOST_SESSIONS],
    /// What the step that led here did wrong.
    pub violation: Option<Violation>,
}

impl Share {
    /// Nothing of the slot.
    pub const NOTHING: Self = Self {
        row: None,
        asked: false,
        guard: Guard::None,
        body: false,
        effect: false,
    };
}

impl Session {
    /// No session.
    pub const FREE: Self = Self {
        phase: Phase::Free,
        trust: 0,
        lease: None,
        beat: Beat::Idle,
        body: false,
        watch: Watch::Unseen,
        recorded: None,
        shares: [Share::NOTHING; MOST_SLOTS],
    };

    /// The process is gone, or will never act in this session's name again. What it had sent may still arrive.
    pub fn bury(&mut self, phase: Phase) {
        self.phase = phase;
        self.trust = 0;
        if phase == Phase::Dead {
            self.beat = match self.beat {
                Beat::Sent(_) => Beat::Sent(0),
                _ => Beat::Idle,
            };
        }
        for share in &mut self.shares {
            share.guard = match share.guard {
                Guard::Claiming { .. } => Guard::Claiming { given_up: true },
                Guard::Ending {
                    fence,
                    end,
                    stage: Stage::Open,
                    ..
                } => Guard::Ending {
                    fence,
                    end,
                    stage: Stage::Open,
                    dropped: true,
                },
                _ => Guard::None,
            };
        }
    }
}

impl State {
    /// An empty database and a machine that everybody may want.
    #[must_use]
    pub fn start() -> Self {
        let slot = Slot {
            held_back: 0,
            needed: true,
            highest: 0,
            late: None,
        };
        Self {
            fence: 0,
            granted: 0,
            jumped: 0,
            slots: [slot; MOST_SLOTS],
            sessions: [Session::FREE; MOST_SESSIONS],
            violation: None,
        }
    }

    /// Which session has the row of a slot, and with which fence.
    #[must_use]
    pub fn holder(&self, slot: usize) -> Option<(usize, u8)> {
        let row_of = |(number, session): (usize, &Session)| Some((number, session.shares[slot].row?));
        self.sessions.iter().enumerate().find_map(row_of)
    }

    /// Whether a claim would find the slot fit now.
    #[must_use]
    pub fn is_eligible(&self, slot: usize) -> bool {
        let of = &self.slots[slot];
        of.needed && of.held_back == 0 && self.holder(slot).is_none()
    }

    /// Raises the machine's fence above what it was, and to `to` at least: whoever looked before will lose.
    pub fn raise_fence(&mut self, to: u8) -> u8 {
        self.fence = to.max(self.fence + 1);
        for session in &mut self.sessions {
            for share in &mut session.shares {
                if let Guard::Looking { fresh } = &mut share.guard {
                    *fresh = false;
                }
            }
        }
        self.fence
    }
}
