//! The protocol of an end: it deletes the work's row by its whole key and demands to have deleted one; and what becomes of it when it is not answered.

use std::sync::atomic::{AtomicBool, Ordering};

use bmdb_entity::work_history::Event;
use sea_orm::DbErr;

use crate::db::tx::{Tx, TxClosure};
use crate::db::tx_error::TxError;
use crate::end::unfinished::Unfinished;
use crate::error::Error;
use crate::rules::facts::Facts;
use crate::rules::process::Process;
use crate::session::ends::DOING;
use crate::session::shared::Shared;
use crate::session::work::Work;
use crate::store::end::{self, Ending};
use crate::store::resolve::{Resolution, resolve};

impl<P: Process> Work<P> {
    /// Ends the work with success: one SERIALIZABLE transaction releases the machine, deletes the process's backoff, writes history and runs
    /// `body` (the commit phase: what the work established). If the work was lost, nothing of the body is in the database. What only states facts
    /// about the machine, or writes nothing, needs no transaction: [`done`](Self::done), with [`stating`](crate::End::stating).
    ///
    /// The body may run many times. What it returns is what its last run returned.
    ///
    /// ```no_run
    /// # use bmdb::{Eligible, Error, Process, Work, agent_started, provided};
    /// # struct AgentStart;
    /// # impl Process for AgentStart {
    /// #     const NAME: &'static str = "agent-start";
    /// #     type Item = provided::Model;
    /// #     fn eligible(&self, machines: Eligible) -> Eligible { machines }
    /// # }
    /// # async fn example(work: Work<AgentStart>, key: Vec<u8>) -> Result<(), Error> {
    /// let machine = work.machine();
    /// work.finish(async |tx| agent_started::set(tx, machine, key).await).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Unfinished`]; the body's own error comes back in [`Unfinished::NotCommitted`] with the guard.
    ///
    /// # Cancel safety
    /// Dropping the future rolls back and drops the guard; during COMMIT, the commit goes on, and either it or the release takes effect.
    pub async fn finish<T, E, F>(mut self, body: F) -> Result<T, Unfinished<P, E>>
    where
        F: TxClosure<T, E>,
        T: Send,
        E: From<Error> + Send,
    {
        let (key, to_end) = (self.key(), self.to_end(&Ending::Finished, &Facts::none()));
        let shared = self.session().shared().clone();
        let runner = shared.bodies("finish a work");
        loop {
            let is_lost = AtomicBool::new(false);
            let whole = async |tx: &Tx| {
                let ended = end::within(tx, &shared.writer(), std::slice::from_ref(&to_end)).await;
                if ended.map_err(Error::from)?.is_empty() {
                    is_lost.store(true, Ordering::Relaxed);
                    return Err(key.lost().into());
                }
                body.clone()(tx).await
            };
            let (value, source) = match runner.run(whole).await {
                Ok(value) => {
                    self.claimed.ended(&Ending::Finished);
                    return Ok(value);
                }
                Err(TxError::NotCommitted(_)) if is_lost.into_inner() => {
                    let over = self.over(&shared, Event::Finished).await;
                    if matches!(over, Unfinished::Over(Error::AlreadyFinished { .. })) {
                        Ending::Finished.log(&key);
                    }
                    return Err(over);
                }
                Err(TxError::NotCommitted(error)) => return Err(self.not_committed(error)),
                Err(TxError::Unknown { value, source }) => (value, source),
            };
            match resolve(&shared.writer(), &key).await {
                Ok(Resolution::StillHeld) => {}
                Ok(Resolution::Ended(Event::Finished)) => {
                    self.claimed.ended(&Ending::Finished);
                    return Ok(value);
                }
                Ok(Resolution::Ended(_) | Resolution::Gone) => {
                    self.claimed.disarm();
                    return Err(Unfinished::Over(key.lost()));
                }
                Err(_unreachable) => return Err(self.unknown(runner.doing, source)),
            }
        }
    }

    /// There was no row to delete: says whether an earlier attempt ended the work as asked.
    pub(crate) async fn over<E>(self, shared: &Shared, asked: Event) -> Unfinished<P, E> {
        let resolved = resolve(&shared.writer(), &self.key()).await;
        self.over_as(shared, asked, resolved)
    }

    /// The same, of what is known.
    pub(crate) fn over_as<E>(
        self,
        shared: &Shared,
        asked: Event,
        resolved: Result<Resolution, Error>,
    ) -> Unfinished<P, E> {
        let key = self.key();
        let is_trusted = shared.check_trust().is_ok();
        let error = match how_over(resolved.ok().as_ref(), asked, is_trusted) {
            Over::AsAsked => Error::AlreadyFinished {
                machine: key.machine,
                fence: key.fence,
            },
            Over::Expired => shared.expired(),
            Over::Lost => key.lost(),
            Over::Unknown => return self.unknown(DOING, None),
        };
        // The guard is dropped: what is there after all is released.
        Unfinished::Over(error)
    }

    /// It may have ended, and the database cannot be asked.
    pub(crate) fn unknown<E>(self, doing: &'static str, source: Option<DbErr>) -> Unfinished<P, E> {
        let error = Error::CommitUnknown { doing, source };
        Unfinished::Unknown { work: self, error }
    }

    pub(crate) fn not_committed<E>(mut self, error: E) -> Unfinished<P, E> {
        if let Err(expired) = self.session().shared().check_trust() {
            self.claimed.disarm();
            return Unfinished::Over(expired);
        }
        Unfinished::NotCommitted { work: self, error }
    }
}

/// What is said of a work that was not there to be ended.
#[derive(Debug, PartialEq)]
enum Over {
    /// An earlier attempt has ended it.
    AsAsked,
    Expired,
    Lost,
    /// Perhaps an earlier attempt has ended it.
    Unknown,
}

/// `resolved`: what became of it, if the database could be asked.
fn how_over(resolved: Option<&Resolution>, asked: Event, is_trusted: bool) -> Over {
    match resolved {
        Some(Resolution::Ended(event)) if *event == asked => Over::AsAsked,
        _ if !is_trusted => Over::Expired,
        Some(_) => Over::Lost,
        None => Over::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_ended_as_asked_is_called_finished() {
        let finished = Resolution::Ended(Event::Finished);
        for is_trusted in [true, false] {
            assert_eq!(how_over(Some(&finished), Event::Finished, is_trusted), Over::AsAsked);
        }
        let others = [
            Resolution::Ended(Event::Expired),
            Resolution::Ended(Event::Failed),
            Resolution::StillHeld,
            Resolution::Gone,
        ];
        for resolved in others {
            assert_eq!(how_over(Some(&resolved), Event::Finished, true), Over::Lost);
            assert_eq!(how_over(Some(&resolved), Event::Finished, false), Over::Expired);
        }
        assert_eq!(how_over(None, Event::Finished, true), Over::Unknown);
        assert_eq!(how_over(None, Event::Finished, false), Over::Expired);
    }
}
