//! What keeps a machine from a process by BMDB's own rules: who works in the slot, the backoff, the holds.

use std::collections::HashMap;
use std::fmt;

use bmdb_entity::{Fence, MachineId, SessionId, process, process_pause, work_backoff, work_hold};
use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, QueryResult};

use crate::admin::backoffs;
use crate::admin::{hold, pause};
use crate::bmdb::Bmdb;
use crate::db::sql::SqlBuilder;
use crate::db::tx::Tx;
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::runtime::escaped::Escaped;
use crate::store::process::known_names;

/// What keeps a machine from a process by BMDB's own rules, whatever the process asks of machines. `Display` writes it for people, one line a reason.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Obstacles {
    /// The machine.
    pub machine: MachineId,
    /// The process.
    pub process: String,
    /// Its slot.
    pub slot: String,
    /// Who works in the slot.
    pub holder: Option<Holder>,
    /// The process's backoff from the machine, unless its time is over.
    pub backoff: Option<work_backoff::Model>,
    /// The holds that keep the machine from the process.
    pub holds: Vec<work_hold::Model>,
    /// The pause of the process, unless its time is over.
    pub pause: Option<process_pause::Model>,
}

/// Who works on a machine.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Holder {
    /// The process that the machine was claimed for; another one may have the same slot.
    pub process: String,
    /// The session.
    pub session: SessionId,
    /// The session's component.
    pub component_name: String,
    /// Its version, host and process.
    pub runtime_info: String,
    /// The claim's fence.
    pub fence: Fence,
    /// Since when.
    pub claimed_at: DateTime<Utc>,
    /// The session's deadline, if it has one that can be read.
    pub deadline: Option<DateTime<Utc>>,
    /// What the holder last said of its progress.
    pub progress: Option<serde_json::Value>,
    /// Why an operator asked it to stop.
    pub stop_requested: Option<String>,
}

impl Bmdb {
    /// BMDB's own reasons why a process cannot claim a machine. Works without the process's code, and on connections that may write;
    /// [`StoredRule::explain`](crate::StoredRule::explain) adds the process's clauses.
    ///
    /// ```no_run
    /// # async fn example(bmdb: bmdb::Bmdb, machine: bmdb::MachineId) -> Result<(), bmdb::Error> {
    /// let obstacles = bmdb.obstacles("agent-start", machine).await?;
    /// if let Some(holder) = &obstacles.holder {
    ///     println!("{} works on it", holder.component_name);
    /// }
    /// print!("{obstacles}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownProcess`], [`Error::UnknownMachine`]; or when the database cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn obstacles(&self, process: &str, machine: MachineId) -> Result<Obstacles, Error> {
        const DOING: &str = "read what keeps a machine from a process";
        const THERE: &str = "SELECT machine_id FROM machine WHERE machine_id = $1";
        let database = self.database();
        let row = process::Entity::find_by_id(process).one(&**database).await;
        let Some(row) = row.map_err(Error::database(DOING))? else {
            return Err(Error::UnknownProcess {
                process: process.to_owned(),
                known: known_names(database).await?,
            });
        };
        let ask = async |tx: &Tx| {
            let there = tx.query_text(THERE, [machine.into()]).await;
            if there.map_err(Error::database(DOING))?.is_empty() {
                return Err(Error::UnknownMachine { machine });
            }
            let mut obstacles = obstacles_within(tx, &[machine], &row.name, &row.slot).await?;
            obstacles.pop().unwrap_or(Err(Error::UnknownMachine { machine }))
        };
        database.snapshot(DOING).run(ask).await.or_else(TxError::or_read)
    }
}

/// What was read of each machine, or why it cannot be.
type Of<T> = HashMap<MachineId, Result<T, Error>>;

/// Of each machine, in their order.
pub(super) async fn obstacles_within(
    tx: &Tx,
    machines: &[MachineId],
    process: &str,
    slot: &str,
) -> Result<Vec<Result<Obstacles, Error>>, Error> {
    let pause = pause::of_process(tx, process).await?;
    let holders = holders(tx, machines, slot).await?;
    let backoffs = backoffs::of_process(tx, machines, process).await?;
    let backoffs: Of<_> = backoffs.into_iter().collect();
    let mut holds: Of<Vec<work_hold::Model>> = HashMap::new();
    for (machine, hold) in hold::on_slot(tx, machines, slot).await? {
        let of_machine = holds.entry(machine).or_insert_with(|| Ok(Vec::new()));
        match (of_machine, hold) {
            (Ok(all), Ok(hold)) => all.push(hold),
            (all @ Ok(_), Err(odd)) => *all = Err(odd),
            (Err(_odd), _) => {}
        }
    }
    let of_machine = |machine: &MachineId| {
        Ok(Obstacles {
            machine: *machine,
            process: process.to_owned(),
            slot: slot.to_owned(),
            holder: holders.get(machine).cloned().transpose()?,
            backoff: backoffs.get(machine).cloned().transpose()?,
            holds: holds.get(machine).cloned().unwrap_or(Ok(Vec::new()))?,
            pause: pause.clone(),
        })
    };
    Ok(machines.iter().map(of_machine).collect())
}

