//! What has happened on a machine: a row for each claim, and operators' acts between them.

use bmdb::MachineId;
use bmdb::entity::{operation, work_history};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::json;

use crate::answer::words::count;
use crate::facts::claims::{Claim, claims, event_json, events, latest};
use crate::facts::name::{Name, find, name_of};
use crate::failure::Failure;
use crate::serve::console::Console;
use crate::serve::page::Page;
use crate::serve::parts::chip::{Tone, chip, raw};
use crate::serve::parts::lists::{section, source};
use crate::serve::parts::text::{fence, foreign, long, machine, process, session, ticket};
use crate::serve::parts::time::{clock, span};
use crate::serve::view::{Part, View};

/// So many claims at most; the command line shows more.
const CLAIMS: usize = 500;

pub(super) async fn read(console: &Console, id: MachineId) -> Result<View, Failure> {
    let bmdb = &console.source.bmdb;
    let all = events(bmdb, id).await?;
    // A machine that was removed keeps its history.
    let name = match find(bmdb, &id.to_string()).await {
        Ok(found) => name_of(id, found.provider_id.as_deref()),
        Err(_removed) => Name {
            shown: id.to_string(),
            pasted: id.to_string(),
        },
    };
    let now = bmdb.now().await?;
    let shown = latest(&all, CLAIMS);
    let of = |event: work_history::Event| all.iter().filter(|row| row.event == event).count() as u64;
    let (claimed, failed) = (of(work_history::Event::Started), of(work_history::Event::Failed));
    let page = Page::History(id);
    let head = html! {
        header.head {
            p.crumb { a href="/machines" { "Machines" } " / " (machine(id, &name)) }
            h1 { "History of " (foreign(&name.shown)) }
            p.lead {
                @match claimed { 0 => "Nobody has ever claimed it.", many => { "It was claimed " (count(many, "time", "times")) "; " (count(failed, "work failed", "works failed")) "." } }
                @if shown.len() < all.len() { " The latest " (CLAIMS) " claims are shown." }
            }
            (source(console, &page, now, &format!("bmdb machine history {id}"), &[]))
        }
    };
    Ok(View {
        title: format!("History of {}", name.shown),
        parts: vec![
            Part::new("head", head),
            Part::new(
                "history",
                section(
                    "Claims",
                    Some("By fence, the newest first."),
                    &table(console, shown, &[], now),
                ),
            ),
        ],
        json: json!({"machine": id.to_string(), "history": shown.iter().rev().map(event_json).collect::<Vec<_>>()}),
        at: now,
        page,
    })
}

enum Row<'a> {
    Claim(Claim<'a>),
    Act(&'a operation::Model),
}

/// Claims by fence, the newest first; an act stands above the claims that began before it.
pub(super) fn table(
    console: &Console,
    events: &[work_history::Model],
    acts: &[operation::Model],
    now: DateTime<Utc>,
) -> Markup {
    let mut acts = acts.iter().peekable();
    let mut rows = Vec::new();
    for claim in claims(events).into_iter().rev() {
        let began = claim.start.or(claim.end).map(|event| event.at);
        while let Some(act) = acts.next_if(|act| began.is_none_or(|began| act.at > began)) {
            rows.push(Row::Act(act));
        }
        rows.push(Row::Claim(claim));
    }
    rows.extend(acts.map(Row::Act));
    html! {
        div.panel {
            @if rows.is_empty() { p.empty { b { "Nobody has ever claimed it." } " A claim stands here from its start on, with its end and its cause." } }
            @else {
                table.stacks.history role="table" {
                    thead role="rowgroup" { tr role="row" { th scope="col" role="columnheader" { "Fence" } th scope="col" role="columnheader" { "Event" } th scope="col" role="columnheader" { "Process or act" } th scope="col" role="columnheader" { "Started" } th scope="col" role="columnheader" { "Took" } th scope="col" role="columnheader" { "By" } th scope="col" role="columnheader" { "Cause" } } }
                    tbody role="rowgroup" { @for row in &rows { @match row { Row::Claim(claim) => (claimed(claim, now)), Row::Act(act) => (acted(console, act, now)) } } }
                }
            }
        }
    }
}

fn claimed(claim: &Claim<'_>, now: DateTime<Utc>) -> Markup {
    let Some(any) = claim.any() else { return html! {} };
    let took = claim.start.zip(claim.end).map(|(start, end)| span(end.at - start.at));
    let so_far = claim
        .start
        .filter(|_| claim.end.is_none())
        .map(|start| span(now - start.at));
    html! {
        tr role="row" data-row {
            td role="cell" { (fence(claim.fence)) }
            td role="cell" { (event(claim.end)) }
            td role="cell" { (process(&any.process)) }
            td role="cell" data-label="Started" { @match claim.start { Some(start) => (clock(start.at, now)), None => span.quiet { "not known" } } }
            td role="cell" data-label="Took" { @if let Some(took) = took { (took) } @else if let Some(so_far) = so_far { (so_far) " so far" } }
            td role="cell" data-label="By" { (foreign(&any.component_name)) " " (session(any.session_id)) }
            td role="cell" data-label="Cause" { @if let Some(cause) = claim.end.and_then(|end| end.cause.as_deref()) { (long(cause)) } }
        }
    }
}

fn event(end: Option<&work_history::Model>) -> Markup {
    use work_history::Event::{Canceled, Expired, Failed, Finished, Started};
    match end.map(|end| &end.event) {
        None => chip("work", Tone::Work, "in work"),
        Some(Finished) => chip("met", Tone::Quiet, "finished"),
        Some(Failed) => chip("unmet", Tone::Quiet, "failed"),
        Some(Canceled) => chip("none", Tone::Quiet, "canceled"),
        Some(Expired) => chip("silent", Tone::Quiet, "expired"),
        Some(Started) => chip("work", Tone::Work, "started"),
        Some(other) => raw(other.as_str()),
    }
}

fn acted(console: &Console, act: &operation::Model, now: DateTime<Utc>) -> Markup {
    html! {
        tr role="row" data-row {
            td role="cell" {}
            td role="cell" { (chip("person", Tone::Quiet, "operator")) }
            td role="cell" { (foreign(&act.verb)) @if let Some(slot) = act.slot.as_deref().filter(|slot| *slot != "*") { " slot " (foreign(slot)) } @if let Some(of) = &act.process { " " (process(of)) } }
            td role="cell" data-label="Done" { (clock(act.at, now)) }
            td role="cell" {}
            td role="cell" data-label="By" { (foreign(&act.done_by)) }
            td role="cell" data-label="Reason" { (long(&act.reason)) @if let Some(text) = &act.ticket { ", " (ticket(text, &console.portals)) } }
        }
    }
}
