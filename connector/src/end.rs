//! Ends without a commit phase: of one work, of one and a claim of the next at once, of many at once.

pub(crate) mod finish;
pub(crate) mod unfinished;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;

use bmdb_entity::{Tag, WorkId};
use sea_orm::ActiveModelTrait;

use crate::claim::in_doubt::InDoubt;
use crate::claim::{Answer, Claim, MOST};
use crate::db::transaction::check_not_nested;
use crate::db::tx_error::TxError;
use crate::end::unfinished::Unfinished;
use crate::error::Error;
use crate::rules::check::{LONGEST_CAUSE, check_text};
use crate::rules::facts::Facts;
use crate::rules::process::Process;
use crate::rules::work_key::WorkKey;
use crate::runtime::detach::{Detach, run_detachable};
use crate::session::Session;
use crate::session::ends::{DOING, Ends, Patience, end};
use crate::session::shared::Shared;
use crate::session::work::Work;
use crate::store::attempt::Attempt;
use crate::store::end::{EndRequest, Ending};
use crate::store::resolve::{Resolution, resolve};

impl<P: Process> Work<P> {
    /// Ends the work with success in one round trip: [`finish`](Self::finish) with nothing to write, or with facts to [state](End::stating) about
    /// the machine.
    pub fn done(self) -> End<P> {
        End::new(self, Ok(Ending::Finished))
    }

    /// Ends the work with a failure: the process backs off from the machine, by its rule, and history keeps the cause.
    ///
    /// # Errors
    /// Awaiting it answers [`Error::Invalid`] for a cause over 4 kB or with NUL (see [`fit_cause`](crate::fit_cause)); nothing is written.
    pub fn fail(self, cause: impl fmt::Display) -> End<P> {
        End::new(self, failed::<P>(cause))
    }

    /// Ends the work without a verdict: the machine is free again at once, and history says `canceled`.
    pub fn cancel(self) -> End<P> {
        End::new(self, Ok(Ending::Canceled))
    }

    /// [`done`](Self::done) for many works in one round trip.
    ///
    /// ```no_run
    /// # use bmdb::{Eligible, Error, Process, Session, Work, provided};
    /// # struct Survey;
    /// # impl Process for Survey {
    /// #     const NAME: &'static str = "survey";
    /// #     type Item = provided::Model;
    /// #     fn eligible(&self, machines: Eligible) -> Eligible { machines }
    /// # }
    /// # async fn example(session: Session, start: bmdb::Registered<Survey>) -> Result<(), Error> {
    /// let works = session.claim_many(&start, 100).await?;
    /// for ended in Work::done_many(works).await {
    ///     ended?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn done_many(works: Vec<Self>) -> EndMany<P> {
        EndMany::new(works, Ok(Ending::Finished))
    }

    /// [`fail`](Self::fail) for many works in one round trip.
    pub fn fail_many(works: Vec<Self>, cause: impl fmt::Display) -> EndMany<P> {
        EndMany::new(works, failed::<P>(cause))
    }

    /// [`cancel`](Self::cancel) for many works in one round trip.
    pub fn cancel_many(works: Vec<Self>) -> EndMany<P> {
        EndMany::new(works, Ok(Ending::Canceled))
    }

    pub(crate) fn to_end(&self, ending: &Ending, facts: &Facts) -> EndRequest {
        EndRequest {
            key: self.key(),
            failures: self.claimed.held.failures,
            ending: ending.clone(),
            facts: facts.clone(),
        }
    }
}

fn failed<P: Process>(cause: impl fmt::Display) -> Result<Ending, Error> {
    let cause = cause.to_string();
    check_text("a cause", &cause, LONGEST_CAUSE)?;
    Ok(Ending::Failed {
        cause: cause.into(),
        backoff: P::BACKOFF,
    })
}

/// An end of a work without a commit phase; await it, alone or [with the next claim](Self::then). Ends of one kind that tasks of one session make at the
/// same time share statements, each answered on its own.
///
/// # Errors
/// [`Unfinished`].
///
/// # Cancel safety
/// Dropping the future before its first poll drops the guard; after it, the end goes on.
#[must_use = "a work ends when this is awaited; dropped, it is canceled"]
pub struct End<P: Process> {
    work: Work<P>,
    ending: Result<Ending, Error>,
    facts: Facts,
}

