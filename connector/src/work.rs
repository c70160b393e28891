//! The guard of a claimed machine.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bmdb_entity::{Fence, MachineId, WorkId};
use sea_orm::ConnectionTrait;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::lease::Moment;
use crate::leave::{Leaving, Trace};
use crate::liveness::is_short;
use crate::lock::locked;
use crate::process::Process;
use crate::seen::Failures;
use crate::session::Session;
use crate::tag::has_nul;
use crate::tx::{Tx, TxClosure, check_not_nested};

/// What names one claim in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) machine: MachineId,
    pub(crate) slot: &'static str,
    pub(crate) process: &'static str,
    pub(crate) work: WorkId,
    pub(crate) fence: Fence,
}

impl Key {
    pub(crate) fn lost(&self) -> Error {
        Error::WorkLost {
            machine: self.machine,
            slot: self.slot.to_owned(),
            fence: self.fence,
        }
    }
}

/// What a dropped guard, or a claim whose outcome stayed unknown, leaves to the session's task.
pub(crate) enum Release {
    Work(Leaving),
    /// Perhaps claimed, now or later: nobody was told.
    Doubt {
        slot: &'static str,
        process: &'static str,
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
    /// It ran for longer than the process's [`MAX_RUN`](Process::MAX_RUN).
    MaxRun,
}

/// One held work, as the session's tasks see it.
pub(crate) struct Held {
    pub(crate) key: Key,
    stop: CancellationToken,
    reason: Mutex<Option<StopReason>>,
    run_until: Option<Moment>,
    claimed: Moment,
    /// As they were when the machine was claimed.
    pub(crate) failures: Option<Failures>,
}

impl Held {
    /// Fires the stop token. The first reason stays.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.reason().get_or_insert(reason);
        self.stop.cancel();
    }

