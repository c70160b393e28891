//! Ends without a commit phase: of one work, of one and a claim of the next at once, of many at once.

use std::collections::HashSet;
use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;

use bmdb_entity::WorkId;

use crate::claim::{Answer, Attempt, Claim, MOST};
use crate::doubt::Doubts;
use crate::end::{Ends, end};
use crate::error::Error;
use crate::leave::{Leaving, Trace};
use crate::process::{Process, check_text};
use crate::session::Core;
use crate::tx::{Failure, answer_of, check_not_nested};
use crate::unfinished::Unfinished;
use crate::work::{Key, Work};

impl<P: Process> Work<P> {
    /// Ends the work with success and nothing to write: [`finish`](Self::finish) with an empty commit phase, in one round trip.
    pub fn done(self) -> End<P> {
        End::new(self, Ok(Trace::Finished))
    }

    /// Ends the work with a failure: the process backs off from the machine, by its rule, and history keeps the cause.
    ///
    /// # Errors
    /// Awaiting it answers [`Error::Invalid`] for a cause over 4 kB or with NUL (see [`fit_cause`]); nothing is written.
    pub fn fail(self, cause: impl fmt::Display) -> End<P> {
        End::new(self, failed::<P>(cause))
    }

    /// Ends the work without a verdict: the machine is free again at once, and history says `canceled`.
    pub fn cancel(self) -> End<P> {
        End::new(self, Ok(Trace::Canceled))
    }

    /// [`done`](Self::done) for many works in one round trip.
    ///
    /// ```no_run
    /// # use bmdb::{Eligible, Error, Process, Session, Work, provided};
    /// # struct Survey;
    /// # impl Process for Survey {
    /// #     const NAME: &'static str = "survey";
    /// #     type Item = provided::Model;
    /// #     fn eligible(machines: Eligible<Self>) -> Eligible<Self> { machines }
    /// # }
    /// # async fn example(session: Session) -> Result<(), Error> {
    /// let works = session.claim_many::<Survey>(100).await?;
    /// for ended in Work::done_many(works).await {
    ///     ended?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn done_many(works: Vec<Self>) -> EndMany<P> {
        EndMany {
            works,
            trace: Ok(Trace::Finished),
        }
    }

    /// [`fail`](Self::fail) for many works in one round trip.
    pub fn fail_many(works: Vec<Self>, cause: impl fmt::Display) -> EndMany<P> {
        EndMany {
            works,
            trace: failed::<P>(cause),
        }
    }

    /// [`cancel`](Self::cancel) for many works in one round trip.
    pub fn cancel_many(works: Vec<Self>) -> EndMany<P> {
        EndMany {
            works,
            trace: Ok(Trace::Canceled),
        }
    }

    pub(crate) fn leaving(&self, trace: &Trace) -> Leaving {
        Leaving {
            key: self.key(),
            failures: self.claimed.held.failures,
            trace: trace.clone(),
        }
    }
}

