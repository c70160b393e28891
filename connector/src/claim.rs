//! Taking a machine: from hints, from a search of the fleet when there are none, until something is taken or nothing is there.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bmdb_entity::{MachineId, WorkId};
use sea_orm::Condition;
use sea_orm::sea_query::IntoCondition;

use crate::attempt::Attempt;
use crate::call::{Place, call};
use crate::candidate;
use crate::crowd::Request;
use crate::dialect::Dialect;
use crate::doubt::Doubts;
use crate::ending::fit_cause;
use crate::error::Error;
use crate::fact::Facts;
use crate::failure::Failure;
use crate::leave::{Leaving, Trace, Way};
use crate::plain::Plain;
use crate::process::{self, Process};
use crate::seen::Taken;
use crate::session::{Claiming, Core, Session};
use crate::source::{Next, Source};
use crate::tx::check_not_nested;
use crate::work::{Claimed, Release, Work};
use crate::{single, stepwise};

pub(crate) type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The most that [`ClaimMany`] takes at once: every machine is some bound values in one statement.
pub(crate) const MOST: u32 = 1000;

/// A claim of one machine; await it.
///
/// `Ok(None)`: nothing is eligible now. Losing a race for a machine is not an error: the next candidate is tried. Claims that tasks of one session make
/// at the same time share statements, each answered on its own. A machine whose item cannot be read, such as one with a word that only a newer component
/// knows, is no error either: it has failed with that cause, the process backs off from it, and the next candidate is tried.
///
/// ```no_run
/// # use bmdb::{Eligible, Process, provided};
/// # struct AgentStart;
/// # impl Process for AgentStart {
/// #     const NAME: &'static str = "agent-start";
/// #     type Item = provided::Model;
/// #     fn eligible(machines: Eligible<Self>) -> Eligible<Self> { machines }
/// # }
/// # async fn example(session: bmdb::Session) -> Result<(), bmdb::Error> {
/// use sea_orm::ColumnTrait;
///
/// // Of this process's machines, one in this hall.
/// let hall = provided::Column::Location.starts_with("hall-7/");
/// if let Some(work) = session.claim::<AgentStart>().filter(hall).await? {
///     println!("{} is ours, with fence {}", work.provider_id, work.fence());
///     work.cancel().await?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::SessionExpired`], [`Error::Draining`], [`Error::SlotClash`], [`Error::InvalidBackoff`], [`Error::InvalidTime`] and [`Error::Invalid`] for the process,
/// [`Error::CommitUnknown`] when the database could not be asked what became of the claim; what it may have taken is let go of in the background.
///
/// # Cancel safety
/// Dropping the future leaks nothing: a claim that waits for its turn is not made, and what one under way takes is let go of by the session's task.
#[must_use = "a claim does nothing until it is awaited"]
pub struct Claim<P: Process> {
    session: Session,
    machine: Option<MachineId>,
    filter: Condition,
    process: std::marker::PhantomData<fn() -> P>,
}

impl<P: Process> Claim<P> {
    pub(crate) fn new(session: Session) -> Self {
        Self {
            session,
            machine: None,
            filter: Condition::all(),
            process: std::marker::PhantomData,
        }
    }

    /// Claims this machine, if it is eligible.
    pub fn on(mut self, machine: MachineId) -> Self {
        self.machine = Some(machine);
        self
    }

    /// Claims only a machine that also meets `condition`, on columns of `machine` or of the process's item.
    pub fn filter(mut self, condition: impl IntoCondition) -> Self {
        self.filter = self.filter.add(condition.into_condition());
        self
    }

    fn up_to(self, count: u64) -> Answer<Result<Vec<Work<P>>, Error>> {
        Box::pin(async move {
            let core = Arc::clone(self.session.core());
            check_not_nested()?;
            core.check_open()?;
            process::register::<P>(&core.database).await?;
            // If this future is dropped, the guards in the call's answer are dropped with it, and let go of.
            let (claiming, doubts) = (core.claiming(), Doubts::none(&core));
            let answer = call(&core.tasks, |place| async move {
                self.go_on(count, None, doubts, claiming, &place).await
            });
            answer.await.unwrap_or_else(|| Err(core.expired()))
        })
    }

    /// Whether this claim can be made in one statement with an end of a work of this session.
    pub(crate) async fn can_follow(&self, core: &Core) -> bool {
        let is_its_own = core.id == self.session.id();
        self.source(core).shares_a_statement(is_its_own, core.database.dialect)
            && core.check_open().is_ok()
            && process::register::<P>(&core.database).await.is_ok()
    }

