//! What needs a person: one line for each cause, with the next step beside it.

use bmdb::SessionStatus;
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::{Value, json};

use crate::answer::words::{count, grouped, quoted};
use crate::facts::attention::{self, Failures, OFTEN, Thing, Urgency};
use crate::facts::name::name_of;
use crate::facts::session::is_overdue;
use crate::failure::Failure;
use crate::serve::console::Console;
use crate::serve::counts::LONG;
use crate::serve::page::{Machines, Page, State, encoded};
use crate::serve::parts::chip::{Tone, chip};
use crate::serve::parts::clauses::release_address;
use crate::serve::parts::lists::{section, source, unreadable};
use crate::serve::parts::text::{command, foreign, long, machine, process, prose, session, ticket};
use crate::serve::parts::time::{span, when};
use crate::serve::view::{Part, View};

/// More of one kind are counted, not shown: whoever has these to mend need not read on.
const SHOWN: usize = 100;

const GROUPS: [(Urgency, &str, &str, &str); 3] = [
    (
        Urgency::Now,
        "now",
        "Now",
        "Machines are locked or waiting, and time makes it worse.",
    ),
    (
        Urgency::Decision,
        "decision",
        "A decision",
        "It stays as it is until somebody decides.",
    ),
    (
        Urgency::Later,
        "later",
        "When there is time",
        "Nothing waits for it yet.",
    ),
];

pub(super) async fn read(console: &Console, may_write: bool) -> Result<View, Failure> {
    let counts = console.counts.get().await?;
    let found = attention::read(&console.source, &counts.processes, LONG).await?;
    let now = found.at;
    let of = |urgency| found.things.iter().filter(move |thing| thing.urgency() == urgency);
    let many = |urgency| of(urgency).count();
    let head = html! {
        header.head {
            h1 { "Attention" }
            p.lead {
                @if found.things.is_empty() { "Nothing needs a person." }
                @else {
                    (count(found.things.len() as u64, "thing needs", "things need")) " a person: " (many(Urgency::Now)) " now, " (many(Urgency::Decision)) " a decision, "
                    (many(Urgency::Later)) " a look when there is time. Equal causes are one line, however many machines they hit."
                }
            }
            (source(console, &Page::Attention, now, "bmdb attention", &[html! { "who runs what was counted " (span(now - counts.at)) " ago" }, html! { "long is over " (span(LONG)) }]))
        }
    };
    let mut parts = vec![Part::new("head", head)];
    for (urgency, id, heading, note) in GROUPS {
        let things: Vec<_> = of(urgency).collect();
        let body = html! {
            @if !things.is_empty() {
                ul.panel.things { @for thing in things.iter().take(SHOWN) { (line(console, thing, now, may_write)) } }
                @if things.len() > SHOWN { p.note { "The first " (SHOWN) " of " (grouped(things.len() as u64)) ". bmdb attention shows all." } }
            }
        };
        let body = if things.is_empty() {
            html! {}
        } else {
            section(heading, Some(note), &body)
        };
        parts.push(Part::new(id, body));
    }
    let rest = html! {
        @if found.things.is_empty() { div.panel { p.empty { b { "Nobody waits for you." } " Silent sessions, work that does not let go, processes that nobody runs, parked machines and forgotten holds would stand here." } } }
        (unreadable(&found.unreadable))
        @for why in &counts.processes.unread { p.note { (prose(why)) "." } }
    };
    parts.push(Part::new("rest", rest));
    let json = found.things.iter().map(as_json).collect::<Vec<_>>();
    Ok(View {
        page: Page::Attention,
        title: match found.things.len() {
            0 => "Attention".to_owned(),
            many => format!("Attention ({many})"),
        },
        parts,
        json: json!({"attention": json}),
        at: now,
    })
}

