//! What was done, as the database tells it. Every number about work comes from `work_history`.

use std::collections::BTreeMap;
use std::fmt::Write;

use bmdb::{Bmdb, MachineId, provided};
use sea_orm::{ConnectionTrait, EntityTrait, FromQueryResult, Statement};

use crate::Failure;
use crate::processes::AgentStart;
use crate::show::provider::Counts;
use crate::show::watch::Snapshot;

/// How often each thing happened, by process.
const EVENTS: &str = "
    SELECT process, event, CAST(count(*) AS BIGINT) AS times
    FROM work_history
    GROUP BY process, event";

/// How many expired claims were followed by another session's claim of the machine. A machine's claims are in the order of its fences.
const TAKEN_OVER: &str = "
    SELECT lost.process, 'taken over' AS event, CAST(count(*) AS BIGINT) AS times
    FROM work_history lost
    JOIN work_history next ON next.machine_id = lost.machine_id AND next.fence =
        (SELECT min(later.fence) FROM work_history later WHERE later.machine_id = lost.machine_id AND later.fence > lost.fence)
    WHERE lost.event = 'expired' AND next.event = 'started' AND next.session_id <> lost.session_id
    GROUP BY lost.process";

/// Of the machines that were taken over, the one with the most claims.
const ONE_TAKEN_OVER: &str = "
    SELECT lost.machine_id
    FROM work_history lost
    JOIN work_history next ON next.machine_id = lost.machine_id AND next.fence =
        (SELECT min(later.fence) FROM work_history later WHERE later.machine_id = lost.machine_id AND later.fence > lost.fence)
    JOIN machine ON machine.machine_id = lost.machine_id
    WHERE lost.event = 'expired' AND next.event = 'started' AND next.session_id <> lost.session_id
    ORDER BY machine.fence DESC, machine.machine_id
    LIMIT 1";

/// The columns of the table, by the event that they count.
const COLUMNS: [(&str, &str); 6] = [
    ("claimed", "started"),
    ("finished", "finished"),
    ("failed", "failed"),
    ("canceled", "canceled"),
    ("expired", "expired"),
    ("taken over", "taken over"),
];

#[derive(FromQueryResult)]
struct Times {
    process: String,
    event: String,
    times: i64,
}

/// Writes the report.
///
/// # Errors
/// When the database cannot be read.
pub(crate) async fn write(bmdb: &Bmdb, now: &Snapshot, provider: Counts) -> Result<String, Failure> {
    let mut out = format!(
        "\n{} machines: {} agents started, {} heard, {} have installed their system; {} left to do\n\n",
        now.machines,
        now.started,
        now.heard,
        now.installed,
        now.left()
    );
    write_events(bmdb, &mut out).await?;
    if provider.arrived > 0 {
        writeln!(
            out,
            "\nthe provider took {} commands and refused {} of them for a stale fence",
            provider.arrived, provider.stale
        )?;
    }
    let taken_over = bmdb.reads().query_one_raw(statement(bmdb, ONE_TAKEN_OVER)).await?;
    if let Some(row) = taken_over {
        write_machine(bmdb, row.try_get_by_index(0)?, &mut out).await?;
    }
    Ok(out)
}

/// The table of what happened, over all runs on this database.
async fn write_events(bmdb: &Bmdb, out: &mut String) -> Result<(), Failure> {
    let mut processes: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    for text in [EVENTS, TAKEN_OVER] {
        for row in Times::find_by_statement(statement(bmdb, text))
            .all(bmdb.reads())
            .await?
        {
            processes.entry(row.process).or_default().insert(row.event, row.times);
        }
    }
    write!(out, "{:<16}", "work_history")?;
    for (column, _) in COLUMNS {
        write!(out, "{column:>12}")?;
    }
    writeln!(out)?;
    // In the order of a machine's life: agents are started before they are recovered.
    for (process, events) in processes.iter().rev() {
        write!(out, "{process:<16}")?;
        for (_, event) in COLUMNS {
            write!(out, "{:>12}", events.get(event).copied().unwrap_or(0))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// One machine's history, and why it may be claimed or not.
async fn write_machine(bmdb: &Bmdb, machine: MachineId, out: &mut String) -> Result<(), Failure> {
    let provided = provided::Entity::find_by_id(machine).one(bmdb.reads()).await?;
    let name = provided
        .map(|row| format!("{}/{}", row.provider, row.provider_id))
        .unwrap_or_default();
    writeln!(out, "\none machine that was taken over: {name}, {machine}")?;
    for event in bmdb.history(machine).await?.rows {
        let process = event.runtime_info.rsplit_once(", ").map_or("", |(_, process)| process);
        writeln!(
            out,
            "  fence {}  {}  {:<14}  {:<8}  {}, {process}{}",
            event.fence,
            event.at.format("%H:%M:%S%.3f"),
            event.process,
            event.event.to_string(),
            event.component_name,
            event.cause.map(|cause| format!(": {cause}")).unwrap_or_default()
        )?;
    }
    writeln!(
        out,
        "\n{}",
        bmdb.register(AgentStart)
            .await?
            .explain(machine)
            .await?
            .to_string()
            .trim_end()
    )?;
    Ok(())
}

fn statement(bmdb: &Bmdb, text: &str) -> Statement {
    Statement::from_string(bmdb.reads().get_database_backend(), text)
}
