//! The one place where transactions begin, run again and commit.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmdb_entity::SessionId;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DbErr, IsolationLevel, SqliteTransactionMode, TransactionOptions,
    TransactionTrait,
};
use tokio_util::task::TaskTracker;

use crate::db::database::Database;
use crate::db::dialect::Dialect;
use crate::db::timeout::{Timeout, timed_out};
use crate::db::tx::{Tx, TxClosure};
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::error::fault::Fault;
use crate::metrics::{self, StatementKind};
use crate::runtime::lease::{BootInstant, Lease};
use crate::runtime::retry::pause_within;
use crate::runtime::spawn_on_drop::SpawnOnDrop;

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
    pub(crate) database: &'a Database,
    /// What it is for, for errors and logs.
    pub(crate) doing: &'static str,
    /// The same, for who measures.
    pub(crate) kind: StatementKind,
    pub(crate) pool: &'a DatabaseConnection,
    /// Who owns the tasks in which BEGIN, COMMIT and ROLLBACK go on when the future of their caller is dropped.
    pub(crate) tasks: &'a TaskTracker,
    /// The session whose trust bounds it.
    pub(crate) trust: Option<(SessionId, &'a Lease)>,
    /// For how long it is run again.
    pub(crate) budget: Duration,
    /// For how long one statement of it may run.
    pub(crate) limit: Timeout,
    /// Whether it is run again when somebody has locked a row that it needs. Else its caller is told: it may be one row of many.
    pub(crate) is_patient: bool,
    /// It only reads, all of it at one moment.
    pub(crate) is_snapshot: bool,
}

impl Database {
    /// What runs the library's own transactions that no session owns.
    pub(crate) fn runner(&self, doing: &'static str) -> TxRunner<'_> {
        TxRunner {
            database: self,
            doing,
            kind: StatementKind::Other,
            pool: &self.library,
            tasks: &self.tasks,
            trust: None,
            budget: self.config.retry_budget,
            limit: self.limit,
            is_patient: true,
            is_snapshot: false,
        }
    }

    /// For what only reads, all of it at one moment.
    pub(crate) fn snapshot(&self, doing: &'static str) -> TxRunner<'_> {
        TxRunner {
            kind: StatementKind::Read,
            pool: &self.reads,
            is_snapshot: true,
            ..self.runner(doing)
        }
    }
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
                Attempt::Failed(failure) => {
                    if let TxError::Unknown { .. } = failure {
                        metrics::commit_unknown();
                    }
                    return Err(failure);
                }
                Attempt::Again(source) => source,
            };
            let elapsed = started.elapsed();
            self.check_trust()
                .map_err(|error| TxError::NotCommitted(error.into()))?;
            metrics::retried();
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
        if let Err(error) = self.check_trust().and_then(|()| self.database.check_file()) {
            return Attempt::Failed(TxError::NotCommitted(error.into()));
        }
        let tx = match self.begin().await {
            Ok(tx) => tx,
            Err(error) if self.database.health.learn(&error).is_transient() => return Attempt::Again(Some(error)),
            Err(source) => {
                let error = self.database.check_answer(&source).err();
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
                if let Some(Err(damaged)) = fault.as_ref().map(|fault| self.database.check_answer(fault)) {
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
                tx.inner.query_one_raw(self.database.dialect.statement(ask, [])).await
            };
            let answer = self.limit.within(ask).await;
            if answer.is_ok_and(|row| row.is_some_and(|row| row.try_get_by_index(0) == Ok("off".to_owned()))) {
                return false;
            }
        }
        self.database.health.learn(fault).is_transient()
    }

    async fn begin(&self) -> Result<Tx, DbErr> {
        let pool = self.pool.clone();
        let options = match (self.database.dialect, self.is_snapshot) {
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
        let limit = self.connect_limit();
        let health = Arc::clone(&self.database.health);
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
        let (sent, asked) = (BootInstant::now(), metrics::now());
        let inner = SpawnOnDrop::new(self.tasks, begin).await?;
        metrics::connection_had(self.kind, asked);
        Ok(Tx::new(inner, self.database.dialect, self.limit, self.kind, sent))
    }

    async fn commit<T, E: From<Error>>(&self, tx: Tx, value: T) -> Attempt<T, E> {
        // A commit that is not answered is resolved, for which there must be trust left.
        let limit = self.database.limit.at_most(self.database.config.interval / 2);
        let committing = SpawnOnDrop::new(self.tasks, async move { limit.within(tx.inner.commit()).await });
        let sent = metrics::now();
        let committed = tokio::select! {
            biased;
            committed = committing => {
                metrics::statement_ended(StatementKind::Commit, sent);
                committed
            }
            // The commit goes on, but nobody may act on its answer any more.
            () = self.trust_over() => return Attempt::Failed(TxError::Unknown { value, source: None }),
        };
        let Err(error) = committed else {
            return Attempt::Committed(value);
        };
        match self.database.health.learn(&error) {
            Fault::Conflict => Attempt::Again(Some(error)),
            fault if self.database.dialect.is_rolled_back(&error) && fault.is_transient() => {
                Attempt::Again(Some(error))
            }
            fault if self.database.dialect.is_rolled_back(&error) || fault == Fault::Constraint => {
                Attempt::Failed(TxError::NotCommitted(Error::database(self.doing)(error).into()))
            }
            _ => {
                // Unknown it stays, but nothing more is done on a damaged file.
                drop(self.database.check_answer(&error));
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

    /// For how long to wait for a connection, and for the answer to what is sent on it.
    pub(super) fn connect_limit(&self) -> Timeout {
        self.limit.plus(self.database.config.acquire_timeout)
    }

    /// Waits until the trust that bounds this transaction is over; for ever if none does.
    pub(crate) async fn trust_over(&self) {
        match self.trust {
            Some((_, lease)) => lease.over().await,
            None => std::future::pending().await,
        }
    }

    pub(crate) fn check_trust(&self) -> Result<(), Error> {
        let Some((session, lease)) = self.trust else {
            return Ok(());
        };
        let left = lease.remaining(BootInstant::now());
        metrics::trust_used(left);
        if left.is_zero() {
            return Err(Error::SessionExpired { session });
        }
        Ok(())
    }
}