    fn reason(&self) -> std::sync::MutexGuard<'_, Option<StopReason>> {
        locked(&self.reason)
    }

    /// How much longer it may run; `None` when it may for ever or has been told to stop.
    pub(crate) fn run_left(&self, now: Moment) -> Option<Duration> {
        let until = self.run_until.filter(|_| !self.stop.is_cancelled())?;
        Some(until.since(now))
    }

    pub(crate) fn describe(&self) -> HeldWork {
        HeldWork {
            machine: self.key.machine,
            process: self.key.process,
            slot: self.key.slot,
            work: self.key.work,
            fence: self.key.fence,
            held_for: Moment::now().since(self.claimed),
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

/// The guard itself, whatever the process. Dropping it hands the key to the session's task.
pub(crate) struct Claimed {
    pub(crate) session: Session,
    pub(crate) held: Arc<Held>,
    armed: bool,
}

impl Claimed {
    pub(crate) fn new(session: Session, key: Key, failures: Option<Failures>, max_run: Option<Duration>) -> Self {
        let core = session.core();
        let now = Moment::now();
        let held = Arc::new(Held {
            key,
            stop: core.stopping.child_token(),
            reason: Mutex::default(),
            run_until: max_run.map(|limit| now.plus(limit)),
            claimed: now,
            failures,
        });
        core.held().insert(key.work, Arc::clone(&held));
        if is_short(max_run) {
            core.hurry.notify_one();
        }
        Self {
            session,
            held,
            armed: true,
        }
    }

    /// It has ended as asked, and there is nothing left to let go of.
    pub(crate) fn ended(&mut self, trace: &Trace) {
        trace.log(&self.held.key);
        self.disarm();
    }

    /// There is nothing left to let go of.
    pub(crate) fn disarm(&mut self) {
        self.armed = false;
    }
}

/// Never blocks and never panics, needs no runtime, and cannot say whether it worked: the session's task lets go in its own time, and if the
/// process dies first, expiry does.
impl Drop for Claimed {
    fn drop(&mut self) {
        let core = self.session.core();
        // A poisoned lock must not make a drop panic.
        if let Ok(mut held) = core.held_or_poisoned() {
            held.remove(&self.held.key.work);
        }
        core.less.notify_waiters();
        if self.armed {
            // Without a receiver the session is over, and its works with it.
            let _unheard = core.releases.send(Release::Work(Leaving::canceled(self.held.key)));
        }
    }
}

/// A claimed machine: the guard of one work, and the item that made the machine fit for it.
///
/// It is an exclusive hold on machine × slot for as long as the session lives. It is not a transaction: do the work outside of one, as long as
/// it takes, then end it with [`finish`](Self::finish), [`fail`](Self::fail) or [`cancel`](Self::cancel).
///
/// # Drop
/// A dropped guard, also in a panic or an aborted task, is canceled by a task of its session, soon but not at once; it never blocks. If the
/// process dies, the collector expires the session and leaves a cool-down. `std::mem::forget` keeps the machine claimed until the session ends.
#[must_use = "dropping the guard lets go of the machine"]
pub struct Work<P: Process> {
    pub(crate) item: P::Item,
    pub(crate) claimed: Claimed,
}

impl<P: Process> Work<P> {
    pub(crate) fn key(&self) -> Key {
        self.claimed.held.key
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> MachineId {
        self.key().machine
    }

    /// The claim's id, as in `work` and `work_history`.
    #[must_use]
    pub fn id(&self) -> WorkId {
        self.key().work
    }

    /// The claim's number, which rises with every claim on the machine. Send it along with every effect outside the database, so that the
    /// receiver can refuse what comes from an earlier holder.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.key().fence
    }

    /// A token that fires when the work should stop: its session is lost or shuts down, an operator asked, or it ran for too long.
    #[must_use]
    pub fn stop(&self) -> CancellationToken {
        self.claimed.held.stop.clone()
    }

    /// Why the stop token fired.
    #[must_use]
    pub fn stop_reason(&self) -> Option<StopReason> {
        let core = self.session().core();
        let own = self.claimed.held.reason().clone();
        own.or_else(|| core.lost.is_cancelled().then_some(StopReason::SessionLost))
            .or_else(|| core.stopping.is_cancelled().then_some(StopReason::Shutdown))
    }

    /// The session that holds it.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.claimed.session
    }

    /// Runs an effect outside the database: starts it with at least `need` of trust left, and runs no step of it after trust has ended.
    ///
    /// Give `need` as the longest time that the effect may take to arrive: then it arrives before another component can hold the machine. If less
    /// trust is left than that, a heartbeat is sent at once, and the effect starts as soon as there is enough; it waits for a third of the interval
    /// at most. Trust is looked at before each step of the effect (each poll of its future), however late the process comes to it. What a step does
    /// by itself, as blocking code, is not interrupted; and what was sent on its way is the resource's to refuse, by the [fence](Self::fence).
    ///
    /// ```no_run
    /// # async fn reset(address: Option<&str>, fence: bmdb::Fence) -> Result<(), String> { Ok(()) }
    /// # async fn example<P: bmdb::Process<Item = bmdb::provided::Model>>(work: bmdb::Work<P>) -> Result<(), bmdb::Error> {
    /// use std::time::Duration;
    ///
    /// // A command that has not arrived within two seconds is given up by whoever carries it.
    /// let reset = reset(work.address.as_deref(), work.fence());
    /// let answer = work.guarded(Duration::from_secs(2), reset).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NeedImpossible`] if there never is so much trust, [`Error::TrustTooShort`] if no heartbeat brought it in time: the effect was not
    /// started. [`Error::SessionExpired`]: it was not started, or dropped half-way.
    ///
    /// # Cancel safety
    /// Dropping the future drops the effect.
    pub async fn guarded<T>(&self, need: Duration, effect: impl Future<Output = T> + Send) -> Result<T, Error> {
        let core = self.session().core();
        core.trust_for(need).await?;
        tokio::select! {
            biased;
            () = core.lost.cancelled() => Err(core.expired()),
            () = core.closing.cancelled() => Err(core.expired()),
            value = core.lease.while_trusted(effect) => value.ok_or_else(|| core.expired()),
        }
    }

    /// Writes how far the work has come, for people and for the console, to the work's row.
    ///
    /// # Errors
    /// [`Error::WorkLost`] when the row is gone; [`Error::Invalid`] for a value that is not JSON, over 64 kB, with NUL, or nested more than 127 deep.
    ///
    /// # Cancel safety
    /// Dropping the future may or may not write.
    pub async fn progress(&self, value: &(impl serde::Serialize + Sync)) -> Result<(), Error> {
        const LONGEST: usize = 64 * 1024;
        let key = self.key();
        let json = serde_json::to_value(value)
            .map_err(|error| Error::invalid("progress", &error.to_string(), "a value that JSON can hold"))?;
        let text = json.to_string();
        // What nests too deep could be written and then not be read by anybody.
        let readable = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        if text.len() > LONGEST || !readable || has_nul(&json) {
            return Err(Error::invalid(
                "progress",
                &text,
                "at most 64 kB of JSON without NUL, nested at most 127 deep",
            ));
        }
        check_not_nested()?;
        let core = self.session().core();
        core.check_trust()?;
        let statement = core.database.dialect.statement(
            "UPDATE work SET progress = $1 WHERE machine_id = $2 AND slot = $3 AND fence = $4 AND work_id = $5",
            [
                json.into(),
                key.machine.into(),
                key.slot.into(),
                key.fence.into(),
                key.work.into(),
            ],
        );
        // Written twice it says the same, so a lost answer does not matter.
        let database = &core.database;
        let write = async || database.library.execute_raw(statement.clone()).await;
        let written = database.persist("write progress", write).await?;
        if written.rows_affected() == 1 {
            Ok(())
        } else {
            Err(key.lost())
        }
    }

    /// Runs `body` in a transaction as [`Session::transact`] does, one that also checks that this work is still ours: for the many transactions
    /// of a long work.
    ///
    /// # Errors
    /// As [`Session::transact`]; and [`Error::WorkLost`], and nothing of the body is in the database.
    ///
    /// # Cancel safety
    /// As [`Session::transact`].
    pub fn transact<T, E, F>(&self, body: F) -> impl Future<Output = Result<T, E>> + Send
    where
        F: TxClosure<T, E>,
        T: Send,
        E: From<Error> + Send,
    {
        const LOCK: &str =
            "SELECT work_id FROM work WHERE machine_id = $1 AND slot = $2 AND fence = $3 AND work_id = $4 {share}";
        let (core, key) = (self.session().core(), self.key());
        async move {
            let scope = core.bodies("run a transaction of a work");
            let checked = async |tx: &Tx| {
                core.lock_row(tx).await?;
                let values = [key.machine.into(), key.slot.into(), key.fence.into(), key.work.into()];
                if tx.query_text(LOCK, values).await.map_err(Error::from)?.is_empty() {
                    return Err(key.lost().into());
                }
                body.clone()(tx).await
            };
            scope.run_or_error(checked).await
        }
    }
}

impl<P: Process> Deref for Work<P> {
    type Target = P::Item;

    fn deref(&self) -> &P::Item {
        &self.item
    }
}

impl<P: Process> fmt::Debug for Work<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("key", &self.key())
            .field("item", &self.item)
            .finish_non_exhaustive()
    }
}
