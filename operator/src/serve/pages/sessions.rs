//! Sessions: which components are alive, and one of them.

use bmdb::{SessionId, SessionStatus, WorksOf};
use chrono::TimeDelta;
use maud::{Markup, html};
use serde_json::json;

use crate::answer::words::{count, grouped};
use crate::facts::session::{as_json, find, is_silent, read};
use crate::facts::work;
use crate::failure::Failure;
use crate::serve::console::Console;
use crate::serve::page::Page;
use crate::serve::parts::chip::{Tone, chip, icon};
use crate::serve::parts::lists::{self, empty, read_works, section, source, unreadable};
use crate::serve::parts::text::{command, foreign, long, session};
use crate::serve::parts::time::{clock, span, when};
use crate::serve::view::{Part, View};

/// More are counted, not shown: silent ones stand first.
const SHOWN: usize = 500;

pub(super) async fn list(console: &Console) -> Result<View, Failure> {
    let sessions = read(&console.source).await?;
    let now = console.source.bmdb.now().await?;
    let dead = sessions.rows.iter().filter(|row| is_silent(row)).count() as u64;
    let all = sessions.rows.len();
    let alive = all as u64 - dead;
    let shown = &sessions.rows[..all.min(SHOWN)];
    let head = html! {
        header.head {
            h1 { "Sessions" }
            p.lead {
                (count(alive, "session is alive", "sessions are alive")) "; "
                @match dead { 0 => "none is silent.", dead => (format!("{}.", count(dead, "is silent", "are silent"))) }
                @if all > SHOWN { " The first " (SHOWN) " of " (grouped(all as u64)) " are shown, silent ones first." }
            }
            (source(console, &Page::Sessions, now, "bmdb session ls", &[]))
        }
    };
    let body = match shown.is_empty() {
        true => empty(
            "No session lives.",
            "A component starts one when it comes up, and closes it when it ends.",
        ),
        false => table(shown),
    };
    Ok(View {
        page: Page::Sessions,
        title: "Sessions".to_owned(),
        parts: vec![
            Part::new("head", head),
            Part::new("sessions", html! { (body) (unreadable(&sessions.unreadable)) }),
        ],
        json: json!({"sessions": shown.iter().map(as_json).collect::<Vec<_>>(), "all": all.to_string()}),
        at: now,
    })
}

fn table(rows: &[SessionStatus]) -> Markup {
    html! {
        div.panel {
            table.stacks role="table" {
                thead role="rowgroup" { tr role="row" { th scope="col" role="columnheader" { "Component" } th scope="col" role="columnheader" { "State" } th scope="col" role="columnheader" { "Session" } th scope="col" role="columnheader" { "Started" } th scope="col" role="columnheader" { "Deadline" } th.number scope="col" role="columnheader" { "Interval" } th.number scope="col" role="columnheader" { "Works" } th scope="col" role="columnheader" { "Runs as" } } }
                tbody role="rowgroup" {
                    @for row in rows {
                        tr role="row" data-row {
                            th scope="row" role="rowheader" { (foreign(&row.component)) }
                            td role="cell" { (liveness(row)) }
                            td role="cell" data-label="Session" { (session(row.session)) }
                            td role="cell" data-label="Started" { (when(row.started_at, row.as_of)) }
                            td role="cell" data-label="Deadline" { @match row.deadline { Some(deadline) => (when(deadline, row.as_of)), None => "none" } }
                            td.number role="cell" data-label="Interval" { (row.interval.as_secs_f64()) " s" }
                            td.number.none[row.works == 0] role="cell" data-label="Works" { (grouped(row.works)) }
                            td role="cell" data-label="Runs as" { (foreign(&row.runtime_info)) }
                        }
                    }
                }
            }
        }
    }
}

fn liveness(row: &SessionStatus) -> Markup {
    match (is_silent(row), &row.drain_requested) {
        (true, _) => chip("silent", Tone::Soon, "silent"),
        (false, Some(_)) => chip("held", Tone::Soon, "draining"),
        (false, None) => chip("live", Tone::Quiet, "alive"),
    }
}