    /// The first attempt, in one statement with an end. What the database refuses, for what the end states, or another that shares the statement, or the
    /// claim, has not ended: then it is to be tried alone.
    pub(crate) async fn attempt_after(
        &self,
        core: &Core,
        leaving: Leaving,
        work: WorkId,
        place: &Place,
    ) -> Result<Attempt<P>, Failure<(), Error>> {
        let source = self.source(core);
        let attempt = self.attempt_from(source, None, vec![work], Some(leaving), false, place);
        match attempt.await {
            Err(Failure::NotCommitted(Error::Database { .. })) => Ok(Attempt::lost_race()),
            Err(Failure::NotCommitted(error)) if error.is_locked_out() => Ok(Attempt::lost_race()),
            attempt => attempt,
        }
    }

    /// Claims, after the first attempt if there was one.
    ///
    /// # Cancel safety
    /// None: for a [`call`].
    pub(crate) async fn go_on(
        self,
        count: u64,
        first: Option<Attempt<P>>,
        doubts: Doubts<P>,
        claiming: Claiming,
        place: &Place,
    ) -> Result<Vec<Work<P>>, Error> {
        let core = Arc::clone(self.session.core());
        let works = self.run(count, first, doubts, place).await?;
        // Told to drain meanwhile: the guards are dropped, and let go of.
        core.check_open()?;
        drop(claiming);
        Ok(works)
    }

    fn source(&self, core: &Core) -> Source {
        match self.machine {
            Some(machine) => Source::Machine(machine),
            None if self.filter.is_empty() && !core.database.views.of::<P>().is_ordered => {
                core.database.looking.hints::<P>()
            }
            None => Source::Alone,
        }
    }

