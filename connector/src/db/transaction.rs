//! The one place where transactions begin, run again and commit.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bmdb_entity::SessionId;
use sea_orm::sea_query::Value;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseBackend, DatabaseConnection, DatabaseTransaction, DbErr, ExecResult,
    IsolationLevel, QueryResult, SqliteTransactionMode, Statement, TransactionError, TransactionOptions,
    TransactionTrait,
};
use tokio_util::task::TaskTracker;

use crate::db::dialect::Dialect;
use crate::db::file::OpenFile;
use crate::db::health::Health;
use crate::db::savepoint::Savepoint;
use crate::db::sql::SqlBuilder;
use crate::db::timeout::{Timeout, timed_out};
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::error::fault::Fault;
use crate::runtime::lease::{BootInstant, Lease};
use crate::runtime::lock::locked;
use crate::runtime::retry::pause_within;
use crate::runtime::spawn_on_drop::SpawnOnDrop;

/// The handle that the body of a transaction works with: a SeaORM [`ConnectionTrait`].
///
/// It remembers the first statement that failed. A body that swallows such a failure does not commit: PostgreSQL has rolled everything back
/// by then and would still answer COMMIT with success.
#[derive(Debug)]
pub struct Tx {
    inner: DatabaseTransaction,
    dialect: Dialect,
    limit: Timeout,
    /// Before BEGIN was sent: what the database's clock says in here is later.
    sent: BootInstant,
    fault: Mutex<Option<DbErr>>,
    /// Statements whose answer has not come. Not zero after the body: a future was dropped half-way and nobody knows what its statement did.
    in_flight: AtomicUsize,
}

impl Tx {
    pub(crate) async fn execute_text(&self, text: &str, values: impl IntoIterator<Item = Value>) -> Result<u64, DbErr> {
        let result = self.execute_raw(self.dialect.statement(text, values)).await?;
        Ok(result.rows_affected())
    }

    /// Sends what is in the text, if anything is. Answers how many rows it wrote.
    pub(crate) async fn write(&self, text: SqlBuilder) -> Result<u64, DbErr> {
        if text.is_empty() {
            return Ok(0);
        }
        Ok(self.execute_raw(text.finish()).await?.rows_affected())
    }

