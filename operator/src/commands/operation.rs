//! What operators have done.

use bmdb::entity::operation;
use chrono::{DateTime, Utc};
use serde_json::json;

use crate::answer::words::{brief, foreign, time};
use crate::answer::{Answer, Table};
use crate::cli::Operation;
use crate::facts::name::{Name, find, names};
use crate::facts::operation::as_json;
use crate::facts::pages::read;
use crate::failure::Failure;
use crate::source::Source;

pub(super) async fn run(source: &Source, verb: Operation) -> Result<Answer, Failure> {
    let Operation::Ls { machine, limit } = verb;
    let bmdb = &source.bmdb;
    let machine = match machine {
        Some(text) => Some(find(bmdb, &text).await?.machine),
        None => None,
    };
    let acts = read(
        || bmdb.operations(machine).limit(limit.limit),
        limit.limit as usize,
        |_| true,
    )
    .await?;
    let now = bmdb.now().await?;
    let name = names(bmdb, acts.rows.iter().filter_map(|act| act.machine_id)).await?;
    let sentence = match acts.rows.first() {
        None => "No operator has done anything.".to_owned(),
        Some(last) => format!(
            "{} did the latest, at {}: {}.",
            foreign(&last.done_by),
            time(last.at, now),
            foreign(&last.verb)
        ),
    };
    let mut answer = Answer::new(
        sentence,
        json!({"operations": acts.rows.iter().map(as_json).collect::<Vec<_>>()}),
    )
    .table(table(&acts.rows, now, name))
    .unreadable(&acts.unreadable)
    .read_at(bmdb, now);
    if acts.more {
        answer = answer.note(format!(
            "there are older ones: --limit {}",
            limit.limit.saturating_mul(2).min(10_000)
        ));
    }
    Ok(answer)
}

/// The latest first.
pub(super) fn table(acts: &[operation::Model], now: DateTime<Utc>, name: impl Fn(bmdb::MachineId) -> Name) -> Table {
    let mut table = Table::new(&["at", "by", "did", "to", "ticket", "reason", "detail", "work"]);
    for act in acts {
        table.row([
            time(act.at, now),
            brief(&act.done_by),
            brief(&act.verb),
            foreign(&subject(act, &name)),
            act.ticket.as_deref().map(brief).unwrap_or_default(),
            brief(&act.reason),
            act.detail.clone().unwrap_or_default(),
            act.work_id.map(|work| work.to_string()).unwrap_or_default(),
        ]);
    }
    table
}

fn subject(act: &operation::Model, name: impl Fn(bmdb::MachineId) -> Name) -> String {
    let slot = act
        .slot
        .as_deref()
        .filter(|slot| *slot != "*")
        .map(|slot| format!("slot {slot}"));
    let process = act.process.clone();
    let session = act.session_id.map(|session| format!("session {session}"));
    let parts = [
        act.machine_id.map(|machine| name(machine).shown),
        session,
        process.or(slot),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
