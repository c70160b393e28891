//! Holds: placed, lifted, and drains, which ask to stop as well.

use bmdb::Until;
use serde_json::json;

use crate::answer::Answer;
use crate::answer::words::{count, foreign, quoted, span};
use crate::cli::{Hold, Reason, Which};
use crate::facts::machine::is_on;
use crate::facts::name::{Name, find, name_of};
use crate::failure::Failure;
use crate::source::Source;

pub(super) async fn place(source: &Source, which: &Which, hold: &Hold, reason: &Reason) -> Result<Answer, Failure> {
    let bmdb = &source.bmdb;
    let operator = source.operator(reason)?;
    let machine = find(bmdb, &which.machine).await?;
    operator.place_hold(machine.machine, hold_of(hold)).await?;
    let name = name_of(machine.machine, machine.provider_id.as_deref());
    let sentence = format!("{} {}.", held(hold, &name), ends(hold));
    let undo = undo(&name, hold.slot.as_deref());
    Answer::new(
        sentence,
        json!({"machine": machine.machine.to_string(), "slot": hold.slot}),
    )
    .lines(vec![format!("undo: {undo}")])
    .from(bmdb)
    .await
}

pub(super) async fn release(
    source: &Source,
    which: &Which,
    slot: Option<&str>,
    reason: &Reason,
) -> Result<Answer, Failure> {
    let bmdb = &source.bmdb;
    let operator = source.operator(reason)?;
    let machine = find(bmdb, &which.machine).await?;
    let name = name_of(machine.machine, machine.provider_id.as_deref());
    let on = slot.map_or_else(|| "the whole machine".to_owned(), |slot| format!("slot {slot}"));
    if !operator.lift_hold(machine.machine, slot).await? {
        let others = bmdb.holds(Some(machine.machine)).await?.rows;
        let others: Vec<_> = others.into_iter().filter(|hold| is_on(hold, machine.as_of)).collect();
        let others = others.iter().map(|hold| match hold.slot.as_str() {
            "*" => "the whole machine".to_owned(),
            slot => format!("slot {}", foreign(slot)),
        });
        let others: Vec<_> = others.collect();
        let there = if others.is_empty() {
            "There is none on it".to_owned()
        } else {
            format!("There is one on {}", others.join(", "))
        };
        return Err(Failure::not_found(format!(
            "nothing was done: {name} has no hold on {on}. {there}"
        )));
    }
    Answer::new(
        format!("The hold on {on} of {name} is lifted."),
        json!({"machine": machine.machine.to_string(), "slot": slot}),
    )
    .lines(vec![format!("next: bmdb machine show {}", name.pasted)])
    .from(bmdb)
    .await
}

pub(super) async fn drain(source: &Source, which: &Which, hold: &Hold, reason: &Reason) -> Result<Answer, Failure> {
    let bmdb = &source.bmdb;
    let operator = source.operator(reason)?;
    let machine = find(bmdb, &which.machine).await?;
    let name = name_of(machine.machine, machine.provider_id.as_deref());
    let asked = operator.drain_machine(machine.machine, hold_of(hold)).await?;
    let sentence = match asked.len() as u64 {
        0 => format!("{}, and nobody works on it: it is drained.", held(hold, &name)),
        asked => format!(
            "{}; {} asked to stop. It is drained when they have ended.",
            held(hold, &name),
            count(asked, "work is", "works are")
        ),
    };
    let undo = undo(&name, hold.slot.as_deref());
    let asked: Vec<_> = asked.iter().map(ToString::to_string).collect();
    Answer::new(
        sentence,
        json!({"machine": machine.machine.to_string(), "slot": hold.slot, "asked_to_stop": asked}),
    )
    .lines(
        asked
            .iter()
            .map(|work| format!("next: bmdb work show {work}"))
            .collect(),
    )
    .lines(vec![format!("undo: {undo}")])
    .from(bmdb)
    .await
}

fn hold_of(hold: &Hold) -> bmdb::Hold {
    let end = match (hold.span, hold.until) {
        (Some(span), _) => Until::For(span.0),
        (None, Some(time)) => Until::Time(time),
        (None, None) => Until::Open,
    };
    let placed = bmdb::Hold::new().until(end);
    match &hold.slot {
        Some(slot) => placed.slot(slot.as_str()),
        None => placed,
    }
}

fn held(hold: &Hold, name: &Name) -> String {
    match &hold.slot {
        Some(slot) => format!("Slot {} of {name} is held", foreign(slot)),
        None => format!("{name} is held"),
    }
}

fn ends(hold: &Hold) -> String {
    match (hold.span, hold.until) {
        (Some(time), _) => format!(
            "for {}",
            chrono::TimeDelta::from_std(time.0).map_or_else(|_long| "a century".to_owned(), span)
        ),
        (None, Some(time)) => format!("until {}", time.format("%Y-%m-%d %H:%M:%S UTC")),
        (None, None) => "until the hold is released".to_owned(),
    }
}

fn undo(name: &Name, slot: Option<&str>) -> String {
    let slot = slot.map(|slot| format!(" --slot {}", quoted(slot))).unwrap_or_default();
    format!("bmdb machine release-hold {}{slot} --reason '…'", name.pasted)
}
