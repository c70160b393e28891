//! A machine: who may touch it now, why each process is or is not at work on it, and what has happened.

use bmdb::entity::{work_backoff, work_hold};
use bmdb::{MachineId, MachineStatus, WorkStatus, tag};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::{Value, json};

use crate::answer::words::count;
use crate::facts::claims::{event_json, events, latest};
use crate::facts::machine::{as_json, hold_json, is_on, standing};
use crate::facts::name::{find, name_of};
use crate::facts::why::{self, Why};
use crate::facts::work::{is_silent, is_stuck};
use crate::facts::{backoff, operation, process, work};
use crate::failure::Failure;
use crate::serve::console::Console;
use crate::serve::page::{Page, encoded};
use crate::serve::pages::history;
use crate::serve::parts::chip::{Tone, chip, icon};
use crate::serve::parts::clauses::{Asked, Verdict, release_address};
use crate::serve::parts::lists::{progress, section, source, state, trust, unreadable};
use crate::serve::parts::text::{fence, foreign, long, process as process_link, session, ticket};
use crate::serve::parts::time::{clock, since, span, when};
use crate::serve::view::{Part, Place, View};

/// As many claims stand on the page of the machine; all on that of its history.
const CLAIMS: usize = 12;
/// Their acts of operators.
const ACTS: u32 = 12;

pub(super) async fn read(
    console: &Console,
    id: MachineId,
    open: Option<&str>,
    may_write: bool,
) -> Result<View, Failure> {
    let bmdb = &console.source.bmdb;
    let machine = find(bmdb, &id.to_string()).await.map_err(|failure| gone(id, failure))?;
    let now = machine.as_of;
    let on_it = standing(bmdb, &[id]).await?;
    let works = on_it.works.get(&id).map(Vec::as_slice).unwrap_or_default();
    let backoffs = on_it.backoffs.get(&id).map(Vec::as_slice).unwrap_or_default();
    let holds = on_it.holds.get(&id).map(Vec::as_slice).unwrap_or_default();
    let holds: Vec<_> = holds.iter().filter(|hold| is_on(hold, now)).collect();
    let processes = process::registered(bmdb).await?;
    let mut reasons = Vec::new();
    for (name, _) in &processes {
        reasons.push((name.as_str(), why::read(&console.source, id, name).await?));
    }
    let events = events(bmdb, id).await?;
    let shown = latest(&events, CLAIMS);
    let acts = bmdb.operations(Some(id)).limit(ACTS).await?;
    let tags = tags(console, id).await?;

    let page = Page::Machine {
        id,
        why: open.map(str::to_owned),
    };
    let note = (shown.len() < events.len()).then_some("The latest; all of them are behind the link below.");
    let past = html! {
        (history::table(console, shown, &acts.rows, now))
        p.links { a href=(Page::History(id).address()) { "All claims of this machine" } " · " a href={ "/actions?machine=" (id) } { "All acts on it" } }
        (unreadable(&on_it.unreadable)) (unreadable(&acts.unreadable))
    };
    let side = html! {
        (section("Tags", None, &tags.0))
        @if !backoffs.is_empty() { (section("Backoffs", None, &told_to_wait(id, backoffs, now, may_write))) }
    };
    let name = name_of(id, machine.provider_id.as_deref());
    let json = json!({
        "machine": as_json(&machine, &[]), "works": works.iter().map(work::as_json).collect::<Vec<_>>(),
        "backoffs": backoffs.iter().map(backoff::as_json).collect::<Vec<_>>(), "holds": holds.iter().map(|hold| hold_json(hold)).collect::<Vec<_>>(),
        "tags": tags.1, "why": reasons.iter().map(|(name, why)| reason_json(name, why)).collect::<Vec<_>>(),
        "history": shown.iter().rev().map(event_json).collect::<Vec<_>>(), "operations": acts.rows.iter().map(operation::as_json).collect::<Vec<_>>(),
    });
    Ok(View {
        title: name.shown.clone(),
        parts: vec![
            Part::new("head", head(console, &page, &machine, works, &holds, may_write)),
            Part::new(
                "slots",
                section(
                    "Who may touch it now",
                    None,
                    &slots(console, id, &processes, works, &holds, now, may_write),
                ),
            ),
            Part::at(
                "why",
                Place::Left,
                section(
                    "Why each process is, or is not, at work on it",
                    None,
                    &accordion(id, &reasons, open, may_write),
                ),
            ),
            Part::at("side", Place::Right, side),
            Part::new("history", section("History", note, &past)),
        ],
        json,
        at: now,
        page,
    })
}

