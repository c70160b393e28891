//! A session: the liveness of this component, and everything that is done in its name.

pub(crate) mod batch;
pub(crate) mod ends;
pub(crate) mod held;
pub(crate) mod liveness;
pub(crate) mod observation;
pub(crate) mod release;
pub(crate) mod shared;
pub(crate) mod work;

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bmdb_entity::SessionId;
use sea_orm::sea_query::Value;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bmdb::Bmdb;
use crate::db::schema;
use crate::db::transaction::check_not_nested;
use crate::db::tx::{Tx, TxClosure};
use crate::error::Error;
use crate::error::fault::Fault;
use crate::runtime::lease::{BootInstant, Lease, Ticks};
use crate::runtime::spawn_on_drop::answer_of;
use crate::runtime::supervised::supervised;
use crate::session::batch::Batcher;
use crate::session::held::HeldWork;
use crate::session::shared::{Phase, Shared};

/// The liveness of one component incarnation: a row that heartbeats keep alive, and the right to transact and to hold work while it lives.
///
/// One session serves a whole OS process, its many tasks and works: clone it freely. Losing it is final; start another with
/// [`Bmdb::start_session`](crate::Bmdb::start_session).
///
/// When the last clone is dropped and no work is held, the session closes itself in the background. That is not awaited: prefer
/// [`close`](Self::close). If the process dies, the collector of another component expires the session once its deadline has passed.
///
/// Heartbeats run on a thread of their own, so code that blocks the threads of its runtime costs no session, unless it does so for longer than the
/// [`stall_limit`](crate::Config::stall_limit). A session ends with the runtime in which it was started: it is lost at once. After a `fork` the child
/// has no heartbeats: do not use a session there.
///
/// ```no_run
/// # async fn example(bmdb: bmdb::Bmdb, machine: bmdb::MachineId) -> Result<(), bmdb::Error> {
/// use bmdb::agent_heartbeat;
///
/// let session = bmdb.start_session().await?;
/// session.transact(async |tx| agent_heartbeat::set(tx, machine).await).await?;
/// session.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Session(Arc<UserHandle>);

/// What users share. Its drop is the drop of the last of them, while the session's own tasks go on with what they share.
struct UserHandle {
    shared: Arc<Shared>,
    bmdb: Bmdb,
}

impl Drop for UserHandle {
    fn drop(&mut self) {
        self.shared.handles_dropped.cancel();
    }
}

/// What is left after [`Session::drain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// How many works are still held, or are being claimed.
    pub left: usize,
}

impl Bmdb {
    /// Starts a session: the liveness of this component, kept by heartbeats until it is closed or lost.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] for a role that may only read; [`Error::SessionExpired`] if starting took so long that no trust is left; [`Error::Contended`];
    /// [`Error::Nested`] inside a body; or when the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future may leave a session row that a collector expires.
    pub async fn start_session(&self) -> Result<Session, Error> {
        match Session::start(self).await {
            Err(Error::Database { source, .. }) if Fault::of(&source) == Fault::NotAllowed => {
                schema::check_component(&self.database().catalogue()).await?;
                Err(Error::database("start a session")(source))
            }
            started => started,
        }
    }
}

