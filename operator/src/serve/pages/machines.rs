//! Machines: found by what people call them, or by how they stand.

use bmdb::MachineStatus;
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::json;

use crate::answer::words::count;
use crate::facts::machine::{Standing, as_json, is_on, standing};
use crate::facts::name::name_of;
use crate::facts::process::registered;
use crate::facts::work::{is_silent, is_stuck};
use crate::failure::Failure;
use crate::serve::console::Console;
use crate::serve::page::{Machines, Page, State};
use crate::serve::parts::chip::{Tone, chip};
use crate::serve::parts::lists::{empty, pager, source, unreadable};
use crate::serve::parts::text::{foreign, machine, process, prose};
use crate::serve::parts::time::{since, when};
use crate::serve::view::{Part, View};

const ROWS: u32 = 50;

pub(super) async fn read(console: &Console, asked: &Machines) -> Result<View, Failure> {
    let bmdb = &console.source.bmdb;
    let list = bmdb.machines(asked.filter()).limit(ROWS);
    let found = match asked.after {
        Some(id) => list.after(bmdb::MachineId(id)).await?,
        None => list.await?,
    };
    let ids: Vec<_> = found.rows.iter().map(|row| row.machine).collect();
    let standing = standing(bmdb, &ids).await?;
    let processes = registered(bmdb).await?;
    let now = match found.rows.first() {
        Some(row) => row.as_of,
        None => bmdb.now().await?,
    };
    let many = found.rows.len() as u64;
    let is_first = asked.after.is_none();
    let lead = match (found.next.is_some(), is_first) {
        (true, true) => format!("The first {} of more, by id.", count(many, "machine", "machines")),
        (true, false) => format!("{} more, and others after them.", count(many, "machine", "machines")),
        (false, true) => format!("{} in all.", count(many, "machine matches", "machines match")),
        (false, false) => format!("The last {}.", count(many, "machine", "machines")),
    };
    let page = Page::Machines(asked.clone());
    let head = html! {
        header.head { h1 { "Machines" } p.lead { (lead) } (source(console, &page, now, &twin(asked), &[])) }
    };
    let next = found.next.map(|id| asked.from(Some(id.0)).address());
    let first = (!is_first).then(|| asked.from(None).address());
    let body = html! {
        @if found.rows.is_empty() {
            (empty(
                &match &asked.name { Some(text) => format!("No machine matches {:?}.", prose(text)), None => "No machine matches.".to_owned() },
                "Searched by name: id, provider id, address, each equal to the text.",
            ))
        } @else {
            (table(&found.rows, &standing, now))
            (pager(&lead, first, next))
        }
        (unreadable(&found.unreadable)) (unreadable(&standing.unreadable))
    };
    let json = json!({
        "machines": found.rows.iter().map(|row| as_json(row, &words(&standing, row, now))).collect::<Vec<_>>(),
        "next": found.next.map(|id| id.to_string()),
    });
    Ok(View {
        title: "Machines".to_owned(),
        parts: vec![
            Part::new("head", head),
            Part::new("filters", filters(asked, &processes)),
            Part::new("machines", body),
        ],
        json,
        at: now,
        page,
    })
}

fn twin(asked: &Machines) -> String {
    use crate::answer::words::quoted;
    if let Some(name) = &asked.name {
        return format!("bmdb whatis {}", quoted(name));
    }
    let state = asked.state.map(|state| format!(" --state {}", state.word()));
    let process = asked
        .process
        .as_ref()
        .map(|name| format!(" --process {}", quoted(name)));
    let provider = asked
        .provider
        .as_ref()
        .map(|name| format!(" --provider {}", quoted(name)));
    let flags: String = [state, process, provider].into_iter().flatten().collect();
    format!("bmdb machine ls{flags}")
}

/// What is asked for, as a form that works without a script, and as links that take one thing away.
fn filters(asked: &Machines, processes: &[(String, String)]) -> Markup {
    let without = [
        asked.name.as_ref().map(|text| {
            (
                "called",
                text.clone(),
                Machines {
                    name: None,
                    ..asked.from(None)
                },
            )
        }),
        asked.state.map(|state| {
            let rest = Machines {
                state: None,
                process: None,
                ..asked.from(None)
            };
            ("state", state.word().replace('-', " "), rest)
        }),
        asked.process.as_ref().map(|text| {
            (
                "for",
                text.clone(),
                Machines {
                    process: None,
                    ..asked.from(None)
                },
            )
        }),
        asked.provider.as_ref().map(|text| {
            (
                "of",
                text.clone(),
                Machines {
                    provider: None,
                    ..asked.from(None)
                },
            )
        }),
    ];
    html! {
        form.filters action="/machines" {
            label { "Id, provider id or address" input type="search" name="q" value=[asked.name.as_deref()] autocomplete="off" spellcheck="false"; }
            label { "State" select name="state" {
                option value="" { "any" }
                @for state in State::ALL { option value=(state.word()) selected[asked.state == Some(state)] { (state.word().replace('-', " ")) } }
            } }
            label { "for the process" select name="process" {
                option value="" { "any" }
                @for (name, _) in processes { option value=(name) selected[asked.process.as_ref() == Some(name)] { (prose(name)) } }
            } }
            label { "Provider" input type="text" name="provider" value=[asked.provider.as_deref()] autocomplete="off" spellcheck="false"; }
            button type="submit" { "Show" }
        }
        @if without.iter().any(Option::is_some) {
            p.active {
                @for (word, value, rest) in without.iter().flatten() {
                    a href=(rest.address()) { (word) " " (foreign(value)) span aria-hidden="true" { " ✕" } span.unseen { ", remove" } }
                }
                a.all href="/machines" { "All machines" }
            }
        }
    }
}

