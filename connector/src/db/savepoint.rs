//! Savepoints inside the body of a transaction.

use std::pin::Pin;

use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseBackend, DatabaseTransaction, DbErr, ExecResult, IsolationLevel, QueryResult,
    Statement, TransactionError, TransactionOptions, TransactionSession, TransactionTrait,
};

use crate::db::dialect::Dialect;
use crate::db::timeout::Timeout;

/// A savepoint in the body of a transaction: what [`Tx`](crate::Tx)'s `begin` opens. A failure inside one may be handled: to roll back to it undoes the
/// failure. Dropped, it is rolled back.
///
/// ```no_run
/// # async fn example(session: bmdb::Session, machine: bmdb::MachineId) -> Result<(), bmdb::Error> {
/// use sea_orm::{ConnectionTrait, TransactionTrait};
///
/// let body = async |tx: &bmdb::Tx| {
///     let attempt = tx.begin().await?;
///     match attempt.execute_unprepared("UPDATE rack SET powered = true").await {
///         Ok(_) => attempt.commit().await?,
///         // The rest of the body goes on without it.
///         Err(_) => attempt.rollback().await?,
///     }
///     Ok::<_, bmdb::Error>(())
/// };
/// session.transact(body).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Savepoint {
    inner: DatabaseTransaction,
    dialect: Dialect,
    limit: Timeout,
}

impl Savepoint {
    pub(crate) fn new(inner: DatabaseTransaction, dialect: Dialect, limit: Timeout) -> Self {
        Self { inner, dialect, limit }
    }

    fn within(&self, inner: DatabaseTransaction) -> Self {
        Self::new(inner, self.dialect, self.limit)
    }

    /// Keeps what was done in it, as far as what is around it is kept.
    ///
    /// # Errors
    /// When the database could not be told.
    pub async fn commit(self) -> Result<(), DbErr> {
        self.inner.commit().await
    }

    /// Undoes what was done in it.
    ///
    /// # Errors
    /// When the database could not be told.
    pub async fn rollback(self) -> Result<(), DbErr> {
        self.inner.rollback().await
    }

    /// Runs `callback` in it, and keeps what it did if it succeeds.
    pub(crate) async fn run<F, T, E>(self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c Self) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>> + Send,
        T: Send,
        E: std::fmt::Display + std::fmt::Debug + Send,
    {
        match callback(&self).await {
            Ok(value) => {
                self.commit().await.map_err(TransactionError::Connection)?;
                Ok(value)
            }
            Err(error) => {
                self.rollback().await.map_err(TransactionError::Connection)?;
                Err(TransactionError::Transaction(error))
            }
        }
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Savepoint {
    fn get_database_backend(&self) -> DatabaseBackend {
        self.inner.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let statement = self.dialect.fit(statement);
        self.limit.within(self.inner.execute_raw(statement)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.limit.within(self.inner.execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let statement = self.dialect.fit(statement);
        self.limit.within(self.inner.query_one_raw(statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let statement = self.dialect.fit(statement);
        self.limit.within(self.inner.query_all_raw(statement)).await
    }
}

#[async_trait::async_trait]
impl TransactionSession for Savepoint {
    async fn commit(self) -> Result<(), DbErr> {
        self.commit().await
    }

    async fn rollback(self) -> Result<(), DbErr> {
        self.rollback().await
    }
}

/// Savepoints nest.
#[async_trait::async_trait]
#[expect(clippy::disallowed_methods, reason = "these begin savepoints inside our transaction")]
impl TransactionTrait for Savepoint {
    type Transaction = Self;

    async fn begin(&self) -> Result<Self, DbErr> {
        self.inner.begin().await.map(|inner| self.within(inner))
    }

    async fn begin_with_config(
        &self,
        isolation: Option<IsolationLevel>,
        access: Option<AccessMode>,
    ) -> Result<Self, DbErr> {
        let begun = self.inner.begin_with_config(isolation, access).await;
        begun.map(|inner| self.within(inner))
    }

    async fn begin_with_options(&self, options: TransactionOptions) -> Result<Self, DbErr> {
        let begun = self.inner.begin_with_options(options).await;
        begun.map(|inner| self.within(inner))
    }

    async fn transaction<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c Self) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>> + Send,
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
        F: for<'c> FnOnce(&'c Self) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>> + Send,
        T: Send,
        E: std::fmt::Display + std::fmt::Debug + Send,
    {
        let begun = self.begin_with_config(isolation, access).await;
        begun.map_err(TransactionError::Connection)?.run(callback).await
    }
}
