//! Processes: what there is to do, and by which rules; paused and resumed.

pub(super) mod pauses;

use bmdb::entity::process_pause;
use serde_json::json;

use crate::answer::words::{brief, count, foreign, grouped, quoted, when};
use crate::answer::{Answer, Table};
use crate::cli::Process;
use crate::facts::process::{Processes, Row, as_json, read, unasked, unknown};
use crate::failure::Failure;
use crate::source::Source;

pub(super) async fn run(source: &Source, verb: Process) -> Result<Answer, Failure> {
    match verb {
        Process::Ls => {
            let processes = read(source).await?;
            let unrun = processes.rows.iter().filter(|row| row.is_unrun()).count();
            let sentence = match (processes.rows.len(), unrun) {
                (0, _) => "No process is registered: no component has run on this database yet.".to_owned(),
                (all, 0) => format!("{}; somebody runs each.", count(all as u64, "process", "processes")),
                (all, unrun) => format!(
                    "{}; nobody runs {unrun} of them.",
                    count(all as u64, "process", "processes")
                ),
            };
            Answer::new(sentence, json!({"processes": processes.json()}))
                .table(table(&processes))
                .lines(processes.unread.clone())
                .from(&source.bmdb)
                .await
        }
        Process::Show { process } => show(source, &process).await,
        Process::Pause {
            process,
            end,
            and_stop,
            reason,
        } => pauses::pause(source, &process, end, and_stop, &reason).await,
        Process::Resume { process, reason } => pauses::resume(source, &process, &reason).await,
    }
}

/// A row for each process.
pub(super) fn table(processes: &Processes) -> Table {
    let mut table = Table::new(&[
        "process",
        "slot",
        ">○ eligible",
        ">▶ in work",
        ">⧗ backing off",
        ">■ parked",
        ">⊘ held",
        "last used",
    ]);
    for row in &processes.rows {
        let status = &row.status;
        table.row([
            brief(&status.process),
            brief(&status.slot),
            row.eligible().map_or_else(|| "?".to_owned(), grouped),
            grouped(status.in_work),
            grouped(status.backing_off),
            grouped(status.parked),
            grouped(status.held),
            last_used(row, status.pause.as_ref()),
        ]);
    }
    table
}

/// Whether anybody runs it, and who keeps them from it.
pub(super) fn last_used(row: &Row, pause: Option<&process_pause::Model>) -> String {
    match pause {
        Some(pause) => format!("⊘ paused by {}", brief(&pause.paused_by)),
        None if row.is_unrun() => "✕ nobody runs it".to_owned(),
        None => row
            .used_at()
            .map_or_else(|| "now".to_owned(), |used| when(used, row.status.as_of)),
    }
}

async fn show(source: &Source, process: &str) -> Result<Answer, Failure> {
    let mut processes = read(source).await?;
    let known: Vec<_> = processes.rows.iter().map(|row| row.status.process.clone()).collect();
    processes.rows.retain(|row| row.status.process == process);
    let Some(row) = processes.rows.first() else {
        let known: Vec<_> = known.iter().map(String::as_str).collect();
        return Err(unknown(process, &known));
    };
    let status = &row.status;
    let eligible = row.eligible().map_or_else(|| "?".to_owned(), grouped);
    let sentence = format!(
        "{}: {eligible} eligible, {} in work, {} back off, {} parked, {} held.",
        foreign(&status.process),
        grouped(status.in_work),
        grouped(status.backing_off),
        grouped(status.parked),
        grouped(status.held)
    );
    let mut lines = vec![
        format!("slot         {}", foreign(&status.slot)),
        format!("does         {}", foreign(&status.description)),
        format!("cool-down    {} s", status.cool_down.as_secs_f64()),
        format!(
            "registered   {} by {}",
            when(status.registered_at, status.as_of),
            foreign(&status.registered_by)
        ),
    ];
    if let Some(pause) = &status.pause {
        lines.push(format!(
            "⊘ Nobody claims for it: {}.",
            pauses::said(pause, status.as_of)
        ));
        let process = quoted(&status.process);
        lines.push(format!("  next: bmdb process resume {process} --reason '…'"));
    }
    if row.is_unrun() {
        lines.push("✕ Nobody has used a rule of it for two hours: start a component that runs it.".to_owned());
    }
    let mut answer = Answer::new(sentence, as_json(row)).lines(lines);
    for (rule, count) in &row.rules {
        let count = count
            .as_ref()
            .map_or_else(unasked, |count| format!("{} eligible", grouped(*count)));
        let used = when(rule.used_at, status.as_of);
        let mut lines = vec![format!(
            "rule {}, used by {} {used}: {count}",
            rule.digest,
            foreign(&rule.component)
        )];
        lines.extend(rule.clauses().map(|clause| format!("  {}", foreign(clause))));
        answer = answer.lines(lines);
    }
    if row.rules.is_empty() {
        answer = answer.lines(vec!["It has no rule: nobody has used it for a day.".to_owned()]);
    }
    Ok(answer.read_at(&source.bmdb, status.as_of))
}
