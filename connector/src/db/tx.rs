//! What the body of a transaction works with.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sea_orm::sea_query::Value;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseBackend, DatabaseTransaction, DbErr, ExecResult, IsolationLevel, QueryResult,
    Statement, TransactionError, TransactionOptions, TransactionTrait,
};

use crate::db::dialect::Dialect;
use crate::db::savepoint::Savepoint;
use crate::db::sql::SqlBuilder;
use crate::db::timeout::Timeout;
use crate::metrics::{self, StatementKind};
use crate::runtime::lease::BootInstant;
use crate::runtime::lock::locked;

/// The handle that the body of a transaction works with: a SeaORM [`ConnectionTrait`].
///
/// It remembers the first statement that failed. A body that swallows such a failure does not commit: PostgreSQL has rolled everything back
/// by then and would still answer COMMIT with success.
#[derive(Debug)]
pub struct Tx {
    pub(super) inner: DatabaseTransaction,
    dialect: Dialect,
    limit: Timeout,
    kind: StatementKind,
    /// Before BEGIN was sent: what the database's clock says in here is later.
    sent: BootInstant,
    fault: Mutex<Option<DbErr>>,
    /// Statements whose answer has not come. Not zero after the body: a future was dropped half-way and nobody knows what its statement did.
    in_flight: AtomicUsize,
}

impl Tx {
    pub(super) fn new(
        inner: DatabaseTransaction,
        dialect: Dialect,
        limit: Timeout,
        kind: StatementKind,
        sent: BootInstant,
    ) -> Self {
        Self {
            inner,
            dialect,
            limit,
            kind,
            sent,
            fault: Mutex::new(None),
            in_flight: AtomicUsize::new(0),
        }
    }

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
        let sent = metrics::now();
        let result = self.limit.within(statement).await;
        metrics::statement_ended(self.kind, sent);
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
        if let Err(error) = &result {
            locked(&self.fault).get_or_insert_with(|| error.clone());
        }
        result
    }

    pub(super) fn first_fault(&self) -> Option<DbErr> {
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
