//! Why a machine is, or is not, eligible: answered from the same predicate that claims use.

use std::fmt;

use bmdb_entity::{Fence, MachineId, SessionId, machine, work_backoff, work_hold};
use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Alias, CaseStatement, Expr, ExprTrait, IntoCondition, JoinType};
use sea_orm::{Condition, ConnectionTrait, DbErr, QueryResult};

use crate::admin::backoffs;
use crate::admin::hold;
use crate::bmdb::Bmdb;
use crate::db::transaction::Tx;
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::rules::claimable::{fence_can_rise, from_machines, has_item, item_table, machines_and_items};
use crate::rules::eligible::{Eligible, KeyRange};
use crate::rules::process::{Process, check};
use crate::runtime::escaped::Escaped;

/// Whether a process could claim a machine, and if not, why.
///
/// `Display` writes it for people, one line a reason.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The machine.
    pub machine: MachineId,
    /// The process.
    pub process: &'static str,
    /// Its slot.
    pub slot: &'static str,
    /// The database's time at which this was true.
    pub at: DateTime<Utc>,
    /// Whether a claim would have succeeded then.
    pub eligible: bool,
    /// Each clause of the process, in its order.
    pub clauses: Vec<ClauseState>,
    /// Who works in the slot.
    pub holder: Option<Holder>,
    /// The process's backoff from the machine, unless its time is over.
    pub backoff: Option<work_backoff::Model>,
    /// The holds that keep the machine from the process.
    pub holds: Vec<work_hold::Model>,
    /// When backoff and holds will be over, if they end by themselves and nothing else stands in the way.
    pub earliest: Option<DateTime<Utc>>,
}

/// One clause of a process's predicate, on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClauseState {
    /// What the clause asks.
    pub clause: String,
    /// Whether the machine meets it.
    pub met: bool,
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
    /// Until when the session may not be expired, if it says.
    pub deadline: Option<DateTime<Utc>>,
    /// What the holder last said of its progress.
    pub progress: Option<serde_json::Value>,
    /// Why an operator asked it to stop.
    pub stop_requested: Option<String>,
}

impl Bmdb {
    /// How many machines are eligible for `P` now.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::InvalidTime`] and [`Error::InvalidBackoff`] for a process that could not claim; or when the database cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn count<P: Process>(&self) -> Result<u64, Error> {
        let database = self.database();
        const DOING: &str = "count eligible machines";
        check::<P>()?;
        let eligible = Eligible::<P>::of_process();
        let mut select = from_machines::<P>();
        select
            .expr(
                Expr::col((machine::Entity, machine::Column::MachineId))
                    .count()
                    .cast_as(Alias::new("BIGINT")),
            )
            .cond_where(eligible.claimable(database.dialect, KeyRange::All));
        let counts = database.dialect.backend().build(&select);
        database.read_count(DOING, counts).await
    }

    /// Whether `P` could claim `machine` now, and if not, why: each clause, the holder, the backoff, the holds, and the earliest time.
    ///
    /// # Errors
    /// [`Error::UnknownMachine`]; for a process that could not claim, as [`count`](Self::count); or when the database cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn explain<P: Process>(&self, machine: MachineId) -> Result<Explanation, Error> {
        let database = self.database();
        check::<P>()?;
        let scope = database.snapshot(DOING);
        match scope.run(async |tx: &Tx| explain_within::<P>(tx, machine).await).await {
            // What was read is true whether or not the transaction that read it committed.
            Ok(explained) | Err(TxError::Unknown { value: explained, .. }) => Ok(explained),
            Err(TxError::NotCommitted(error)) => Err(error),
        }
    }
}

const DOING: &str = "explain a machine";

async fn explain_within<P: Process>(tx: &Tx, machine: MachineId) -> Result<Explanation, Error> {
    let eligible = Eligible::<P>::of_process();
    let (clauses, at) = clauses(tx, &eligible, machine).await?;
    let holder = holder(tx, machine, P::SLOT).await?;
    let backoff = backoffs::of_process(tx, machine, P::NAME).await?;
    let holds = hold::on_slot(tx, machine, P::SLOT).await?;
    let fit = clauses.iter().all(|clause| clause.met) && holder.is_none();
    let waits: Vec<_> = backoff
        .iter()
        .map(|backoff| backoff.until)
        .chain(holds.iter().map(|hold| hold.until))
        .collect();
    // An open end anywhere leaves no earliest time.
    let earliest = if fit {
        waits
            .iter()
            .copied()
            .collect::<Option<Vec<_>>>()
            .and_then(|ends| ends.into_iter().max())
    } else {
        None
    };
    Ok(Explanation {
        machine,
        process: P::NAME,
        slot: P::SLOT,
        at,
        eligible: fit && waits.is_empty(),
        clauses,
        holder,
        backoff,
        holds,
        earliest,
    })
}

