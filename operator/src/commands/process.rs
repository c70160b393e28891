//! Processes: what there is to do, and by which rules.

use bmdb::entity::process;
use bmdb::sea_orm::{EntityTrait, QueryOrder, QuerySelect};
use bmdb::{Bmdb, Error, ProcessStatus, StoredRule};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::answer::words::{brief, foreign, grouped, when};
use crate::answer::{Answer, Table};
use crate::cli::Process;
use crate::failure::Failure;
use crate::source::Source;

pub(super) async fn run(source: &Source, verb: Process) -> Result<Answer, Failure> {
    match verb {
        Process::Ls => {
            let processes = read(source).await?;
            let unrun = processes.rows.iter().filter(|row| row.is_unrun()).count();
            let sentence = match (processes.rows.len(), unrun) {
                (0, _) => "No process is registered: no component has run on this database yet.".to_owned(),
                (all, 0) => format!("{all} processes; somebody runs each."),
                (all, unrun) => format!("{all} processes; nobody runs {unrun} of them."),
            };
            Answer::new(sentence, json!({"processes": processes.json()}))
                .table(processes.table())
                .lines(processes.unread.clone())
                .from(&source.bmdb)
                .await
        }
        Process::Show { process } => show(source, &process).await,
    }
}

/// Whether there is such a process: a list for one that was mistyped would be empty, and look calm.
pub(super) async fn check(bmdb: &Bmdb, process: &str) -> Result<(), Failure> {
    let registered = registered(bmdb).await?;
    if registered.iter().any(|(name, _)| name == process) {
        return Ok(());
    }
    let known: Vec<_> = registered.iter().map(|(name, _)| name.as_str()).collect();
    Err(unknown(process, &known))
}

/// The name and the slot of each process, by slot. Without the counts of [`Bmdb::processes`], for which every work, backoff and hold is read.
pub(super) async fn registered(bmdb: &Bmdb) -> Result<Vec<(String, String)>, Failure> {
    let names = process::Entity::find()
        .select_only()
        .columns([process::Column::Name, process::Column::Slot])
        .order_by_asc(process::Column::Slot)
        .order_by_asc(process::Column::Name)
        .into_tuple();
    Ok(names.all(bmdb.reads()).await.map_err(Error::from)?)
}

fn unknown(process: &str, known: &[&str]) -> Failure {
    Failure::not_found(format!(
        "no process {process:?} is registered. There are: {}",
        known.join(", ")
    ))
}

/// A process, and how many machines are eligible for it by each of its rules, where that could be asked.
pub(crate) struct Row {
    pub(crate) status: ProcessStatus,
    rules: Vec<(StoredRule, Result<u64, Error>)>,
}

/// All processes.
pub(crate) struct Processes {
    pub(crate) rows: Vec<Row>,
    /// Why rules could not be asked, if they could not.
    pub(crate) unread: Vec<String>,
}

/// A component that claims by a rule says so again within the hour.
const UNUSED: TimeDelta = TimeDelta::hours(2);

impl Row {
    /// By the rule that finds most: the versions of a rolling update find the same machines. `None`: no rule could be asked.
    pub(crate) fn eligible(&self) -> Option<u64> {
        let counts: Option<Vec<u64>> = self
            .rules
            .iter()
            .map(|(_, count)| count.as_ref().ok().copied())
            .collect();
        counts
            .filter(|counts| !counts.is_empty())
            .map(|counts| counts.into_iter().sum())
    }

    fn used_at(&self) -> Option<DateTime<Utc>> {
        self.status.used_at
    }

    /// No component has used a rule of it for hours.
    pub(crate) fn is_unrun(&self) -> bool {
        self.status.in_work == 0 && self.used_at().is_none_or(|used| self.status.as_of - used > UNUSED)
    }

    /// Nobody runs it, and there is something to do, or nobody can say.
    pub(super) fn is_idle(&self) -> bool {
        self.is_unrun() && self.eligible().is_none_or(|eligible| eligible > 0)
    }
}

/// All of them, with their rules counted one after the other.
pub(crate) async fn read(source: &Source) -> Result<Processes, Failure> {
    let mut processes = Processes {
        rows: Vec::new(),
        unread: Vec::new(),
    };
    for status in source.bmdb.processes().await? {
        let mut rules = Vec::new();
        for rule in source.reader().rules(&status.process).await? {
            let count = rule.count().await;
            if let Err(error) = &count {
                let why = unasked(error);
                if !processes.unread.contains(&why) {
                    processes.unread.push(why);
                }
            }
            rules.push((rule, count));
        }
        processes.rows.push(Row { status, rules });
    }
    Ok(processes)
}

/// Why a rule was not asked, and what to do.
pub(super) fn unasked(error: &Error) -> String {
    match error {
        Error::MayWrite { .. } => {
            "the rules were not asked, for this login can do more than read: give --read-database with one that cannot, such as bmdb_console".to_owned()
        }
        other => format!("a rule could not be asked: {other}"),
    }
}

impl Processes {
    pub(super) fn table(&self) -> Table {
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
        for row in &self.rows {
            let status = &row.status;
            let used = row.used_at().map(|used| when(used, status.as_of));
            table.row([
                brief(&status.process),
                brief(&status.slot),
                row.eligible().map_or_else(|| "?".to_owned(), grouped),
                grouped(status.in_work),
                grouped(status.backing_off),
                grouped(status.parked),
                grouped(status.held),
                if row.is_unrun() {
                    "✕ nobody runs it".to_owned()
                } else {
                    used.unwrap_or_else(|| "now".to_owned())
                },
            ]);
        }
        table
    }

    pub(super) fn json(&self) -> Vec<Value> {
        self.rows.iter().map(as_json).collect()
    }
}

fn as_json(row: &Row) -> Value {
    let status = &row.status;
    let rules = row.rules.iter().map(|(rule, count)| {
        json!({
            "digest": rule.digest, "component": rule.component, "used_at": rule.used_at.to_rfc3339(),
            "clauses": rule.clauses().collect::<Vec<_>>(), "eligible": count.as_ref().ok().map(u64::to_string),
        })
    });
    json!({
        "process": status.process, "slot": status.slot, "description": status.description,
        "cool_down_ms": status.cool_down.as_millis().to_string(), "registered_at": status.registered_at.to_rfc3339(),
        "registered_by": status.registered_by, "eligible": row.eligible().map(|count| count.to_string()),
        "in_work": status.in_work.to_string(), "backing_off": status.backing_off.to_string(), "parked": status.parked.to_string(),
        "held": status.held.to_string(), "nobody_runs_it": row.is_unrun(), "rules": rules.collect::<Vec<_>>(),
    })
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
