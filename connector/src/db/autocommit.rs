//! A transaction of one statement: no BEGIN, no COMMIT, one round trip.

use std::time::Instant;

use sea_orm::{DbErr, QueryResult, Statement};

use crate::db::autocommit_pool::AutocommitPool;
use crate::db::dialect::Dialect;
use crate::db::transaction::{TxRunner, check_not_nested};
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::error::fault::{Fault, is_lock_timeout};
use crate::metrics;
use crate::runtime::detach::Detach;
use crate::runtime::retry::pause_within;

/// What an error says of the statement's effect.
enum Effect {
    /// It had none.
    None,
    /// The connection broke, and nobody knows.
    Unknown,
}

impl TxRunner<'_> {
    /// Runs one statement that is a transaction of its own until it takes effect, fails for good, or time is up. `detach`: the call that may be given up
    /// as long as the statement waits for a connection.
    ///
    /// # Cancel safety
    /// None: for a [`run_detachable`](crate::runtime::detach::run_detachable), which is not dropped with its caller.
    pub(crate) async fn autocommit(
        &self,
        pool: &AutocommitPool,
        statement: &Statement,
        detach: Option<&Detach>,
    ) -> Result<Vec<QueryResult>, TxError<(), Error>> {
        check_not_nested().map_err(TxError::NotCommitted)?;
        let started = Instant::now();
        let mut attempts = 0_u32;
        loop {
            attempts += 1;
            self.check_trust()
                .and_then(|()| self.database.check_file())
                .map_err(TxError::NotCommitted)?;
            let limit = self.connect_limit();
            let asked = async {
                match detach {
                    Some(detach) => pool.query_for(self.kind, detach, statement).await,
                    None => pool.query(self.kind, statement).await,
                }
            };
            let answer = tokio::select! {
                biased;
                answer = asked => answer,
                // It goes on, but nobody may act on its answer any more.
                () = self.trust_over() => return Err(unknown(None)),
                () = limit.passed() => return Err(unknown(None)),
            };
            let error = match answer {
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            let fault = Fault::of(&error);
            match effect_of(&error, self.database.dialect) {
                Effect::Unknown => return Err(unknown(Some(error))),
                Effect::None if !fault.is_transient() => {
                    return Err(TxError::NotCommitted(Error::database(self.doing)(error)));
                }
                Effect::None => {}
            }
            let elapsed = started.elapsed();
            metrics::retried();
            tracing::debug!(doing = self.doing, attempts, %error, "statement runs again");
            let gives_up = detach.is_some_and(Detach::is_gone) || (!self.is_patient && is_lock_timeout(&error));
            let Some(pause) = pause_within(self.budget, elapsed, attempts).filter(|_| !gives_up) else {
                return Err(TxError::NotCommitted(Error::Contended {
                    doing: self.doing,
                    attempts,
                    elapsed,
                    source: Some(error),
                }));
            };
            tokio::time::sleep(pause).await;
        }
    }
}

fn unknown(source: Option<DbErr>) -> TxError<(), Error> {
    metrics::commit_unknown();
    TxError::Unknown { value: (), source }
}

fn effect_of(error: &DbErr, dialect: Dialect) -> Effect {
    match error {
        // No connection: nothing was sent.
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => Effect::None,
        error if dialect.is_rolled_back(error) => Effect::None,
        _ => Effect::Unknown,
    }
}