async fn holders(tx: &Tx, machines: &[MachineId], slot: &str) -> Result<Of<Holder>, Error> {
    const DOING: &str = "read a work's holder";
    const HOLDER: &str = "
        SELECT w.machine_id, w.process, w.session_id, s.component_name, s.runtime_info, w.fence, {moment w.claimed_at}, {until l.deadline}, w.progress,
            w.stop_requested
        FROM work w JOIN session s ON s.session_id = w.session_id LEFT JOIN session_lease l ON l.session_id = w.session_id
        WHERE w.slot = $1 AND w.machine_id IN (";
    let mut text = SqlBuilder::new(tx.dialect());
    text.put(HOLDER, [slot.into()])
        .each(machines, "$1", |machine| [(*machine).into()])
        .put(")", []);
    let rows = tx.query_all_raw(text.finish()).await.map_err(Error::database(DOING))?;
    let read = |row: &QueryResult| {
        Ok::<_, DbErr>(Holder {
            process: row.try_get_by_index(1)?,
            session: row.try_get_by_index(2)?,
            component_name: row.try_get_by_index(3)?,
            runtime_info: row.try_get_by_index(4)?,
            fence: row.try_get_by_index(5)?,
            claimed_at: row.try_get_by_index(6)?,
            deadline: row.try_get_by_index(7)?,
            progress: row.try_get_by_index(8)?,
            stop_requested: row.try_get_by_index(9)?,
        })
    };
    let of_machine = |row: &QueryResult| Ok((row.try_get_by_index(0)?, read(row).map_err(Error::database(DOING))));
    rows.iter()
        .map(of_machine)
        .collect::<Result<_, _>>()
        .map_err(Error::database(DOING))
}

impl fmt::Display for Obstacles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_obstacles(
            f,
            &self.slot,
            self.holder.as_ref(),
            self.backoff.as_ref(),
            &self.holds,
            self.pause.as_ref(),
        )
    }
}

/// A line for each, or for there being none.
pub(super) fn write_obstacles(
    f: &mut fmt::Formatter<'_>,
    slot: &str,
    holder: Option<&Holder>,
    backoff: Option<&work_backoff::Model>,
    holds: &[work_hold::Model],
    pause: Option<&process_pause::Model>,
) -> fmt::Result {
    match holder {
        None => writeln!(f, "  [x] nobody works in slot {}", slot)?,
        Some(holder) => writeln!(
            f,
            "  [ ] {} works in slot {} since {} with fence {}: {} ({}), session {}",
            holder.process,
            slot,
            holder.claimed_at,
            holder.fence,
            Escaped(&holder.component_name),
            Escaped(&holder.runtime_info),
            holder.session
        )?,
    }
    match backoff {
        None => writeln!(f, "  [x] no backoff")?,
        Some(backoff) => {
            write!(f, "  [ ] ")?;
            match backoff.until {
                Some(until) => write!(f, "backs off until {until}")?,
                None => write!(f, "parked")?,
            }
            writeln!(f, " after {} failures: {}", backoff.attempts, Escaped(&backoff.cause))?;
        }
    }
    if holds.is_empty() {
        writeln!(f, "  [x] no hold")?;
    }
    for hold in holds {
        write!(f, "  [ ] held by {} ", Escaped(&hold.placed_by))?;
        match hold.until {
            Some(until) => write!(f, "until {until}")?,
            None => write!(f, "until lifted")?,
        }
        writeln!(f, ": {}", Escaped(&hold.reason))?;
    }
    match pause {
        None => writeln!(f, "  [x] the process is not paused"),
        Some(pause) => {
            write!(f, "  [ ] paused by {} ", Escaped(&pause.paused_by))?;
            match pause.until {
                Some(until) => write!(f, "until {until}")?,
                None => write!(f, "until resumed")?,
            }
            writeln!(f, ": {}", Escaped(&pause.reason))
        }
    }
}