impl Session {
    /// Inserts the session's rows and starts its tasks.
    async fn start(bmdb: &Bmdb) -> Result<Self, Error> {
        let database = bmdb.database();
        let config = &database.config;
        let id = SessionId::random();
        let interval_ms = i64::try_from(config.interval.as_millis()).expect("BUG: the interval is at most an hour");
        let author: [Value; 2] = [config.component.clone().into(), config.runtime_info.clone().into()];
        let insert = async |tx: &Tx| {
            let [component, runtime_info] = author.clone();
            tx.execute_text(
                "INSERT INTO session (session_id, component_name, runtime_info, created_at, interval_ms) \
                 VALUES ($1, $2, $3, {now}, $4)",
                [id.into(), component, runtime_info, interval_ms.into()],
            )
            .await?;
            let lease = "INSERT INTO session_lease (session_id, deadline) VALUES ($1, {after $2})";
            tx.execute_text(lease, [id.into(), interval_ms.into()]).await?;
            // Of this very attempt: the database's now() is that of its BEGIN or later, so trust ends before the deadline.
            Ok::<_, Error>(tx.sent())
        };
        // In doubt the row is left to a collector: it holds nothing.
        let runner = database.runner("start a session");
        let sent = runner.run_or_error(insert).await?;
        let lease = Lease::new(config.interval, config.margin_or_default(), sent);
        if lease.remaining(BootInstant::now()).is_zero() {
            return Err(Error::SessionExpired { session: id });
        }

        let (releases, queue) = mpsc::unbounded_channel();
        let (lost, tasks) = (CancellationToken::new(), TaskTracker::new());
        let shared = Arc::new(Shared {
            id,
            database: Arc::clone(database),
            lease,
            stopping: lost.child_token(),
            lost,
            loss: OnceLock::new(),
            ticks: Ticks::new(),
            handles_dropped: CancellationToken::new(),
            phase: watch::Sender::new(Phase::Open),
            stays: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            claiming: AtomicUsize::new(0),
            batcher: Batcher::new(database.dialect, &tasks, &database.in_place),
            tasks,
            releases,
            held: Mutex::default(),
            work_ended: Notify::new(),
            wake_watchdog: Notify::new(),
            beat_now: Notify::new(),
            renewed: Notify::new(),
        });
        database.own_sessions().push(id);
        let queue = Arc::new(release::Queue::new(queue));
        let own = Arc::clone(&shared);
        let thread = database.heartbeat_thread.runtime();
        let beats = supervised("heartbeats", move || liveness::beat(Arc::clone(&own)));
        shared.tasks.spawn_on(beats, thread);
        let own = Arc::clone(&shared);
        let watches = supervised("watch", move || liveness::watch(Arc::clone(&own)));
        shared.tasks.spawn_on(watches, thread);
        let runs = Arc::new(liveness::Runs(Arc::clone(&shared)));
        shared
            .tasks
            .spawn(supervised("ticks", move || liveness::tick(Arc::clone(&runs))));
        let own = Arc::clone(&shared);
        shared.tasks.spawn(supervised("release", move || {
            release::run(Arc::clone(&own), Arc::clone(&queue))
        }));
        let own = Arc::clone(&shared);
        database.tasks.spawn(supervised("keep", move || keep(Arc::clone(&own))));
        tracing::info!(session = %id, component = config.component, "session started");
        let bmdb = bmdb.clone();
        Ok(Self(Arc::new(UserHandle { shared, bmdb })))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// The connection that it was started on: for reads, and to register processes.
    #[must_use]
    pub fn bmdb(&self) -> &Bmdb {
        &self.0.bmdb
    }

    /// The session's id, as in its row.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.shared().id
    }

    /// How much longer this process trusts its session if no heartbeat succeeds. Once zero, it stays zero.
    ///
    /// Trust ends earlier than the database's deadline: it counts from before a heartbeat is sent and is shorter by the margin. It counts time
    /// in which the machine is suspended.
    #[must_use]
    pub fn trust_left(&self) -> Duration {
        self.shared().trust_left()
    }