impl<P: Process> End<P> {
    fn new(work: Work<P>, ending: Result<Ending, Error>) -> Self {
        let facts = Facts::none();
        Self { work, ending, facts }
    }

    pub(crate) fn session(&self) -> &Session {
        self.work.session()
    }

    /// States facts about the machine as well, in the same statement: if the work was lost, none of them is in the database. A row is the machine's whole
    /// row of the tag from now on, as with [`tag::set`](crate::store::tag::set); [`updating`](Self::updating) changes some columns.
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
    /// work.done().stating(agent_started::row(key)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Awaiting it answers [`Error::TagIncomplete`] for a row without a column that it must have; [`Error::Invalid`] for a row that names another machine,
    /// for a second row of a tag, and for a text with NUL; [`Error::DuplicateProviderId`]; and [`Error::Database`] when a rule of a tag's table refuses its row. Then nothing is written, and the guard comes back.
    pub fn stating(mut self, facts: impl Into<Facts>) -> Self {
        self.facts = self.facts.and(facts);
        self
    }

    /// Updates only the columns that are set in `row`, in the machine's existing row of the tag, in the same statement. The same as
    /// [stating](Self::stating) [`Facts::updating`], which can be stated about many works.
    ///
    /// ```no_run
    /// # use bmdb::{Eligible, Error, Process, Work, agent_started, provided};
    /// # struct AgentStart;
    /// # impl Process for AgentStart {
    /// #     const NAME: &'static str = "agent-start";
    /// #     type Item = provided::Model;
    /// #     fn eligible(&self, machines: Eligible) -> Eligible { machines }
    /// # }
    /// # async fn example(work: Work<AgentStart>) -> Result<(), Error> {
    /// use sea_orm::ActiveValue::Set;
    ///
    /// let runs = provided::ActiveModel { status: Set(provided::Status::Running), ..Default::default() };
    /// work.done().updating(runs).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Awaiting it answers [`Error::TagMissing`] when the machine does not have the tag; else as [`stating`](Self::stating). Then nothing is written, and
    /// the guard comes back.
    pub fn updating<A>(self, row: A) -> Self
    where
        A: ActiveModelTrait<Entity: Tag>,
    {
        self.stating(Facts::updating(row))
    }

    /// Ends the work and makes the next claim, both in one round trip where they can be: on PostgreSQL and SQLite, for a claim of the same session
    /// without a filter, a machine or an order of its own. Else one after the other.
    ///
    /// The outer result is the end's; the inner one is the claim's, which runs only if the end succeeded. The same machine can be claimed again only
    /// if it is still eligible after the end.
    ///
    /// ```no_run
    /// # use bmdb::{Eligible, Error, Process, Session, provided};
    /// # struct Survey;
    /// # impl Process for Survey {
    /// #     const NAME: &'static str = "survey";
    /// #     type Item = provided::Model;
    /// #     fn eligible(&self, machines: Eligible) -> Eligible { machines }
    /// # }
    /// # async fn example(session: Session, start: bmdb::Registered<Survey>) -> Result<(), Error> {
    /// let mut next = session.claim(&start).await?;
    /// while let Some(work) = next {
    ///     println!("{} looks well", work.provider_id);
    ///     next = work.done().then(session.claim(&start)).await??;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Unfinished`] for the end; within, as [`Claim`].
    ///
    /// # Cancel safety
    /// Once polled, both go on when the future is dropped; what is claimed is released.
    pub async fn then<Q: Process>(self, claim: Claim<Q>) -> Result<Result<Option<Work<Q>>, Error>, Unfinished<P>> {
        let Self { work, ending, facts } = self;
        let checked = facts.check(work.machine()).and_then(|()| check_not_nested());
        let ending = match checked.and(ending) {
            Ok(ending) => ending,
            Err(error) => return Err(Unfinished::NotCommitted { work, error }),
        };
        let (shared, key) = (Arc::clone(work.session().shared()), work.key());
        let tasks = shared.tasks.clone();
        let both = run_detachable(&tasks, |detach| async move {
            end_and_claim(&shared, work, &ending, facts, claim, &detach).await
        });
        both.await.unwrap_or_else(|| Err(timed_out(&key)))
    }
}

