//! The protocol of an end: it deletes the work's row by its whole key and demands to have deleted one; and what becomes of it when it is not answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bmdb_entity::work_history::Event;
use bmdb_entity::{Fence, MachineId, WorkId};
use futures_util::future::join_all;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect};

use crate::call::Place;
use crate::crowd::Request;
use crate::dialect::Dialect;
use crate::error::Error;
use crate::fact::Facts;
use crate::failure::Failure;
use crate::leave::{self, Leaving, Trace, Way};
use crate::machine;
use crate::process::Process;
use crate::session::Core;
use crate::tx::{Scope, Tx, TxClosure};
use crate::unfinished::Unfinished;
use crate::work::{Key, Work};

impl<P: Process> Work<P> {
    /// Ends the work with success: one SERIALIZABLE transaction lets go of the machine, deletes the process's backoff, writes history and runs
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
        let (key, leaving) = (self.key(), self.leaving(&Trace::Finished, &Facts::none()));
        let core = self.session().core().clone();
        let scope = core.bodies("finish a work");
        loop {
            let is_lost = AtomicBool::new(false);
            let whole = async |tx: &Tx| {
                let ended = leave::within(tx, &core, std::slice::from_ref(&leaving)).await;
                if ended.map_err(Error::from)?.is_empty() {
                    is_lost.store(true, Ordering::Relaxed);
                    return Err(key.lost().into());
                }
                body.clone()(tx).await
            };
            let (value, source) = match scope.run(whole).await {
                Ok(value) => {
                    self.claimed.ended(&Trace::Finished);
                    return Ok(value);
                }
                Err(Failure::NotCommitted(_)) if is_lost.into_inner() => {
                    let over = self.over(&core, Event::Finished).await;
                    if matches!(over, Unfinished::Over(Error::AlreadyFinished { .. })) {
                        Trace::Finished.log(&key);
                    }
                    return Err(over);
                }
                Err(Failure::NotCommitted(error)) => return Err(self.not_committed(error)),
                Err(Failure::Unknown { value, source }) => (value, source),
            };
            match settle(&core, &key).await {
                Ok(Settled::Held) => {}
                Ok(Settled::Ended(Event::Finished)) => {
                    self.claimed.ended(&Trace::Finished);
                    return Ok(value);
                }
                Ok(Settled::Ended(_) | Settled::Gone) => {
                    self.claimed.disarm();
                    return Err(Unfinished::Over(key.lost()));
                }
                Err(_unreachable) => return Err(self.unknown(scope.doing, source)),
            }
        }
    }

    /// There was no row to delete: says whether an earlier attempt ended the work as asked.
    pub(crate) async fn over<E>(self, core: &Core, asked: Event) -> Unfinished<P, E> {
        let settled = settle(core, &self.key()).await;
        self.over_as(core, asked, settled)
    }

    /// The same, of what is known.
    pub(crate) fn over_as<E>(self, core: &Core, asked: Event, settled: Result<Settled, Error>) -> Unfinished<P, E> {
        let key = self.key();
        let is_trusted = core.check_trust().is_ok();
        let error = match how_over(settled.ok().as_ref(), asked, is_trusted) {
            Over::AsAsked => Error::AlreadyFinished {
                machine: key.machine,
                fence: key.fence,
            },
            Over::Expired => core.expired(),
            Over::Lost => key.lost(),
            Over::Unknown => return self.unknown(DOING, None),
        };
        // The guard is dropped: what is there after all is let go of.
        Unfinished::Over(error)
    }

    /// It may have ended, and the database cannot be asked.
    pub(crate) fn unknown<E>(self, doing: &'static str, source: Option<DbErr>) -> Unfinished<P, E> {
        let error = Error::CommitUnknown { doing, source };
        Unfinished::Unknown { work: self, error }
    }

    pub(crate) fn not_committed<E>(mut self, error: E) -> Unfinished<P, E> {
        if let Err(expired) = self.session().core().check_trust() {
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

/// `settled`: what became of it, if the database could be asked.
fn how_over(settled: Option<&Settled>, asked: Event, is_trusted: bool) -> Over {
    match settled {
        Some(Settled::Ended(event)) if *event == asked => Over::AsAsked,
        _ if !is_trusted => Over::Expired,
        Some(_) => Over::Lost,
        None => Over::Unknown,
    }
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
    let rows: Vec<(MachineId, WorkId, Fence)> = Entity::find()
        .select_only()
        .columns([Column::MachineId, Column::WorkId, Column::Fence])
        .filter(Column::WorkId.is_in(works.iter().copied()))
        .into_tuple()
        .all(&*core.database)
        .await
        .map_err(Error::database(DOING))?;
    let key = |(machine, work, fence)| Key {
        machine,
        slot,
        process,
        work,
        fence,
    };
    Ok(rows.into_iter().map(key).collect())
}

pub(crate) const DOING: &str = "end a work";

/// What came of ends without a body.
#[derive(Default)]
pub(crate) struct Ends {
    /// Ended as asked.
    pub(crate) ended: Vec<WorkId>,
    /// Not ended, and why. Those that are in neither were not there to be ended, perhaps because an attempt without an answer has ended them.
    pub(crate) rest: Vec<(Leaving, Error)>,
}

impl Ends {
    fn refuse(mut self, left: Vec<Leaving>, error: &Error) -> Self {
        self.rest
            .extend(left.into_iter().map(|leaving| (leaving, error.clone())));
        self
    }

    fn and(mut self, more: Self) -> Self {
        self.ended.extend(more.ended);
        self.rest.extend(more.rest);
        self
    }

    fn has_answered(&self, work: WorkId) -> bool {
        self.ended.contains(&work) || self.rest.iter().any(|(leaving, _)| leaving.key.work == work)
    }

    /// Takes those out that were perhaps refused for another with which they shared a statement.
    fn take_refused(&mut self) -> Vec<Leaving> {
        let refused = self.rest.extract_if(.., |(_, error)| error.is_of_one());
        refused.map(|(leaving, _)| leaving).collect()
    }
}

/// For how long an end waits for what somebody has locked.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Patience {
    /// As long as the budget lasts.
    Lasting,
    /// As long as one statement does: it is tried again later anyway.
    Short,
}

/// Ends without a body, all in the same way. Safe to repeat: an end that took effect leaves no row. Each is answered for itself.
pub(crate) async fn end(core: &Arc<Core>, left: Vec<Leaving>, patience: Patience, place: &Place) -> Ends {
    let updates = |leaving: &&Leaving| leaving.facts.updates().next().is_some();
    let updating: Vec<Leaving> = left.iter().filter(updates).cloned().collect();
    let mut ends = end_or_refuse(core, left, None, place).await;
    let refused = ends.take_refused();
    if !refused.is_empty() {
        place.leave().await;
        ends = ends.and(end_apart(core, refused, patience).await);
    }
    for (leaving, error) in ends.rest.iter_mut().filter(|(_, error)| error.is_key_violation()) {
        place.leave().await;
        let facts = leaving.facts.iter();
        if let Err(duplicate) = machine::check_identities(&*core.database, leaving.key.machine, facts).await {
            *error = duplicate;
        }
    }
    for leaving in updating {
        if !ends.has_answered(leaving.key.work) {
            place.leave().await;
            let error = missing(core, &leaving.key, &leaving.facts).await;
            ends.rest.extend(error.map(|error| (leaving, error)));
        }
    }
    ends
}

/// What was to be updated and is not there, if that is why an end has not ended its work.
async fn missing(core: &Core, key: &Key, facts: &Facts) -> Option<Error> {
    let Ok(Settled::Held) = settle(core, key).await else {
        return None;
    };
    let mut tag = None;
    for fact in facts.updates() {
        let row = core.database.query_one(&fact.look(Expr::val(key.machine))).await;
        if matches!(row, Ok(None)) {
            tag = Some(fact.tag);
            break;
        }
        // Somebody has written it meanwhile, or it cannot be asked for any more.
        tag.get_or_insert(fact.tag);
    }
    tag.map(|tag| Error::TagMissing {
        tag,
        machine: key.machine,
    })
}

/// Into so many parts are those divided that were refused together, and each part again, until one is alone: of a thousand in two steps.
const PARTS: usize = 32;

async fn end_apart(core: &Arc<Core>, left: Vec<Leaving>, patience: Patience) -> Ends {
    let parts = left.chunks(left.len().div_ceil(PARTS)).map(async |part| {
        let mut ends = end_or_refuse(core, part.to_vec(), Some(patience), &Place::in_a_task()).await;
        if part.len() == 1 {
            return ends;
        }
        match ends.take_refused() {
            none if none.is_empty() => ends,
            refused => ends.and(Box::pin(end_apart(core, refused, patience)).await),
        }
    });
    join_all(parts).await.into_iter().fold(Ends::default(), Ends::and)
}

/// `alone`: without others who end at the same time, and with this patience.
async fn end_or_refuse(core: &Arc<Core>, mut left: Vec<Leaving>, alone: Option<Patience>, place: &Place) -> Ends {
    let mut ends = Ends::default();
    // With failures before as they were when the machines were claimed.
    let mut as_claimed = true;
    while let Some(way) = left.first().map(|leaving| leaving.trace.clone()) {
        let attempt = match alone {
            _ if !as_claimed => {
                place.leave().await;
                in_transaction(core, &left).await
            }
            Some(patience) => end_at_once(core, &left, left.len() == 1 && patience == Patience::Lasting).await,
            None => {
                let ending = Ending {
                    core: Arc::clone(core),
                    left: left.clone(),
                };
                core.crowds.ask(ending).await.unwrap_or(Err(Failure::UNKNOWN))
            }
        };
        let source = match attempt {
            Ok(gone) => {
                left.retain(|leaving| !gone.contains(&leaving.key.work));
                ends.ended.extend(gone);
                // What is left is not ours; or somebody has cleared a backoff meanwhile, and the one that follows is another.
                if as_claimed && way.is_failure() {
                    as_claimed = false;
                    continue;
                }
                return ends;
            }
            Err(Failure::NotCommitted(error)) => return ends.refuse(left, &error),
            Err(Failure::Unknown { source, .. }) => source,
        };
        place.leave().await;
        let mut held = Vec::new();
        let mut unreachable = false;
        for leaving in &left {
            match settle(core, &leaving.key).await {
                Ok(Settled::Held) => held.push(leaving.clone()),
                // It is not there to be ended any more.
                Ok(Settled::Ended(_) | Settled::Gone) => {}
                Err(_unreachable) => unreachable = true,
            }
        }
        if unreachable {
            return ends.refuse(left, &Error::CommitUnknown { doing: DOING, source });
        }
        left = held;
    }
    ends
}

/// Works that end in a statement with others of the session that end at the same time.
struct Ending {
    core: Arc<Core>,
    left: Vec<Leaving>,
}

impl Request for Ending {
    type Answer = Result<Vec<WorkId>, Failure<(), Error>>;

    fn kind(&self) -> (usize, Option<Way>) {
        (self.left.len(), self.left.first().map(Leaving::way))
    }

    fn place(&self) -> Option<&Place> {
        None
    }

    async fn serve(these: Vec<Self>) -> Vec<Self::Answer> {
        let core = Arc::clone(&these[0].core);
        let left: Vec<Vec<Leaving>> = these.into_iter().map(|ending| ending.left).collect();
        match end_at_once(&core, &left.concat(), false).await {
            Ok(gone) => {
                let of = |left: &Vec<Leaving>| {
                    let works = left.iter().map(|leaving| leaving.key.work);
                    Ok(works.filter(|work| gone.contains(work)).collect())
                };
                left.iter().map(of).collect()
            }
            Err(failure) => failure.of_each(left.len()).map(Err).collect(),
        }
    }
}

/// `is_patient`: it waits for rows that somebody has locked for as long as the budget lasts.
async fn end_at_once(core: &Core, leaving: &[Leaving], is_patient: bool) -> Result<Vec<WorkId>, Failure<(), Error>> {
    if core.database.dialect == Dialect::Sqlite {
        return in_transaction(core, leaving).await;
    }
    let scope = Scope {
        is_patient,
        ..core.library(DOING)
    };
    leave::at_once(&scope, core, leaving).await
}

async fn in_transaction(core: &Core, leaving: &[Leaving]) -> Result<Vec<WorkId>, Failure<(), Error>> {
    let whole = async |tx: &Tx| leave::within(tx, core, leaving).await.map_err(Error::from);
    core.library(DOING).run(whole).await.map_err(Failure::without_value)
}

/// What became of a work whose end has an unknown outcome.
pub(crate) enum Settled {
    /// Its row is there: the end did not take effect, and cannot any more.
    Held,
    /// It has ended this way.
    Ended(Event),
    /// Its row is gone, and history does not know its end.
    Gone,
}

/// Decides an unknown outcome by a write that collides with the end's own: it waits for a commit that is still on its way. A read would not.
pub(crate) async fn settle(core: &Core, key: &Key) -> Result<Settled, Error> {
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
    fn only_what_has_ended_as_asked_is_called_finished() {
        let finished = Settled::Ended(Event::Finished);
        for is_trusted in [true, false] {
            assert_eq!(how_over(Some(&finished), Event::Finished, is_trusted), Over::AsAsked);
        }
        let others = [
            Settled::Ended(Event::Expired),
            Settled::Ended(Event::Failed),
            Settled::Held,
            Settled::Gone,
        ];
        for settled in others {
            assert_eq!(how_over(Some(&settled), Event::Finished, true), Over::Lost);
            assert_eq!(how_over(Some(&settled), Event::Finished, false), Over::Expired);
        }
        assert_eq!(how_over(None, Event::Finished, true), Over::Unknown);
        assert_eq!(how_over(None, Event::Finished, false), Over::Expired);
    }
}