fn table(rows: &[MachineStatus], standing: &Standing, now: DateTime<Utc>) -> Markup {
    html! {
        div.panel {
            table.stacks.machines role="table" {
                thead role="rowgroup" { tr role="row" { th scope="col" role="columnheader" { "Machine" } th scope="col" role="columnheader" { "Provider and place" } th scope="col" role="columnheader" { "Address" } th scope="col" role="columnheader" { "How it stands" } th scope="col" role="columnheader" { "In the database" } } }
                tbody role="rowgroup" {
                    @for row in rows {
                        tr role="row" data-row {
                            th scope="row" role="rowheader" { (machine(row.machine, &name_of(row.machine, row.provider_id.as_deref()))) span.under { (super::super::parts::text::short(row.machine.0)) } }
                            td role="cell" data-label="Provider" { @if let Some(provider) = &row.provider { (foreign(provider)) } @else { span.quiet { "none" } } @if let Some(place) = &row.location { span.under { (foreign(place)) } } }
                            td role="cell" data-label="Address" { @if let Some(address) = &row.address { (foreign(address)) } @else { span.quiet { "none" } } }
                            td role="cell" data-label="Stands" { (stands(standing, row, now)) }
                            td role="cell" data-label="Came" { (when(row.created_at, now)) }
                        }
                    }
                }
            }
        }
    }
}

/// How a machine stands to processes, each as a shape and words.
fn stands(standing: &Standing, row: &MachineStatus, now: DateTime<Utc>) -> Markup {
    let works = standing.works.get(&row.machine).map(Vec::as_slice).unwrap_or_default();
    let backoffs = standing
        .backoffs
        .get(&row.machine)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let backoffs = || {
        backoffs
            .iter()
            .filter(|backoff| backoff.until.is_none_or(|until| until > now))
    };
    let holds = standing.holds.get(&row.machine).map(Vec::as_slice).unwrap_or_default();
    let holds = || holds.iter().filter(|hold| is_on(hold, now));
    let is_free = works.is_empty() && backoffs().next().is_none() && holds().next().is_none();
    html! {
        @if is_free { span.quiet { "nothing on it" } }
        ul.states {
            @for work in works {
                li {
                    @if is_silent(work) { (chip("silent", Tone::Soon, "silent")) } @else if is_stuck(work) { (chip("work", Tone::Person, "asked to stop")) } @else { (chip("work", Tone::Work, "in work")) }
                    " " (process(&work.process)) " " (since(work.claimed_at, now))
                }
            }
            @for backoff in backoffs() {
                li {
                    @match backoff.until { None => { (chip("parked", Tone::Person, "parked")) " " (process(&backoff.process)) }, Some(end) => { (chip("waits", Tone::Waits, "backing off")) " " (process(&backoff.process)) " " (when(end, now)) } }
                    span.under.clipped { (foreign(&backoff.cause)) }
                }
            }
            @for hold in holds() {
                li { (chip("held", Tone::Quiet, "held")) " " @if hold.slot != "*" { "slot " (foreign(&hold.slot)) " " } "by " (foreign(&hold.placed_by)) }
            }
        }
    }
}

/// The same for programs, each in words.
fn words(standing: &Standing, row: &MachineStatus, now: DateTime<Utc>) -> Vec<String> {
    let works = standing.works.get(&row.machine).into_iter().flatten();
    let works = works.map(|work| format!("in work: {}", work.process));
    let backoffs = standing.backoffs.get(&row.machine).into_iter().flatten();
    let backoffs = backoffs.filter_map(|backoff| match backoff.until {
        None => Some(format!("parked: {}", backoff.process)),
        Some(until) if until > now => Some(format!("backing off: {}", backoff.process)),
        Some(_) => None,
    });
    let holds = standing.holds.get(&row.machine).into_iter().flatten();
    let holds = holds
        .filter(|hold| is_on(hold, now))
        .map(|hold| match hold.slot.as_str() {
            "*" => "held".to_owned(),
            slot => format!("held: slot {slot}"),
        });
    works.chain(backoffs).chain(holds).collect()
}