pub(super) async fn one(console: &Console, id: SessionId, may_write: bool) -> Result<View, Failure> {
    let row = find(&console.source, id).await?;
    let mut works = read_works(console, WorksOf::Session(id)).await?;
    let at_work = works.rows.len();
    works.rows.truncate(SHOWN);
    let page = Page::Session(id);
    let head = html! {
        header.head {
            p.crumb { a href="/sessions" { "Sessions" } " / " (foreign(&row.component)) }
            div.titled {
                h1 { (foreign(&row.component)) }
                code.id.whole { (id) }
                button.copy type="button" hidden data-copy=(id) data-key="y" aria-label="Copy the session’s id" { (icon("copy")) }
                @if may_write { div.actions {
                    @if row.drain_requested.is_none() && !is_silent(&row) { a.button href={ "/sessions/" (id) "/drain" } { "Drain it…" } }
                    a.button.danger href={ "/sessions/" (id) "/expire" } { "Expire it…" }
                } }
            }
            p.lead {
                (liveness(&row)) " "
                @match row.left() {
                    Some(left) if left > TimeDelta::zero() => { "It is alive, with " (span(left)) " until its deadline; " },
                    Some(left) => { "It is silent: its deadline passed " (span(left)) " ago; " },
                    None => "It has no lease, and will be expired; ",
                }
                "it holds " (count(row.works, "work", "works")) "."
                @if let Some(reason) = &row.drain_requested { " An operator drains it, so it takes no new work: " (long(reason)) }
            }
            (source(console, &page, row.as_of, &format!("bmdb session show {id}"), &[]))
        }
    };
    let facts = html! {
        dl.rows.panel {
            div { dt { "Runs as" } dd { (foreign(&row.runtime_info)) } }
            div { dt { "Started" } dd { (when(row.started_at, row.as_of)) " · " (clock(row.started_at, row.as_of)) } }
            div { dt { "Interval" } dd { (row.interval.as_secs_f64()) " s: how long one heartbeat keeps it alive" } }
            div { dt { "Deadline" } dd { @match row.deadline { Some(deadline) => { (when(deadline, row.as_of)) " · " (clock(deadline, row.as_of)) }, None => "none" } } }
        }
    };
    let held = match works.rows.is_empty() {
        true => empty("It holds nothing.", "What it claims stands here until it ends."),
        false => {
            html! { (lists::works(&works.rows, false)) @if at_work > SHOWN { p.note { "The first " (SHOWN) " of " (grouped(at_work as u64)) "." } } }
        }
    };
    let next = command(&format!("bmdb session expire {id} --yes {} --reason '…'", row.works));
    let mut json = as_json(&row);
    json["held"] = works.rows.iter().map(work::as_json).collect();
    Ok(View {
        title: row.component.clone(),
        parts: vec![
            Part::new("head", head),
            Part::new(
                "steps",
                if is_silent(&row) {
                    section("What happens next", None, &steps(&row))
                } else {
                    html! {}
                },
            ),
            Part::new(
                "works",
                section("What it holds", None, &html! { (held) (unreadable(&works.unreadable)) }),
            ),
            Part::new("facts", section("Who it is", None, &facts)),
            Part::new("next", section("In a shell", None, &next)),
        ],
        json,
        at: row.as_of,
        page,
    })
}

/// What has happened and will, with the latest time of each where there is one.
fn steps(row: &SessionStatus) -> Markup {
    let interval = TimeDelta::from_std(row.interval).unwrap_or(TimeDelta::zero());
    // The README's bound of a collector that has watched: one interval past the deadline, and two of its periods, which are a quarter each.
    let expired = row.deadline.map(|deadline| deadline + interval + interval / 2);
    html! {
        ol.steps.panel {
            @if let Some(deadline) = row.deadline {
                li.past { (icon("met")) span.at { (clock(deadline, row.as_of)) } div { b { "Its deadline passed." } " Its process has stopped believing before, and starts nothing more." } }
            } @else {
                li.past { (icon("met")) span.at {} div { b { "It has no lease." } " Somebody has removed it." } }
            }
            li { (icon("waits")) span.at { @if let Some(expired) = expired.filter(|at| *at > row.as_of) { "by " (clock(expired, row.as_of)) } @else { "overdue" } }
                div { b { "A collector expires it" } ", once it has seen for an interval that nothing comes. An interval more where one has just started, or where most sessions look dead at once." } }
            li { (icon("ready")) span.at { "then" } div { b { (count(row.works, "work is", "works are")) " freed" } ": others may claim the machines when the cool-down of the process is over." } }
        }
    }
}
