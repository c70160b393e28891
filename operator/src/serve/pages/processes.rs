//! Processes by slot: those of one slot exclude each other.

use maud::html;
use serde_json::json;

use crate::answer::words::count;
use crate::failure::Failure;
use crate::serve::console::Console;
use crate::serve::page::Page;
use crate::serve::pages::fleet::table;
use crate::serve::parts::lists::{empty, source};
use crate::serve::parts::text::prose;
use crate::serve::parts::time::span;
use crate::serve::view::{Part, View};

pub(super) async fn read(console: &Console) -> Result<View, Failure> {
    let counts = console.counts.get().await?;
    let pauses = console.source.bmdb.pauses().await?;
    let now = console.source.bmdb.now().await?;
    let rows = &counts.processes.rows;
    let unrun = rows.iter().filter(|row| row.is_unrun()).count();
    let mut slots: Vec<_> = rows.iter().map(|row| row.status.slot.as_str()).collect();
    slots.sort_unstable();
    slots.dedup();
    let head = html! {
        header.head {
            h1 { "Processes" }
            p.lead {
                @if !rows.is_empty() { (count(rows.len() as u64, "process", "processes")) " in " (count(slots.len() as u64, "slot", "slots")) "; "
                    @match unrun { 0 => "somebody runs each.", unrun => { "nobody runs " (unrun) " of them." } }
                    @if !pauses.is_empty() { " " (count(pauses.len() as u64, "is paused.", "are paused.")) }
                    " Processes of one slot exclude each other on a machine." }
            }
            (source(console, &Page::Processes, now, "bmdb process ls", &[html! { "counts are " (span(now - counts.at)) " old" }]))
        }
    };
    let body = match rows.is_empty() {
        true => empty(
            "No process is registered.",
            "A component registers its processes when it starts: none has run on this database yet.",
        ),
        false => {
            html! { @for why in &counts.processes.unread { p.note { (prose(why)) "." } } (table(&counts.processes, &pauses)) }
        }
    };
    Ok(View {
        page: Page::Processes,
        title: "Processes".to_owned(),
        parts: vec![Part::new("head", head), Part::new("processes", body)],
        json: json!({"processes": counts.processes.json(), "counted_at": counts.at.to_rfc3339()}),
        at: now,
    })
}