fn gone(id: MachineId, failure: Failure) -> Failure {
    match failure.kind {
        crate::failure::Kind::NotFound => Failure::not_found(format!(
            "no machine has the id {id}. It may have been removed: /machines/{id}/history has what happened on it"
        )),
        _ => failure,
    }
}

fn head(
    console: &Console,
    page: &Page,
    machine: &MachineStatus,
    works: &[WorkStatus],
    holds: &[&work_hold::Model],
    may_write: bool,
) -> Markup {
    let id = machine.machine;
    let name = name_of(id, machine.provider_id.as_deref());
    let stuck = works.iter().find(|work| is_stuck(work));
    let place = [machine.provider.as_deref(), machine.location.as_deref()];
    html! {
        header.head {
            p.crumb { a href="/machines" { "Machines" } @for part in place.into_iter().flatten() { " / " (foreign(part)) } }
            div.titled {
                h1 { (foreign(&name.shown)) }
                code.id.whole { (id) }
                button.copy type="button" hidden data-copy=(id) data-key="y" aria-label="Copy the machine’s id" { (icon("copy")) }
                @if may_write { div.actions { a.button href={ "/machines/" (id) "/hold" } { "Hold…" } a.button href={ "/machines/" (id) "/drain" } { "Drain…" } } }
            }
            p.lead {
                @match (works.len() as u64, holds.len()) {
                    (0, 0) => "Nobody works on it, and nothing holds it.",
                    (0, _) => "Nobody works on it: it is held.",
                    (many, 0) => { (count(many, "work goes on", "works go on")) " on it." },
                    (many, _) => { (count(many, "work goes on", "works go on")) " on it, and it is held." },
                }
            }
            (source(console, page, machine.as_of, &format!("bmdb machine show {id}"), &[
                html! { @match &machine.address { Some(address) => { (foreign(address)) }, None => "no address" } },
                html! { "in the database since " (when(machine.created_at, machine.as_of)) },
                html! { (fence(machine.fence)) },
            ]))
        }
        @if let Some(work) = stuck {
            div.notice.(if is_silent(work) { "warn" } else { "bad" }) {
                (icon(if is_silent(work) { "silent" } else { "work" }))
                div {
                    h2 { @if is_silent(work) { "Silent: nobody has heard from " (foreign(&work.component)) " in time" } @else { "Stuck: " (foreign(&work.process)) " does not let go of slot " (foreign(&work.slot)) } }
                    div.say {
                        "It has held it for " (span(work.age())) ". "
                        @if let Some(reason) = &work.stop_requested { "It was asked to stop: " (long(reason)) ". " }
                        @if is_silent(work) { "A collector frees it once the session has stood still for its interval." } @else { "Its session is alive, so the collector will not free it." }
                    }
                }
                div.actions { a.button.small href=(Page::Work(work.work).address()) { "See the work" } @if may_write { a.button.danger.small href={ "/works/" (work.work) "/break" } { "Break its session…" } } }
            }
        }
    }
}

