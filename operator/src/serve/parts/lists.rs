//! Sections, tables of machines' works and what stands where a list is empty.

use bmdb::{WorkStatus, WorksOf};
use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};

use crate::facts::name::name_of;
use crate::facts::work::{is_silent, is_stuck};
use crate::serve::page::Page;
use crate::serve::parts::chip::{Tone, chip};
use crate::serve::parts::text::{foreign, machine, process, session};
use crate::serve::parts::time::{clock, since, span};

/// A part of a page under a heading.
pub(in crate::serve) fn section(heading: &str, note: Option<&str>, body: &Markup) -> Markup {
    html! {
        section aria-label=(heading) {
            div.heading { h2 { (heading) } @if let Some(note) = note { p { (note) } } }
            (body)
        }
    }
}

/// What would be here, and why it is not.
pub(in crate::serve) fn empty(what: &str, why: &str) -> Markup {
    html! { div.panel { p.empty { b { (what) } " " (why) } } }
}

/// Rows that somebody has edited so that nobody can read them: named, and passed over.
pub(in crate::serve) fn unreadable(rows: &[bmdb::Unreadable]) -> Markup {
    html! {
        @for row in rows {
            p.note { "Row " (foreign(&row.row)) " cannot be read and is left out." }
        }
    }
}

/// Where more of a list is.
pub(in crate::serve) fn pager(said: &str, first: Option<String>, next: Option<String>) -> Markup {
    html! {
        nav.pager aria-label="Pages of the list" {
            p { (said) }
            div {
                @if let Some(first) = first { a.button.small href=(first) data-key="b" { "First" } }
                @if let Some(next) = next { a.button.small href=(next) data-key="n" rel="next" { "Next" } }
            }
        }
    }
}

/// Works, the longest first.
pub(in crate::serve) fn works(works: &[WorkStatus], with_component: bool) -> Markup {
    html! {
        div.panel {
            table.stacks role="table" {
                thead role="rowgroup" { tr role="row" {
                    th scope="col" role="columnheader" { "Machine" } th scope="col" role="columnheader" { "State" } th scope="col" role="columnheader" { "Slot and process" }
                    @if with_component { th scope="col" role="columnheader" { "Held by" } }
                    th scope="col" role="columnheader" { "Held for" } th scope="col" role="columnheader" { "Trust left" } th scope="col" role="columnheader" { "Progress" } th scope="col" role="columnheader" { "Work" }
                } }
                tbody role="rowgroup" {
                    @for work in works {
                        tr role="row" data-row {
                            th scope="row" role="rowheader" { (machine(work.machine, &name_of(work.machine, work.provider_id.as_deref()))) }
                            td role="cell" data-label="State" { (state(work)) }
                            td role="cell" data-label="For" { (process(&work.process)) span.under { "slot " (foreign(&work.slot)) } }
                            @if with_component { td role="cell" data-label="Held by" { (foreign(&work.component)) " " (session(work.session)) } }
                            td role="cell" data-label="Held for" { (since(work.claimed_at, work.as_of)) span.under { (clock(work.claimed_at, work.as_of)) } }
                            td role="cell" data-label="Trust left" { (trust(work)) }
                            td role="cell" data-label="Progress" { (progress(work)) }
                            td role="cell" data-label="Work" { a href=(Page::Work(work.work).address()) { (super::text::short(work.work.0)) } }
                        }
                    }
                }
            }
        }
    }
}

/// The state of a work.
pub(in crate::serve) fn state(work: &WorkStatus) -> Markup {
    match (is_silent(work), is_stuck(work)) {
        (true, _) => chip("silent", Tone::Soon, "silent"),
        (false, true) => chip("work", Tone::Person, "asked to stop"),
        (false, false) => chip("work", Tone::Work, "in work"),
    }
}

/// What its holder may believe in, at most: only the holder knows its margin.
pub(in crate::serve) fn trust(work: &WorkStatus) -> Markup {
    match work.left() {
        Some(left) if left > TimeDelta::zero() => html! { "at most " (span(left)) },
        Some(left) => html! { "none: its deadline passed " (span(left)) " ago" },
        None => html! { "none: it has no lease that can be read" },
    }
}

/// What its holder said last.
pub(in crate::serve) fn progress(work: &WorkStatus) -> Markup {
    let said = work.progress.as_ref().map(|value| match value {
        serde_json::Value::String(text) => text.clone(),
        value => value.to_string(),
    });
    match said {
        Some(said) => super::text::long(&said),
        None => html! { span.quiet { "says nothing" } },
    }
}

/// Puts those first that need somebody, then the longest.
pub(in crate::serve) fn sort(works: &mut [WorkStatus]) {
    works.sort_by_key(|work| (!is_stuck(work), work.claimed_at, work.work));
}

/// When a page was read, and of what.
pub(in crate::serve) fn source(
    console: &crate::serve::console::Console,
    page: &Page,
    at: DateTime<Utc>,
    twin: &str,
    more: &[Markup],
) -> Markup {
    html! {
        ul.source {
            li { "Read from " (foreign(console.source.bmdb.name())) " at " time datetime=(at.to_rfc3339()) { (at.format("%H:%M:%S")) } " UTC by the database’s clock" }
            @for more in more { li { (more) } }
            li { a href={ "/json" (page.address()) } { "JSON" } }
            @if !twin.is_empty() { li { "same as " code { (super::text::prose(twin)) } } }
        }
    }
}

/// All works of a kind, sorted.
pub(in crate::serve) async fn read_works(
    console: &crate::serve::console::Console,
    of: WorksOf,
) -> Result<crate::facts::pages::Read<WorkStatus>, crate::failure::Failure> {
    let bmdb = &console.source.bmdb;
    let mut works = crate::facts::pages::read_all(|| bmdb.works(of.clone()).limit(10_000)).await?;
    sort(&mut works.rows);
    Ok(works)
}
