//! Taking a machine: from hints, from a search of the fleet when there are none, until something is taken or nothing is there.

pub(crate) mod in_doubt;
mod part;

use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bmdb_entity::{MachineId, WorkId};
use sea_orm::Condition;
use sea_orm::sea_query::IntoCondition;

use crate::bmdb::registered::Registered;
use crate::claim::in_doubt::InDoubt;
use crate::claim::part::{ClaimPart, attempt_once};
use crate::db::transaction::check_not_nested;
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::metrics;
use crate::rules::check::fit_cause;
use crate::rules::claim_plan::{CandidateSource, Step};
use crate::rules::facts::Facts;
use crate::rules::process::Process;
use crate::runtime::detach::{Detach, run_detachable};
use crate::runtime::escaped::Escaped;
use crate::session::Session;
use crate::session::held::Release;
use crate::session::shared::{Claiming, Shared};
use crate::session::work::{Guard, Work};
use crate::store::attempt::{Attempt, ClaimRequest};
use crate::store::candidate::ClaimedMachine;
use crate::store::end::{EndRequest, Ending};
use crate::store::hints;
use crate::store::process;
use crate::store::rule::Rule;

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
/// #     fn eligible(&self, machines: Eligible) -> Eligible { machines }
/// # }
/// # async fn example(session: bmdb::Session, start: bmdb::Registered<AgentStart>) -> Result<(), bmdb::Error> {
/// use sea_orm::ColumnTrait;
///
/// // Of this process's machines, one in this hall.
/// let hall = provided::Column::Location.starts_with("hall-7/");
/// if let Some(work) = session.claim(&start).filter(hall).await? {
///     println!("{} is ours, with fence {}", work.provider_id, work.fence());
///     work.cancel().await?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::SessionExpired`], [`Error::Draining`]; [`Error::OtherDatabase`] for a handle of another [`Bmdb`](crate::Bmdb); [`Error::Contended`] when others were
/// faster for as long as it is tried again; [`Error::Nested`] inside a body;
/// [`Error::CommitUnknown`] when the database could not be asked what became of the claim; what it may have taken is released in the background.
///
/// # Cancel safety
/// Dropping the future leaks nothing: a claim that still waits is not made, and what one under way takes is released by the session's task.
#[must_use = "a claim does nothing until it is awaited"]
pub struct Claim<P: Process> {
    session: Session,
    process: Registered<P>,
    machine: Option<MachineId>,
    filter: Condition,
}

impl Session {
    /// Claims a machine that is eligible for a process. Await it, or narrow it first: see [`Claim`].
    ///
    /// ```no_run
    /// # use bmdb::{Eligible, Process, provided};
    /// # struct AgentStart;
    /// # impl Process for AgentStart {
    /// #     const NAME: &'static str = "agent-start";
    /// #     type Item = provided::Model;
    /// #     fn eligible(&self, machines: Eligible) -> Eligible { machines }
    /// # }
    /// # async fn example(session: bmdb::Session, start: bmdb::Registered<AgentStart>) -> Result<(), bmdb::Error> {
    /// while let Some(work) = session.claim(&start).await? {
    ///     println!("{} at {:?}, fence {}", work.provider_id, work.address, work.fence());
    ///     work.cancel().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a claim does nothing until it is awaited"]
    pub fn claim<P: Process>(&self, process: &Registered<P>) -> Claim<P> {
        Claim::new(self.clone(), process.clone())
    }

    /// Claims up to `count` machines that are eligible for a process, in one transaction.
    #[must_use = "a claim does nothing until it is awaited"]
    pub fn claim_many<P: Process>(&self, process: &Registered<P>, count: u32) -> ClaimMany<P> {
        ClaimMany {
            claim: self.claim(process),
            count,
        }
    }
}

impl<P: Process> Claim<P> {
    fn new(session: Session, process: Registered<P>) -> Self {
        Self {
            session,
            process,
            machine: None,
            filter: Condition::all(),
        }
    }

    pub(crate) fn rule(&self) -> &Arc<Rule> {
        self.process.rule()
    }