    pub(crate) async fn query_text(
        &self,
        text: &str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<QueryResult>, DbErr> {
        self.query_all_raw(self.dialect.statement(text, values)).await
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// When the transaction began, or before that.
    pub(crate) fn sent(&self) -> BootInstant {
        self.sent
    }

    fn savepoint(&self, inner: DatabaseTransaction) -> Savepoint {
        Savepoint::new(inner, self.dialect, self.limit)
    }

    async fn watch<T>(&self, statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        // Stays raised if this future is dropped at the await.
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        let result = self.limit.within(statement).await;
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
        if let Err(error) = &result {
            locked(&self.fault).get_or_insert_with(|| error.clone());
        }
        result
    }

    fn first_fault(&self) -> Option<DbErr> {
        let fault = locked(&self.fault).clone();
        let dropped = self.in_flight.load(Ordering::Acquire) > 0;
        fault.or_else(|| dropped.then(|| DbErr::Custom("a statement was dropped before its answer came".to_owned())))
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Tx {
    fn get_database_backend(&self) -> DatabaseBackend {
        self.inner.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.watch(self.inner.execute_raw(self.dialect.fit(statement))).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.watch(self.inner.execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.watch(self.inner.query_one_raw(self.dialect.fit(statement))).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.watch(self.inner.query_all_raw(self.dialect.fit(statement))).await
    }
}

/// Nested transactions are [savepoints](Savepoint).
#[async_trait::async_trait]
#[expect(clippy::disallowed_methods, reason = "these begin savepoints inside our transaction")]
impl TransactionTrait for Tx {
    type Transaction = Savepoint;

    async fn begin(&self) -> Result<Savepoint, DbErr> {
        self.watch(self.inner.begin()).await.map(|inner| self.savepoint(inner))
    }

    async fn begin_with_config(
        &self,
        isolation: Option<IsolationLevel>,
        access: Option<AccessMode>,
    ) -> Result<Savepoint, DbErr> {
        let begun = self.watch(self.inner.begin_with_config(isolation, access)).await;
        begun.map(|inner| self.savepoint(inner))
    }

    async fn begin_with_options(&self, options: TransactionOptions) -> Result<Savepoint, DbErr> {
        let begun = self.watch(self.inner.begin_with_options(options)).await;
        begun.map(|inner| self.savepoint(inner))
    }

    async fn transaction<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c Savepoint) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>> + Send,
        T: Send,
        E: std::fmt::Display + std::fmt::Debug + Send,
    {
        let begun = self.begin().await.map_err(TransactionError::Connection)?;
        begun.run(callback).await
    }

    async fn transaction_with_config<F, T, E>(
        &self,
        callback: F,
        isolation: Option<IsolationLevel>,
        access: Option<AccessMode>,
    ) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c Savepoint) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>> + Send,
        T: Send,
        E: std::fmt::Display + std::fmt::Debug + Send,
    {
        let begun = self.begin_with_config(isolation, access).await;
        begun.map_err(TransactionError::Connection)?.run(callback).await
    }
}

/// The `Send` half of [`TxClosure`]; implemented for every fitting closure, not by hand.
pub trait TxFnOnce<'t, O>: FnOnce(&'t Tx) -> Self::Fut + Send {
    /// The body's future.
    type Fut: Future<Output = O> + Send;
}

impl<'t, O, F, Fut> TxFnOnce<'t, O> for F
where
    F: FnOnce(&'t Tx) -> Fut + Send,
    Fut: Future<Output = O> + Send,
{
    type Fut = Fut;
}

/// The body of a transaction: `async |tx| { … }` or `async move |tx| { … }`.
///
/// It may run many times, each time from a clone, so it has no effect outside the database and its captures are [`Clone`]. It may borrow from
/// its surroundings, also inside `tokio::spawn`.
#[diagnostic::on_unimplemented(
    message = "this is not a body of a transaction that can be run again",
    note = "write an async closure that takes `tx`; its captures must be `Clone` (no `&mut`) and its future `Send`"
)]
pub trait TxClosure<T, E>:
    AsyncFnOnce(&Tx) -> Result<T, E> + for<'t> TxFnOnce<'t, Result<T, E>> + Clone + Sync
{
}

impl<T, E, F> TxClosure<T, E> for F where
    F: AsyncFnOnce(&Tx) -> Result<T, E> + for<'t> TxFnOnce<'t, Result<T, E>> + Clone + Sync
{
}

tokio::task_local! {
    /// Set while a body runs, so that a transaction opened inside it is an error at once and not a wait for its own connection.
    static IN_BODY: ();
}

/// Refuses to go on inside a body. What runs in a task of the session's asks before it goes there.
pub(crate) fn check_not_nested() -> Result<(), Error> {
    match IN_BODY.try_with(|()| ()) {
        Ok(()) => Err(Error::Nested),
        Err(_outside) => Ok(()),
    }
}

/// Where and how long a transaction runs.
pub(crate) struct TxRunner<'a> {
    /// What it is for, for errors and logs.
    pub(crate) doing: &'static str,
    pub(crate) pool: &'a DatabaseConnection,
    pub(crate) dialect: Dialect,
    /// Who owns the tasks in which BEGIN, COMMIT and ROLLBACK go on when the future of their caller is dropped.
    pub(crate) tasks: &'a TaskTracker,
    /// For how long it is run again.
    pub(crate) budget: Duration,
    /// Whether it is run again when somebody has locked a row that it needs. Else its caller is told: it may be one row of many.
    pub(crate) is_patient: bool,
    /// For how long one statement of it may run.
    pub(crate) limit: Timeout,
    /// For how long it may wait for a connection.
    pub(crate) acquire_timeout: Duration,
    /// For how long its COMMIT may run.
    pub(crate) commit_limit: Timeout,
    pub(crate) health: &'a Arc<Health>,
    pub(crate) file: Option<&'a OpenFile>,
    /// The session whose trust bounds it.
    pub(crate) trust: Option<(SessionId, &'a Lease)>,
    /// It only reads, all of it at one moment.
    pub(crate) is_snapshot: bool,
}

/// How long a rollback may take. On a dead connection it would wait for the kernel to notice.
const ROLLBACK_WAIT: Duration = Duration::from_secs(1);

enum Attempt<T, E> {
    Committed(T),
    Again(Option<DbErr>),
    Failed(TxError<T, E>),
}

impl TxRunner<'_> {
    /// [Runs](Self::run) a body of which it makes no difference to its caller that nobody knows what became of it.
    pub(crate) async fn run_or_error<T, E, F>(&self, body: F) -> Result<T, E>
    where
        F: TxClosure<T, E>,
        T: Send,
        E: From<Error> + Send,
    {
        self.run(body).await.map_err(|failure| failure.into_error(self.doing))
    }

