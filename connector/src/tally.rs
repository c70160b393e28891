//! What a runner has done, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a runner has done for one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Machines that were claimed.
    pub claimed: u64,
    /// Works that were finished.
    pub finished: u64,
    /// Works that failed, panics among them.
    pub failed: u64,
    /// Works that were canceled.
    pub canceled: u64,
    /// Works that were lost, or whose end is not known.
    pub lost: u64,
    /// Panics in workers.
    pub panicked: u64,
}

#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) claimed: AtomicU64,
    pub(crate) finished: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) canceled: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) panicked: AtomicU64,
}

impl Tally {
    pub(crate) fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            claimed: read(&self.claimed),
            finished: read(&self.finished),
            failed: read(&self.failed),
            canceled: read(&self.canceled),
            lost: read(&self.lost),
            panicked: read(&self.panicked),
        }
    }
}

pub(crate) fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}
