//! Backoffs: which machines a process leaves alone after failures.

use bmdb::entity::work_backoff;
use chrono::{DateTime, Utc};
use serde_json::json;

use crate::answer::words::{brief, count, foreign, until};
use crate::answer::{Answer, Table};
use crate::cli::{Backoff, Reason, Which};
use crate::facts::backoff::as_json;
use crate::facts::name::{Name, find, name_of, names};
use crate::facts::pages::read_all;
use crate::facts::process;
use crate::failure::Failure;
use crate::source::Source;

pub(super) async fn run(source: &Source, verb: Backoff) -> Result<Answer, Failure> {
    match verb {
        Backoff::Ls { process, parked, limit } => {
            let bmdb = &source.bmdb;
            if let Some(process) = &process {
                process::check(bmdb, process).await?;
            }
            let mut backoffs = read_all(|| bmdb.backoffs(None).limit(10_000)).await?;
            let now = bmdb.now().await?;
            backoffs.rows.retain(|row| {
                let is_asked_for = process.as_ref().is_none_or(|process| row.process == *process);
                is_asked_for && row.until.is_none_or(|until| !parked && until > now)
            });
            backoffs
                .rows
                .sort_by_key(|row| (row.until.is_some(), row.until, row.machine_id));
            let all = backoffs.rows.len() as u64;
            let waiting = backoffs.rows.iter().filter(|row| row.until.is_none()).count() as u64;
            backoffs.rows.truncate(limit.limit as usize);
            let name = names(bmdb, backoffs.rows.iter().map(|row| row.machine_id)).await?;
            let sentence = format!(
                "{}; {}.",
                count(all, "backoff", "backoffs"),
                match waiting {
                    0 => "none waits for a person".to_owned(),
                    waiting => count(waiting, "waits for a person", "wait for a person"),
                }
            );
            let json =
                json!({"backoffs": backoffs.rows.iter().map(as_json).collect::<Vec<_>>(), "all": all.to_string()});
            let mut answer = Answer::new(sentence, json)
                .table(table(&backoffs.rows, now, name))
                .unreadable(&backoffs.unreadable)
                .read_at(bmdb, now);
            if all > backoffs.rows.len() as u64 {
                answer = answer.note(format!(
                    "{} are shown of {all}: --limit shows more",
                    backoffs.rows.len()
                ));
            }
            Ok(answer)
        }
        Backoff::Clear {
            machine,
            process,
            reason,
        } => change(source, &machine, &process, &reason, Change::Clear).await,
        Backoff::RunNow {
            machine,
            process,
            reason,
        } => change(source, &machine, &process, &reason, Change::RunNow).await,
    }
}

enum Change {
    Clear,
    RunNow,
}

async fn change(
    source: &Source,
    which: &Which,
    process: &str,
    reason: &Reason,
    change: Change,
) -> Result<Answer, Failure> {
    let operator = source.operator(reason)?;
    let machine = find(&source.bmdb, &which.machine).await?;
    let name = name_of(machine.machine, machine.provider_id.as_deref());
    let (was_there, done) = match change {
        Change::Clear => (
            operator.clear_backoff(machine.machine, process).await?,
            format!("{process} has forgotten how it failed on {name}: it may claim it at once."),
        ),
        Change::RunNow => (
            operator.run_now(machine.machine, process).await?,
            format!(
                "{process} may claim {name} at once. If it fails again, it waits as it would have after so many failures."
            ),
        ),
    };
    if !was_there {
        let text =
            format!("nothing was done: {process} does not leave {name} alone. `bmdb machine why` says what keeps it");
        return Err(Failure::not_found(text));
    }
    Answer::new(
        done,
        json!({"machine": machine.machine.to_string(), "process": process}),
    )
    .from(&source.bmdb)
    .await
}

pub(super) fn table(
    backoffs: &[work_backoff::Model],
    now: DateTime<Utc>,
    name: impl Fn(bmdb::MachineId) -> Name,
) -> Table {
    let mut table = Table::new(&["machine", "process", "state", "until", ">failures", "last cause"]);
    for row in backoffs {
        let (state, end) = match row.until {
            None => ("■ parked", "until a person has looked".to_owned()),
            Some(end) if end > now => ("⧗ backing off", until(Some(end), now, "")),
            Some(_) => ("– over", String::new()),
        };
        table.row([
            brief(&name(row.machine_id).shown),
            foreign(&row.process),
            state.to_owned(),
            end,
            row.attempts.to_string(),
            brief(&row.cause),
        ]);
    }
    table
}
