//! A transaction of one statement: no BEGIN, no COMMIT, one round trip.

use std::time::Instant;

use sea_orm::{DbErr, QueryResult, Statement};

use crate::call::Place;
use crate::dialect::Dialect;
use crate::error::Error;
use crate::failure::Failure;
use crate::fault::{Fault, is_lock_timeout, is_rolled_back};
use crate::file::OpenFile;
use crate::pause::pause_within;
use crate::singles::Singles;
use crate::tx::{Scope, check_not_nested};

/// What an error says of the statement's effect.
enum Effect {
    /// It had none.
    None,
    /// The connection broke, and nobody knows.
    Unknown,
}

impl Scope<'_> {
    /// Runs one statement that is a transaction of its own until it takes effect, fails for good, or time is up. `place`: the call that may be given up
    /// as long as the statement waits for a connection.
    ///
    /// # Cancel safety
    /// None: for a [`call`](crate::call::call), which is not dropped with its caller.
    pub(crate) async fn once(
        &self,
        singles: &Singles,
        statement: &Statement,
        place: Option<&Place>,
    ) -> Result<Vec<QueryResult>, Failure<(), Error>> {
        check_not_nested().map_err(Failure::NotCommitted)?;
        let started = Instant::now();
        let mut attempts = 0_u32;
        loop {
            attempts += 1;
            self.check_trust()
                .and_then(|()| self.file.map_or(Ok(()), OpenFile::check))
                .map_err(Failure::NotCommitted)?;
            let limit = self.limit.plus(self.acquire_timeout);
            let asked = async {
                match place {
                    Some(place) => singles.query_for(place, statement).await,
                    None => singles.query(statement).await,
                }
            };
            let answer = tokio::select! {
                biased;
                answer = asked => answer,
                // It goes on, but nobody may act on its answer any more.
                () = self.trust_over() => return Err(Failure::Unknown { value: (), source: None }),
                () = limit.passed() => return Err(Failure::Unknown { value: (), source: None }),
            };
            let error = match answer {
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            let fault = Fault::of(&error);
            match effect_of(&error, self.dialect) {
                Effect::Unknown => {
                    return Err(Failure::Unknown {
                        value: (),
                        source: Some(error),
                    });
                }
                Effect::None if !fault.is_transient() => {
                    return Err(Failure::NotCommitted(Error::database(self.doing)(error)));
                }
                Effect::None => {}
            }
            let elapsed = started.elapsed();
            tracing::debug!(doing = self.doing, attempts, %error, "statement runs again");
            let gives_up = place.is_some_and(Place::is_gone) || (!self.is_patient && is_lock_timeout(&error));
            let Some(pause) = pause_within(self.budget, elapsed, attempts).filter(|_| !gives_up) else {
                return Err(Failure::NotCommitted(Error::Contended {
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

fn effect_of(error: &DbErr, dialect: Dialect) -> Effect {
    match error {
        // No connection: nothing was sent.
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => Effect::None,
        error if is_rolled_back(error, dialect) => Effect::None,
        _ => Effect::Unknown,
    }
}
