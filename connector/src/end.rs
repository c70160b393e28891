//! The three ends of work: finish, fail, cancel. Each deletes the work's row by its whole key and demands to have deleted one.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use bmdb_entity::work_history::Event;
use bmdb_entity::{Fence, WorkId};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use crate::backoff::Backoff;
use crate::claim::Failures;
use crate::dialect::Dialect;
use crate::error::Error;
use crate::lease::Moment;
use crate::leave;
use crate::process::{Process, check_text};
use crate::session::Core;
use crate::tx::{Failure, Tx, TxClosure, answer_of, check_not_nested};
use crate::unfinished::Unfinished;
use crate::work::{Key, Work};

/// What an end leaves behind besides history.
pub(crate) enum Trace {
    /// No backoff.
    Finished,
    /// A backoff that follows from the failures before.
    Failed {
        cause: String,
        backoff: Backoff,
        /// As they were when the machine was claimed.
        failures: Option<Failures>,
    },
    /// A hint: nothing has changed for the process.
    Canceled,
}

impl Trace {
    pub(crate) fn event(&self) -> Event {
        match self {
            Self::Finished => Event::Finished,
            Self::Failed { .. } => Event::Failed,
            Self::Canceled => Event::Canceled,
        }
    }
}

impl<P: Process> Work<P> {
    /// Ends the work with success: one SERIALIZABLE transaction lets go of the machine, deletes the process's backoff, writes history and runs
    /// `body` (the commit phase: the facts that the work established). If the work was lost, nothing of the body is in the database. Without
    /// anything to write, [`done`](Self::done) needs no transaction.
    ///
    /// The body may run many times. What it returns is what its last run returned.
    ///
    /// ```no_run
    /// # use bmdb::{Eligible, Error, Process, Work, agent_started, provided};
    /// # struct AgentStart;
    /// # impl Process for AgentStart {
    /// #     const NAME: &'static str = "agent-start";
    /// #     type Item = provided::Model;
    /// #     fn eligible(machines: Eligible<Self>) -> Eligible<Self> { machines }
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
        let key = self.key();
        let core = self.session().core().clone();
        let scope = core.bodies("finish a work");
        loop {
            let is_lost = AtomicBool::new(false);
            let whole = async |tx: &Tx| {
                if !leave::within(tx, &core, &key, &Trace::Finished)
                    .await
                    .map_err(Error::from)?
                {
                    is_lost.store(true, Ordering::Relaxed);
                    return Err(key.lost().into());
                }
                body.clone()(tx).await
            };
            let (value, source) = match scope.run(whole).await {
                Ok(value) => {
                    self.claimed.disarm();
                    return Ok(value);
                }
                Err(Failure::NotCommitted(_)) if is_lost.into_inner() => {
                    return Err(self.over(&core, Event::Finished).await);
                }
                Err(Failure::NotCommitted(error)) => return Err(self.not_committed(error)),
                Err(Failure::Unknown { value, source }) => (value, source),
            };
            match settle(&core, &key).await {
                Ok(Settled::Held) => {}
                Ok(Settled::Ended(Event::Finished)) => {
                    self.claimed.disarm();
                    return Ok(value);
                }
                Ok(Settled::Ended(_) | Settled::Gone) => {
                    self.claimed.disarm();
                    return Err(Unfinished::Over(key.lost()));
                }
                Err(_unreachable) => {
                    let error = Error::CommitUnknown {
                        doing: scope.doing,
                        source,
                    };
                    return Err(Unfinished::Unknown { work: self, error });
                }
            }
        }
    }

    /// Ends the work with success and nothing to write: [`finish`](Self::finish) with an empty commit phase, in one round trip.
    ///
    /// # Errors
    /// [`Unfinished`].
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the end.
    pub async fn done(self) -> Result<(), Unfinished<P>> {
        self.end(Trace::Finished).await
    }

    /// Ends the work with a failure: the process backs off from the machine, by its rule, and history keeps the cause.
    ///
    /// # Errors
    /// [`Unfinished`]; [`Error::Invalid`] for a cause over 4 kB or with NUL (see [`fit_cause`]).
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the end.
    pub async fn fail(self, cause: impl fmt::Display) -> Result<(), Unfinished<P>> {
        let cause = cause.to_string();
        if let Err(error) = check_text("a cause", &cause, LONGEST_CAUSE) {
            return Err(Unfinished::NotCommitted { work: self, error });
        }
        let failures = self.claimed.held.failures;
        self.end(Trace::Failed {
            cause,
            backoff: P::BACKOFF,
            failures,
        })
        .await
    }

    /// Ends the work without a verdict: the machine is free again at once, and history says `canceled`.
    ///
    /// # Errors
    /// [`Unfinished`].
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the end.
    pub async fn cancel(self) -> Result<(), Unfinished<P>> {
        self.end(Trace::Canceled).await
    }

    /// Runs an end without a body in a task of the session's; the guard travels with it.
    async fn end(mut self, trace: Trace) -> Result<(), Unfinished<P>> {
        if let Err(error) = check_not_nested() {
            return Err(Unfinished::NotCommitted { work: self, error });
        }
        let core = self.session().core().clone();
        let (machine, fence) = (self.machine(), self.fence());
        let ending = core.tasks.spawn({
            let core = core.clone();
            async move {
                let key = self.key();
                match end(&core, &key, &trace).await {
                    Ok(true) => {
                        self.claimed.disarm();
                        Ok(())
                    }
                    Ok(false) => match self.over(&core, trace.event()).await {
                        // An earlier attempt of unknown outcome did what was asked.
                        Unfinished::Over(Error::AlreadyFinished { .. }) => Ok(()),
                        other => Err(other),
                    },
                    Err(error @ Error::CommitUnknown { .. }) => Err(Unfinished::Unknown { work: self, error }),
                    Err(error) => Err(self.not_committed(error)),
                }
            }
        });
        answer_of(ending)
            .await
            .unwrap_or_else(|| Err(Unfinished::Over(unanswered(machine, fence))))
    }

    /// There was no row to delete: says whether an earlier attempt ended the work as asked.
    async fn over<E>(mut self, core: &Core, asked: Event) -> Unfinished<P, E> {
        self.claimed.disarm();
        let key = self.key();
        let error = match settle(core, &key).await {
            Ok(Settled::Ended(event)) if event == asked => Error::AlreadyFinished {
                machine: key.machine,
                fence: key.fence,
            },
            _ if core.lease.remaining(Moment::now()).is_zero() => core.expired(),
            _ => key.lost(),
        };
        Unfinished::Over(error)
    }

    fn not_committed<E>(mut self, error: E) -> Unfinished<P, E> {
        let core = self.session().core();
        if core.lease.remaining(Moment::now()).is_zero() {
            let error = core.expired();
            self.claimed.disarm();
            return Unfinished::Over(error);
        }
        Unfinished::NotCommitted { work: self, error }
    }
}