    /// A token that fires when the session is lost: its trust has run out, or the database says that it is gone.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.shared().lost.clone()
    }

    /// Why the session was lost, for people; `None` as long as it is not.
    #[must_use]
    pub fn loss(&self) -> Option<&str> {
        self.shared().loss.get().map(String::as_str)
    }

    /// Every work that this session's guards hold.
    #[must_use]
    pub fn held(&self) -> Vec<HeldWork> {
        self.shared().held().values().map(|held| held.describe()).collect()
    }

    /// Runs `body` in one SERIALIZABLE transaction that also checks that the session lives, and runs it again when it lost against others.
    ///
    /// On PostgreSQL, claims are not SERIALIZABLE: a body that decides by what is *not* there, such as "nobody works on this machine", calls
    /// [`machine::exclude_claims`](crate::store::machine::exclude_claims) first. On SQLite the body keeps everybody else from writing, this session's
    /// heartbeats included: one that takes longer than the session's trust loses the session.
    ///
    /// The body may run many times, so it has no effect outside the database. What it returns is what its last run returned. Transactions do not
    /// nest; savepoints do ([`Tx`] is a SeaORM `TransactionTrait`).
    ///
    /// ```no_run
    /// # async fn example(session: bmdb::Session, machine: bmdb::MachineId) -> Result<(), bmdb::Error> {
    /// use bmdb::{machine, provided};
    /// use sea_orm::EntityTrait;
    ///
    /// let address = session
    ///     .transact(async |tx| {
    ///         let row = provided::Entity::find_by_id(machine).one(tx).await?;
    ///         Ok::<_, bmdb::Error>(row.and_then(|row| row.address))
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the body returns, as it is; and, through `E: From<Error>`: [`Error::SessionExpired`], [`Error::Contended`] when the budget is used up,
    /// [`Error::Poisoned`] when the body swallowed a failed statement, [`Error::Nested`], [`Error::CommitUnknown`].
    ///
    /// # Cancel safety
    /// Dropping the future while the body runs rolls back. Dropping it during COMMIT does not stop the COMMIT. Drop it inside a Tokio runtime:
    /// sqlx panics when an open transaction is dropped outside of one.
    pub fn transact<T, E, F>(&self, body: F) -> impl Future<Output = Result<T, E>> + Send
    where
        F: TxClosure<T, E>,
        T: Send,
        E: From<Error> + Send,
    {
        let shared = self.shared();
        async move {
            let runner = shared.bodies("run a transaction");
            let checked = async |tx: &Tx| {
                shared.lock_row(tx).await?;
                body.clone()(tx).await
            };
            runner.run_or_error(checked).await
        }
    }

    /// Takes no new work from now on and waits until every work has ended, at most for `limit`. Heartbeats go on.
    ///
    /// # Cancel safety
    /// Dropping the future stops the wait; the session goes on draining.
    pub async fn drain(&self, limit: Duration) -> Drained {
        let shared = self.shared();
        shared.advance(Phase::Draining);
        let left = || shared.held().len() + shared.claiming.load(Ordering::Acquire);
        let emptied = async {
            loop {
                let ended = shared.work_ended.notified();
                if left() == 0 {
                    return;
                }
                ended.await;
            }
        };
        let left = match tokio::time::timeout(limit, emptied).await {
            Ok(()) => 0,
            Err(_elapsed) => left(),
        };
        Drained { left }
    }

    /// Fires the stop token of every work, with the reason [`StopReason::Shutdown`](crate::StopReason::Shutdown). The works stay held until their guards end or drop.
    pub fn stop_all(&self) {
        self.shared().stopping.cancel();
    }

    /// Ends the session: its trust and the effects of its guards end, then its works are canceled, its rows deleted, its tasks ended. Guards that are
    /// still held are lost.
    ///
    /// # Errors
    /// [`Error::Nested`] inside a body: then nothing was closed. Else when the database could not be told: the session is over all the same, and a collector
    /// expires what it left.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the closing.
    pub async fn close(self) -> Result<(), Error> {
        check_not_nested()?;
        let shared = Arc::clone(self.shared());
        let tasks = shared.database.tasks.clone();
        let closing = tasks.spawn(async move { shared.close().await });
        // Without a runtime there is nothing left to close with; the session's deadline ends it.
        answer_of(closing).await.unwrap_or(Ok(()))
    }
}

/// Closes the session when nobody has it any more, or the database is closed. One that [stays](Shared::stay) goes on without its database, on heartbeats, and
/// when nobody has it any more, a collector expires it.
async fn keep(shared: Arc<Shared>) {
    tokio::select! {
        () = shared.until(Phase::Ended) => return,
        () = shared.handles_dropped.cancelled() => {}
        () = shared.database.closing.cancelled() => {
            if shared.stays.load(Ordering::Acquire) && !shared.lost.is_cancelled() {
                let own = Arc::clone(&shared);
                shared.tasks.spawn(async move {
                    own.handles_dropped.cancelled().await;
                    own.lose("its database was closed while a work of it went on");
                    own.advance(Phase::Ended);
                });
                return;
            }
        }
    }
    if let Err(error) = shared.close().await {
        tracing::warn!(session = %shared.id, %error, "a session was not closed; a collector will expire it");
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id())
            .field("trust_left", &self.trust_left())
            .finish()
    }
}
