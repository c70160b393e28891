//! Processes: what there is to do, by which rules, and whether anybody does it.

use bmdb::entity::process;
use bmdb::sea_orm::{EntityTrait, QueryOrder, QuerySelect};
use bmdb::{Bmdb, Error, ProcessStatus, StoredRule};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::source::Source;

/// Whether there is such a process: a list for one that was mistyped would be empty, and look calm.
pub(crate) async fn check(bmdb: &Bmdb, process: &str) -> Result<(), Failure> {
    let registered = registered(bmdb).await?;
    if registered.iter().any(|(name, _)| name == process) {
        return Ok(());
    }
    let known: Vec<_> = registered.iter().map(|(name, _)| name.as_str()).collect();
    Err(unknown(process, &known))
}

/// The name and the slot of each process, by slot. Without the counts of [`Bmdb::processes`], for which every work, backoff and hold is read.
pub(crate) async fn registered(bmdb: &Bmdb) -> Result<Vec<(String, String)>, Failure> {
    let names = process::Entity::find()
        .select_only()
        .columns([process::Column::Name, process::Column::Slot])
        .order_by_asc(process::Column::Slot)
        .order_by_asc(process::Column::Name)
        .into_tuple();
    Ok(names.all(bmdb.reads()).await.map_err(Error::from)?)
}

/// There is no such process.
pub(crate) fn unknown(process: &str, known: &[&str]) -> Failure {
    Failure::not_found(format!(
        "no process {process:?} is registered. There are: {}",
        known.join(", ")
    ))
}

/// A process, and how many machines are eligible for it by each of its rules, where that could be asked.
pub(crate) struct Row {
    pub(crate) status: ProcessStatus,
    pub(crate) rules: Vec<(StoredRule, Result<u64, Error>)>,
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

    /// When somebody used a rule of it last, to the hour.
    pub(crate) fn used_at(&self) -> Option<DateTime<Utc>> {
        self.status.used_at
    }

    /// No component has used a rule of it for hours.
    pub(crate) fn is_unrun(&self) -> bool {
        self.status.in_work == 0 && self.used_at().is_none_or(|used| self.status.as_of - used > UNUSED)
    }

    /// Nobody runs it, and there is something to do, or nobody can say.
    pub(crate) fn is_idle(&self) -> bool {
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
pub(crate) fn unasked(error: &Error) -> String {
    match error {
        Error::MayWrite { .. } => {
            "the rules were not asked, for this login can do more than read: give --read-database with one that cannot, such as bmdb_console".to_owned()
        }
        other => format!("a rule could not be asked: {other}"),
    }
}

impl Processes {
    pub(crate) fn json(&self) -> Vec<Value> {
        self.rows.iter().map(as_json).collect()
    }
}

pub(crate) fn as_json(row: &Row) -> Value {
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
