//! What has happened on a machine, claim by claim.

use std::collections::HashMap;

use bmdb::entity::work_history;
use bmdb::{Bmdb, MachineId, MachineStatus};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::answer::words::{brief, count, foreign, span, time};
use crate::answer::{Answer, Table};
use crate::commands::name::name_of;
use crate::commands::pages::read_all;
use crate::failure::Failure;

/// All events of a machine, in the order of its fences.
pub(super) async fn events(bmdb: &Bmdb, machine: MachineId) -> Result<Vec<work_history::Model>, Failure> {
    Ok(read_all(|| bmdb.history(machine).limit(10_000)).await?.rows)
}

pub(super) fn event_json(event: &work_history::Model) -> Value {
    json!({
        "fence": event.fence.to_string(), "event": event.event.as_str(), "at": event.at.to_rfc3339(), "process": event.process, "slot": event.slot,
        "work": event.work_id.to_string(), "session": event.session_id.to_string(), "component": event.component_name,
        "runtime_info": event.runtime_info, "cause": event.cause,
    })
}

/// The events of the latest claims: whole claims, a start and its end together.
pub(super) fn latest(events: &[work_history::Model], claims: usize) -> &[work_history::Model] {
    let mut seen = 0;
    let mut begin = events.len();
    while begin > 0 {
        let fence = events[begin - 1].fence;
        if events.get(begin).is_none_or(|later| later.fence != fence) {
            if seen == claims {
                break;
            }
            seen += 1;
        }
        begin -= 1;
    }
    &events[begin..]
}

/// A row for each claim: its start and its end together. The latest last.
pub(super) fn claims(events: &[work_history::Model], now: DateTime<Utc>) -> Table {
    let mut table = Table::new(&[">fence", "event", "process", "started", "took", "by", "cause"]);
    let started = |event: &&work_history::Model| event.event == work_history::Event::Started;
    let ends: HashMap<_, _> = events
        .iter()
        .filter(|event| !started(event))
        .map(|event| (event.fence, event))
        .collect();
    let starts: HashMap<_, _> = events
        .iter()
        .filter(started)
        .map(|event| (event.fence, event))
        .collect();
    let mut fences: Vec<_> = events.iter().map(|event| event.fence).collect();
    fences.dedup();
    for fence in fences {
        let (start, end) = (starts.get(&fence), ends.get(&fence));
        let Some(any) = end.or(start) else { continue };
        let took = start.zip(end).map(|(start, end)| span(end.at - start.at));
        table.row([
            fence.to_string(),
            end.map_or_else(|| "▶ goes on".to_owned(), |end| foreign(end.event.as_str())),
            brief(&any.process),
            start.map_or_else(String::new, |start| time(start.at, now)),
            took.unwrap_or_default(),
            brief(&any.component_name),
            end.and_then(|end| end.cause.as_deref()).map(brief).unwrap_or_default(),
        ]);
    }
    table
}

pub(super) async fn history(bmdb: &Bmdb, machine: &MachineStatus, limit: usize) -> Result<Answer, Failure> {
    let all = events(bmdb, machine.machine).await?;
    let name = name_of(machine.machine, machine.provider_id.as_deref());
    let claims_in = |events: &[work_history::Model]| {
        events
            .iter()
            .filter(|event| event.event == work_history::Event::Started)
            .count()
    };
    let shown = latest(&all, limit);
    let failed = all
        .iter()
        .filter(|event| event.event == work_history::Event::Failed)
        .count() as u64;
    let sentence = match claims_in(&all) as u64 {
        0 => format!("Nobody has ever claimed {name}."),
        claims => format!(
            "{name} was claimed {}; {}.",
            count(claims, "time", "times"),
            count(failed, "work failed", "works failed")
        ),
    };
    let mut answer = Answer::new(
        sentence,
        json!({"machine": machine.machine.to_string(), "history": shown.iter().map(event_json).collect::<Vec<_>>()}),
    )
    .table(claims(shown, machine.as_of));
    if shown.len() < all.len() {
        answer = answer.note(format!("the last {limit} claims are shown: --limit shows more"));
    }
    Ok(answer.read_at(bmdb, machine.as_of))
}
