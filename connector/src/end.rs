//! The protocol of an end: it deletes the work's row by its whole key and demands to have deleted one; and what becomes of it when it is not answered.

use std::sync::atomic::{AtomicBool, Ordering};

use bmdb_entity::WorkId;
use bmdb_entity::work_history::Event;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use crate::dialect::Dialect;
use crate::error::Error;
use crate::lease::Moment;
use crate::leave::{self, Leaving, Trace};
use crate::process::Process;
use crate::session::Core;
use crate::tx::{Failure, Tx, TxClosure};
use crate::unfinished::Unfinished;
use crate::work::{Key, Work};

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
        let (key, leaving) = (self.key(), self.leaving());
        let core = self.session().core().clone();
        let scope = core.bodies("finish a work");
        loop {
            let is_lost = AtomicBool::new(false);
            let whole = async |tx: &Tx| {
                let ended = leave::within(tx, &core, &[leaving], &Trace::Finished).await;
                if ended.map_err(Error::from)?.is_empty() {
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

    /// There was no row to delete: says whether an earlier attempt ended the work as asked.
    pub(crate) async fn over<E>(mut self, core: &Core, asked: Event) -> Unfinished<P, E> {
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

    pub(crate) fn not_committed<E>(mut self, error: E) -> Unfinished<P, E> {
        let core = self.session().core();
        if core.lease.remaining(Moment::now()).is_zero() {
            let error = core.expired();
            self.claimed.disarm();
            return Unfinished::Over(error);
        }
        Unfinished::NotCommitted { work: self, error }
    }
}

/// Lets go of what a dropped guard left.
pub(crate) async fn release(core: &Core, key: &Key) -> Result<(), Error> {
    let leaving = Leaving {
        key: *key,
        failures: None,
    };
    // No row: the work has ended some other way, which is all that was wanted.
    end(core, &[leaving], &Trace::Canceled).await.rest.map_or(Ok(()), Err)
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

/// What came of ends without a body.
pub(crate) struct Ends {
    /// Ended as asked, now or by an earlier attempt.
    pub(crate) ended: Vec<WorkId>,
    /// Why the others did not. `None`: they were not there to be ended.
    pub(crate) rest: Option<Error>,
}

/// Ends without a body. Safe to repeat: an end that took effect leaves no row.
pub(crate) async fn end(core: &Core, leaving: &[Leaving], trace: &Trace) -> Ends {
    let scope = core.library("end a work");
    let (mut left, mut ended) = (leaving.to_vec(), Vec::with_capacity(leaving.len()));
    let mut at_once = core.database.dialect != Dialect::Sqlite;
    let rest = loop {
        let attempt = if at_once {
            leave::at_once(&scope, core, &left, trace).await
        } else {
            let whole = async |tx: &Tx| leave::within(tx, core, &left, trace).await.map_err(Error::from);
            scope.run(whole).await.map_err(Failure::without_value)
        };
        let source = match attempt {
            Ok(gone) => {
                left.retain(|leaving| !gone.contains(&leaving.key.work));
                ended.extend(gone);
                // What is left is not ours; or somebody has cleared a backoff meanwhile, and the one that follows is another.
                if left.is_empty() || !at_once || !trace.is_failure() {
                    break None;
                }
                at_once = false;
                continue;
            }
            Err(Failure::NotCommitted(error)) => break Some(error),
            Err(Failure::Unknown { source, .. }) => source,
        };
        let mut held = Vec::new();
        let mut unreachable = false;
        for leaving in left {
            match settle(core, &leaving.key).await {
                Ok(Settled::Held) => held.push(leaving),
                Ok(Settled::Ended(event)) if event == trace.event() => ended.push(leaving.key.work),
                Ok(Settled::Ended(_) | Settled::Gone) => {}
                Err(_unreachable) => unreachable = true,
            }
        }
        if unreachable {
            break Some(Error::CommitUnknown {
                doing: scope.doing,
                source,
            });
        }
        if held.is_empty() {
            break None;
        }
        left = held;
    };
    Ends { ended, rest }
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