/// Every slot, also the free ones: that is who may touch it.
fn slots(
    console: &Console,
    id: MachineId,
    processes: &[(String, String)],
    works: &[WorkStatus],
    holds: &[&work_hold::Model],
    now: DateTime<Utc>,
    may_write: bool,
) -> Markup {
    let mut slots: Vec<&str> = processes.iter().map(|(_, slot)| slot.as_str()).collect();
    slots.extend(works.iter().map(|work| work.slot.as_str()));
    slots.extend(holds.iter().map(|hold| hold.slot.as_str()).filter(|slot| *slot != "*"));
    slots.sort_unstable();
    slots.dedup();
    let held = |hold: &work_hold::Model| {
        html! {
            div.say {
                b { "Held by " (foreign(&hold.placed_by)) " " @match hold.until { Some(end) => { "until " (clock(end, now)) ", " (when(end, now)) }, None => "until lifted" } }
                ", for " (since(hold.placed_at, now)) @if let Some(text) = &hold.ticket { ", " (ticket(text, &console.portals)) } ": " (long(&hold.reason))
                @if may_write { " " a href=(release_address(id, &hold.slot)) { "Release it…" } }
            }
        }
    };
    let whole = holds.iter().find(|hold| hold.slot == "*");
    html! {
        div.panel {
            @if let Some(hold) = whole { div.slot { h3 { "The whole machine " (chip("held", Tone::Quiet, "held")) } div { (held(hold)) } } }
            @for slot in &slots {
                @let work = works.iter().find(|work| work.slot == *slot);
                @let hold = holds.iter().find(|hold| hold.slot == *slot);
                div.slot {
                    h3 {
                        (foreign(slot)) " "
                        @match (work, hold, whole) {
                            (Some(work), _, _) => (state(work)),
                            (None, Some(_), _) | (None, None, Some(_)) => (chip("held", Tone::Quiet, "held")),
                            (None, None, None) => (chip("ready", Tone::Quiet, "free")),
                        }
                    }
                    div {
                        @if let Some(work) = work { (holder(work, may_write)) }
                        @if let Some(hold) = hold { (held(hold)) }
                        @if work.is_none() && hold.is_none() {
                            @let names: Vec<_> = processes.iter().filter(|(_, of)| of == slot).map(|(name, _)| name).collect();
                            p { "Nobody works in it. "
                                @if whole.is_some() { "Nobody may start " } @else { "It goes to whoever claims it first: " }
                                @for (nth, name) in names.iter().enumerate() { @if nth > 0 { ", " } (process_link(name)) } "." }
                        }
                    }
                }
            }
            @if slots.is_empty() && whole.is_none() { p.empty { b { "There are no slots yet." } " A component brings them with its processes, when it starts." } }
        }
    }
}

fn holder(work: &WorkStatus, may_write: bool) -> Markup {
    html! {
        dl.pairs {
            div { dt { "Process" } dd { (process_link(&work.process)) } }
            div { dt { "Held by" } dd { (foreign(&work.component)) ", session " (session(work.session)) span.under { (foreign(&work.runtime_info)) } } }
            div { dt { "Since" } dd { (since(work.claimed_at, work.as_of)) " · " (clock(work.claimed_at, work.as_of)) } }
            div { dt { "Fence" } dd { (fence(work.fence)) } }
            div { dt { "Trust left" } dd { (trust(work)) (meter(work)) } }
            div { dt { "Progress" } dd { (progress(work)) } }
            @if let Some(reason) = &work.stop_requested { div.wide { dt { "Asked to stop" } dd { (long(reason)) } } }
            div { dt { "Work" } dd { a href=(Page::Work(work.work).address()) { (super::super::parts::text::short(work.work.0)) }
                @if may_write && work.stop_requested.is_none() { " · " a href={ "/works/" (work.work) "/ask-to-stop" } { "Ask to stop…" } } } }
        }
    }
}

/// How much is left of the time until the deadline, of as much as the session was given when it was heard last.
fn meter(work: &WorkStatus) -> Markup {
    // Longer leases than this fill the meter: it tells what runs out.
    const FULL: i64 = 15_000;
    let left = work.left().map_or(0, |left| left.num_milliseconds().clamp(0, FULL));
    html! {
        @if left > 0 { svg.meter aria-hidden="true" { rect.fill-none width="100%" height="6" rx="3" {} rect.fill-work width=(format!("{}%", left * 100 / FULL)) height="6" rx="3" {} } }
    }
}

fn accordion(id: MachineId, reasons: &[(&str, Why)], open: Option<&str>, may_write: bool) -> Markup {
    let mut asked: Vec<_> = reasons
        .iter()
        .map(|(process, why)| Asked {
            why,
            process,
            machine: id,
            may_write,
        })
        .collect();
    asked.sort_by_key(|asked| (asked.verdict(), asked.process.to_owned()));
    let first = asked
        .iter()
        .find(|asked| matches!(asked.verdict(), Verdict::Blocked | Verdict::InWork));
    let open = open.or(first.map(|asked| asked.process));
    html! {
        @if asked.is_empty() { div.panel { p.empty { b { "No process is registered." } " A component registers its processes when it starts." } } }
        @else { div.panel.why { @for asked in &asked { (asked.details(open == Some(asked.process))) } } }
    }
}

