//! The guard of a claimed machine.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bmdb_entity::{Fence, MachineId, Tag, WorkId};
use sea_orm::ConnectionTrait;
use tokio_util::sync::CancellationToken;

use crate::db::transaction::check_not_nested;
use crate::db::tx::{Tx, TxClosure};
use crate::error::Error;
use crate::metrics;
use crate::rules::backoff::Failures;
use crate::rules::check::has_nul;
use crate::rules::process::Process;
use crate::rules::work_key::WorkKey;
use crate::session::Session;
use crate::session::held::{HeldEntry, Release, StopReason};
use crate::session::liveness::is_short;
use crate::session::shared::Phase;
use crate::store::end::{EndRequest, Ending};
use crate::store::tag;

/// The guard itself, whatever the process. Dropping it hands the key to the session's task.
pub(crate) struct Guard {
    pub(crate) session: Session,
    pub(crate) held: Arc<HeldEntry>,
    armed: bool,
}

impl Guard {
    pub(crate) fn new(session: Session, key: WorkKey, failures: Option<Failures>, max_run: Option<Duration>) -> Self {
        let shared = session.shared();
        let held = Arc::new(HeldEntry::new(key, failures, max_run, shared.stopping.child_token()));
        shared.held().insert(key.work, Arc::clone(&held));
        if is_short(max_run) {
            shared.wake_watchdog.notify_one();
        }
        Self {
            session,
            held,
            armed: true,
        }
    }

    /// It has ended as asked, and there is nothing left to release.
    pub(crate) fn ended(&mut self, ending: &Ending) {
        ending.log(&self.held.key);
        self.disarm();
    }

    /// There is nothing left to release.
    pub(crate) fn disarm(&mut self) {
        self.armed = false;
    }
}

/// Never blocks and never panics, needs no runtime, and cannot say whether it worked: the session's task lets go in its own time, and if the
/// process dies first, expiry does.
impl Drop for Guard {
    fn drop(&mut self) {
        let shared = self.session.shared();
        // A poisoned lock must not make a drop panic.
        if let Ok(mut held) = shared.held_or_poisoned() {
            held.remove(&self.held.key.work);
        }
        shared.work_ended.notify_waiters();
        if self.armed {
            // Without a receiver the session is over, and its works with it.
            let _unheard = shared.releases.send(Release::Work(EndRequest::canceled(self.held.key)));
        }
        // Last: a recorder may panic.
        metrics::work_held(self.held.key.process(), self.held.held_for());
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
#[must_use = "dropping the guard releases the machine"]
pub struct Work<P: Process> {
    pub(crate) item: P::Item,
    pub(crate) claimed: Guard,
}

impl<P: Process> Work<P> {
    pub(crate) fn key(&self) -> WorkKey {
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
        self.claimed.held.stopping()
    }

    /// Why the stop token fired.
    #[must_use]
    pub fn stop_reason(&self) -> Option<StopReason> {
        let shared = self.session().shared();
        let own = self.claimed.held.stop_reason();
        own.or_else(|| shared.lost.is_cancelled().then_some(StopReason::SessionLost))
            .or_else(|| shared.stopping.is_cancelled().then_some(StopReason::Shutdown))
    }

    /// The session that holds it.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.claimed.session
    }

    /// For reads outside transactions, as [`Bmdb::reads`](crate::Bmdb::reads).
    #[must_use]
    pub fn reads(&self) -> &(impl ConnectionTrait + use<P>) {
        self.session().bmdb().reads()
    }

    /// Reads another tag of the machine, as it is now; `None` if the machine does not have it. The item is as it was at the claim.
    ///
    /// ```no_run
    /// # async fn example<P: bmdb::Process>(work: bmdb::Work<P>) -> Result<(), bmdb::Error> {
    /// use bmdb::agent_heartbeat;
    ///
    /// if let Some(heartbeat) = work.get::<agent_heartbeat::Entity>().await? {
    ///     println!("heard at {}", heartbeat.at);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the database cannot be read, or the row is odd.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn get<T: Tag>(&self) -> Result<Option<T::Model>, Error> {
        tag::get::<T>(self.reads(), self.machine()).await
    }

    /// Runs an effect outside the database: starts it with at least `need` of trust left, and runs no step of it after trust has ended.
    ///
    /// `need` is the longest time the effect may take to arrive, so that it arrives before another component can hold the machine. With less trust
    /// left, a heartbeat is sent at once, and the call waits for it, for a third of the interval at most. Trust is checked before each poll of the
    /// effect; blocking code inside a poll is not interrupted, so send the [fence](Self::fence) along.
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
        let shared = self.session().shared();
        shared.trust_for(need).await?;
        tokio::select! {
            biased;
            () = shared.lost.cancelled() => Err(shared.expired()),
            () = shared.until(Phase::Closing) => Err(shared.expired()),
            value = shared.lease.while_trusted(effect) => value.ok_or_else(|| shared.expired()),
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
        let shared = self.session().shared();
        shared.check_trust()?;
        let statement = shared.database.dialect.statement(
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
        let database = &shared.database;
        let write = async || database.library.execute_raw(statement.clone()).await;
        let written = database.retry("write progress", write).await?;
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
        let (shared, key) = (self.session().shared(), self.key());
        async move {
            let runner = shared.bodies("run a transaction of a work");
            let checked = async |tx: &Tx| {
                shared.lock_row(tx).await?;
                let values = [key.machine.into(), key.slot.into(), key.fence.into(), key.work.into()];
                if tx.query_text(LOCK, values).await.map_err(Error::from)?.is_empty() {
                    return Err(key.lost().into());
                }
                body.clone()(tx).await
            };
            runner.run_or_error(checked).await
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
