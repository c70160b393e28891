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
    /// Works that were lost, whose end is not known, or that were aborted.
    pub lost: u64,
    /// Panics in functions of workers; a commit phase may panic each time that it runs.
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
    /// Opens the account of a claimed work.
    pub(crate) fn claimed(&self) -> Account<'_> {
        add(&self.claimed);
        Account {
            tally: self,
            is_open: true,
        }
    }

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

/// A claimed work that has not ended. Dropped as that, it is lost.
pub(crate) struct Account<'a> {
    tally: &'a Tally,
    is_open: bool,
}

impl Account<'_> {
    /// It has ended in this way.
    pub(crate) fn close(mut self, ended: &AtomicU64) {
        self.is_open = false;
        add(ended);
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        if self.is_open {
            add(&self.tally.lost);
        }
    }
}
