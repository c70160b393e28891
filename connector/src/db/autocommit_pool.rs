//! Connections for statements that are transactions of their own, on servers.
//!
//! A pool checks every connection that is given back to it, which costs a round trip each time (sqlx 0.9: `PoolConnection::return_to_pool`), as
//! much as the statement itself. Here a connection is given back after a failure, or when it has been out for a while; between statements it waits
//! for the next one.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use sea_orm::sea_query::Values;
use sea_orm::sqlx::pool::PoolConnection;
use sea_orm::sqlx::{self, AssertSqlSafe, PgPool, Postgres};
use sea_orm::{ConnAcquireErr, DbErr, QueryResult, RuntimeErr, Statement};
use sea_query_sqlx::SqlxValues;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::db::health::Health;
use crate::db::timeout::Timeout;
use crate::metrics::{self, StatementKind};
use crate::runtime::detach::Detach;
use crate::runtime::lock::locked;

/// After so long without use a connection may be dead and nobody has noticed; the pool looks.
const LONGEST_IDLE: Duration = Duration::from_secs(30);
/// After so long the pool sees a connection again, and may renew it.
const LONGEST_OUT: Duration = Duration::from_secs(60);

/// A connection that is out of the pool and not in use.
struct Spare {
    connection: PoolConnection<Postgres>,
    taken: Instant,
    used: Instant,
}

pub(crate) struct AutocommitPool {
    pool: PgPool,
    /// The last one used is the next one used.
    spares: Mutex<Vec<Spare>>,
    /// One for each connection of the pool, so that who gets one never waits for a spare.
    permits: Semaphore,
    acquire_timeout: Duration,
    health: Arc<Health>,
}

impl AutocommitPool {
    pub(crate) fn new(pool: PgPool, acquire_timeout: Duration, health: Arc<Health>) -> Self {
        let permits = usize::try_from(pool.options().get_max_connections()).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            pool,
            spares: Mutex::default(),
            permits: Semaphore::new(permits),
            acquire_timeout,
            health,
        }
    }

    /// Runs one statement outside transactions, in one round trip if its connection knows it already.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the statement to the server, and its connection to the pool, which checks it.
    pub(crate) async fn query(&self, kind: StatementKind, statement: &Statement) -> Result<Vec<QueryResult>, DbErr> {
        let (_permit, spare) = self.acquire(kind).await?;
        self.query_on(kind, spare, statement).await
    }

    /// The same for a call that may be given up as long as there is no connection.
    pub(crate) async fn query_for(
        &self,
        kind: StatementKind,
        detach: &Detach,
        statement: &Statement,
    ) -> Result<Vec<QueryResult>, DbErr> {
        detach.wait();
        let acquired = self.acquire(kind).await;
        let begins = detach.may_begin();
        let (_permit, spare) = acquired?;
        if !begins {
            self.keep(spare);
            return Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout));
        }
        self.query_on(kind, spare, statement).await
    }

    async fn query_on(
        &self,
        kind: StatementKind,
        mut spare: Spare,
        statement: &Statement,
    ) -> Result<Vec<QueryResult>, DbErr> {
        let values = statement.values.clone().unwrap_or(Values(Vec::new()));
        let sent = metrics::now();
        let rows = sqlx::query_with(AssertSqlSafe(statement.sql.as_str()), SqlxValues(values))
            .fetch_all(&mut *spare.connection)
            .await;
        metrics::statement_ended(kind, sent);
        let rows = rows
            .map_err(|error| DbErr::Query(RuntimeErr::SqlxError(error.into())))
            .inspect_err(|error| {
                self.health.learn(error);
            })?;
        spare.used = Instant::now();
        self.keep(spare);
        Ok(rows.into_iter().map(QueryResult::from).collect())
    }

    async fn acquire(&self, kind: StatementKind) -> Result<(SemaphorePermit<'_>, Spare), DbErr> {
        let asked = metrics::now();
        let permit = tokio::time::timeout(self.acquire_timeout, self.permits.acquire()).await;
        let permit = permit.map_err(|_elapsed| DbErr::ConnectionAcquire(ConnAcquireErr::Timeout));
        let permit = Box::pin(self.health.told(permit))
            .await?
            .map_err(|_closed| DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed))?;
        if let Some(spare) = self.fresh_spare() {
            metrics::connection_had(kind, asked);
            return Ok((permit, spare));
        }
        // In a box: it is fourteen of the fifteen kilobytes that every call would be that comes here, to be moved about.
        let connection = Box::pin(async {
            let acquired = self.pool.acquire().await;
            let acquired = acquired.map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())));
            self.health.told(acquired).await
        })
        .await?;
        metrics::connection_had(kind, asked);
        let (taken, used) = (Instant::now(), Instant::now());
        let spare = Spare {
            connection,
            taken,
            used,
        };
        Ok((permit, spare))
    }

    fn spares(&self) -> MutexGuard<'_, Vec<Spare>> {
        locked(&self.spares)
    }

    fn keep(&self, spare: Spare) {
        let mut spares = self.spares();
        if !self.pool.is_closed() {
            spares.push(spare);
        }
    }

    fn fresh_spare(&self) -> Option<Spare> {
        self.give_back_old();
        self.spares().pop()
    }

    /// Gives back what has been out for long or is not needed.
    pub(crate) fn give_back_old(&self) {
        let is_old = |spare: &mut Spare| {
            let out = spare.taken.elapsed();
            is_due(out, spare.used.elapsed()) || self.health.is_stale(out)
        };
        let old: Vec<Spare> = self.spares().extract_if(.., is_old).collect();
        // Each connection's own drop gives it to the pool.
        drop(old);
    }

    /// Gives back every connection, and lends no more. What is out for longer than a statement may take has a holder that does not poll.
    pub(crate) async fn close(&self, limit: Timeout) {
        let closed = self.pool.close();
        self.spares().clear();
        tokio::select! {
            () = closed => {}
            () = limit.passed() => tracing::warn!("a call is under way that its caller does not poll; its connection stays open"),
        }
    }
}

impl Drop for AutocommitPool {
    fn drop(&mut self) {
        // Giving back needs a runtime, and there may be none any more. The pool ends with this anyway.
        for spare in self.spares.get_mut().map(std::mem::take).unwrap_or_default() {
            drop(spare.connection.detach());
        }
    }
}

/// Whether the pool is to see a connection that has been out and idle for so long.
fn is_due(out: Duration, idle: Duration) -> bool {
    out > LONGEST_OUT || idle > LONGEST_IDLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_sees_a_connection_after_a_minute_or_half_a_minute_without_use() {
        let moment = Duration::from_nanos(1);
        assert!(!is_due(LONGEST_OUT, LONGEST_IDLE));
        assert!(is_due(LONGEST_OUT + moment, Duration::ZERO) && is_due(LONGEST_IDLE + moment, LONGEST_IDLE + moment));
    }
}
