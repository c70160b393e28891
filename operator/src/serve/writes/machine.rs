//! Acts on a machine: holds and drains.

use std::sync::Arc;

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use bmdb::{Hold, MachineId, MachineStatus, WorksOf};
use maud::{Markup, html};
use uuid::Uuid;

use crate::answer::words::{count, foreign as plain, quoted};
use crate::facts::machine::is_on;
use crate::facts::name::{Name, find, name_of};
use crate::facts::process::registered;
use crate::failure::Failure;
use crate::serve::access::Writer;
use crate::serve::console::Console;
use crate::serve::page::Page;
use crate::serve::parts::text::{foreign, long, prose};
use crate::serve::parts::time::when;
use crate::serve::writes::form::{Question, Sent, span_field};
use crate::serve::writes::{answer, done};

/// The pairs behind the `?`, or of a form.
pub(super) type Pairs = Vec<(String, String)>;
/// A form that was sent, or why it cannot be read.
pub(super) type Posted = Result<Form<Pairs>, FormRejection>;

/// The machine of an act, and what people call it.
pub(super) async fn named(console: &Console, id: Uuid) -> Result<(MachineStatus, Name), Failure> {
    let machine = find(&console.source.bmdb, &id.to_string()).await?;
    let name = name_of(machine.machine, machine.provider_id.as_deref());
    Ok((machine, name))
}

/// Its page.
pub(super) fn page_of(id: Uuid) -> Page {
    Page::Machine {
        id: MachineId(id),
        why: None,
    }
}

/// Which slot, and for how long.
async fn hold_fields(console: &Console) -> Result<Markup, Failure> {
    let mut slots: Vec<_> = registered(&console.source.bmdb).await?;
    slots.dedup_by(|a, b| a.1 == b.1);
    Ok(html! {
        label { "What is held" select name="slot" { option value="" { "the whole machine" } @for (_, slot) in &slots { option value=(slot) { "slot " (prose(slot)) } } } }
        (span_field("until it is released"))
    })
}

/// The hold that was asked for, and how it is said.
fn hold_of(sent: &Sent) -> Result<(Hold, String), Failure> {
    let (until, ends) = sent.until("until it is released")?;
    let hold = Hold::new().until(until);
    Ok((
        match sent.get("slot") {
            Some(slot) => hold.slot(slot),
            None => hold,
        },
        ends,
    ))
}

fn what(slot: Option<&str>, name: &Name) -> String {
    match slot {
        Some(slot) => format!("Slot {} of {name}", plain(slot)),
        None => name.to_string(),
    }
}

/// How many work on it now, as a sentence.
async fn at_work(console: &Console, id: Uuid) -> Result<(u64, Markup), Failure> {
    let works = console
        .source
        .bmdb
        .works(WorksOf::Machines(vec![MachineId(id)]))
        .await?
        .rows;
    let many = works.len() as u64;
    let said = html! {
        @if works.is_empty() { "Nobody works on it now." }
        @for work in &works { (foreign(&work.component)) " works on it for " (foreign(&work.process)) " in slot " (foreign(&work.slot)) ". " }
    };
    Ok((many, said))
}

pub(super) async fn ask_hold(State(console): State<Arc<Console>>, writer: Writer, Path(id): Path<Uuid>) -> Response {
    let asked = async {
        let (_, name) = named(&console, id).await?;
        let (_, works) = at_work(&console, id).await?;
        let question = Question {
            title: html! { "Hold " (foreign(&name.shown)) "?" },
            tab: format!("Hold {}", name.shown),
            points: vec![
                html! { (works) " Work that goes on goes on; to have it asked to stop as well, " a href={ "/machines/" (id) "/drain" } { "drain the machine" } "." },
                html! { "Nobody can claim what is held until the hold ends, or somebody releases it." },
            ],
            fields: hold_fields(&console).await?,
            seen: Vec::new(),
            action: format!("/machines/{id}/hold"),
            verb: "Hold it",
            is_dangerous: false,
            back: page_of(id).address(),
            twin: format!("bmdb machine hold {id} --reason '…'"),
        };
        Ok(question.page(&console, &writer))
    };
    let asked: Result<_, Failure> = asked.await;
    answer(&console, &writer, asked)
}

pub(super) async fn hold(
    State(console): State<Arc<Console>>,
    writer: Writer,
    Path(id): Path<Uuid>,
    form: Posted,
) -> Response {
    let acted = async {
        let sent = Sent::read(form)?;
        let operator = sent.operator(&writer)?;
        let (machine, name) = named(&console, id).await?;
        let (hold, ends) = hold_of(&sent)?;
        operator.place_hold(machine.machine, hold).await?;
        let text = format!(
            "{} is held {ends}. To undo it, release the hold.",
            what(sent.get("slot"), &name)
        );
        Ok(done(&console, &page_of(id), text))
    };
    let acted: Result<_, Failure> = acted.await;
    answer(&console, &writer, acted)
}