    async fn run(
        self,
        count: u64,
        mut first: Option<Attempt<P>>,
        mut doubts: Doubts<P>,
        place: &Place,
    ) -> Result<Vec<Work<P>>, Error> {
        let core = Arc::clone(self.session.core());
        let mut source = self.source(&core);
        let (started, mut rounds) = (Instant::now(), 0);
        // Once somebody had locked what an attempt needed: those with whom it would share a statement need not wait for it.
        let mut alone = false;
        // The search that had begun when this claim first looked: what the one after it does not find is not there.
        let mut begun = None;
        loop {
            // What is in doubt is let go of. Whose turn it is to search does so all the same: others wait for it.
            if place.is_gone() && first.is_none() && !matches!(source, Source::Fleet(_)) {
                return Ok(Vec::new());
            }
            let arrived = doubts.arrived().await?;
            let works = self.guards(arrived);
            if !works.is_empty() {
                return Ok(works);
            }
            let attempt = match first.take() {
                Some(attempt) => attempt,
                None => {
                    let attempt = match core.check_open() {
                        Ok(()) => self.attempt(source, begun, count, &mut doubts, &mut alone, place).await,
                        Err(closed) => Err(closed),
                    };
                    if let Source::Fleet(turn) = source
                        && !attempt.as_ref().is_ok_and(Attempt::is_told_of_searches)
                    {
                        candidate::give_back::<P>(&core.database, turn).await;
                    }
                    attempt?
                }
            };
            let Attempt { taken, told, .. } = attempt;
            let looking = &core.database.looking;
            if source.is_by_hints() && looking.is_due::<P>(!taken.is_empty(), told.as_ref()) {
                refresh::<P>(&core);
            }
            let took = !taken.is_empty();
            let works = self.guards(taken);
            if !works.is_empty() {
                return Ok(works);
            }
            place.leave().await;
            let elapsed = started.elapsed();
            let is_late = elapsed > core.database.config.retry_budget;
            let contended = |attempts| Error::Contended {
                doing: "claim a machine",
                attempts,
                elapsed,
                source: None,
            };
            if took && is_late {
                return Err(contended(rounds + 1));
            }
            if took {
                // Nothing that can be read: there may be more.
                if let Source::Fleet(_) = source {
                    source = Source::Hints;
                }
                continue;
            }
            let Some(told) = told else {
                source = Source::Hints;
                continue;
            };
            begun = begun.or(told.searches.map(|searches| searches.now()));
            let searched = told
                .searches
                .zip(begun)
                .is_some_and(|(searches, begun)| searches.has_ended_since(begun));
            let next = match told.next(source, searched) {
                Next::From(next) => next,
                Next::AddSearches => {
                    process::add_searches::<P>(&core.database).await?;
                    source
                }
                // What was not there may have been taken by an attempt of ours.
                Next::Nothing => return Ok(self.guards(doubts.arrived().await?)),
            };
            rounds += 1;
            let pause = told.pause(next, rounds, elapsed);
            source = next;
            if is_late && !matches!(source, Source::Fleet(_)) {
                return Err(contended(rounds));
            }
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
    }

    async fn attempt(
        &self,
        source: Source,
        begun: Option<i64>,
        count: u64,
        doubts: &mut Doubts<P>,
        alone: &mut bool,
        place: &Place,
    ) -> Result<Attempt<P>, Error> {
        // Made here, so that the works of an attempt whose outcome is unknown can be asked for.
        let works: Vec<WorkId> = (0..count).map(|_| WorkId::random()).collect();
        let attempt = self.attempt_from(source, begun, works.clone(), None, *alone, place);
        match attempt.await {
            Ok(attempt) => Ok(attempt),
            Err(Failure::NotCommitted(error)) if error.is_locked_out() => {
                *alone = true;
                Ok(Attempt::lost_race())
            }
            Err(Failure::NotCommitted(error)) => Err(error),
            Err(Failure::Unknown { source, .. }) => {
                doubts.add(works, source);
                Ok(Attempt::lost_race())
            }
        }
    }

    /// An attempt after the end of a work if there is one; by hints, in a statement with others of the session.
    async fn attempt_from(
        &self,
        source: Source,
        begun: Option<i64>,
        works: Vec<WorkId>,
        leaving: Option<Leaving>,
        alone: bool,
        place: &Place,
    ) -> Result<Attempt<P>, Failure<(), Error>> {
        let core = self.session.core();
        if source != Source::Plenty {
            place.leave().await;
        }
        if alone || !source.is_by_hints() {
            // Others wait for who has the turn to search.
            let may_give_up = (!matches!(source, Source::Fleet(_))).then_some(place);
            let leaving = leaving.as_slice();
            return self
                .attempt_once(core, source, begun, &works, leaving, may_give_up)
                .await;
        }
        let asked = Asked {
            session: self.session.clone(),
            works,
            leaving,
            searches: source == Source::Hints,
            begun,
            place: place.clone(),
            process: self.process,
        };
        match core.crowds.ask(asked).await {
            Some(attempt) => attempt,
            None if place.is_given_up() => Ok(Attempt::lost_race()),
            None => Err(Failure::UNKNOWN),
        }
    }

    async fn attempt_once(
        &self,
        core: &Core,
        source: Source,
        begun: Option<i64>,
        works: &[WorkId],
        after: &[Leaving],
        place: Option<&Place>,
    ) -> Result<Attempt<P>, Failure<(), Error>> {
        let attempt = match core.database.dialect {
            Dialect::Sqlite => stepwise::attempt(core, self, source, begun, works, after, place).await,
            Dialect::Postgres | Dialect::Cockroach => {
                single::attempt(core, self, source, begun, works, after, place).await
            }
        };
        let states_nothing = after.iter().all(|leaving| leaving.facts.is_empty());
        match attempt {
            // The only key that a claim can miss is its session's: the machine is locked. What is stated may miss others.
            Err(Failure::NotCommitted(error)) if error.is_foreign_key_violation() && states_nothing => {
                core.lose("its row is gone");
                Err(Failure::NotCommitted(core.expired()))
            }
            // Another claim has taken the slot and its fence, and this one looked in between.
            Err(Failure::NotCommitted(error)) if error.is_key_violation() => Ok(Attempt::lost_race()),
            attempt => attempt,
        }
    }

    pub(crate) fn filter_condition(&self) -> &Condition {
        &self.filter
    }

    /// Guards for what was taken. A machine whose item cannot be read is let go of as failed: it backs off, and others are tried.
    fn guards(&self, taken: Vec<Taken<P>>) -> Vec<Work<P>> {
        let guard = |taken: Taken<P>| {
            let (key, failures) = (taken.key(), taken.seen.failures);
            match taken.seen.item {
                Ok(item) => {
                    tracing::debug!(machine = %key.machine, process = key.process, fence = %key.fence, "machine claimed");
                    let claimed = Claimed::new(self.session.clone(), key, failures, P::MAX_RUN);
                    Some(Work { claimed, item })
                }
                Err(cause) => {
                    tracing::warn!(machine = %key.machine, process = key.process, cause = %Plain(&cause), "a claimed machine has failed");
                    let leaving = Leaving {
                        key,
                        failures,
                        trace: Trace::Failed {
                            cause: fit_cause(&cause).into(),
                            backoff: P::BACKOFF,
                        },
                        facts: Facts::none(),
                    };
                    // Without a receiver the session is over, and its works with it.
                    let _unheard = self.session.core().releases.send(Release::Work(leaving));
                    None
                }
            }
        };
        taken.into_iter().filter_map(guard).collect()
    }
}

/// An attempt that may be made with others.
struct Asked<P: Process> {
    session: Session,
    /// The ids of the works that are to be.
    works: Vec<WorkId>,
    /// A work that is to end first.
    leaving: Option<Leaving>,
    /// It takes the turn to search if there are no hints; and the search that had begun when it first looked.
    searches: bool,
    begun: Option<i64>,
    place: Place,
    process: std::marker::PhantomData<fn() -> P>,
}

impl<P: Process> Request for Asked<P> {
    type Answer = Result<Attempt<P>, Failure<(), Error>>;

