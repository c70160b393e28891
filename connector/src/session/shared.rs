//! What a session's tasks, guards and calls share.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bmdb_entity::work_history::Event;
use bmdb_entity::{SessionId, WorkId};
use sea_orm::DbErr;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::db::database::Database;
use crate::db::transaction::TxRunner;
use crate::db::tx::Tx;
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::metrics::{self, StatementKind};
use crate::runtime::escaped::Escaped;
use crate::runtime::lease::{BootInstant, Lease, Ticks};
use crate::runtime::lock::locked;
use crate::session::batch::Batcher;
use crate::session::held::{HeldEntry, Release};
use crate::store::history;
use crate::store::writer::{Author, Writer};

/// What the session's tasks share.
pub(crate) struct Shared {
    pub(crate) id: SessionId,
    pub(crate) database: Arc<Database>,
    pub(crate) lease: Lease,
    /// Fires when the session is lost, not when it is closed.
    pub(crate) lost: CancellationToken,
    /// Why it was lost.
    pub(super) loss: OnceLock<String>,
    /// When the runtime of its user last ran a task.
    pub(crate) ticks: Ticks,
    /// The parent of every work's stop token; fires on loss, on close, and when the runner has waited long enough.
    pub(crate) stopping: CancellationToken,
    /// Every user handle is gone.
    pub(super) handles_dropped: CancellationToken,
    /// How far it is on its way to its end.
    pub(super) phase: watch::Sender<Phase>,
    /// A work of it cannot be ended: it lives until that ends, or the process does, whatever else is closed.
    pub(super) stays: AtomicBool,
    /// An operator has asked it to take no new work.
    pub(super) drained: AtomicBool,
    /// Claims that are under way.
    pub(super) claiming: AtomicUsize,
    pub(crate) tasks: TaskTracker,
    pub(crate) releases: mpsc::UnboundedSender<Release>,
    pub(super) held: Mutex<HashMap<WorkId, Arc<HeldEntry>>>,
    pub(crate) batcher: Batcher,
    /// A work was released, or a claim is over.
    pub(crate) work_ended: Notify,
    /// A work was claimed that may not run for as long as the watch sleeps.
    pub(crate) wake_watchdog: Notify,
    /// Somebody needs more trust than is left: the next heartbeat is to be sent now.
    pub(crate) beat_now: Notify,
    /// A heartbeat has succeeded.
    pub(crate) renewed: Notify,
}

/// How far a session is on its way to its end. A lost one may skip from any phase to [`Ended`](Phase::Ended).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Open,
    /// It claims nothing any more.
    Draining,
    /// No effect outside the database goes on, and that its row goes is no loss.
    Closing,
    /// It is over and its tasks end.
    Ended,
}

/// A claim that is under way: a session that drains waits for it.
pub(crate) struct Claiming(Arc<Shared>);

impl Drop for Claiming {
    fn drop(&mut self) {
        self.0.claiming.fetch_sub(1, Ordering::AcqRel);
        self.0.work_ended.notify_waiters();
    }
}

impl Shared {
    pub(crate) fn expired(&self) -> Error {
        Error::SessionExpired { session: self.id }
    }

