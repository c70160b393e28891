//! A session: the liveness of this component, and everything that is done in its name.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bmdb_entity::work_history::Event;
use bmdb_entity::{SessionId, WorkId};
use sea_orm::DbErr;
use sea_orm::sea_query::Value;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bmdb::Bmdb;
use crate::claim::{Claim, ClaimMany};
use crate::crowd::Crowds;
use crate::database::Database;
use crate::error::Error;
use crate::fault::Fault;
use crate::goes_on::answer_of;
use crate::history::{self, Author};
use crate::lease::{Lease, Moment, Ticks};
use crate::lock::locked;
use crate::process::Process;
use crate::supervised::supervised;
use crate::tx::{Scope, Tx, TxClosure, check_not_nested};
use crate::work::{Held, HeldWork, Release};
use crate::{liveness, release, schema};

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
pub struct Session(Arc<Handle>);

/// What users share. Its drop is the drop of the last of them, while the session's own tasks go on with the core.
struct Handle(Arc<Core>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.abandoned.cancel();
    }
}

/// What the session's tasks share.
pub(crate) struct Core {
    pub(crate) id: SessionId,
    pub(crate) database: Arc<Database>,
    pub(crate) lease: Lease,
    /// Fires when the session is lost, not when it is closed.
    pub(crate) lost: CancellationToken,
    /// Why it was lost.
    loss: OnceLock<String>,
    /// When the runtime of its user last ran a task.
    pub(crate) ticks: Ticks,
    /// The parent of every work's stop token; fires on loss, on close, and when the runner has waited long enough.
    pub(crate) stopping: CancellationToken,
    /// Every user handle is gone.
    abandoned: CancellationToken,
    /// It is being closed: no effect outside the database goes on, and that its row goes is no loss.
    pub(crate) closing: CancellationToken,
    /// The session is over and its tasks end.
    pub(crate) ended: CancellationToken,
    draining: AtomicBool,
    /// A work of it cannot be ended: it lives until that ends, or the process does, whatever else is closed.
    stays: AtomicBool,
    /// Claims that are under way.
    claiming: AtomicUsize,
    pub(crate) tasks: TaskTracker,
    pub(crate) releases: mpsc::UnboundedSender<Release>,
    held: Mutex<HashMap<WorkId, Arc<Held>>>,
    pub(crate) crowds: Crowds,
    /// A work was let go, or a claim is over.
    pub(crate) less: Notify,
    /// A work was claimed that may not run for as long as the watch sleeps.
    pub(crate) hurry: Notify,
    /// Somebody needs more trust than is left: the next heartbeat is to be sent now.
    pub(crate) beat_now: Notify,
    /// A heartbeat has succeeded.
    pub(crate) renewed: Notify,
}

/// What is left after [`Session::drain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// How many works are still held, or are being claimed.
    pub left: usize,
}

impl Bmdb {
    /// Starts a session: the liveness of this component, kept by heartbeats until it is closed or lost.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] for a role that may look only, or when the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future may leave a session row that a collector expires.
    pub async fn start_session(&self) -> Result<Session, Error> {
        match Session::start(self.database()).await {
            Err(Error::Database { source, .. }) if Fault::of(&source) == Fault::NotAllowed => {
                schema::check_component(self.database()).await?;
                Err(Error::database("start a session")(source))
            }
            started => started,
        }
    }
}

impl Session {
    /// Inserts the session's rows and starts its tasks.
    async fn start(database: &Arc<Database>) -> Result<Self, Error> {
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
        let scope = database.scope("start a session");
        let sent = scope.run_or_error(insert).await?;
        let lease = Lease::new(config.interval, config.margin_or_default(), sent);
        if lease.remaining(Moment::now()).is_zero() {
            return Err(Error::SessionExpired { session: id });
        }

        let (releases, queue) = mpsc::unbounded_channel();
        let (lost, tasks) = (CancellationToken::new(), TaskTracker::new());
        let core = Arc::new(Core {
            id,
            database: Arc::clone(database),
            lease,
            stopping: lost.child_token(),
            lost,
            loss: OnceLock::new(),
            ticks: Ticks::new(),
            abandoned: CancellationToken::new(),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
            draining: AtomicBool::new(false),
            stays: AtomicBool::new(false),
            claiming: AtomicUsize::new(0),
            crowds: Crowds::new(database.dialect, &tasks, &database.in_place),
            tasks,
            releases,
            held: Mutex::default(),
            less: Notify::new(),
            hurry: Notify::new(),
            beat_now: Notify::new(),
            renewed: Notify::new(),
        });
        database.own_sessions().push(id);
        let queue = Arc::new(release::Queue::new(queue));
        let own = Arc::clone(&core);
        let thread = database.heartbeat_thread.runtime();
        let beats = supervised("heartbeats", move || liveness::beat(Arc::clone(&own)));
        core.tasks.spawn_on(beats, thread);
        let own = Arc::clone(&core);
        let watches = supervised("watch", move || liveness::watch(Arc::clone(&own)));
        core.tasks.spawn_on(watches, thread);
        let runs = Arc::new(liveness::Runs(Arc::clone(&core)));
        core.tasks
            .spawn(supervised("ticks", move || liveness::tick(Arc::clone(&runs))));
        let own = Arc::clone(&core);
        core.tasks.spawn(supervised("release", move || {
            release::run(Arc::clone(&own), Arc::clone(&queue))
        }));
        let own = Arc::clone(&core);
        database.tasks.spawn(supervised("keep", move || keep(Arc::clone(&own))));
        tracing::info!(session = %id, component = config.component, "session started");
        Ok(Self(Arc::new(Handle(core))))
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0.0
    }

