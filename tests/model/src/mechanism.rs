//! The mechanisms that hold the protocol together, each of which can be switched off to see what it is for.

/// One mechanism. Switched off, it gives way to what a plausible but wrong implementation would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// A transaction of a session keeps the session's row from being deleted until it ends (`FOR KEY SHARE`). Off: a plain read.
    KeyShare,
    /// A transaction of a work also locks the work's row with its fence. Off: it looks at the session alone.
    WorkLock,
    /// A heartbeat that renewed no row means that the session is lost. Off: any answer is a success.
    BeatRowCount,
    /// An end that deleted no row is rolled back. Off: it commits what it would have committed.
    EndRowCount,
    /// The resource refuses an effect with a fence older than one it has seen. Off: it applies whatever comes.
    ResourceFence,
    /// A claim of unknown outcome is settled, or let go of. Off: an error means that nothing was claimed.
    Settle,
    /// An effect looks at the clock before each of its steps. Off: only when it begins; then whoever watches the clock must tell it in time.
    StepLooks,
    /// A process stops believing by its own clock. Off: it believes until the database tells it otherwise.
    TrustWindow,
    /// The collector must have seen a lease unchanged for one interval on its own clock. Off: a deadline that has passed is enough.
    Grace,
    /// A collector writes down for how long it has seen which lease, and the next one goes on from there. Off: each begins anew.
    Sightings,
    /// What was written down is of that very lease. Off: of whatever lease the session has.
    SightingOfLease,
    /// The collector watches every lease anew when the database's clock has jumped between two of its sweeps. Off: it does not look.
    JumpBrake,
    /// A session that was seen to be lost never comes back. Off: the answer of a late heartbeat revives it.
    Latch,
    /// The collector writes an `expired` row for each work that it frees. Off: it only deletes.
    ExpiredRows,
    /// An operator breaks the session. Off: an operator deletes the work's row, and even writes history for it.
    BreakSession,
    /// Trust counts from before the heartbeat was sent. Off: from when the answer came.
    TrustFromSent,
    /// A guard is done when its end has committed. Off: when the end begins, as in the Go original.
    DoneAfterCommit,
    /// A claim demands the fence that it saw. Off: it raises whatever it finds.
    ClaimCompare,
    /// The collector reads the deadline again under the lock. Off: that it had passed at the sweep is enough.
    Recheck,
    /// The collector demands, under the lock, the very lease that its sweep judged. Off: that it has passed is enough.
    SeenLease,
    /// Every heartbeat changes the lease's row. Off: not when the deadline stays because the database's clock jumped back.
    EveryBeatShows,
    /// A deadline further ahead than a heartbeat can put it counts as passed. Off: it is waited for.
    FarAhead,
    /// The collector locks the works, writes their history and deletes them. Off: history from a plain read, the rest by the cascade.
    ExplicitEnd,
    /// Placing a hold raises the machine's fence, so that claims that looked before it lose. Off: it only inserts the hold.
    HoldRaisesFence,
    /// Fences are raised to the database's clock, which is above those of a history that was lost. Off: by one.
    ClockedFence,
    /// There is a collector.
    Collector,
    /// A dropped guard is let go of by the session's task. Off: it is forgotten.
    ReleaseQueue,
}
