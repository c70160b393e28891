//! Everything that can happen next.

use crate::state::End;

/// One step of the world. `s` is a session's number, `k` a slot's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Time passes, on every clock alike.
    Tick,
    /// The database's clock jumps ahead by one tick.
    JumpAhead,
    /// The database's clock jumps back by one tick.
    JumpBack,
    /// A component starts a session: its rows are inserted, and the answer is on its way.
    Start,
    /// The collector reads all leases and calls some sessions dead.
    Sweep,
    /// The collector restarts and has seen nothing yet.
    CollectorRestarts,
    /// The collector's transaction for one session that its sweep called dead.
    Expire {
        /// The session.
        s: usize,
    },
    /// Something outside makes the machine fit for the slot's process again.
    Need {
        /// The slot.
        k: usize,
    },
    /// An operator holds the slot.
    Hold {
        /// The slot.
        k: usize,
    },
    /// The effect on its way arrives at the resource.
    Arrive {
        /// The slot.
        k: usize,
    },
    /// What one session does, or what happens to it.
    Of(usize, SessionAction),
    /// What one session does with one slot.
    On(usize, usize, SlotAction),
}

/// What one session does, or what happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionAction {
    /// It sends a heartbeat.
    Beat,
    /// The heartbeat takes effect.
    BeatLands,
    /// The answer arrives.
    BeatAnswered,
    /// The heartbeat is given up: the request or the answer is lost, or late.
    BeatGivenUp,
    /// The process looks at its clock and sees that trust is over.
    Notice,
    /// The process dies.
    Crash,
    /// The session is closed.
    Close,
    /// An operator breaks it.
    Break,
    /// It opens a transaction.
    Body,
    /// The transaction commits.
    BodyLands,
    /// The transaction does not.
    BodyVanishes,
}

/// What one session does with one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotAction {
    /// A claim's transaction locks the session's row and finds the slot eligible.
    Look,
    /// The claim raises the fence and inserts its rows, or has lost.
    Claim,
    /// The claim's transaction is rolled back before that.
    LookGivenUp,
    /// The claim commits.
    ClaimLands,
    /// The claim does not commit.
    ClaimVanishes,
    /// The claim's answer arrives.
    ClaimAnswered,
    /// The claim's answer is lost, and the database is asked.
    ClaimSettled,
    /// The claim's answer is lost, and the database cannot be asked: the release queue will.
    ClaimQueued,
    /// The holder begins an end.
    End(End),
    /// The end deletes the work's row, or finds none.
    EndRuns,
    /// The end commits. Whether the answer arrives or the database is asked, the process then knows.
    EndLands,
    /// The end does not commit.
    EndVanishes,
    /// The guard is dropped, or the future of its end.
    Drop,
    /// The holder opens a transaction of its work.
    Body,
    /// That transaction commits.
    BodyLands,
    /// It does not.
    BodyVanishes,
    /// The holder begins an effect that takes more than one step.
    EffectBegins,
    /// The process comes to the effect's next step, perhaps long after that: it was stopped, or its threads were blocked.
    EffectSteps,
    /// The holder's effect reaches the resource at once.
    Effect,
    /// The holder's effect is sent, and is late.
    LateEffect,
    /// An operator asks for the work back.
    Ask,
    /// An operator deletes the work's row: only without [`BreakSession`](crate::Mechanism::BreakSession).
    DeleteWork,
    /// The database fails over to a replica that has not heard of this claim.
    FailOver,
}