fn told_to_wait(id: MachineId, backoffs: &[work_backoff::Model], now: DateTime<Utc>, may_write: bool) -> Markup {
    html! {
        dl.rows.panel {
            @for row in backoffs {
                @let act = |verb: &str, word: &str| html! { a href={ "/machines/" (id) "/backoff/" (verb) "?process=" (encoded(&row.process)) } { (word) } };
                div {
                    dt { (process_link(&row.process)) }
                    dd {
                        @match row.until {
                            None => (chip("parked", Tone::Person, "parked")),
                            Some(end) if end > now => { (chip("waits", Tone::Waits, "backing off")) " until " (clock(end, now)) ", " (when(end, now)) },
                            Some(_) => (chip("none", Tone::Quiet, "over")),
                        }
                        div.under { "after " (count(row.attempts.unsigned_abs(), "failure", "failures")) ": " (long(&row.cause)) }
                        @if may_write { p.links { (act("clear", "Clear…")) @if row.until.is_some_and(|end| end > now) { " · " (act("run-now", "Run now…")) } } }
                    }
                }
            }
        }
    }
}

/// The tags that this build knows, as facts and for programs. Components may have others of their own, which no public call lists.
async fn tags(console: &Console, id: MachineId) -> Result<(Markup, Value), Failure> {
    let reads = console.source.bmdb.reads();
    let now = console.source.bmdb.now().await?;
    let request = tag::get::<bmdb::os_installation_request::Entity>(reads, id).await?;
    let report = tag::get::<bmdb::os_installation_report::Entity>(reads, id).await?;
    let started = tag::get::<bmdb::agent_started::Entity>(reads, id).await?;
    let heard = tag::get::<bmdb::agent_heartbeat::Entity>(reads, id).await?;
    let hardware = tag::get::<bmdb::hardware_report::Entity>(reads, id).await?;
    let given = tag::get::<bmdb::provided::Entity>(reads, id).await?;
    let (wanted, observed) = (request.map(|row| row.generation), report.map(|row| row.generation));
    let is_met = wanted.is_some() && wanted == observed;
    let none = || html! { span.quiet { "not there" } };
    let shown = html! {
        dl.rows.panel {
            div { dt { "Installation" } dd {
                @match (wanted, observed) {
                    (None, None) => (none()),
                    _ => {
                        "wanted " @match wanted { Some(generation) => { (generation) }, None => "none" } ", observed " @match observed { Some(generation) => { (generation) }, None => "none" } " "
                        @if is_met { (chip("met", Tone::Quiet, "met")) } @else { (chip("alert", Tone::Soon, "differs")) }
                    },
                }
            } }
            div { dt { "Agent started" } dd { @match &started { Some(row) => { (when(row.at, now)) span.under { (count(row.public_key.len() as u64, "byte", "bytes")) " of public key" } }, None => (none()) } } }
            div { dt { "Agent heard" } dd { @match &heard { Some(row) => (when(row.at, now)), None => (none()) } } }
            div { dt { "Hardware report" } dd { @match &hardware { Some(_) => "there", None => (none()) } } }
            div { dt { "Provider says" } dd { @match &given { Some(row) => (foreign(row.status.as_str())), None => (none()) } } }
        }
        p.quiet { "Tags that components have made for themselves are not shown." }
    };
    let json = json!({
        "installation": {"wanted": wanted.map(|generation| generation.to_string()), "observed": observed.map(|generation| generation.to_string())},
        "agent_started_at": started.map(|row| row.at.to_rfc3339()), "agent_heard_at": heard.map(|row| row.at.to_rfc3339()),
        "has_hardware_report": hardware.is_some(), "provider_status": given.map(|row| row.status.as_str().to_owned()),
    });
    Ok((shown, json))
}

fn reason_json(process: &str, why: &Why) -> Value {
    let best = why.best().map(|(_, explanation)| explanation);
    json!({
        "process": process, "slot": why.obstacles.slot, "eligible": best.map(|explanation| explanation.eligible),
        "earliest": best.and_then(|explanation| explanation.earliest).map(|at| at.to_rfc3339()),
        "rule": why.best().map(|(rule, _)| rule.digest.clone()),
        "clauses": best.map(|explanation| explanation.clauses.iter().map(|clause| json!({"clause": clause.clause, "met": clause.met})).collect::<Vec<_>>()),
        "held_by": why.obstacles.holder.as_ref().map(|holder| holder.session.to_string()),
        "backing_off": why.obstacles.backoff.is_some(), "holds": why.obstacles.holds.len().to_string(),
    })
}
