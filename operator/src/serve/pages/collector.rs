//! The collector: whose deadline has passed, and who expires them.

use maud::html;
use serde_json::json;

use crate::answer::words::count;
use crate::facts::session::{as_json, is_overdue, is_silent, read as read_sessions};
use crate::failure::Failure;
use crate::serve::console::Console;
use crate::serve::page::Page;
use crate::serve::parts::chip::{Tone, chip, icon};
use crate::serve::parts::lists::{empty, section, source};
use crate::serve::parts::text::{foreign, session};
use crate::serve::parts::time::{span, when};
use crate::serve::view::{Part, View};

pub(super) async fn read(console: &Console) -> Result<View, Failure> {
    let mut sessions = read_sessions(&console.source).await?;
    let now = console.source.bmdb.now().await?;
    sessions.rows.retain(is_silent);
    let silent = &sessions.rows;
    let works: u64 = silent.iter().map(|row| row.works).sum();
    let head = html! {
        header.head {
            h1 { "Collector" }
            p.lead {
                @match silent.len() as u64 {
                    0 => "No deadline has passed: there is nothing to expire.",
                    many => (format!("{} silent, and {} with them.", count(many, "session is", "sessions are"), count(works, "work waits", "works wait"))),
                }
            }
            (source(console, &Page::Collector, now, "bmdb collect --dry-run", &[]))
        }
    };
    let here = html! {
        div.panel.pad {
            p { @if console.collect { (chip("live", Tone::Quiet, "runs")) " This console runs a collector." } @else { (chip("none", Tone::Quiet, "does not run")) " This console runs no collector: it was started with --read-only or --no-collector. Another component must." } }
            p.quiet { "Collectors of other components leave no row while they have nothing to do, so they cannot be listed here. What they expired stands in the history of the machines, with the word expired." }
        }
    };
    let rows = match silent.is_empty() {
        true => empty(
            "No session is silent.",
            "A session whose deadline has passed stands here until a collector has seen for an interval that nothing comes.",
        ),
        false => html! {
            div.panel {
                table.stacks role="table" {
                    thead role="rowgroup" { tr role="row" { th scope="col" role="columnheader" { "Component" } th scope="col" role="columnheader" { "Session" } th scope="col" role="columnheader" { "Deadline" } th.number scope="col" role="columnheader" { "Interval" } th.number scope="col" role="columnheader" { "Works" } th scope="col" role="columnheader" { "Next" } } }
                    tbody role="rowgroup" {
                        @for row in silent {
                            @let left = row.left().map(|left| left.abs());
                            tr role="row" data-row {
                                th scope="row" role="rowheader" { (foreign(&row.component)) }
                                td role="cell" data-label="Session" { (session(row.session)) }
                                td role="cell" data-label="Deadline" { @match row.deadline { Some(deadline) => (when(deadline, row.as_of)), None => "none" } }
                                td.number role="cell" data-label="Interval" { (row.interval.as_secs_f64()) " s" }
                                td.number role="cell" data-label="Works" { (row.works) }
                                td role="cell" data-label="Next" { @match left {
                                    Some(left) if is_overdue(row) => { (chip("alert", Tone::Person, "overdue")) " no collector has expired it for " (span(left)) },
                                    _ => (chip("waits", Tone::Waits, "a collector watches it for an interval")),
                                } }
                            }
                        }
                    }
                }
            }
        },
    };
    let notice = html! {
        @if silent.iter().any(is_overdue) { div.notice.bad { (icon("alert")) div { h2 { "Nobody seems to collect" } p { "A session has been silent for three intervals and more. Run " code { "bmdb collect" } ", or look at the log of the component that runs a collector." } } } }
    };
    Ok(View {
        page: Page::Collector,
        title: "Collector".to_owned(),
        parts: vec![
            Part::new("head", html! { (head) (notice) }),
            Part::new("here", section("Who collects", None, &here)),
            Part::new("silent", section("Silent sessions", None, &rows)),
        ],
        json: json!({"runs_here": console.collect, "silent": silent.iter().map(as_json).collect::<Vec<_>>(), "works": works.to_string()}),
        at: now,
    })
}