/// The runtime is shutting down around us; the session's deadline is what ends the work now.
fn unanswered(machine: bmdb_entity::MachineId, fence: Fence) -> Error {
    tracing::warn!(%machine, %fence, "an end was not answered: the runtime is shutting down");
    Error::CommitUnknown {
        doing: "end a work",
        source: None,
    }
}

/// The longest cause, in bytes.
const LONGEST_CAUSE: usize = 4096;

/// Cuts a text so that [`Work::fail`] takes it as a cause: 4 kB at most, NUL shown as `␀`.
#[must_use]
pub fn fit_cause(text: &str) -> String {
    let mut cause = text.replace('\0', "␀");
    if cause.len() > LONGEST_CAUSE {
        let ellipsis = "…";
        let mut end = LONGEST_CAUSE - ellipsis.len();
        while !cause.is_char_boundary(end) {
            end -= 1;
        }
        cause.truncate(end);
        cause.push_str(ellipsis);
    }
    cause
}

/// Lets go of what a dropped guard left.
pub(crate) async fn release(core: &Core, key: &Key) -> Result<(), Error> {
    // No row: the work has ended some other way, which is all that was wanted.
    end(core, key, &Trace::Canceled).await.map(drop)
}

/// What a claim of unknown outcome has taken, as far as it has arrived.
pub(crate) async fn claimed(
    core: &Core,
    slot: &'static str,
    process: &'static str,
    works: &[WorkId],
) -> Result<Vec<Key>, Error> {
    const DOING: &str = "settle a claim";
    use bmdb_entity::work::{Column, Entity};
    let rows = Entity::find()
        .filter(Column::WorkId.is_in(works.iter().copied()))
        .all(&*core.database)
        .await
        .map_err(Error::database(DOING))?;
    let key = |row: bmdb_entity::work::Model| Key {
        machine: row.machine_id,
        slot,
        process,
        work: row.work_id,
        fence: row.fence,
    };
    Ok(rows.into_iter().map(key).collect())
}

