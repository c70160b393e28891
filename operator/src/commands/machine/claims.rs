//! What has happened on a machine, claim by claim.

use bmdb::entity::work_history;
use bmdb::{Bmdb, MachineStatus};
use chrono::{DateTime, Utc};
use serde_json::json;

use crate::answer::words::{brief, count, foreign, span, time};
use crate::answer::{Answer, Table};
use crate::facts::claims::{self, event_json, events, latest};
use crate::facts::name::name_of;
use crate::failure::Failure;

/// A row for each claim: its start and its end together. The latest last.
pub(super) fn table(events: &[work_history::Model], now: DateTime<Utc>) -> Table {
    let mut table = Table::new(&[">fence", "event", "process", "started", "took", "by", "cause"]);
    for claim in claims::claims(events) {
        let (start, end) = (claim.start, claim.end);
        let Some(any) = claim.any() else { continue };
        let took = start.zip(end).map(|(start, end)| span(end.at - start.at));
        table.row([
            claim.fence.to_string(),
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
    .table(table(shown, machine.as_of));
    if shown.len() < all.len() {
        answer = answer.note(format!("the last {limit} claims are shown: --limit shows more"));
    }
    Ok(answer.read_at(bmdb, machine.as_of))
}