pub(super) async fn ask_drain(State(console): State<Arc<Console>>, writer: Writer, Path(id): Path<Uuid>) -> Response {
    let asked = async {
        let (_, name) = named(&console, id).await?;
        let (many, works) = at_work(&console, id).await?;
        let question = Question {
            title: html! { "Drain " (foreign(&name.shown)) "?" },
            tab: format!("Drain {}", name.shown),
            points: vec![
                html! { (works) },
                html! { "It is held, and " (match many { 0 => "nobody need be asked".to_owned(), many => format!("{} asked to stop", count(many, "work is", "works are")) }) ". What they do then is their own decision: it is drained when they have ended." },
                html! { "Asking to stop cannot be taken back; the hold can be released." },
            ],
            fields: hold_fields(&console).await?,
            seen: Vec::new(),
            action: format!("/machines/{id}/drain"),
            verb: "Drain it",
            is_dangerous: false,
            back: page_of(id).address(),
            twin: format!("bmdb machine drain {id} --reason '…'"),
        };
        Ok(question.page(&console, &writer))
    };
    let asked: Result<_, Failure> = asked.await;
    answer(&console, &writer, asked)
}

pub(super) async fn drain(
    State(console): State<Arc<Console>>,
    writer: Writer,
    Path(id): Path<Uuid>,
    form: Posted,
) -> Response {
    let acted = async {
        let sent = Sent::read(form)?;
        let operator = sent.operator(&writer)?;
        let (machine, name) = named(&console, id).await?;
        let (hold, _) = hold_of(&sent)?;
        let asked = operator.drain_machine(machine.machine, hold).await?;
        // Perhaps by a hold that stood already and lasts longer: the page shows until when.
        let held = format!("{} is held", what(sent.get("slot"), &name));
        let text = match asked.len() as u64 {
            0 => format!("{held}, and nobody works on it: it is drained."),
            many => format!(
                "{held}; {} asked to stop. It is drained when they have ended.",
                count(many, "work is", "works are")
            ),
        };
        Ok(done(&console, &page_of(id), text))
    };
    let acted: Result<_, Failure> = acted.await;
    answer(&console, &writer, acted)
}

/// What an address says under a name, if anything.
pub(super) fn pair<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a str> {
    let found = pairs.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

fn on(slot: Option<&str>) -> String {
    slot.map_or_else(
        || "the whole machine".to_owned(),
        |slot| format!("slot {}", plain(slot)),
    )
}

pub(super) async fn ask_release(
    State(console): State<Arc<Console>>,
    writer: Writer,
    Path(id): Path<Uuid>,
    Query(pairs): Query<Pairs>,
) -> Response {
    let asked = async {
        let (machine, name) = named(&console, id).await?;
        let slot = pair(&pairs, "slot");
        let holds = console.source.bmdb.holds(Some(machine.machine)).await?.rows;
        let hold = holds
            .iter()
            .find(|hold| hold.slot == slot.unwrap_or("*") && is_on(hold, machine.as_of));
        let hold = hold.ok_or_else(|| {
            Failure::not_found(format!(
                "{name} has no hold on {}: it has ended, or was released",
                on(slot)
            ))
        })?;
        let question = Question {
            title: html! { "Release the hold on " (on(slot)) " of " (foreign(&name.shown)) "?" },
            tab: format!("Release the hold of {}", name.shown),
            points: vec![
                html! { (foreign(&hold.placed_by)) " placed it " (when(hold.placed_at, machine.as_of)) ": " (long(&hold.reason)) },
                html! { "Whoever may can claim it at once." },
            ],
            fields: html! {},
            seen: vec![("slot", hold.slot.clone()), ("placed_at", hold.placed_at.to_rfc3339())],
            action: format!("/machines/{id}/release"),
            verb: "Release it",
            is_dangerous: false,
            back: page_of(id).address(),
            twin: format!(
                "bmdb machine release-hold {id}{} --reason '…'",
                slot.map(|slot| format!(" --slot {}", quoted(slot))).unwrap_or_default()
            ),
        };
        Ok(question.page(&console, &writer))
    };
    let asked: Result<_, Failure> = asked.await;
    answer(&console, &writer, asked)
}

pub(super) async fn release(
    State(console): State<Arc<Console>>,
    writer: Writer,
    Path(id): Path<Uuid>,
    form: Posted,
) -> Response {
    let acted = async {
        let sent = Sent::read(form)?;
        let operator = sent.operator(&writer)?;
        let (machine, name) = named(&console, id).await?;
        let stored = sent.seen("slot")?;
        let slot = Some(stored).filter(|slot| *slot != "*");
        let holds = console.source.bmdb.holds(Some(machine.machine)).await?.rows;
        let hold = holds.iter().find(|hold| hold.slot == stored);
        // Another hold than the one that was looked at is another decision.
        if let Some(hold) = hold.filter(|hold| sent.get("placed_at") != Some(&hold.placed_at.to_rfc3339())) {
            return Err(Failure::changed(format!(
                "nothing was done: {} has placed another hold on {} since: {}",
                plain(&hold.placed_by),
                on(slot),
                plain(&hold.reason)
            )));
        }
        if !operator.lift_hold(machine.machine, slot).await? {
            return Err(Failure::changed(format!(
                "nothing was done: {name} has no hold on {} any more",
                on(slot)
            )));
        }
        Ok(done(
            &console,
            &page_of(id),
            format!("The hold on {} of {name} is released.", on(slot)),
        ))
    };
    let acted: Result<_, Failure> = acted.await;
    answer(&console, &writer, acted)
}