/// Asks the database for every clause of one machine, and for its time.
async fn clauses<P: Process>(
    tx: &Tx,
    eligible: &Eligible<P>,
    machine: MachineId,
) -> Result<(Vec<ClauseState>, DateTime<Utc>), Error> {
    let verdict = |condition: Condition| {
        let verdict = CaseStatement::new()
            .case(condition, Expr::cust("1"))
            .finally(Expr::cust("0"));
        Expr::expr(verdict).cast_as(Alias::new("BIGINT"))
    };
    // Each clause is asked of the machine, also of one that lacks the item's row: where it asks for the item's columns, it finds NULL.
    let machine_id = Expr::col((machine::Entity, machine::Column::MachineId));
    let mut select = machines_and_items::<P>(JoinType::LeftJoin);
    select
        .expr(tx.dialect().now_expr())
        .expr(verdict(fence_can_rise().into_condition()))
        .expr(verdict(has_item::<P>()))
        .and_where(machine_id.eq(machine));
    for clause in &eligible.clauses {
        select.expr(verdict((clause.test)(tx.dialect(), KeyRange::All)));
    }
    let rows = tx.query_all(&select).await.map_err(Error::database(DOING))?;
    let row = rows.first().ok_or(Error::UnknownMachine { machine })?;
    let read = || {
        let at: DateTime<Utc> = row.try_get_by_index(0)?;
        let met = |place: usize| Ok::<_, DbErr>(row.try_get_by_index::<i64>(place)? == 1);
        let mut states = Vec::with_capacity(eligible.clauses.len() + 1);
        if let Some(item) = item_table::<P>() {
            let clause = format!("has {item}");
            // Unless the process asks for it in so many words.
            if eligible.clauses.iter().all(|asked| asked.why != clause) {
                states.push(ClauseState { clause, met: met(2)? });
            }
        }
        if !met(1)? {
            let clause = "its fence can rise".to_owned();
            states.push(ClauseState { clause, met: false });
        }
        for (clause, place) in std::iter::zip(&eligible.clauses, 3..) {
            let (clause, met) = (clause.why.clone(), met(place)?);
            states.push(ClauseState { clause, met });
        }
        Ok((states, at))
    };
    read().map_err(Error::database(DOING))
}

async fn holder(tx: &Tx, machine: MachineId, slot: &str) -> Result<Option<Holder>, Error> {
    const DOING: &str = "read a work's holder";
    const HOLDER: &str = "
        SELECT w.process, w.session_id, s.component_name, s.runtime_info, w.fence, {moment w.claimed_at}, {until l.deadline}, w.progress,
            w.stop_requested
        FROM work w JOIN session s ON s.session_id = w.session_id LEFT JOIN session_lease l ON l.session_id = w.session_id
        WHERE w.machine_id = $1 AND w.slot = $2";
    let rows = tx.query_text(HOLDER, [machine.into(), slot.into()]).await;
    let rows = rows.map_err(Error::database(DOING))?;
    let read = |row: &QueryResult| {
        Ok::<_, DbErr>(Holder {
            process: row.try_get_by_index(0)?,
            session: row.try_get_by_index(1)?,
            component_name: row.try_get_by_index(2)?,
            runtime_info: row.try_get_by_index(3)?,
            fence: row.try_get_by_index(4)?,
            claimed_at: row.try_get_by_index(5)?,
            deadline: row.try_get_by_index(6)?,
            progress: row.try_get_by_index(7)?,
            stop_requested: row.try_get_by_index(8)?,
        })
    };
    rows.first().map(read).transpose().map_err(Error::database(DOING))
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.eligible { "eligible" } else { "not eligible" };
        writeln!(
            f,
            "machine {} is {verdict} for {} at {}",
            self.machine, self.process, self.at
        )?;
        for state in &self.clauses {
            writeln!(f, "  [{}] {}", if state.met { "x" } else { " " }, state.clause)?;
        }
        match &self.holder {
            None => writeln!(f, "  [x] nobody works in slot {}", self.slot)?,
            Some(holder) => writeln!(
                f,
                "  [ ] {} works in slot {} since {} with fence {}: {} ({}), session {}",
                holder.process,
                self.slot,
                holder.claimed_at,
                holder.fence,
                Escaped(&holder.component_name),
                Escaped(&holder.runtime_info),
                holder.session
            )?,
        }
        match &self.backoff {
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
        if self.holds.is_empty() {
            writeln!(f, "  [x] no hold")?;
        }
        for hold in &self.holds {
            write!(f, "  [ ] held by {} ", Escaped(&hold.placed_by))?;
            match hold.until {
                Some(until) => write!(f, "until {until}")?,
                None => write!(f, "until lifted")?,
            }
            writeln!(f, ": {}", Escaped(&hold.reason))?;
        }
        match self.earliest {
            Some(earliest) => writeln!(f, "  earliest: {earliest}"),
            None => Ok(()),
        }
    }
}
