//! The fleet: where the machines of each process stand, and what stands still.

use bmdb::WorksOf;
use bmdb::entity::process_pause;
use maud::{Markup, html};
use serde_json::json;

use crate::answer::words::{count, grouped};
use crate::facts::process::Processes;
use crate::facts::{session, work};
use crate::failure::Failure;
use crate::serve::console::Console;
use crate::serve::page::Page;
use crate::serve::parts::bar::{STATES, Shares, shown};
use crate::serve::parts::chip::{Tone, chip, icon};
use crate::serve::parts::lists::{empty, read_works, section, source, unreadable};
use crate::serve::parts::text::{foreign, process, prose};
use crate::serve::parts::time::{span, when};
use crate::serve::view::{Part, View};

pub(super) async fn read(console: &Console) -> Result<View, Failure> {
    let counts = console.counts.get().await?;
    let works = read_works(console, WorksOf::All).await?;
    let sessions = session::read(&console.source).await?;
    let pauses = console.source.bmdb.pauses().await?;
    let now = console.source.bmdb.now().await?;
    let silent = sessions.rows.iter().filter(|row| session::is_silent(row)).count() as u64;
    let alive = sessions.rows.len() as u64 - silent;
    let stuck = works.rows.iter().filter(|row| work::is_stuck(row)).count() as u64;
    let longest = works.rows.iter().map(bmdb::WorkStatus::age).max();
    let at_work = works.rows.len() as u64;
    let idle: Vec<_> = counts.processes.rows.iter().filter(|row| row.is_idle()).collect();

    let head = html! {
        header.head {
            h1 { "Fleet" }
            p.lead {
                @match at_work { 0 => "No work goes on", 1 => "1 work goes on", many => { (grouped(many)) " works go on" } }
                " among " (count(counts.machines, "machine", "machines")) ". "
                @match idle.as_slice() {
                    [] => "Somebody runs every process that has something to do.",
                    [one] => { "Nobody runs " b { (process(&one.status.process)) } "." },
                    [first, rest @ ..] => { (idle.len()) " processes stand still: nobody runs " b { (process(&first.status.process)) } @for row in rest { ", " b { (process(&row.status.process)) } } "." },
                }
            }
            (source(console, &Page::Fleet, now, "bmdb status", &[
                html! { "counts are " (span(now - counts.at)) " old, and took " (counts.took.as_millis()) " ms" },
                html! { "what several rules of a process find counts for each, and what is held may also be in another part" },
            ]))
        }
    };
    let notices = html! {
        @for row in &idle {
            div.notice.bad {
                (icon("alert"))
                div {
                    h2 { "Nobody runs " (foreign(&row.status.process)) }
                    p {
                        @match row.eligible() {
                            Some(eligible) => { (count(eligible, "machine is", "machines are")) " eligible. " },
                            None => "How many machines are eligible is not known. ",
                        }
                        @match row.used_at() {
                            Some(used) => { "A component last used its rule " (when(used, now)) ", to the hour. " },
                            None => "No component has used its rule for a day. ",
                        }
                        "Start one that runs it: BMDB cannot do that for you."
                    }
                }
                div.actions { a.button.small href="/attention" { "What else needs a person" } }
            }
        }
        @for why in &counts.processes.unread { p.notice.warn { (icon("alert")) span { (prose(why)) "." } } }
    };
    let facts = html! {
        dl.facts.panel {
            div { dt { "Machines" } dd { (grouped(counts.machines)) } dd { a href="/machines" { "all of them" } } }
            div { dt { "Works" } dd { (grouped(at_work)) }
                dd { @if stuck > 0 { a href="/works?stuck=yes" { (chip("work", Tone::Person, &count(stuck, "is stuck", "are stuck"))) } } @else if let Some(longest) = longest { "the longest for " (span(longest)) } @else { "nobody works" } } }
            div { dt { "Sessions" } dd { (grouped(alive)) " alive" }
                dd { a href="/sessions" { @if silent > 0 { (chip("silent", Tone::Soon, &count(silent, "is silent", "are silent"))) } @else { "none is silent" } } } }
            div { dt { "Needs a person" } dd { (counts.attention) }
                dd { a href="/attention" { @if counts.attention > 0 { (chip("person", Tone::Person, "see what")) } @else { "nothing does" } } } }
        }
    };
    let body = match counts.processes.rows.is_empty() {
        true => empty(
            "No process is registered.",
            "A component registers its processes when it starts: none has run on this database yet.",
        ),
        false => table(&counts.processes, &pauses),
    };
    let note = "A bar is the machines that stand to a process; a small part is drawn wide enough to be seen.";
    let json = json!({
        "machines": counts.machines.to_string(), "works": at_work.to_string(), "stuck": stuck.to_string(), "sessions": sessions.rows.len().to_string(),
        "silent": silent.to_string(), "attention": counts.attention.to_string(), "counted_at": counts.at.to_rfc3339(),
        "processes": counts.processes.json(),
    });
    Ok(View {
        page: Page::Fleet,
        title: "Fleet".to_owned(),
        parts: vec![
            Part::new("head", head),
            Part::new("notices", notices),
            Part::new("facts", facts),
            Part::new(
                "processes",
                section(
                    "Processes",
                    Some(note),
                    &html! { (body) (unreadable(&works.unreadable)) (unreadable(&sessions.unreadable)) },
                ),
            ),
        ],
        json,
        at: now,
    })
}

/// A row for each process, with its bar.
/// A pause is asked for anew: who has just placed one wants to see it.
pub(super) fn table(processes: &Processes, pauses: &[process_pause::Model]) -> Markup {
    html! {
        div.panel {
            table.stacks.fleet role="table" {
                thead role="rowgroup" { tr role="row" {
                    th scope="col" role="columnheader" { "Process" } th scope="col" role="columnheader" { "Shares" }
                    @for (shape, word) in STATES { th.number scope="col" role="columnheader" { span.(format!("tint-{shape}")) { (icon(shape)) } (word) } }
                    th scope="col" role="columnheader" { "Run by" }
                } }
                tbody role="rowgroup" {
                    @for row in &processes.rows {
                        @let shares = Shares::of(row);
                        tr role="row" data-row {
                            th scope="row" role="rowheader" {
                                span.name { (process(&row.status.process)) }
                                span.under { "slot " (foreign(&row.status.slot)) @if !row.status.description.is_empty() { ": " (foreign(&row.status.description)) } }
                                @if pauses.iter().any(|pause| pause.process == row.status.process) { (chip("held", Tone::Soon, "paused")) }
                                @if row.is_idle() { (chip("alert", Tone::Person, "nobody runs it")) } @else if row.is_unrun() { (chip("none", Tone::Quiet, "nobody runs it, nothing to do")) }
                            }
                            td.bar-cell role="cell" { (shares.bar()) }
                            @for ((_, word), number) in STATES.iter().zip(shares.numbers()) {
                                td.number.none[number == Some(0)] role="cell" data-word=(word) { (shown(number)) }
                            }
                            td role="cell" data-label="Run by" {
                                @let components = components(row);
                                @if row.is_unrun() { span.quiet { "nobody" } } @else if components.is_empty() { "somebody" }
                                @for component in components { span.line { (foreign(component)) } }
                                @if let Some(used) = row.used_at() { span.under { (when(used, row.status.as_of)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The components whose rules it has, each once.
pub(super) fn components(row: &crate::facts::process::Row) -> Vec<&str> {
    let mut components: Vec<_> = row.rules.iter().map(|(rule, _)| rule.component.as_str()).collect();
    components.sort_unstable();
    components.dedup();
    components
}