fn line(console: &Console, thing: &Thing, now: DateTime<Utc>, may_write: bool) -> Markup {
    let (chip, what, next) = match thing {
        Thing::SilentSession(row) => silent(row, may_write),
        Thing::StuckWork(row) => (
            chip("work", Tone::Person, "stuck"),
            html! {
                h3 { (machine(row.machine, &name_of(row.machine, row.provider_id.as_deref()))) ": " (process(&row.process)) " has not let go for " (span(row.age())) }
                div.say { (foreign(&row.component)) " " (session(row.session)) " was asked to stop: " (long(row.stop_requested.as_deref().unwrap_or_default()))
                    ". Its session is alive, so the collector will not free it." }
            },
            html! {
                div.actions {
                    @if may_write { a.button.danger.small href={ "/works/" (row.work) "/break" } { "Break its session…" } }
                    a.button.small href=(Page::Work(row.work).address()) { "See the work" }
                }
                (command(&format!("bmdb work break {} --expect-fence {} --reason '…'", row.work, row.fence)))
            },
        ),
        Thing::LongWork(row) => (
            chip("work", Tone::Quiet, "long work"),
            html! {
                h3 { (machine(row.machine, &name_of(row.machine, row.provider_id.as_deref()))) ": " (process(&row.process)) " has been at it for " (span(row.age())) }
                p { (foreign(&row.component)) " " (session(row.session)) " is alive." }
            },
            html! { div.actions { a.button.small href=(Page::Work(row.work).address()) { "See the work" } } },
        ),
        Thing::Unrun {
            process: name,
            eligible,
        } => (
            chip("alert", Tone::Person, "nobody runs it"),
            html! {
                h3 { (process(name)) ": " @match eligible { Some(many) => { (count(*many, "machine is", "machines are")) " eligible and no component claims for it" }, None => "no component claims for it" } }
                p { "No component has used a rule of it for two hours." }
            },
            html! { p { "Start a component that runs it. BMDB cannot do that for you." } div.actions { a.button.small href={ "/processes/" (encoded(name)) } { "See the process" } } },
        ),
        Thing::Parked(failures) => failed(
            chip("parked", Tone::Person, "parked"),
            failures,
            &html! { " parked for " (process(&failures.process)) },
            &html! {
                div.actions {
                    @if may_write && failures.machines == 1 { a.button.small href={ "/machines/" (failures.first) "/backoff/clear?process=" (encoded(&failures.process)) } { "Clear its backoff…" } }
                    a.button.small href=(list_of(State::Parked, &failures.process)) { "See the machines" }
                }
                (command(&match failures.machines {
                    1 => format!("bmdb backoff clear {} {} --reason '…'", failures.name.pasted, quoted(&failures.process)),
                    _ => format!("bmdb backoff ls --parked --process {}", quoted(&failures.process)),
                }))
            },
        ),
        Thing::FailsOften(failures) => failed(
            chip("waits", Tone::Waits, "fails often"),
            failures,
            &html! { " failing again and again for " (process(&failures.process)) ", " (OFTEN) " times or more" },
            &html! { div.actions { a.button.small href=(list_of(State::BackingOff, &failures.process)) { "See the machines" } } },
        ),
        Thing::HeldForLong { hold, name } => (
            chip("held", Tone::Quiet, "held for long"),
            html! {
                h3 { (machine(hold.machine_id, name)) " has been held for " (span(now - hold.placed_at)) }
                div.say { "By " (foreign(&hold.placed_by)) " until lifted" @if let Some(text) = &hold.ticket { ", " (ticket(text, &console.portals)) } ": " (long(&hold.reason)) }
            },
            html! { div.actions { @if may_write { a.button.small href=(release_address(hold.machine_id, &hold.slot)) { "Release…" } } } },
        ),
        Thing::PausedForLong(pause) => (
            chip("held", Tone::Quiet, "paused for long"),
            html! {
                h3 { (process(&pause.process)) " has been paused for " (span(now - pause.paused_at)) }
                div.say { "By " (foreign(&pause.paused_by)) " until resumed" @if let Some(text) = &pause.ticket { ", " (ticket(text, &console.portals)) } ": " (long(&pause.reason)) }
            },
            html! { div.actions { @if may_write { a.button.small href={ "/processes/" (encoded(&pause.process)) "/resume" } { "Resume…" } } } },
        ),
    };
    html! { li.thing data-row { div { (chip) } div.what { (what) } div.next { (next) } } }
}

fn silent(row: &SessionStatus, may_write: bool) -> (Markup, Markup, Markup) {
    let is_overdue = is_overdue(row);
    (
        chip("silent", if is_overdue { Tone::Person } else { Tone::Soon }, "silent"),
        html! {
            h3 { "Session " (session(row.session)) " of " (foreign(&row.component)) " is silent" }
            p {
                @match row.deadline { Some(deadline) => { "Its deadline passed " (when(deadline, row.as_of)) "." }, None => "It has no lease." }
                " It holds " (count(row.works, "work", "works")) ". A collector expires it once it has stood still for its interval of " (row.interval.as_secs_f64()) " s."
            }
        },
        html! {
            @if is_overdue { p { "No collector has expired it in three intervals. See " a href="/collector" { "who collects" } "." } (command("bmdb collect")) }
            @else { p { "Nothing to do yet. If it is still here in a minute, see " a href="/collector" { "who collects" } "." } }
            div.actions { @if may_write { a.button.small href={ "/sessions/" (row.session) "/expire" } { "Expire it…" } } }
        },
    )
}

fn failed(chip: Markup, failures: &Failures, how: &Markup, next: &Markup) -> (Markup, Markup, Markup) {
    let what = html! {
        h3 {
            (machine(failures.first, &failures.name))
            @match failures.machines { 1 => " is", 2 => " and 1 other are", many => { " and " (grouped(many as u64 - 1)) " others are" } }
            (how)
        }
        div.say { (long(&failures.cause)) }
    };
    (chip, what, next.clone())
}

fn list_of(state: State, process: &str) -> String {
    Machines {
        state: Some(state),
        process: Some(process.to_owned()),
        ..Machines::default()
    }
    .address()
}

fn as_json(thing: &Thing) -> Value {
    let mut json = match thing {
        Thing::SilentSession(row) => crate::facts::session::as_json(row),
        Thing::StuckWork(row) | Thing::LongWork(row) => crate::facts::work::as_json(row),
        Thing::Unrun { process, eligible } => {
            json!({"process": process, "eligible": eligible.map(|many| many.to_string())})
        }
        Thing::Parked(failures) | Thing::FailsOften(failures) => json!({
            "process": failures.process, "cause": failures.cause, "machines": failures.machines.to_string(), "machine": failures.first.to_string(),
        }),
        Thing::HeldForLong { hold, .. } => {
            let mut json = crate::facts::machine::hold_json(hold);
            json["machine"] = hold.machine_id.to_string().into();
            json
        }
        Thing::PausedForLong(pause) => {
            let mut json = crate::facts::process::pause_json(pause);
            json["process"] = pause.process.clone().into();
            json
        }
    };
    json["kind"] = thing.kind().into();
    json
}
