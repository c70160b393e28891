//! One work of a runner: the author's functions, the verdict that they come to, and the end that says it, tried until it is resolved.

use std::any::Any;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bmdb_entity::MachineId;
use futures_util::FutureExt;

use crate::bmdb::registered::Registered;
use crate::db::tx::Tx;
use crate::end::End;
use crate::end::unfinished::Unfinished;
use crate::error::Error;
use crate::error::fault::Fault;
use crate::rules::check::fit_cause;
use crate::rules::facts::Facts;
use crate::rules::process::Process;
use crate::runner::tally::{Count, Tally};
use crate::runner::worker::Worker;
use crate::runtime::retry::Pauses;
use crate::runtime::supervised::panic_text;
use crate::session::work::Work;

/// Runs the author's functions and ends the work; `and_next` says whether the end may claim the next one, where that costs nothing more.
///
/// While the session lives, an end that the database does not take is tried again: what the work has established is not thrown away. One of unknown
/// outcome is resolved by the next try.
pub(crate) async fn carry_out<W: Worker>(
    worker: &W,
    process: &Registered<W::Process>,
    mut work: Work<W::Process>,
    tally: &Tally,
    and_next: impl Fn() -> bool,
) -> Option<Work<W::Process>> {
    let account = tally.claimed();
    let report = Report {
        process: W::Process::NAME,
        machine: work.machine(),
        tally,
    };
    let lost = work.session().lost();
    let mut verdict = Verdict::of(worker, &work, &report).await;
    let mut pauses = Pauses::default();
    let mut is_first = true;
    loop {
        // Alone it is judged for itself: with a claim, that may have been what was refused.
        let next = (is_first && verdict.is_one_statement() && and_next()).then_some(process);
        let (held, objection) = match verdict.end(worker, work, next, &report).await {
            Ok(claimed) => {
                account.close(verdict.count());
                return claimed;
            }
            Err(Unfinished::Over(error)) => {
                report.lost(&error);
                return None;
            }
            Err(Unfinished::NotCommitted { work, error }) => (work, error),
            Err(Unfinished::Unknown { work, error }) => (work, Objection::Library(error)),
        };
        work = held;
        is_first = false;
        if next.is_some() {
            continue;
        }
        if let Some(cause) = verdict.fails_by(&objection) {
            verdict = Verdict::Failed(fit_cause(&cause));
            continue;
        }
        let pause = pauses.after(Duration::ZERO);
        tracing::warn!(
            process = W::Process::NAME,
            machine = %report.machine,
            error = objection.text(),
            ?pause,
            "an end was not taken and is tried again"
        );
        tokio::select! {
            () = lost.cancelled() => {
                report.lost(&Error::SessionExpired { session: work.session().id() });
                return None;
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What a work has come to.
enum Verdict<'a, O> {
    /// Done, and facts are all that was established.
    Stated(Facts),
    /// Done; the commit phase writes what was established.
    Established(Kept<'a, O>),
    Failed(String),
    Canceled,
}

impl<'a, O: Sync> Verdict<'a, O> {
    async fn of<W: Worker<Outcome = O>>(worker: &W, work: &Work<W::Process>, report: &'a Report<'a>) -> Self {
        // In a block, so that the future is dropped inside as well.
        let ran = AssertUnwindSafe(async { worker.run(work).await }).catch_unwind().await;
        let outcome = match ran {
            Ok(Ok(outcome)) => Kept::new(outcome, report),
            // Being interrupted is not a failure of the machine.
            Ok(Err(_cause)) if work.stop().is_cancelled() => return Self::Canceled,
            Ok(Err(cause)) => return Self::Failed(fit_cause(&cause)),
            Err(panic) => return Self::Failed(fit_cause(&report.panicked("run", &*panic))),
        };
        match catch_unwind(AssertUnwindSafe(|| worker.facts(&outcome))) {
            Ok(Some(facts)) => Self::Stated(facts),
            Ok(None) => Self::Established(outcome),
            Err(panic) => Self::Failed(fit_cause(&report.panicked("facts", &*panic))),
        }
    }

    /// Writes it, once. Answers the next work, if it was to claim it and there is one.
    async fn end<W: Worker<Outcome = O>>(
        &self,
        worker: &W,
        work: Work<W::Process>,
        next: Option<&Registered<W::Process>>,
        report: &Report<'_>,
    ) -> Result<Option<Work<W::Process>>, Unfinished<W::Process, Objection>> {
        let outcome: &O = match self {
            Self::Stated(facts) => {
                let end = work.done().stating(facts.clone());
                return end_of(end, next).await.map_err(objected);
            }
            Self::Failed(cause) => {
                return end_of(work.fail(cause), next).await.map_err(objected);
            }
            Self::Canceled => {
                return end_of(work.cancel(), next).await.map_err(objected);
            }
            Self::Established(outcome) => outcome,
        };
        let machine = work.machine();
        let commit = async |tx: &Tx| {
            let committing = AssertUnwindSafe(async { worker.commit(tx, machine, outcome).await }).catch_unwind();
            match committing.await {
                Ok(committed) => committed.map_err(Objection::Body),
                Err(panic) => Err(Objection::Panic(report.panicked("commit", &*panic))),
            }
        };
        match work.finish(commit).await {
            // An earlier try, whose outcome was unknown, has finished it.
            Ok(()) | Err(Unfinished::Over(Error::AlreadyFinished { .. })) => Ok(None),
            Err(unfinished) => Err(unfinished),
        }
    }

    /// Why the machine has failed, if that is what the objection says of what was to be written. Others are nobody's fault, and go away or end with the
    /// session.
    fn fails_by(&self, objection: &Objection) -> Option<String> {
        match self {
            Self::Stated(_) | Self::Established(_) => objection.is_of_the_work().then(|| objection.text()),
            Self::Failed(_) | Self::Canceled => None,
        }
    }

    /// Its end, so that the next claim may be in it. A commit phase is a transaction.
    fn is_one_statement(&self) -> bool {
        !matches!(self, Self::Established(_))
    }

    fn count(&self) -> Count {
        match self {
            Self::Stated(_) | Self::Established(_) => |counts| &mut counts.finished,
            Self::Failed(_) => |counts| &mut counts.failed,
            Self::Canceled => |counts| &mut counts.canceled,
        }
    }
}

async fn end_of<P: Process>(end: End<P>, next: Option<&Registered<P>>) -> Result<Option<Work<P>>, Unfinished<P>> {
    let Some(process) = next else {
        return end.await.map(|()| None);
    };
    let next = end.session().claim(process);
    // The lane claims next, and meets the error again.
    Ok(end.then(next).await?.unwrap_or_else(|error| {
        tracing::debug!(process = P::NAME, %error, "the claim after an end failed");
        None
    }))
}

/// Why an end was not written.
enum Objection {
    /// What the library's own statements met.
    Library(Error),
    /// What the commit phase answered.
    Body(Error),
    /// The commit phase panicked: with this cause.
    Panic(String),
}

impl From<Error> for Objection {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

impl Objection {
    /// Whether it speaks of what was to be written, and would be met again by a second try.
    fn is_of_the_work(&self) -> bool {
        match self {
            Self::Panic(_) => true,
            Self::Body(error) => !error.is_outage(),
            Self::Library(Error::Poisoned { source }) => !Fault::of(source).is_outage(),
            // What facts state, and what is checked at COMMIT, and what the commit phase did that the library refuses. A right that is missing, or a table, is
            // not the machine's fault.
            Self::Library(Error::Database { source, .. }) => Fault::of(source) == Fault::Constraint,
            Self::Library(error) => matches!(
                error,
                Error::Nested
                    | Error::Invalid { .. }
                    | Error::UnknownMachine { .. }
                    | Error::TagIncomplete { .. }
                    | Error::TagMissing { .. }
                    | Error::DuplicateProviderId { .. }
            ),
        }
    }

    /// With everything that led to it, for people.
    fn text(&self) -> String {
        match self {
            Self::Panic(cause) => cause.clone(),
            Self::Library(error) | Self::Body(error) => {
                let mut text = error.to_string();
                let mut source = std::error::Error::source(error);
                while let Some(error) = source {
                    text.push_str(": ");
                    text.push_str(&error.to_string());
                    source = error.source();
                }
                text
            }
        }
    }
}

fn objected<P: Process>(unfinished: Unfinished<P>) -> Unfinished<P, Objection> {
    match unfinished {
        Unfinished::NotCommitted { work, error } => Unfinished::NotCommitted {
            work,
            error: Objection::Library(error),
        },
        Unfinished::Unknown { work, error } => Unfinished::Unknown { work, error },
        Unfinished::Over(error) => Unfinished::Over(error),
    }
}

/// What is logged of a work beside its end.
struct Report<'a> {
    process: &'static str,
    machine: MachineId,
    tally: &'a Tally,
}

impl Report<'_> {
    fn lost(&self, error: &Error) {
        let error: &dyn std::error::Error = error;
        tracing::warn!(process = self.process, machine = %self.machine, error, "a work was lost");
    }

    /// Counts a panic, too. Answers a cause.
    fn panicked(&self, function: &str, panic: &(dyn Any + Send)) -> String {
        let text = panic_text(panic);
        tracing::error!(process = self.process, machine = %self.machine, function, panic = text, "a worker panicked");
        self.tally.add(|counts| &mut counts.panicked);
        format!("the worker panicked: {text}")
    }
}

/// An outcome, which may panic when it is dropped. By then all is said about the work.
struct Kept<'a, O> {
    outcome: Option<O>,
    report: &'a Report<'a>,
}

impl<'a, O> Kept<'a, O> {
    fn new(outcome: O, report: &'a Report<'a>) -> Self {
        let outcome = Some(outcome);
        Self { outcome, report }
    }
}

impl<O> Deref for Kept<'_, O> {
    type Target = O;

    fn deref(&self) -> &O {
        self.outcome.as_ref().expect("BUG: it is there until it is dropped")
    }
}

impl<O> Drop for Kept<'_, O> {
    fn drop(&mut self) {
        let outcome = self.outcome.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(outcome))) {
            self.report.panicked("drop", &*panic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sea_orm::{DbErr, RuntimeErr, sqlx};

    use super::*;

    fn database(source: DbErr) -> Error {
        Error::Database {
            doing: "a test",
            source,
        }
    }

    #[test]
    fn only_what_was_to_be_written_fails_a_machine() {
        let lost = || DbErr::Conn(RuntimeErr::SqlxError(Arc::new(sqlx::Error::PoolTimedOut)));
        let wrong = || DbErr::Custom("wrong".to_owned());
        let contended = || Error::Contended {
            doing: "a test",
            attempts: 1,
            elapsed: Duration::ZERO,
            source: None,
        };
        let machine = MachineId::random();
        let done = Verdict::<()>::Stated(Facts::none());
        let failed = Verdict::<()>::Failed("no answer".to_owned());
        for (objection, is_of_the_work) in [
            (Objection::Panic("the worker panicked: a test's".to_owned()), true),
            (Objection::Body(Error::UnknownMachine { machine }), true),
            (Objection::Body(database(wrong())), true),
            (Objection::Body(database(lost())), false),
            (Objection::Body(contended()), false),
            (Objection::Library(Error::UnknownMachine { machine }), true),
            (Objection::Library(contended()), false),
            (Objection::Library(database(wrong())), false),
            (Objection::Library(database(lost())), false),
            (Objection::Library(Error::Poisoned { source: wrong() }), true),
            (Objection::Library(Error::Poisoned { source: lost() }), false),
            (Objection::Library(Error::Nested), true),
        ] {
            let text = objection.text();
            assert_eq!(done.fails_by(&objection).is_some(), is_of_the_work, "{text}");
            assert_eq!(failed.fails_by(&objection), None, "a failure stays what it is: {text}");
        }
    }

    #[test]
    fn an_objection_tells_what_led_to_it() {
        let objection = Objection::Body(database(DbErr::Custom("wrong".to_owned())));
        assert_eq!(objection.text(), "could not a test: Custom Error: wrong");
    }
}