/// One end without a body. `false`: there was no such work. Safe to repeat: an end that took effect leaves no row.
async fn end(core: &Core, key: &Key, trace: &Trace) -> Result<bool, Error> {
    let scope = core.library("end a work");
    loop {
        let ended = match core.database.dialect {
            Dialect::Sqlite => {
                let whole = async |tx: &Tx| leave::within(tx, core, key, trace).await.map_err(Error::from);
                scope.run(whole).await.map_err(Failure::without_value)
            }
            Dialect::Postgres | Dialect::Cockroach => leave::at_once(&scope, core, key, trace).await,
        };
        let source = match ended {
            Ok(ended) => return Ok(ended),
            Err(Failure::NotCommitted(error)) => return Err(error),
            Err(Failure::Unknown { source, .. }) => source,
        };
        match settle(core, key).await {
            Ok(Settled::Held) => {}
            Ok(Settled::Ended(event)) => return Ok(event == trace.event()),
            Ok(Settled::Gone) => return Ok(false),
            Err(_unreachable) => {
                return Err(Error::CommitUnknown {
                    doing: scope.doing,
                    source,
                });
            }
        }
    }
}

/// What became of a work whose end has an unknown outcome.
enum Settled {
    /// Its row is there: the end did not take effect, and cannot any more.
    Held,
    /// It has ended this way.
    Ended(Event),
    /// Its row is gone, and history does not know its end.
    Gone,
}

/// Decides an unknown outcome by a write that collides with the end's own: it waits for a commit that is still on its way. A read would not.
async fn settle(core: &Core, key: &Key) -> Result<Settled, Error> {
    const TOUCH: &str = "
        UPDATE work SET stop_requested = stop_requested WHERE machine_id = $1 AND slot = $2 AND fence = $3 AND work_id = $4";
    const ENDED: &str = "
        SELECT event FROM work_history WHERE machine_id = $1 AND fence = $2 AND work_id = $3 AND event <> 'started'";
    let scope = core.library("settle the end of a work");
    let ask = async |tx: &Tx| {
        let values = [key.machine.into(), key.slot.into(), key.fence.into(), key.work.into()];
        if tx.execute_text(TOUCH, values).await? == 1 {
            return Ok(Settled::Held);
        }
        let ends = tx
            .query_text(ENDED, [key.machine.into(), key.fence.into(), key.work.into()])
            .await?;
        let event = ends.first().map(|row| row.try_get_by_index::<Event>(0)).transpose()?;
        Ok::<_, Error>(event.map_or(Settled::Gone, Settled::Ended))
    };
    match scope.run(ask).await {
        // What was read is true whether or not the transaction that read it committed.
        Ok(settled) | Err(Failure::Unknown { value: settled, .. }) => Ok(settled),
        Err(Failure::NotCommitted(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_made_to_fit() {
        assert_eq!(fit_cause("no\0answer"), "no␀answer");
        assert_eq!(fit_cause("short"), "short");
        let long = fit_cause(&"ä".repeat(4000));
        assert!(long.len() <= LONGEST_CAUSE && long.ends_with("ä…"));
        assert!(check_text("a cause", &fit_cause(&"\0".repeat(5000)), LONGEST_CAUSE).is_ok());
    }
}
