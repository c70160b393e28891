//! Works: who holds which machine, and one of them.

use bmdb::{WorkId, WorksOf};
use maud::html;
use serde_json::json;

use crate::answer::words::{count, grouped};
use crate::facts::name::name_of;
use crate::facts::work::{as_json, find, is_silent, is_stuck};
use crate::failure::Failure;
use crate::serve::console::Console;
use crate::serve::page::{Page, Works};
use crate::serve::parts::chip::icon;
use crate::serve::parts::lists::{self, empty, progress, read_works, section, source, state, trust, unreadable};
use crate::serve::parts::text::{command, fence, foreign, long, machine, process, session};
use crate::serve::parts::time::{clock, since, span};
use crate::serve::view::{Part, View};

/// More are counted, not shown: those that need somebody stand first.
const SHOWN: usize = 200;

pub(super) async fn list(console: &Console, asked: &Works) -> Result<View, Failure> {
    let of = asked.process.clone().map_or(WorksOf::All, WorksOf::Process);
    let mut works = read_works(console, of).await?;
    let now = console.source.bmdb.now().await?;
    let stuck = works.rows.iter().filter(|work| is_stuck(work)).count() as u64;
    if asked.stuck {
        works.rows.retain(is_stuck);
    }
    let all = works.rows.len();
    works.rows.truncate(SHOWN);
    let page = Page::Works(asked.clone());
    let only = |stuck: bool| Page::Works(Works { stuck, ..asked.clone() }).address();
    let head = html! {
        header.head {
            h1 { "Works" }
            p.lead {
                @match all as u64 { 0 => "No such work goes on", many => (count(many, "work goes on", "works go on")) }
                @if let Some(name) = &asked.process { " for " (process(name)) }
                "; " @match stuck { 0 => "none is stuck.", many => (format!("{}.", count(many, "is stuck", "are stuck"))) }
                @if all > SHOWN { " The first " (SHOWN) " of " (grouped(all as u64)) " are shown, the longest first." }
            }
            (source(console, &page, now, if asked.stuck { "bmdb work ls --stuck" } else { "bmdb work ls" }, &[]))
        }
        p.active {
            @if asked.stuck { a href=(only(false)) { "only stuck ones" span aria-hidden="true" { " ✕" } span.unseen { ", remove" } } } @else { a.all href=(only(true)) { "Only stuck ones" } }
            @if let Some(name) = &asked.process { a href=(Page::Works(Works { process: None, ..asked.clone() }).address()) { "for " (foreign(name)) span aria-hidden="true" { " ✕" } span.unseen { ", remove" } } }
        }
    };
    let body = match works.rows.is_empty() {
        true => empty("Nobody works.", "A work stands here from its claim to its end."),
        false => lists::works(&works.rows, true),
    };
    Ok(View {
        title: "Works".to_owned(),
        parts: vec![
            Part::new("head", head),
            Part::new("works", html! { (body) (unreadable(&works.unreadable)) }),
        ],
        json: json!({"works": works.rows.iter().map(as_json).collect::<Vec<_>>(), "all": all.to_string()}),
        at: now,
        page,
    })
}

pub(super) async fn one(console: &Console, id: WorkId, may_write: bool) -> Result<View, Failure> {
    let work = find(&console.source.bmdb, id).await?;
    let name = name_of(work.machine, work.provider_id.as_deref());
    let page = Page::Work(id);
    let head = html! {
        header.head {
            p.crumb { a href="/works" { "Works" } " / " (process(&work.process)) }
            div.titled {
                h1 { (foreign(&work.process)) " on " (foreign(&name.shown)) }
                code.id.whole { (id) }
                button.copy type="button" hidden data-copy=(id) data-key="y" aria-label="Copy the work’s id" { (icon("copy")) }
                @if may_write {
                    div.actions {
                        @if work.stop_requested.is_none() { a.button href={ "/works/" (id) "/ask-to-stop" } { "Ask to stop…" } }
                        a.button.danger href={ "/works/" (id) "/break" } { "Break its session…" }
                    }
                }
            }
            p.lead { (foreign(&work.component)) " has held slot " (foreign(&work.slot)) " for " (span(work.age())) ": "
                (match (is_silent(&work), work.stop_requested.is_some()) { (true, _) => "its session is silent.", (false, true) => "it was asked to stop and goes on.", (false, false) => "its session is alive." }) }
            (source(console, &page, work.as_of, &format!("bmdb work show {id}"), &[]))
        }
    };
    let facts = html! {
        dl.rows.panel {
            div { dt { "State" } dd { (state(&work)) } }
            div { dt { "Machine" } dd { (machine(work.machine, &name)) } }
            div { dt { "Slot" } dd { (foreign(&work.slot)) } }
            div { dt { "Fence" } dd { (fence(work.fence)) } }
            div { dt { "Since" } dd { (since(work.claimed_at, work.as_of)) " · " (clock(work.claimed_at, work.as_of)) } }
            div { dt { "Trust left" } dd { (trust(&work)) span.under { "an upper bound: only the process knows when it stops" } } }
            div { dt { "Session" } dd { (session(work.session)) " of " (foreign(&work.component)) span.under { (foreign(&work.runtime_info)) } } }
            div { dt { "Progress" } dd { (progress(&work)) } }
            @if let Some(reason) = &work.stop_requested { div { dt { "Asked to stop" } dd { (long(reason)) } } }
        }
    };
    let next = html! {
        (command(&format!("bmdb work ask-to-stop {id} --reason '…'")))
        (command(&format!("bmdb work break {id} --expect-fence {} --reason '…'", work.fence)))
    };
    Ok(View {
        title: format!("{} on {}", work.process, name.shown),
        parts: vec![
            Part::new("head", head),
            Part::new("facts", section("What is known of it", None, &facts)),
            Part::new("next", section("In a shell", None, &next)),
        ],
        json: as_json(&work),
        at: work.as_of,
        page,
    })
}