    /// The session's id, as in its row.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.core().id
    }

    /// For how much longer this process believes in its session if no further heartbeat succeeds; zero is for ever.
    ///
    /// Trust ends earlier than the database's deadline: it counts from before a heartbeat is sent and is shorter by the margin. It counts time
    /// in which the machine is suspended.
    #[must_use]
    pub fn trust_left(&self) -> Duration {
        self.core().trust_left()
    }

    /// A token that fires when the session is lost: its trust has run out, or the database says that it is gone.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.core().lost.clone()
    }

    /// Why the session was lost, for people; `None` as long as it is not.
    #[must_use]
    pub fn loss(&self) -> Option<&str> {
        self.core().loss.get().map(String::as_str)
    }

    /// Every work that this session's guards hold.
    #[must_use]
    pub fn held(&self) -> Vec<HeldWork> {
        self.core().held().values().map(|held| held.describe()).collect()
    }

    /// Runs `body` in one SERIALIZABLE transaction that also checks that the session lives, and runs it again when it lost against others.
    ///
    /// On PostgreSQL, claims are not SERIALIZABLE: a body that decides by what is *not* there, such as "nobody works on this machine", calls
    /// [`machine::exclude_claims`](crate::machine::exclude_claims) first. On SQLite the body keeps everybody else from writing, this session's
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
        let core = self.core();
        async move {
            let scope = core.bodies("run a transaction");
            let checked = async |tx: &Tx| {
                core.lock_row(tx).await?;
                body.clone()(tx).await
            };
            scope.run_or_error(checked).await
        }
    }

    /// Claims a machine that is eligible for `P`. Await it, or narrow it first: see [`Claim`].
    ///
    /// ```no_run
    /// # use bmdb::{Eligible, Process, provided};
    /// # struct AgentStart;
    /// # impl Process for AgentStart {
    /// #     const NAME: &'static str = "agent-start";
    /// #     type Item = provided::Model;
    /// #     fn eligible(machines: Eligible<Self>) -> Eligible<Self> { machines }
    /// # }
    /// # async fn example(session: bmdb::Session) -> Result<(), bmdb::Error> {
    /// while let Some(work) = session.claim::<AgentStart>().await? {
    ///     println!("{} at {:?}, fence {}", work.provider_id, work.address, work.fence());
    ///     work.cancel().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a claim does nothing until it is awaited"]
    pub fn claim<P: Process>(&self) -> Claim<P> {
        Claim::new(self.clone())
    }

    /// Claims up to `count` machines that are eligible for `P`, in one transaction.
    #[must_use = "a claim does nothing until it is awaited"]
    pub fn claim_many<P: Process>(&self, count: u32) -> ClaimMany<P> {
        ClaimMany::new(self.clone(), count)
    }

    /// Takes no new work from now on and waits until every work has ended, at most for `limit`. Heartbeats go on.
    ///
    /// # Cancel safety
    /// Dropping the future stops the wait; the session goes on draining.
    pub async fn drain(&self, limit: Duration) -> Drained {
        let core = self.core();
        core.draining.store(true, Ordering::Release);
        let left = || core.held().len() + core.claiming.load(Ordering::Acquire);
        let emptied = async {
            loop {
                let less = core.less.notified();
                if left() == 0 {
                    return;
                }
                less.await;
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
        self.core().stopping.cancel();
    }

    /// Ends the session: its trust and the effects of its guards end, then its works are canceled, its rows deleted, its tasks ended. Guards that are
    /// still held are lost.
    ///
    /// # Errors
    /// When the database could not be told. The session is over all the same; a collector expires what it left.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the closing.
    pub async fn close(self) -> Result<(), Error> {
        check_not_nested()?;
        let core = Arc::clone(self.core());
        let tasks = core.database.tasks.clone();
        let closing = tasks.spawn(async move { core.close().await });
        // Without a runtime there is nothing left to close with; the session's deadline ends it.
        answer_of(closing).await.unwrap_or(Ok(()))
    }
}

/// Closes the session when nobody has it any more, or the database is closed. One that [stays](Core::stay) goes on without its database, on heartbeats, and
/// when nobody has it any more, a collector expires it.
async fn keep(core: Arc<Core>) {
    tokio::select! {
        () = core.ended.cancelled() => return,
        () = core.abandoned.cancelled() => {}
        () = core.database.closing.cancelled() => {
            if core.stays.load(Ordering::Acquire) && !core.lost.is_cancelled() {
                let own = Arc::clone(&core);
                core.tasks.spawn(async move {
                    own.abandoned.cancelled().await;
                    own.lose("its database was closed while a work of it went on");
                    own.ended.cancel();
                });
                return;
            }
        }
    }
    if let Err(error) = core.close().await {
        tracing::warn!(session = %core.id, %error, "a session was not closed; a collector will expire it");
    }
}

/// A claim that is under way: a session that drains waits for it.
pub(crate) struct Claiming(Arc<Core>);

impl Drop for Claiming {
    fn drop(&mut self) {
        self.0.claiming.fetch_sub(1, Ordering::AcqRel);
        self.0.less.notify_waiters();
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

impl Core {
    pub(crate) fn expired(&self) -> Error {
        Error::SessionExpired { session: self.id }
    }

    /// Whether its process may still believe in it.
    pub(crate) fn check_trust(&self) -> Result<(), Error> {
        if self.lease.remaining(Moment::now()).is_zero() {
            Err(self.expired())
        } else {
            Ok(())
        }
    }

    /// Whether new work may be claimed.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        self.check_trust()?;
        if self.draining.load(Ordering::Acquire) {
            Err(Error::Draining { session: self.id })
        } else {
            Ok(())
        }
    }

    /// What effects outside the database may count on.
    pub(crate) fn trust_left(&self) -> Duration {
        if self.closing.is_cancelled() {
            return Duration::ZERO;
        }
        self.lease.remaining(Moment::now())
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
                    () = self.closing.cancelled() => return Err(self.expired()),
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

    /// A scope for bodies of users.
    pub(crate) fn bodies(&self, doing: &'static str) -> Scope<'_> {
        Scope {
            pool: &self.database.bodies,
            ..self.library(doing)
        }
    }

    /// A scope for the library's own transactions.
    pub(crate) fn library(&self, doing: &'static str) -> Scope<'_> {
        Scope {
            tasks: &self.tasks,
            trust: Some((self.id, &self.lease)),
            ..self.database.scope(doing)
        }
    }

    pub(crate) fn author(&self) -> Author<'_> {
        let config = &self.database.config;
        Author {
            session: self.id,
            component: &config.component,
            runtime_info: &config.runtime_info,
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
        if self.closing.is_cancelled() || self.lost.is_cancelled() {
            return;
        }
        let why = self.loss.get_or_init(|| why.to_owned());
        // First: a log may panic.
        self.lost.cancel();
        self.database.own_sessions().retain(|id| *id != self.id);
        tracing::warn!(session = %self.id, why, "session lost");
    }

    /// Marks a claim as under way for as long as the answer lives.
    pub(crate) fn claiming(self: &Arc<Self>) -> Claiming {
        self.claiming.fetch_add(1, Ordering::AcqRel);
        Claiming(Arc::clone(self))
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, HashMap<WorkId, Arc<Held>>> {
        locked(&self.held)
    }

    /// For drops, which must not panic on a poisoned lock.
    pub(crate) fn held_or_poisoned(&self) -> std::sync::LockResult<MutexGuard<'_, HashMap<WorkId, Arc<Held>>>> {
        self.held.lock()
    }

    async fn close(&self) -> Result<(), Error> {
        self.draining.store(true, Ordering::Release);
        self.stopping.cancel();
        // Effects outside the database are over before others can claim what this session held. Calls under way may come to their end.
        self.closing.cancel();
        let was_lost = self.lost.is_cancelled();
        let result = if was_lost { Ok(()) } else { self.end_row().await };
        self.ended.cancel();
        self.lease.end();
        self.database.own_sessions().retain(|id| *id != self.id);
        self.tasks.close();
        self.tasks.wait().await;
        tracing::info!(session = %self.id, lost = was_lost, "session ended");
        result
    }

    async fn end_row(&self) -> Result<(), Error> {
        const LOCK: &str = "SELECT session_id FROM session WHERE session_id = $1 {lock}";
        let scope = self.database.scope("close a session");
        let end = async |tx: &Tx| {
            if !tx.query_text(LOCK, [self.id.into()]).await?.is_empty() {
                history::end_session(tx, self.id, Event::Canceled, None).await?;
            }
            Ok::<_, DbErr>(())
        };
        // Run again after an unknown outcome it finds nothing to do.
        for _ in 0..2 {
            match scope.run(async |tx: &Tx| end(tx).await.map_err(Error::from)).await {
                Err(crate::failure::Failure::Unknown { .. }) => {}
                Err(crate::failure::Failure::NotCommitted(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
        Err(Error::CommitUnknown {
            doing: scope.doing,
            source: None,
        })
    }
}
