//! What a session holds, as its tasks see it.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bmdb_entity::{Fence, MachineId, WorkId};
use tokio_util::sync::CancellationToken;

use crate::rules::backoff::Failures;
use crate::rules::work_key::{RuleKey, WorkKey};
use crate::runtime::lease::BootInstant;
use crate::runtime::lock::locked;
use crate::store::end::EndRequest;

/// What a dropped guard, or a claim whose outcome stayed unknown, leaves to the session's task.
pub(crate) enum Release {
    Work(EndRequest),
    /// Perhaps claimed, now or later: nobody was told.
    InDoubt {
        slot: &'static str,
        rule: RuleKey,
        works: Vec<WorkId>,
    },
}

/// Why a work should stop.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The session is lost: another component may claim the machine soon.
    SessionLost,
    /// This component shuts down.
    Shutdown,
    /// An operator asked for it, with this reason.
    Requested(String),
    /// It ran for longer than the process's [`MAX_RUN`](crate::Process::MAX_RUN).
    MaxRun,
}

/// One held work, as the session's tasks see it.
pub(crate) struct HeldEntry {
    pub(crate) key: WorkKey,
    stop: CancellationToken,
    reason: Mutex<Option<StopReason>>,
    run_until: Option<BootInstant>,
    claimed: BootInstant,
    /// As they were when the machine was claimed.
    pub(crate) failures: Option<Failures>,
}

impl HeldEntry {
    pub(crate) fn new(
        key: WorkKey,
        failures: Option<Failures>,
        max_run: Option<Duration>,
        stop: CancellationToken,
    ) -> Self {
        let now = BootInstant::now();
        Self {
            key,
            stop,
            reason: Mutex::default(),
            run_until: max_run.map(|limit| now.plus(limit)),
            claimed: now,
            failures,
        }
    }

    /// Fires when the work should stop.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Why it fired, if it was told to this work alone.
    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        self.reason().clone()
    }

    /// Fires the stop token. The first reason stays.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.reason().get_or_insert(reason);
        self.stop.cancel();
    }

    fn reason(&self) -> MutexGuard<'_, Option<StopReason>> {
        locked(&self.reason)
    }

    /// How much longer it may run; `None` when it may for ever or has been told to stop.
    pub(crate) fn run_left(&self, now: BootInstant) -> Option<Duration> {
        let until = self.run_until.filter(|_| !self.stop.is_cancelled())?;
        Some(until.since(now))
    }

    pub(crate) fn held_for(&self) -> Duration {
        BootInstant::now().since(self.claimed)
    }

    pub(crate) fn describe(&self) -> HeldWork {
        HeldWork {
            machine: self.key.machine,
            process: self.key.process(),
            slot: self.key.slot,
            work: self.key.work,
            fence: self.key.fence,
            held_for: self.held_for(),
        }
    }
}

/// One work that a session holds, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldWork {
    /// The machine.
    pub machine: MachineId,
    /// The process that it was claimed for.
    pub process: &'static str,
    /// The slot that it occupies.
    pub slot: &'static str,
    /// The claim's id.
    pub work: WorkId,
    /// The claim's fence.
    pub fence: Fence,
    /// For how long it has been held.
    pub held_for: Duration,
}