    fn kind(&self) -> (usize, Option<Way>) {
        (self.works.len(), self.leaving.as_ref().map(Leaving::way))
    }

    fn place(&self) -> Option<&Place> {
        // An end comes to its end.
        self.leaving.is_none().then_some(&self.place)
    }

    async fn serve(mut these: Vec<Self>) -> Vec<Self::Answer> {
        let claim = Claim::new(these[0].session.clone());
        let core = Arc::clone(claim.session.core());
        let works: Vec<WorkId> = these.iter().flat_map(|asked| asked.works.iter().copied()).collect();
        let leaving: Vec<Leaving> = these.iter_mut().filter_map(|asked| asked.leaving.take()).collect();
        let searching = || these.iter().filter(|asked| asked.searches);
        let source = if searching().next().is_some() {
            Source::Hints
        } else {
            Source::Plenty
        };
        // The last of them, which is the one of this statement if that is somebody's first look.
        let begun: Option<Vec<i64>> = searching().map(|asked| asked.begun).collect();
        let begun = begun.and_then(|begun| begun.into_iter().max());
        match claim.attempt_once(&core, source, begun, &works, &leaving, None).await {
            Ok(attempt) => {
                let asked = these.iter().map(|asked| (asked.works.len(), asked.searches));
                attempt.dealt(asked, &leaving).map(Ok).collect()
            }
            Err(failure) => failure.of_each(these.len()).map(Err).collect(),
        }
    }
}

/// Searches behind the claim's back.
fn refresh<P: Process>(core: &Arc<Core>) {
    let database = Arc::clone(&core.database);
    core.tasks.spawn(async move {
        if let Err(error) = candidate::refresh::<P>(&database).await {
            tracing::debug!(process = P::NAME, %error, "hints were not refreshed");
        }
    });
}

impl<P: Process> IntoFuture for Claim<P> {
    type Output = Result<Option<Work<P>>, Error>;
    type IntoFuture = Answer<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(self.up_to(1).await?.pop()) })
    }
}

/// A claim of up to so many machines in one transaction; await it. An empty answer: nothing is eligible now. They can be fewer than are eligible, when
/// fewer are hinted at; the next claim finds the others. Else as [`Claim`].
///
/// ```no_run
/// # use bmdb::Work;
/// # use bmdb::{Eligible, Process, provided};
/// # struct AgentStart;
/// # impl Process for AgentStart {
/// #     const NAME: &'static str = "agent-start";
/// #     type Item = provided::Model;
/// #     fn eligible(machines: Eligible<Self>) -> Eligible<Self> { machines }
/// # }
/// # async fn example(session: bmdb::Session) -> Result<(), bmdb::Error> {
/// let works = session.claim_many::<AgentStart>(100).await?;
/// for ended in Work::fail_many(works, "the switch is down").await {
///     ended?;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a claim does nothing until it is awaited"]
pub struct ClaimMany<P: Process> {
    claim: Claim<P>,
    count: u32,
}

impl<P: Process> ClaimMany<P> {
    pub(crate) fn new(session: Session, count: u32) -> Self {
        Self {
            claim: Claim::new(session),
            count,
        }
    }

    /// Claims only machines that also meet `condition`, on columns of `machine` or of the process's item.
    pub fn filter(mut self, condition: impl IntoCondition) -> Self {
        self.claim = self.claim.filter(condition);
        self
    }
}

impl<P: Process> IntoFuture for ClaimMany<P> {
    type Output = Result<Vec<Work<P>>, Error>;
    type IntoFuture = Answer<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        if !(1..=MOST).contains(&self.count) {
            let error = Error::invalid("the number of machines to claim", &self.count.to_string(), "1 to 1000");
            return Box::pin(async move { Err(error) });
        }
        self.claim.up_to(u64::from(self.count))
    }
}