    /// Whether it can be made at all.
    fn check(&self, shared: &Shared) -> Result<(), Error> {
        if Arc::ptr_eq(self.process.bmdb().database(), &shared.database) {
            shared.check_open()
        } else {
            Err(Error::OtherDatabase { process: P::NAME })
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
            let shared = Arc::clone(self.session.shared());
            check_not_nested()?;
            self.check(&shared)?;
            // If this future is dropped, the guards in the call's answer are dropped with it, and released.
            let (claiming, doubts) = (shared.claiming(), InDoubt::none(&shared, self.rule().key));
            let answer = run_detachable(&shared.tasks, |detach| async move {
                self.go_on(count, None, doubts, claiming, &detach).await
            });
            answer.await.unwrap_or_else(|| Err(shared.expired()))
        })
    }

    /// Whether this claim can be made in one statement with an end of a work of this session.
    pub(crate) fn can_follow(&self, shared: &Shared) -> bool {
        let is_its_own = shared.id == self.session.id();
        self.source().shares_a_statement(is_its_own, shared.database.dialect) && self.check(shared).is_ok()
    }

    /// The first attempt, in one statement with an end. What the database refuses, for what the end states, or another that shares the statement, or the
    /// claim, has not ended: then it is to be tried alone.
    pub(crate) async fn attempt_after(
        &self,
        to_end: EndRequest,
        work: WorkId,
        detach: &Detach,
    ) -> Result<Attempt<P>, TxError<(), Error>> {
        let source = self.source();
        let attempt = self.attempt_from(source, None, vec![work], Some(to_end), false, detach);
        match attempt.await {
            Err(TxError::NotCommitted(Error::Database { .. })) => Ok(Attempt::void()),
            Err(TxError::NotCommitted(error)) if error.is_locked_out() => Ok(Attempt::lost_race()),
            attempt => attempt,
        }
    }

    /// Claims, after the first attempt if there was one.
    ///
    /// # Cancel safety
    /// None: [`run_detachable`] runs it.
    pub(crate) async fn go_on(
        self,
        count: u64,
        first: Option<Attempt<P>>,
        doubts: InDoubt<P>,
        claiming: Claiming,
        detach: &Detach,
    ) -> Result<Vec<Work<P>>, Error> {
        let shared = Arc::clone(self.session.shared());
        // Here, for a busy component claims with its ends and hardly otherwise.
        self.process.renew();
        let begun = doubts.begun;
        let answer = self.run(count, first, doubts, detach).await;
        metrics::claim_answered(P::NAME, begun, &answer);
        let works = answer?;
        // Told to drain meanwhile: the guards are dropped, and released.
        shared.check_open()?;
        drop(claiming);
        Ok(works)
    }

    fn source(&self) -> CandidateSource {
        let rule = self.rule();
        match self.machine {
            Some(machine) => CandidateSource::Machine(machine),
            None if self.filter.is_empty() && !rule.sql.is_ordered => rule.refresh.hints(),
            None => CandidateSource::Scan,
        }
    }

    async fn run(
        self,
        count: u64,
        mut first: Option<Attempt<P>>,
        mut doubts: InDoubt<P>,
        detach: &Detach,
    ) -> Result<Vec<Work<P>>, Error> {
        let shared = Arc::clone(self.session.shared());
        let mut source = self.source();
        let rule = Arc::clone(self.rule());
        let (started, mut rounds) = (Instant::now(), 0);
        // Once somebody had locked what an attempt needed: those with whom it would share a statement need not wait for it.
        let mut alone = false;
        // The search that had begun when this claim started: what the one after it does not find is not there.
        let mut baseline = None;
        loop {
            // What is in doubt is released. Who has the search lease searches all the same: others wait for it.
            if detach.is_gone() && first.is_none() && !matches!(source, CandidateSource::Search(_)) {
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
                    let attempt = match shared.check_open() {
                        Ok(()) => {
                            self.attempt(source, baseline, count, &mut doubts, &mut alone, detach)
                                .await
                        }
                        Err(closed) => Err(closed),
                    };
                    if let CandidateSource::Search(number) = source
                        && !attempt.as_ref().is_ok_and(Attempt::has_seen_searches)
                    {
                        hints::release_search_lease(&shared.database, rule.key, number).await;
                    }
                    attempt?
                }
            };
            let Attempt {
                taken, report, is_void, ..
            } = attempt;
            if source.is_by_hints() && rule.refresh.is_due(!taken.is_empty(), report.as_ref()) {
                refresh::<P>(&shared, &rule);
            }
            let took = !taken.is_empty();
            let works = self.guards(taken);
            if !works.is_empty() {
                return Ok(works);
            }
            detach.now().await;
            let elapsed = started.elapsed();
            let is_late = elapsed > shared.database.config.retry_budget;
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
                if let CandidateSource::Search(_) = source {
                    source = CandidateSource::HintsThenSearch;
                }
                continue;
            }
            let Some(report) = report else {
                source = CandidateSource::HintsThenSearch;
                continue;
            };
            if report.eligible && !report.paused && !is_void {
                metrics::race_lost(P::NAME);
            }
            baseline = baseline.or(report.searches.map(|searches| searches.now()));
            let searched = report
                .searches
                .zip(baseline)
                .is_some_and(|(searches, baseline)| searches.has_ended_since(baseline));
            let next = match report.next(source, searched) {
                Step::Retry(next) => next,
                Step::EnsureSearchRow => {
                    process::write_rows(&shared.database, &rule).await?;
                    source
                }
                // What was not there may have been taken by an attempt of ours.
                Step::NothingThere => return Ok(self.guards(doubts.arrived().await?)),
            };
            rounds += 1;
            let pause = report.pause(next, rounds, elapsed);
            source = next;
            if is_late && !matches!(source, CandidateSource::Search(_)) {
                return Err(contended(rounds));
            }
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
    }

    async fn attempt(
        &self,
        source: CandidateSource,
        baseline: Option<i64>,
        count: u64,
        doubts: &mut InDoubt<P>,
        alone: &mut bool,
        detach: &Detach,
    ) -> Result<Attempt<P>, Error> {
        // Made here, so that the works of an attempt whose outcome is unknown can be asked for.
        let works: Vec<WorkId> = (0..count).map(|_| WorkId::random()).collect();
        let attempt = self.attempt_from(source, baseline, works.clone(), None, *alone, detach);
        match attempt.await {
            Ok(attempt) => Ok(attempt),
            Err(TxError::NotCommitted(error)) if error.is_locked_out() => {
                *alone = true;
                Ok(Attempt::lost_race())
            }
            Err(TxError::NotCommitted(error)) => Err(error),
            Err(TxError::Unknown { source, .. }) => {
                doubts.add(works, source);
                Ok(Attempt::void())
            }
        }
    }

    /// An attempt after the end of a work if there is one; by hints, in a statement with others of the session.
    async fn attempt_from(
        &self,
        source: CandidateSource,
        baseline: Option<i64>,
        works: Vec<WorkId>,
        to_end: Option<EndRequest>,
        alone: bool,
        detach: &Detach,
    ) -> Result<Attempt<P>, TxError<(), Error>> {
        let shared = self.session.shared();
        if source != CandidateSource::HintsOnly {
            detach.now().await;
        }
        if alone || !source.is_by_hints() {
            // Others wait for who has the search lease.
            let may_give_up = (!matches!(source, CandidateSource::Search(_))).then_some(detach);
            let request = ClaimRequest {
                rule: self.rule(),
                source,
                filter: &self.filter,
                works: &works,
                after: to_end.as_slice(),
                baseline,
            };
            return attempt_once(shared, request, may_give_up).await;
        }
        let asked = ClaimPart {
            shared: Arc::clone(shared),
            works,
            to_end,
            searches: source == CandidateSource::HintsThenSearch,
            baseline,
            detach: detach.clone(),
            rule: Arc::clone(self.rule()),
            process: PhantomData,
        };
        match shared.batcher.ask(asked).await {
            Some(attempt) => attempt,
            None if detach.is_given_up() => Ok(Attempt::void()),
            None => Err(TxError::UNKNOWN),
        }
    }

    /// Guards for what was taken. A machine whose item cannot be read is released as failed: it backs off, and others are tried.
    fn guards(&self, taken: Vec<ClaimedMachine<P>>) -> Vec<Work<P>> {
        let guard = |taken: ClaimedMachine<P>| {
            let (key, failures) = (taken.key(self.rule().key), taken.seen.failures);
            match taken.seen.item {
                Ok(item) => {
                    tracing::debug!(machine = %key.machine, process = key.process(), fence = %key.fence, "machine claimed");
                    let claimed = Guard::new(self.session.clone(), key, failures, P::MAX_RUN);
                    Some(Work { claimed, item })
                }
                Err(cause) => {
                    tracing::warn!(machine = %key.machine, process = key.process(), cause = %Escaped(&cause), "a claimed machine has failed");
                    let to_end = EndRequest {
                        key,
                        failures,
                        ending: Ending::Failed {
                            cause: fit_cause(&cause).into(),
                            backoff: P::BACKOFF,
                        },
                        facts: Facts::none(),
                    };
                    // Without a receiver the session is over, and its works with it.
                    let _unheard = self.session.shared().releases.send(Release::Work(to_end));
                    None
                }
            }
        };
        taken.into_iter().filter_map(guard).collect()
    }
}

/// Searches behind the claim's back.
fn refresh<P: Process>(shared: &Shared, rule: &Arc<Rule>) {
    let (database, rule) = (Arc::clone(&shared.database), Arc::clone(rule));
    shared.tasks.spawn(async move {
        if let Err(error) = hints::refresh::<P>(&database, &rule).await {
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
/// #     fn eligible(&self, machines: Eligible) -> Eligible { machines }
/// # }
/// # async fn example(session: bmdb::Session, start: bmdb::Registered<AgentStart>) -> Result<(), bmdb::Error> {
/// let works = session.claim_many(&start, 100).await?;
/// for ended in Work::fail_many(works, "the switch is down").await {
///     ended?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Invalid`] for a count outside of 1 to 1000; else as [`Claim`].
#[must_use = "a claim does nothing until it is awaited"]
pub struct ClaimMany<P: Process> {
    claim: Claim<P>,
    count: u32,
}

impl<P: Process> ClaimMany<P> {
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