    /// Runs `body` until one run of it commits, it fails for good, or time is up.
    ///
    /// # Cancel safety
    /// Dropping the future while the body runs rolls back. Dropping it during COMMIT leaves COMMIT to end by itself.
    pub(crate) async fn run<T, E, F>(&self, body: F) -> Result<T, TxError<T, E>>
    where
        F: TxClosure<T, E>,
        T: Send,
        E: From<Error> + Send,
    {
        check_not_nested().map_err(|nested| TxError::NotCommitted(nested.into()))?;
        let started = Instant::now();
        let mut attempts = 0_u32;
        loop {
            attempts += 1;
            // In a box: calls that seldom come here are not to be moved about as large as this.
            let source = match Box::pin(self.attempt(body.clone())).await {
                Attempt::Committed(value) => return Ok(value),
                Attempt::Failed(failure) => return Err(failure),
                Attempt::Again(source) => source,
            };
            let elapsed = started.elapsed();
            self.check_trust()
                .map_err(|error| TxError::NotCommitted(error.into()))?;
            tracing::debug!(
                doing = self.doing,
                attempts,
                error = source.as_ref().map(tracing::field::display),
                "transaction runs again"
            );
            let Some(pause) = pause_within(self.budget, elapsed, attempts) else {
                tracing::warn!(doing = self.doing, attempts, ?elapsed, "transaction gives up");
                let doing = self.doing;
                return Err(TxError::NotCommitted(
                    Error::Contended {
                        doing,
                        attempts,
                        elapsed,
                        source,
                    }
                    .into(),
                ));
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt<T, E, F>(&self, body: F) -> Attempt<T, E>
    where
        F: TxClosure<T, E>,
        T: Send,
        E: From<Error> + Send,
    {
        if let Err(error) = self
            .check_trust()
            .and_then(|()| self.file.map_or(Ok(()), OpenFile::check))
        {
            return Attempt::Failed(TxError::NotCommitted(error.into()));
        }
        let tx = match self.begin().await {
            Ok(tx) => tx,
            Err(error) if self.health.learn(&error).is_transient() => return Attempt::Again(Some(error)),
            Err(source) => {
                let error = self.damage(&source).err();
                let error = error.unwrap_or_else(|| Error::database(self.doing)(source));
                return Attempt::Failed(TxError::NotCommitted(error.into()));
            }
        };
        let result = tokio::select! {
            biased;
            result = IN_BODY.scope((), body(&tx)) => Some(result),
            () = self.trust_over() => None,
        };
        match (result, tx.first_fault()) {
            (Some(Ok(value)), None) if self.check_trust().is_ok() => self.commit(tx, value).await,
            (result, fault) => {
                let transient = match &fault {
                    Some(fault) => self.is_transient(fault, &tx).await,
                    None => false,
                };
                self.rollback(tx).await;
                if let Some(Err(damaged)) = fault.as_ref().map(|fault| self.damage(fault)) {
                    return Attempt::Failed(TxError::NotCommitted(damaged.into()));
                }
                match (result, fault) {
                    (_, fault) if transient => Attempt::Again(fault),
                    (Some(Err(error)), _) => Attempt::Failed(TxError::NotCommitted(error)),
                    (Some(Ok(_)), Some(source)) => {
                        Attempt::Failed(TxError::NotCommitted(Error::Poisoned { source }.into()))
                    }
                    // Trust ran out in the body; the check before the next attempt says so.
                    (Some(Ok(_)) | None, fault) => Attempt::Again(fault),
                }
            }
        }
    }

    /// Whether the transaction that met this may run again. One that was read-only may have asked for that itself: so its connection is asked what
    /// transactions on it are that ask for nothing. Another connection may be to another server, to which the address has moved meanwhile.
    async fn is_transient(&self, fault: &DbErr, tx: &Tx) -> bool {
        if Fault::of(fault) == Fault::ReadOnly {
            let ask = async {
                tx.inner.execute_unprepared("ROLLBACK; BEGIN").await?;
                let ask = "SELECT current_setting('transaction_read_only')";
                tx.inner.query_one_raw(self.dialect.statement(ask, [])).await
            };
            let answer = self.limit.within(ask).await;
            if answer.is_ok_and(|row| row.is_some_and(|row| row.try_get_by_index(0) == Ok("off".to_owned()))) {
                return false;
            }
        }
        self.health.learn(fault).is_transient()
    }

    async fn begin(&self) -> Result<Tx, DbErr> {
        let pool = self.pool.clone();
        let options = match (self.dialect, self.is_snapshot) {
            (Dialect::Sqlite, is_snapshot) => TransactionOptions {
                sqlite_transaction_mode: Some(match is_snapshot {
                    true => SqliteTransactionMode::Deferred,
                    false => SqliteTransactionMode::Immediate,
                }),
                ..TransactionOptions::default()
            },
            (Dialect::Postgres, true) => TransactionOptions {
                isolation_level: Some(IsolationLevel::RepeatableRead),
                access_mode: Some(AccessMode::ReadOnly),
                ..TransactionOptions::default()
            },
            // SERIALIZABLE, as all of its transactions.
            (Dialect::Cockroach, true) => TransactionOptions {
                access_mode: Some(AccessMode::ReadOnly),
                ..TransactionOptions::default()
            },
            (Dialect::Postgres | Dialect::Cockroach, false) => TransactionOptions::default(),
        };
        // sqlx 0.9.0 returns a connection to the pool inside an open transaction when the future of BEGIN is dropped half-way
        // (launchbadge/sqlx#4393). So it is not dropped with its caller; and before it is given up, the pool is told to look out.
        let limit = self.limit.plus(self.acquire_timeout);
        let health = Arc::clone(self.health);
        let begin = async move {
            #[expect(clippy::disallowed_methods, reason = "the one place that begins transactions")]
            let mut beginning = pin!(pool.begin_with_options(options));
            tokio::select! {
                biased;
                begun = &mut beginning => health.told(begun).await,
                () = limit.passed() => {
                    health.give_up_begin();
                    Err(timed_out())
                }
            }
        };
        let sent = BootInstant::now();
        let inner = SpawnOnDrop::new(self.tasks, begin).await?;
        Ok(Tx {
            inner,
            dialect: self.dialect,
            limit: self.limit,
            sent,
            fault: Mutex::new(None),
            in_flight: AtomicUsize::new(0),
        })
    }

    async fn commit<T, E: From<Error>>(&self, tx: Tx, value: T) -> Attempt<T, E> {
        let limit = self.commit_limit;
        let committing = SpawnOnDrop::new(self.tasks, async move { limit.within(tx.inner.commit()).await });
        let committed = tokio::select! {
            biased;
            committed = committing => committed,
            // The commit goes on, but nobody may act on its answer any more.
            () = self.trust_over() => return Attempt::Failed(TxError::Unknown { value, source: None }),
        };
        let Err(error) = committed else {
            return Attempt::Committed(value);
        };
        match self.health.learn(&error) {
            Fault::Conflict => Attempt::Again(Some(error)),
            fault if self.dialect.is_rolled_back(&error) && fault.is_transient() => Attempt::Again(Some(error)),
            fault if self.dialect.is_rolled_back(&error) || fault == Fault::Constraint => {
                Attempt::Failed(TxError::NotCommitted(Error::database(self.doing)(error).into()))
            }
            _ => {
                // Unknown it stays, but nothing more is done on a damaged file.
                drop(self.damage(&error));
                let source = Some(error);
                Attempt::Failed(TxError::Unknown { value, source })
            }
        }
    }

    /// A rollback that fails or is not answered leaves nothing to do: the pool drops the connection, and the server rolls back.
    async fn rollback(&self, tx: Tx) {
        let rollback = async move { tokio::time::timeout(ROLLBACK_WAIT, tx.inner.rollback()).await };
        if let Ok(Err(error)) = SpawnOnDrop::new(self.tasks, rollback).await {
            tracing::debug!(doing = self.doing, %error, "rollback failed");
        }
    }

    /// Whether the database's file is damaged, as this error tells.
    fn damage(&self, error: &DbErr) -> Result<(), Error> {
        self.file.map_or(Ok(()), |file| file.check_answer(error))
    }

    /// Waits until the trust that bounds this transaction is over; for ever if none does.
    pub(crate) async fn trust_over(&self) {
        match self.trust {
            Some((_, lease)) => lease.over().await,
            None => std::future::pending().await,
        }
    }

    pub(crate) fn check_trust(&self) -> Result<(), Error> {
        match self.trust {
            Some((session, lease)) if lease.remaining(BootInstant::now()).is_zero() => {
                Err(Error::SessionExpired { session })
            }
            _ => Ok(()),
        }
    }
}