impl<P: Process> IntoFuture for End<P> {
    type Output = Result<(), Unfinished<P>>;
    type IntoFuture = Answer<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { work, ending, facts } = self;
        let many = EndMany {
            works: vec![(work, facts)],
            ending,
        };
        Box::pin(async move { many.await.pop().expect("BUG: there is an answer for each work") })
    }
}

async fn end_and_claim<P: Process, Q: Process>(
    shared: &Arc<Shared>,
    mut work: Work<P>,
    ending: &Ending,
    facts: Facts,
    claim: Claim<Q>,
    detach: &Detach,
) -> Result<Result<Option<Work<Q>>, Error>, Unfinished<P>> {
    let mut doubts = InDoubt::none(shared, claim.rule().key);
    let follows = claim.can_follow(shared);
    if follows {
        let next = WorkId::random();
        let to_end = work.to_end(ending, &facts);
        match claim.attempt_after(to_end, next, detach).await {
            Ok(attempt) if attempt.ended.contains(&work.id()) => {
                work.claimed.ended(ending);
                return Ok(claim_after(shared, claim, Some(attempt), doubts, detach).await);
            }
            // It is not ours, or what it states is refused, which is found out below; or a backoff was cleared meanwhile.
            Ok(_not_ended) => {}
            Err(TxError::NotCommitted(error)) => return Err(work.not_committed(error)),
            // Both have happened, or both may still. Whatever became of this end, what the claim may have taken is looked for, or released with the
            // doubt: the ids of those who share a statement go to the machines that it took in their order, not to those whose ends took effect.
            Err(TxError::Unknown { source, .. }) => {
                doubts.add([next], source.clone());
                detach.now().await;
                match resolve(&shared.writer(), &work.key()).await {
                    Ok(Resolution::StillHeld) => {}
                    Ok(Resolution::Ended(event)) if event == ending.event() => {
                        work.claimed.ended(ending);
                        return Ok(claim_after(shared, claim, None, doubts, detach).await);
                    }
                    Ok(other) => return Err(work.over_as(shared, ending.event(), Ok(other))),
                    Err(_unreachable) => return Err(work.unknown(DOING, source)),
                }
            }
        }
    }
    let alone = end_now(shared, vec![(work, facts)], ending, detach).await.pop();
    alone.expect("BUG: there is an answer for each work")?;
    if follows {
        Ok(claim_after(shared, claim, None, doubts, detach).await)
    } else {
        Ok(claim.await)
    }
}

async fn claim_after<Q: Process>(
    shared: &Arc<Shared>,
    claim: Claim<Q>,
    first: Option<Attempt<Q>>,
    doubts: InDoubt<Q>,
    detach: &Detach,
) -> Result<Option<Work<Q>>, Error> {
    let mut works = claim.go_on(1, first, doubts, shared.claiming(), detach).await?;
    Ok(works.pop())
}

/// Ends many works of one process, up to a thousand in one round trip; await it. It answers for each work, in their order.
///
/// # Errors
/// [`Unfinished`], for each work of its own.
///
/// # Cancel safety
/// Dropping the future before its first poll drops the guards; after it, the ends go on.
#[must_use = "works end when this is awaited; dropped, they are canceled"]
pub struct EndMany<P: Process> {
    works: Vec<(Work<P>, Facts)>,
    ending: Result<Ending, Error>,
}

