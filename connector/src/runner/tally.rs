//! What a runner has done, counted.

use std::sync::Mutex;

use crate::runtime::lock::locked;

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

/// The counts of one process, to which all of its lanes add.
#[derive(Default)]
pub(crate) struct Tally(Mutex<Counts>);

/// One of the counts.
pub(crate) type Count = fn(&mut Counts) -> &mut u64;

impl Tally {
    /// Opens the account of a claimed work.
    pub(crate) fn claimed(&self) -> Account<'_> {
        self.add(|counts| &mut counts.claimed);
        Account {
            tally: self,
            ended: |counts| &mut counts.lost,
        }
    }

    pub(crate) fn add(&self, count: Count) {
        *count(&mut locked(&self.0)) += 1;
    }

    pub(crate) fn counts(&self) -> Counts {
        *locked(&self.0)
    }
}

/// A claimed work. Its drop counts how it has ended: as lost, unless it was closed.
pub(crate) struct Account<'a> {
    tally: &'a Tally,
    ended: Count,
}

impl Account<'_> {
    /// It has ended in this way.
    pub(crate) fn close(mut self, ended: Count) {
        self.ended = ended;
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        self.tally.add(self.ended);
    }
}