fn failed<P: Process>(cause: impl fmt::Display) -> Result<Trace, Error> {
    let cause = cause.to_string();
    check_text("a cause", &cause, LONGEST_CAUSE)?;
    Ok(Trace::Failed {
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
    trace: Result<Trace, Error>,
}

impl<P: Process> End<P> {
    fn new(work: Work<P>, trace: Result<Trace, Error>) -> Self {
        Self { work, trace }
    }

    /// Ends the work and makes the next claim, both in one round trip where they can be: on PostgreSQL and SQLite, for a claim of the same session
    /// without a filter, a machine or an order of its own. Else one after the other.
    ///
    /// The outer result is the end's, the inner one is the claim's, which is made only when the work has ended as asked.
    ///
    /// ```no_run
    /// # use bmdb::{Eligible, Error, Process, Session, provided};
    /// # struct Survey;
    /// # impl Process for Survey {
    /// #     const NAME: &'static str = "survey";
    /// #     type Item = provided::Model;
    /// #     fn eligible(machines: Eligible<Self>) -> Eligible<Self> { machines }
    /// # }
    /// # async fn example(session: Session) -> Result<(), Error> {
    /// let mut next = session.claim::<Survey>().await?;
    /// while let Some(work) = next {
    ///     println!("{} looks well", work.provider_id);
    ///     next = work.done().then(session.claim()).await??;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Unfinished`] for the end; within, as [`Claim`].
    ///
    /// # Cancel safety
    /// Once polled, both go on when the future is dropped; what is claimed is let go of.
    pub async fn then<Q: Process>(self, claim: Claim<Q>) -> Result<Result<Option<Work<Q>>, Error>, Unfinished<P>> {
        let Self { work, trace } = self;
        let trace = match trace.and_then(|trace| check_not_nested().map(|()| trace)) {
            Ok(trace) => trace,
            Err(error) => return Err(Unfinished::NotCommitted { work, error }),
        };
        let (core, key) = (Arc::clone(work.session().core()), work.key());
        let both = core.tasks.spawn({
            let core = Arc::clone(&core);
            async move { end_and_claim(&core, work, &trace, claim).await }
        });
        answer_of(both).await.unwrap_or_else(|| Err(unanswered(&key)))
    }
}

impl<P: Process> IntoFuture for End<P> {
    type Output = Result<(), Unfinished<P>>;
    type IntoFuture = Answer<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { work, trace } = self;
        let many = EndMany {
            works: vec![work],
            trace,
        };
        Box::pin(async move { many.await.pop().expect("BUG: there is an answer for each work") })
    }
}

async fn end_and_claim<P: Process, Q: Process>(
    core: &Arc<Core>,
    mut work: Work<P>,
    trace: &Trace,
    claim: Claim<Q>,
) -> Result<Result<Option<Work<Q>>, Error>, Unfinished<P>> {
    let mut doubts = Doubts::none(core);
    let follows = claim.can_follow(core).await;
    if follows {
        let next = WorkId::random();
        match claim.attempt_after(core, work.leaving(trace), next).await {
            Ok(attempt) if attempt.ended.contains(&work.id()) => {
                work.claimed.disarm();
                return Ok(claim_after(core, claim, Some(attempt), doubts).await);
            }
            // It is not ours, which is found out below; or a backoff was cleared meanwhile.
            Ok(_not_ended) => {}
            Err(Failure::NotCommitted(error)) => return Err(work.not_committed(error)),
            // Both have happened, or both may still.
            Err(Failure::Unknown { source, .. }) => doubts.add([next], source),
        }
    }
    let alone = end_now(core, vec![work], trace).await.pop();
    alone.expect("BUG: there is an answer for each work")?;
    if follows {
        Ok(claim_after(core, claim, None, doubts).await)
    } else {
        Ok(claim.await)
    }
}

async fn claim_after<Q: Process>(
    core: &Arc<Core>,
    claim: Claim<Q>,
    first: Option<Attempt<Q>>,
    doubts: Doubts<Q>,
) -> Result<Option<Work<Q>>, Error> {
    let mut works = claim.go_on(1, first, doubts, core.claiming()).await?;
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
    works: Vec<Work<P>>,
    trace: Result<Trace, Error>,
}

impl<P: Process> IntoFuture for EndMany<P> {
    type Output = Vec<Result<(), Unfinished<P>>>;
    type IntoFuture = Answer<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<P: Process> EndMany<P> {
    async fn run(self) -> Vec<Result<(), Unfinished<P>>> {
        let Self { mut works, trace } = self;
        let trace = match trace.and_then(|trace| check_not_nested().map(|()| trace)) {
            Ok(trace) => Arc::new(trace),
            Err(error) => {
                let not_committed = |work| {
                    Err(Unfinished::NotCommitted {
                        work,
                        error: error.clone(),
                    })
                };
                return works.into_iter().map(not_committed).collect();
            }
        };
        let mut answers = Vec::with_capacity(works.len());
        while let Some(first) = works.first() {
            // Usually all of them: those of one session, as many as fit into a statement.
            let core = Arc::clone(first.session().core());
            let is_of_core = |work: &&Work<P>| work.session().id() == core.id;
            let rest = works.split_off(works.iter().take(MOST as usize).take_while(is_of_core).count());
            let these = std::mem::replace(&mut works, rest);
            let keys: Vec<Key> = these.iter().map(Work::key).collect();
            let ending = core.tasks.spawn({
                let (core, trace) = (Arc::clone(&core), Arc::clone(&trace));
                async move { end_now(&core, these, &trace).await }
            });
            match answer_of(ending).await {
                Some(ended) => answers.extend(ended),
                None => answers.extend(keys.iter().map(|key| Err(unanswered(key)))),
            }
        }
        answers
    }
}

/// What it is called in must be a task of the session's, which is not dropped with its caller.
async fn end_now<P: Process>(core: &Core, works: Vec<Work<P>>, trace: &Trace) -> Vec<Result<(), Unfinished<P>>> {
    let leaving = works.iter().map(|work| work.leaving(trace)).collect();
    let Ends { ended, rest } = end(core, leaving).await;
    let ended: HashSet<WorkId> = ended.into_iter().collect();
    let mut answers = Vec::with_capacity(works.len());
    for mut work in works {
        answers.push(match rest.clone() {
            _ if ended.contains(&work.id()) => {
                work.claimed.disarm();
                Ok(())
            }
            Some(error @ Error::CommitUnknown { .. }) => Err(Unfinished::Unknown { work, error }),
            Some(error) => Err(work.not_committed(error)),
            None => match work.over(core, trace.event()).await {
                // An earlier attempt of unknown outcome did what was asked.
                Unfinished::Over(Error::AlreadyFinished { .. }) => Ok(()),
                other => Err(other),
            },
        });
    }
    answers
}

/// The runtime is shutting down around us; the session's deadline is what ends the work now.
fn unanswered<P: Process>(key: &Key) -> Unfinished<P> {
    tracing::warn!(machine = %key.machine, fence = %key.fence, "an end was not answered: the runtime is shutting down");
    Unfinished::Over(Error::CommitUnknown {
        doing: "end a work",
        source: None,
    })
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
