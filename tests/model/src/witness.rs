//! What has happened at least once in a search: a model in which nothing goes wrong because nothing happens proves nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An event that a complete search must come across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Witness {
    /// A session claims a slot that another lost by expiry.
    TakeOver,
    /// A claim of unknown outcome turns out to have committed.
    ClaimSettledLanded,
    /// A claim of unknown outcome turns out not to have committed, or to be over already.
    ClaimSettledVanished,
    /// A claim commits after its process has given it up, and is let go of.
    ClaimLandedLate,
    /// A claim loses against another that was faster.
    LostRace,
    /// An end whose COMMIT did not land hands its guard back.
    EndVanished,
    /// An end finds no row, and its process is told.
    EndTooLate,
    /// A dropped guard is let go of by the queue.
    Released,
    /// An effect arrives after that of a later holder, and is refused.
    LateEffectRefused,
    /// A heartbeat of a lost session still renews its lease.
    StrayLanded,
    /// The collector finds that a session that it had called dead lives.
    Reprieved,
    /// The collector sees that the database's clock has jumped.
    JumpSeen,
    /// A session expires whose process is alive and has noticed nothing yet.
    ExpiredUnaware,
    /// A transaction commits after its process has stopped believing, its session's row being still there.
    LateBodyLanded,
    /// An operator breaks a session that its process believes in.
    Broken,
    /// A holder lets go because an operator asked.
    AskedAndLetGo,
    /// A session is closed with work in hand.
    ClosedWithWork,
    /// An effect is over at a step that its process comes to after trust has ended.
    EffectCutShort,
}

impl Witness {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 18] = [
        Self::TakeOver,
        Self::ClaimSettledLanded,
        Self::ClaimSettledVanished,
        Self::ClaimLandedLate,
        Self::LostRace,
        Self::EndVanished,
        Self::EndTooLate,
        Self::Released,
        Self::LateEffectRefused,
        Self::StrayLanded,
        Self::Reprieved,
        Self::JumpSeen,
        Self::ExpiredUnaware,
        Self::LateBodyLanded,
        Self::Broken,
        Self::AskedAndLetGo,
        Self::ClosedWithWork,
        Self::EffectCutShort,
    ];

    /// A sentence of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TakeOver => "a take-over happens",
            Self::ClaimSettledLanded => "an ambiguous claim is settled as committed",
            Self::ClaimSettledVanished => "an ambiguous claim is settled as not committed",
            Self::ClaimLandedLate => "a claim lands after it was given up and is let go of",
            Self::LostRace => "a claim loses a race",
            Self::EndVanished => "an end that did not commit hands its guard back",
            Self::EndTooLate => "an end finds its work lost",
            Self::Released => "a dropped guard is let go of",
            Self::LateEffectRefused => "a late effect is refused",
            Self::StrayLanded => "a heartbeat that was given up still renews",
            Self::Reprieved => "a condemned session is found alive under the lock",
            Self::JumpSeen => "the collector sees a jump of the clock",
            Self::ExpiredUnaware => "a session expires under a process that is frozen",
            Self::LateBodyLanded => "a transaction commits after trust has ended",
            Self::Broken => "an operator breaks a session that is believed in",
            Self::AskedAndLetGo => "a holder lets go because it was asked to",
            Self::ClosedWithWork => "a session is closed with work in hand",
            Self::EffectCutShort => "an effect is over at a step that comes after trust",
        }
    }
}

/// Counts what has happened; shared by all threads of a search.
///
/// The search evaluates conditions on states, but these are events: the same state may be reached by one that matters and one that does not.
#[derive(Clone, Debug, Default)]
pub struct Witnesses(Arc<[AtomicU64; Witness::ALL.len()]>);

impl Witnesses {
    pub(crate) fn note(&self, witness: Witness) {
        self.0[witness as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many steps were of this kind.
    #[must_use]
    pub fn count(&self, witness: Witness) -> u64 {
        self.0[witness as usize].load(Ordering::Relaxed)
    }
}
