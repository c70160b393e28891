//! Acts on a backoff: forgetting it, and ending its wait.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::Response;
use maud::html;
use uuid::Uuid;

use crate::answer::words::{count, foreign as plain, quoted};
use crate::facts::name::Name;
use crate::failure::Failure;
use crate::serve::access::Writer;
use crate::serve::console::Console;
use crate::serve::parts::text::{foreign, long};
use crate::serve::parts::time::when;
use crate::serve::router::unreadable_form;
use crate::serve::writes::form::{Question, Sent};
use crate::serve::writes::machine::{Pairs, Posted, named, page_of, pair};
use crate::serve::writes::{answer, done};

/// What is done to a backoff.
#[derive(Clone, Copy)]
enum Change {
    Clear,
    RunNow,
}

impl Change {
    fn path(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::RunNow => "run-now",
        }
    }
}

async fn ask_change(
    console: &Console,
    writer: &Writer,
    id: Uuid,
    pairs: &Pairs,
    change: Change,
) -> Result<Response, Failure> {
    let (machine, name) = named(console, id).await?;
    let process = pair(pairs, "process")
        .ok_or_else(|| Failure::usage("which process? Come here from the page of the machine"))?;
    let backoffs = console.source.bmdb.backoffs(Some(machine.machine)).await?.rows;
    let row = backoffs
        .iter()
        .find(|row| row.process == process)
        .ok_or_else(|| no_backoff(process, &name))?;
    let (title, then, verb) = match change {
        Change::Clear => (
            html! { "Clear the backoff of " (foreign(process)) " from " (foreign(&name.shown)) "?" },
            html! { "It forgets how it failed, and may claim the machine at once. Mend the cause first: clearing alone makes it fail as often again." },
            "Clear it",
        ),
        Change::RunNow => (
            html! { "Let " (foreign(process)) " try " (foreign(&name.shown)) " now?" },
            html! { "It may claim the machine at once, and remembers its failures: if it fails again, it waits as it would have." },
            "Run it now",
        ),
    };
    let question = Question {
        title,
        tab: format!("{verb}: {process} on {}", name.shown),
        points: vec![
            html! {
                @match row.until { None => "It is parked: it waits for a person", Some(end) => { "It waits until " (when(end, machine.as_of)) } }
                ", after " (count(row.attempts.unsigned_abs(), "failure", "failures")) "; the last: " (long(&row.cause))
            },
            then,
        ],
        fields: html! {},
        seen: vec![("process", process.to_owned()), ("failures", row.attempts.to_string())],
        action: format!("/machines/{id}/backoff/{}", change.path()),
        verb,
        is_dangerous: false,
        back: page_of(id).address(),
        twin: format!("bmdb backoff {} {id} {} --reason '…'", change.path(), quoted(process)),
    };
    Ok(question.page(console, writer))
}

fn no_backoff(process: &str, name: &Name) -> Failure {
    Failure::not_found(format!(
        "{process} does not leave {name} alone: its backoff is over, or was cleared"
    ))
}

async fn change(
    console: &Console,
    writer: &Writer,
    id: Uuid,
    form: Posted,
    change: Change,
) -> Result<Response, Failure> {
    let sent = Sent::read(form)?;
    let process = sent.seen("process")?;
    let seen: i64 = sent.seen("failures")?.parse().map_err(|_odd| unreadable_form())?;
    let operator = sent.operator(writer)?;
    let (machine, name) = named(console, id).await?;
    let backoffs = console.source.bmdb.backoffs(Some(machine.machine)).await?.rows;
    let row = backoffs
        .iter()
        .find(|row| row.process == process)
        .ok_or_else(|| no_backoff(process, &name))?;
    if row.attempts != seen {
        return Err(Failure::changed(format!(
            "nothing was done: {process} has failed {} on {name} by now, not {seen}. The last: {}",
            count(row.attempts.unsigned_abs(), "time", "times"),
            plain(&row.cause)
        )));
    }
    let (was_there, text) = match change {
        Change::Clear => (
            operator.clear_backoff(machine.machine, process).await?,
            format!("{process} has forgotten how it failed on {name}: it may claim it at once."),
        ),
        Change::RunNow => (
            operator.run_now(machine.machine, process).await?,
            format!(
                "{process} may claim {name} at once. If it fails again, it waits as it would have after so many failures."
            ),
        ),
    };
    if !was_there {
        return Err(no_backoff(process, &name));
    }
    Ok(done(console, &page_of(id), text))
}

pub(super) async fn ask_clear(
    State(console): State<Arc<Console>>,
    writer: Writer,
    Path(id): Path<Uuid>,
    Query(pairs): Query<Pairs>,
) -> Response {
    let asked = ask_change(&console, &writer, id, &pairs, Change::Clear).await;
    answer(&console, &writer, asked)
}

pub(super) async fn clear(
    State(console): State<Arc<Console>>,
    writer: Writer,
    Path(id): Path<Uuid>,
    form: Posted,
) -> Response {
    let acted = change(&console, &writer, id, form, Change::Clear).await;
    answer(&console, &writer, acted)
}

pub(super) async fn ask_run_now(
    State(console): State<Arc<Console>>,
    writer: Writer,
    Path(id): Path<Uuid>,
    Query(pairs): Query<Pairs>,
) -> Response {
    let asked = ask_change(&console, &writer, id, &pairs, Change::RunNow).await;
    answer(&console, &writer, asked)
}

pub(super) async fn run_now(
    State(console): State<Arc<Console>>,
    writer: Writer,
    Path(id): Path<Uuid>,
    form: Posted,
) -> Response {
    let acted = change(&console, &writer, id, form, Change::RunNow).await;
    answer(&console, &writer, acted)
}
