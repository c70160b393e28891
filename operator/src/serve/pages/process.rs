//! A process: where its machines stand, its rule, who runs it.

use bmdb::WorksOf;
use maud::html;

use crate::answer::words::{count, grouped};
use crate::facts::process::{as_json, pause_json, unasked, unknown};
use crate::failure::Failure;
use crate::serve::console::Console;
use crate::serve::page::{Machines, Page, State, Works, encoded};
use crate::serve::pages::fleet::components;
use crate::serve::parts::bar::Shares;
use crate::serve::parts::chip::icon;
use crate::serve::parts::clauses::paused;
use crate::serve::parts::lists::{self, empty, read_works, section, source, unreadable};
use crate::serve::parts::text::{foreign, long};
use crate::serve::parts::time::{span, when};
use crate::serve::view::{Part, Place, View};

/// More works are on a page of their own.
const WORKS: usize = 10;

pub(super) async fn read(console: &Console, name: &str, may_write: bool) -> Result<View, Failure> {
    let counts = console.counts.get().await?;
    let Some(row) = counts.processes.rows.iter().find(|row| row.status.process == name) else {
        let known: Vec<_> = counts
            .processes
            .rows
            .iter()
            .map(|row| row.status.process.as_str())
            .collect();
        return Err(unknown(name, &known));
    };
    let status = &row.status;
    let mut works = read_works(console, WorksOf::Process(name.to_owned())).await?;
    let pauses = console.source.bmdb.pauses().await?;
    let pause = pauses.iter().find(|pause| pause.process == name);
    let now = console.source.bmdb.now().await?;
    let at_work = works.rows.len();
    works.rows.truncate(WORKS);
    let shares = Shares::of(row);
    let page = Page::Process(name.to_owned());
    let head = html! {
        header.head {
            p.crumb { a href="/processes" { "Processes" } " / slot " (foreign(&status.slot)) }
            div.titled {
                h1 { (foreign(name)) }
                @if may_write { div.actions {
                    @if pause.is_some() { a.button href={ "/processes/" (encoded(name)) "/resume" } { "Resume it…" } }
                    @else { a.button href={ "/processes/" (encoded(name)) "/pause" } { "Pause it…" } }
                } }
            }
            div.lead { (long(&status.description)) }
            (source(console, &page, now, &format!("bmdb process show {}", crate::answer::words::quoted(name)), &[html! { "counts are " (span(now - counts.at)) " old" }]))
        }
        @if let Some(pause) = pause {
            div.notice.warn { (icon("held")) div { h2 { "It is paused" }
                p { "Nobody claims for it. Paused " (paused(pause, now)) }
                p { @match pause.until { Some(end) => { "It goes on by itself " (when(end, now)) "." }, None => "It goes on when somebody resumes it." } } } }
        }
        @if row.is_idle() {
            div.notice.bad { (icon("alert")) div { h2 { "Nobody runs it" }
                p { "No component has used a rule of it for two hours, and " (row.eligible().map_or("how many machines are eligible is not known".to_owned(), |many| format!("{} eligible", count(many, "machine is", "machines are")))) ". Start one that runs it: BMDB cannot do that for you." } } }
        }
    };
    let list = |state: State| {
        Machines {
            state: Some(state),
            process: Some(name.to_owned()),
            ..Machines::default()
        }
        .address()
    };
    let stand = html! {
        div.panel.pad {
            (shares.bar()) (shares.legend())
            p.links { "Their lists: " @for (nth, state) in State::ALL.into_iter().enumerate() { @if nth > 0 { ", " } a href=(list(state)) { (state.word().replace('-', " ")) } } "." }
        }
    };
    let rules = html! {
        @for (rule, counted) in &row.rules {
            div.panel.pad.rule {
                h3 { "Rule " code { (rule.digest) } }
                p.quiet { "as " (foreign(&rule.component)) " uses it, last " (when(rule.used_at, status.as_of)) "; "
                    @match counted { Ok(counted) => { (count(*counted, "machine is", "machines are")) " eligible by it" }, Err(error) => (unasked(error)) } "." }
                p { "A machine is eligible when all of this is so, and nothing of BMDB’s own stands in the way:" }
                ul.asked { @for clause in rule.clauses() { li { (icon("ready")) span { (long(clause)) } } } }
            }
        }
        @if row.rules.is_empty() { (empty("It has no rule.", "Nobody has used one for a day: the next component that registers it brings it.")) }
    };
    let facts = html! {
        dl.rows.panel {
            div { dt { "Slot" } dd { (foreign(&status.slot)) } }
            div { dt { "Cool-down" } dd { (status.cool_down.as_secs_f64()) " s after an expiry" } }
            div { dt { "Registered" } dd { (when(status.registered_at, status.as_of)) " by " (foreign(&status.registered_by)) } }
            div { dt { "Run by" } dd { @if row.is_unrun() { "nobody" } @else { @for component in components(row) { span.line { (foreign(component)) } } } } }
        }
    };
    let going = match works.rows.is_empty() {
        true => empty(
            "Nobody works for it now.",
            "A work stands here from its claim to its end.",
        ),
        false => html! {
            (lists::works(&works.rows, true))
            @if at_work > WORKS { p.links { "The " (WORKS) " longest of " (grouped(at_work as u64)) ". " a href=(Page::Works(Works { process: Some(name.to_owned()), stuck: false }).address()) { "All of them" } } }
        },
    };
    Ok(View {
        title: name.to_owned(),
        parts: vec![
            Part::new("head", head),
            Part::new("stand", section("Where its machines stand", None, &stand)),
            Part::at(
                "rules",
                Place::Left,
                section(
                    "Its rules",
                    Some("Several while components of two versions run."),
                    &rules,
                ),
            ),
            Part::at("facts", Place::Right, section("What is known of it", None, &facts)),
            Part::new(
                "works",
                section(
                    "Works, the longest first",
                    None,
                    &html! { (going) (unreadable(&works.unreadable)) },
                ),
            ),
        ],
        json: {
            // Newer than the counts.
            let mut json = as_json(row);
            json["pause"] = pause.map_or(serde_json::Value::Null, pause_json);
            json
        },
        at: now,
        page,
    })
}