    /// Moves on to a phase, if that lies ahead: none is left backwards.
    pub(crate) fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let is_ahead = *phase < to;
            *phase = to.max(*phase);
            is_ahead
        });
    }

    /// An operator has asked it to take no new work. Works that go on go on.
    pub(crate) fn drain_for(&self, reason: &str) {
        if !self.drained.swap(true, Ordering::AcqRel) {
            tracing::info!(session = %self.id, reason = %Escaped(reason), "an operator drains the session");
            self.advance(Phase::Draining);
        }
    }

    /// Whether an operator has asked it to take no new work.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire)
    }

    pub(crate) fn is_at(&self, phase: Phase) -> bool {
        *self.phase.borrow() >= phase
    }

    /// Waits until it is there.
    pub(crate) async fn until(&self, phase: Phase) {
        // Whoever waits keeps the sender.
        drop(self.phase.subscribe().wait_for(|now| *now >= phase).await);
    }

    /// Waits until it is lost or over.
    pub(crate) async fn over(&self) {
        tokio::select! {
            () = self.lost.cancelled() => {}
            () = self.until(Phase::Ended) => {}
        }
    }

    /// Whether its process may still believe in it.
    pub(crate) fn check_trust(&self) -> Result<(), Error> {
        if self.lease.remaining(BootInstant::now()).is_zero() {
            Err(self.expired())
        } else {
            Ok(())
        }
    }

    /// Whether new work may be claimed.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        self.check_trust()?;
        if self.is_at(Phase::Draining) {
            Err(Error::Draining { session: self.id })
        } else {
            Ok(())
        }
    }

    /// What effects outside the database may count on.
    pub(crate) fn trust_left(&self) -> Duration {
        if self.is_at(Phase::Closing) {
            return Duration::ZERO;
        }
        self.lease.remaining(BootInstant::now())
    }

    /// Waits until there is so much trust: at once if there is, else for a heartbeat that is sent now, for a third of the interval at most.
    pub(crate) async fn trust_for(&self, need: Duration) -> Result<(), Error> {
        let longest = self.lease.longest();
        if need > longest {
            return Err(Error::NeedImpossible { need, longest });
        }
        let enough = async {
            loop {
                let mut renewed = pin!(self.renewed.notified());
                // From here on none is missed.
                renewed.as_mut().enable();
                let left = self.trust_left();
                if left.is_zero() {
                    return Err(self.expired());
                }
                if left >= need {
                    return Ok(());
                }
                self.beat_now.notify_one();
                tokio::select! {
                    () = self.lost.cancelled() => return Err(self.expired()),
                    () = self.until(Phase::Closing) => return Err(self.expired()),
                    () = renewed => {}
                }
            }
        };
        match tokio::time::timeout(self.database.config.interval / 3, enough).await {
            Ok(enough) => enough,
            Err(_elapsed) => match self.trust_left() {
                Duration::ZERO => Err(self.expired()),
                left => Err(Error::TrustTooShort { need, left }),
            },
        }
    }

    /// Runs the bodies of users.
    pub(crate) fn bodies(&self, doing: &'static str) -> TxRunner<'_> {
        TxRunner {
            pool: &self.database.bodies,
            kind: StatementKind::Body,
            ..self.library(doing)
        }
    }

    /// Runs the library's own transactions.
    pub(crate) fn library(&self, doing: &'static str) -> TxRunner<'_> {
        self.writer().runner(doing)
    }

    /// As its statements need it.
    pub(crate) fn writer(&self) -> Writer<'_> {
        let config = &self.database.config;
        Writer {
            database: &self.database,
            author: Author {
                session: self.id,
                component: &config.component,
                runtime_info: &config.runtime_info,
            },
            lease: &self.lease,
            tasks: &self.tasks,
        }
    }

    /// Checks that the session's row is there and keeps it there until the transaction ends: the collector waits.
    pub(crate) async fn lock_row(&self, tx: &Tx) -> Result<(), Error> {
        let rows = tx
            .query_text(
                "SELECT session_id FROM session WHERE session_id = $1 {share}",
                [self.id.into()],
            )
            .await?;
        if rows.is_empty() {
            self.lose("its row is gone");
            return Err(self.expired());
        }
        Ok(())
    }

    /// A work of it blocks its thread and cannot be ended. Its effect must not meet the next holder's, so the session is not closed with the database.
    pub(crate) fn stay(&self) {
        self.stays.store(true, Ordering::Release);
    }

    /// The session is lost, for good.
    pub(crate) fn lose(&self, why: &str) {
        self.lease.end();
        // Also in the middle of a close with which nobody goes on: a collector of this process must not spare it.
        self.database.own_sessions().retain(|id| *id != self.id);
        if self.is_at(Phase::Closing) || self.lost.is_cancelled() {
            return;
        }
        let why = self.loss.get_or_init(|| why.to_owned());
        // First: a log may panic.
        self.lost.cancel();
        metrics::session_lost();
        tracing::warn!(session = %self.id, why, "session lost");
    }

    /// Marks a claim as under way for as long as the answer lives.
    pub(crate) fn claiming(self: &Arc<Self>) -> Claiming {
        self.claiming.fetch_add(1, Ordering::AcqRel);
        Claiming(Arc::clone(self))
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, HashMap<WorkId, Arc<HeldEntry>>> {
        locked(&self.held)
    }

    /// For drops, which must not panic on a poisoned lock.
    pub(crate) fn held_or_poisoned(&self) -> std::sync::LockResult<MutexGuard<'_, HashMap<WorkId, Arc<HeldEntry>>>> {
        self.held.lock()
    }

    pub(super) async fn close(&self) -> Result<(), Error> {
        self.advance(Phase::Draining);
        self.stopping.cancel();
        // Effects outside the database are over before others can claim what this session held. Calls under way may come to their end.
        self.advance(Phase::Closing);
        let was_lost = self.lost.is_cancelled();
        let result = if was_lost { Ok(()) } else { self.end_row().await };
        self.advance(Phase::Ended);
        self.lease.end();
        self.database.own_sessions().retain(|id| *id != self.id);
        self.tasks.close();
        self.tasks.wait().await;
        tracing::info!(session = %self.id, lost = was_lost, "session ended");
        result
    }

    async fn end_row(&self) -> Result<(), Error> {
        const LOCK: &str = "SELECT session_id FROM session WHERE session_id = $1 {lock}";
        let runner = self.database.runner("close a session");
        let end = async |tx: &Tx| {
            if !tx.query_text(LOCK, [self.id.into()]).await?.is_empty() {
                history::end_session(tx, self.id, Event::Canceled, None).await?;
            }
            Ok::<_, DbErr>(())
        };
        // Run again after an unknown outcome it finds nothing to do.
        for _ in 0..2 {
            match runner.run(async |tx: &Tx| end(tx).await.map_err(Error::from)).await {
                Err(TxError::Unknown { .. }) => {}
                Err(TxError::NotCommitted(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
        Err(Error::CommitUnknown {
            doing: runner.doing,
            source: None,
        })
    }
}