impl<P: Process> IntoFuture for EndMany<P> {
    type Output = Vec<Result<(), Unfinished<P>>>;
    type IntoFuture = Answer<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<P: Process> EndMany<P> {
    fn new(works: Vec<Work<P>>, ending: Result<Ending, Error>) -> Self {
        let works = works.into_iter().map(|work| (work, Facts::none())).collect();
        Self { works, ending }
    }

    /// States facts about the machine of each work as well, as [`End::stating`]. Works in a row
    /// whose facts have the same columns share round trips.
    pub fn stating<F: Into<Facts>>(mut self, facts: impl Fn(&Work<P>) -> F) -> Self {
        for (work, stated) in &mut self.works {
            *stated = std::mem::take(stated).and(facts(work));
        }
        self
    }

    async fn run(self) -> Vec<Result<(), Unfinished<P>>> {
        let Self { works, ending } = self;
        let ending = ending.map(Arc::new);
        let mut answers = Vec::with_capacity(works.len());
        let mut works = works.into_iter().peekable();
        while let Some((work, facts)) = works.next() {
            let checked = facts.check(work.machine()).and_then(|()| check_not_nested());
            let ending = match checked.and(ending.clone()) {
                Ok(ending) => ending,
                Err(error) => {
                    answers.push(Err(Unfinished::NotCommitted { work, error }));
                    continue;
                }
            };
            // Usually all of them: those of one session that state the like, as many as fit into a statement.
            let (shared, shape) = (Arc::clone(work.session().shared()), facts.shape());
            let fits = |(work, facts): &(Work<P>, Facts)| {
                work.session().id() == shared.id && facts.shape() == shape && facts.check(work.machine()).is_ok()
            };
            let most = most_at_once(facts.values());
            let others = std::iter::from_fn(|| works.next_if(fits));
            let these: Vec<_> = std::iter::once((work, facts)).chain(others).take(most).collect();
            let keys: Vec<WorkKey> = these.iter().map(|(work, _)| work.key()).collect();
            let tasks = shared.tasks.clone();
            let ending = run_detachable(&tasks, |detach| async move {
                end_now(&shared, these, &ending, &detach).await
            });
            match ending.await {
                Some(ended) => answers.extend(ended),
                None => answers.extend(keys.iter().map(|key| Err(timed_out(key)))),
            }
        }
        answers
    }
}

/// A statement takes 32,766 bound values on SQLite, 65,535 on PostgreSQL.
const MOST_VALUES: usize = 30_000;
/// At most, on any of them.
const VALUES_OF_AN_END: usize = 10;

/// How many ends fit into a statement that state this many values each.
fn most_at_once(values: usize) -> usize {
    (MOST as usize).min(MOST_VALUES / (VALUES_OF_AN_END + values))
}

/// # Cancel safety
/// None: [`run_detachable`] runs it.
async fn end_now<P: Process>(
    shared: &Arc<Shared>,
    works: Vec<(Work<P>, Facts)>,
    ending: &Ending,
    detach: &Detach,
) -> Vec<Result<(), Unfinished<P>>> {
    let to_end = works.iter().map(|(work, facts)| work.to_end(ending, facts)).collect();
    let Ends { ended, rest } = end(shared, to_end, Patience::Lasting, detach).await;
    let ended: HashSet<WorkId> = ended.into_iter().collect();
    let rest = rest.into_iter().map(|(to_end, error)| (to_end.key.work, error));
    let mut rest: HashMap<WorkId, Error> = rest.collect();
    let mut answers = Vec::with_capacity(works.len());
    for (mut work, _stated) in works {
        answers.push(match rest.remove(&work.id()) {
            _ if ended.contains(&work.id()) => {
                work.claimed.ended(ending);
                Ok(())
            }
            Some(error @ Error::CommitUnknown { .. }) => Err(Unfinished::Unknown { work, error }),
            Some(error) => Err(work.not_committed(error)),
            None => {
                detach.now().await;
                let key = work.key();
                match work.over(shared, ending.event()).await {
                    // An earlier attempt of unknown outcome did what was asked.
                    Unfinished::Over(Error::AlreadyFinished { .. }) => {
                        ending.log(&key);
                        Ok(())
                    }
                    other => Err(other),
                }
            }
        });
    }
    answers
}

/// The runtime is shutting down around us; the session's deadline is what ends the work now.
fn timed_out<P: Process>(key: &WorkKey) -> Unfinished<P> {
    tracing::warn!(machine = %key.machine, fence = %key.fence, "an end was not answered: the runtime is shutting down");
    Unfinished::Over(Error::CommitUnknown {
        doing: DOING,
        source: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_one_statement_bind_no_more_values_than_it_takes() {
        assert_eq!(most_at_once(0), MOST as usize);
        for values in [0, 1, 7, 100, 1000, 20_000] {
            let most = most_at_once(values);
            let fits = |ends: usize| ends <= MOST as usize && ends * (values + VALUES_OF_AN_END) <= MOST_VALUES;
            assert!(fits(most) && !fits(most + 1), "{most} of {values}");
        }
    }
}
