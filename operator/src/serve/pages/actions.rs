//! What operators have done, the latest first.

use bmdb::entity::operation;
use bmdb::{MachineId, SessionId, WorkId};
use chrono::{DateTime, SecondsFormat, Utc};
use maud::{Markup, html};
use serde_json::json;

use crate::facts::name::{Name, names};
use crate::facts::operation::as_json;
use crate::failure::Failure;
use crate::serve::console::Console;
use crate::serve::page::{Actions, Page};
use crate::serve::parts::lists::{empty, pager, source, unreadable};
use crate::serve::parts::text::{foreign, long, machine, process, session, short, ticket};
use crate::serve::parts::time::{clock, when};
use crate::serve::view::{Part, View};

const ROWS: u32 = 50;

pub(super) async fn read(console: &Console, asked: &Actions) -> Result<View, Failure> {
    let bmdb = &console.source.bmdb;
    let list = bmdb.operations(asked.machine).limit(ROWS);
    let found = match &asked.after {
        Some((at, id)) => {
            let at = DateTime::parse_from_rfc3339(at)
                .map_err(|_odd| Failure::usage("that page of the list cannot be found: begin with the first"))?;
            list.after((at.to_utc(), *id)).await?
        }
        None => list.await?,
    };
    let now = bmdb.now().await?;
    let of_machines = found.rows.iter().filter_map(|act| act.machine_id).chain(asked.machine);
    let name = names(bmdb, of_machines.collect::<Vec<_>>()).await?;
    let page = Page::Actions(asked.clone());
    let from = |after| Actions { after, ..asked.clone() }.address();
    let next = found
        .next
        .map(|(at, id)| from(Some((at.to_rfc3339_opts(SecondsFormat::AutoSi, true), id))));
    let first = asked.after.is_some().then(|| from(None));
    let head = html! {
        header.head {
            h1 { "Operator actions" }
            p.lead {
                @match found.rows.first() {
                    None => "No operator has done anything",
                    Some(last) => { (foreign(&last.done_by)) " did the latest of these " (when(last.at, now)) ": " (foreign(&last.verb)) },
                }
                @if let Some(id) = asked.machine { " to " (machine(id, &name(id))) } "."
                " Each act stands here with its reason; nothing here can be changed."
            }
            (source(console, &page, now, "bmdb operation ls", &[]))
        }
        @if asked.machine.is_some() { p.active { a href="/actions" { "only of this machine" span aria-hidden="true" { " ✕" } span.unseen { ", remove" } } } }
    };
    let body = match found.rows.is_empty() {
        true => empty(
            "Nobody has acted.",
            "Holds, drains, asking to stop, breaking and clearing stand here, with who did it and why.",
        ),
        false => html! { (table(console, &found.rows, now, &name)) (pager("The latest first.", first, next)) },
    };
    Ok(View {
        title: "Operator actions".to_owned(),
        parts: vec![
            Part::new("head", head),
            Part::new("actions", html! { (body) (unreadable(&found.unreadable)) }),
        ],
        json: json!({"operations": found.rows.iter().map(as_json).collect::<Vec<_>>()}),
        at: now,
        page,
    })
}

fn table(console: &Console, acts: &[operation::Model], now: DateTime<Utc>, name: impl Fn(MachineId) -> Name) -> Markup {
    html! {
        div.panel {
            table.stacks role="table" {
                thead role="rowgroup" { tr role="row" { th scope="col" role="columnheader" { "When" } th scope="col" role="columnheader" { "By" } th scope="col" role="columnheader" { "Did" } th scope="col" role="columnheader" { "To" } th scope="col" role="columnheader" { "Reason" } th scope="col" role="columnheader" { "Ticket" } th scope="col" role="columnheader" { "With" } } }
                tbody role="rowgroup" {
                    @for act in acts {
                        tr role="row" data-row {
                            th scope="row" role="rowheader" { (clock(act.at, now)) span.under { (when(act.at, now)) } }
                            td role="cell" data-label="By" { (foreign(&act.done_by)) }
                            td role="cell" data-label="Did" { (foreign(&act.verb)) }
                            td role="cell" data-label="To" {
                                @if let Some(id) = act.machine_id { (machine(id, &name(id))) " " }
                                @if let Some(slot) = act.slot.as_deref().filter(|slot| *slot != "*") { "slot " (foreign(slot)) " " }
                                @if let Some(of) = &act.process { (process(of)) " " }
                                @if let Some(id) = act.session_id { "session " (session(SessionId(id.0))) " " }
                                @if let Some(id) = act.work_id { "work " a href=(Page::Work(WorkId(id.0)).address()) { (short(id.0)) } }
                            }
                            td role="cell" data-label="Reason" { (long(&act.reason)) @if let Some(detail) = &act.detail { span.under { (foreign(detail)) } } }
                            td role="cell" data-label="Ticket" { @if let Some(text) = &act.ticket { (ticket(text, &console.portals)) } }
                            td role="cell" data-label="With" { (foreign(&act.component)) }
                        }
                    }
                }
            }
        }
    }
}
