//! Why a machine is, or is not, eligible: answered from the same predicate that claims use.

use std::collections::HashMap;
use std::fmt;

use bmdb_entity::{MachineId, process_pause, work_backoff, work_hold};
use chrono::{DateTime, Utc};
use sea_orm::{Condition, ConnectionTrait, DbErr, QueryResult, Statement};

use crate::admin::obstacles::{Holder, Obstacles, obstacles_within, write_obstacles};
use crate::bmdb::registered::Registered;
use crate::db::dialect::Dialect;
use crate::db::sql::{SqlBuilder, SqlFragment};
use crate::db::transaction::TxRunner;
use crate::db::tx::Tx;
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::rules::claimable::free_for;
use crate::rules::process::Process;
use crate::store::hints::search_now;
use crate::store::rule::RuleText;

/// Whether a process could claim a machine, and if not, why.
///
/// `Display` writes it for people, one line a reason.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The machine.
    pub machine: MachineId,
    /// The process.
    pub process: String,
    /// Its slot.
    pub slot: String,
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
    /// The pause of the process, unless its time is over.
    pub pause: Option<process_pause::Model>,
    /// When backoff, holds and pause will be over, if they end by themselves and nothing else stands in the way.
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

impl<P: Process> Registered<P> {
    /// How many machines are eligible now. A pause changes none of them: it is [asked](Self::explain) of the process.
    ///
    /// # Errors
    /// When the database cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn count(&self) -> Result<u64, Error> {
        let database = self.bmdb().database();
        database
            .read_count(COUNTING, self.asked().count(database.dialect))
            .await
    }

    /// Up to so many machines that are eligible now, without claiming them: from a random one on, or in the process's own order.
    ///
    /// # Errors
    /// When the database cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn eligible(&self, limit: u32) -> Result<Vec<MachineId>, Error> {
        let (database, rule) = (self.bmdb().database(), self.rule());
        search_now::<P>(database, &rule.eligible, &Condition::all(), u64::from(limit)).await
    }

    /// Whether a machine could be claimed now, and if not, why: each clause, the holder, the backoff, the holds, and the earliest time. All of it is of one
    /// moment.
    ///
    /// # Errors
    /// [`Error::UnknownMachine`], or when the database cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn explain(&self, machine: MachineId) -> Result<Explanation, Error> {
        explain_one(&self.snapshot(), &self.asked(), machine).await
    }

    /// [`explain`](Self::explain) for many machines, in their order. Those that are explained together, up to 500, are of one moment; one that cannot be
    /// explained is an error of its own.
    ///
    /// # Errors
    /// When the database cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn explain_many(&self, machines: &[MachineId]) -> Result<Vec<Result<Explanation, Error>>, Error> {
        explain_many(&self.snapshot(), &self.asked(), machines).await
    }

    fn snapshot(&self) -> TxRunner<'_> {
        self.bmdb().database().snapshot(DOING)
    }

    fn asked(&self) -> Asked<'_> {
        let rule = self.rule();
        Asked {
            process: rule.key.process,
            slot: rule.slot,
            text: &rule.text,
        }
    }
}

const DOING: &str = "explain a machine";
pub(super) const COUNTING: &str = "count eligible machines";

/// How many machines are explained at once.
const TOGETHER: usize = 500;

/// A rule as text, and whose it is.
pub(super) struct Asked<'a> {
    pub(super) process: &'a str,
    pub(super) slot: &'a str,
    pub(super) text: &'a RuleText,
}

impl Asked<'_> {
    /// Counts the machines that a claim could take.
    pub(super) fn count(&self, dialect: Dialect) -> Statement {
        self.of_eligible("CAST(count(machine.machine_id) AS BIGINT)", dialect)
            .finish()
    }

    /// Finds so many of them, from the smallest id on.
    pub(super) fn first(&self, dialect: Dialect, limit: u32) -> Statement {
        let mut text = self.of_eligible("machine.machine_id", dialect);
        text.put(&format!(" ORDER BY machine.machine_id LIMIT {limit}"), []);
        text.finish()
    }

    fn of_eligible(&self, what: &str, dialect: Dialect) -> SqlBuilder {
        let mut text = SqlBuilder::new(dialect);
        let of = format!("SELECT {what} FROM {} WHERE ", self.text.machines(false));
        text.piece(&SqlFragment::text(of)).piece(&SqlFragment::expression(
            dialect,
            free_for(self.process, self.slot, dialect),
        ));
        for clause in &self.text.clauses {
            text.piece(&SqlFragment::text(format!(" AND ({})", clause.sql)));
        }
        text
    }
}

pub(super) async fn explain_one(
    runner: &TxRunner<'_>,
    asked: &Asked<'_>,
    machine: MachineId,
) -> Result<Explanation, Error> {
    let explained = at_one_moment(runner, asked, &[machine]).await?;
    explained
        .into_iter()
        .next()
        .expect("BUG: there is an answer for each machine")
}

pub(super) async fn explain_many(
    runner: &TxRunner<'_>,
    asked: &Asked<'_>,
    machines: &[MachineId],
) -> Result<Vec<Result<Explanation, Error>>, Error> {
    let mut all = Vec::with_capacity(machines.len());
    for some in machines.chunks(TOGETHER) {
        match at_one_moment(runner, asked, some).await {
            Ok(explained) => all.extend(explained),
            Err(outage) if outage.is_outage() => return Err(outage),
            // Of one of them a clause cannot be asked, such as one that divides by what is zero there.
            Err(_of_one) => {
                for machine in some {
                    all.push(explain_one(runner, asked, *machine).await);
                }
            }
        }
    }
    Ok(all)
}

async fn at_one_moment(
    runner: &TxRunner<'_>,
    asked: &Asked<'_>,
    machines: &[MachineId],
) -> Result<Vec<Result<Explanation, Error>>, Error> {
    let explaining = runner.run(async |tx: &Tx| explain_within(tx, asked, machines).await);
    explaining.await.or_else(TxError::or_read)
}

async fn explain_within(
    tx: &Tx,
    asked: &Asked<'_>,
    machines: &[MachineId],
) -> Result<Vec<Result<Explanation, Error>>, Error> {
    let clauses = clauses(tx, asked.text, machines).await?;
    let obstacles = obstacles_within(tx, machines, asked.process, asked.slot).await?;
    let explain = |(machine, obstacles): (&MachineId, Result<Obstacles, Error>)| {
        let unknown = || Err(Error::UnknownMachine { machine: *machine });
        let (clauses, at) = clauses.get(machine).cloned().unwrap_or_else(unknown)?;
        Ok(Explanation::of(at, clauses, obstacles?))
    };
    Ok(std::iter::zip(machines, obstacles).map(explain).collect())
}

impl Explanation {
    fn of(at: DateTime<Utc>, clauses: Vec<ClauseState>, obstacles: Obstacles) -> Self {
        let Obstacles {
            machine,
            process,
            slot,
            holder,
            backoff,
            holds,
            pause,
        } = obstacles;
        let fit = clauses.iter().all(|clause| clause.met) && holder.is_none();
        let waits = backoff.iter().map(|backoff| backoff.until);
        let waits: Vec<_> = waits
            .chain(holds.iter().map(|hold| hold.until))
            .chain(pause.iter().map(|pause| pause.until))
            .collect();
        // An open end anywhere leaves no earliest time.
        let ends = waits.iter().copied().collect::<Option<Vec<_>>>().filter(|_| fit);
        Self {
            machine,
            process,
            slot,
            at,
            eligible: fit && waits.is_empty(),
            clauses,
            holder,
            backoff,
            holds,
            pause,
            earliest: ends.and_then(|ends| ends.into_iter().max()),
        }
    }
}

/// Asks the database for every clause of some machines, and for its time.
async fn clauses(
    tx: &Tx,
    rule: &RuleText,
    machines: &[MachineId],
) -> Result<HashMap<MachineId, Result<(Vec<ClauseState>, DateTime<Utc>), Error>>, Error> {
    let verdict =
        |condition: &str| SqlFragment::text(format!(", CAST(CASE WHEN {condition} THEN 1 ELSE 0 END AS BIGINT)"));
    // Each clause is asked of the machine, also of one that lacks the item's row: where it asks for the item's columns, it finds NULL.
    let mut text = SqlBuilder::new(tx.dialect());
    text.put("SELECT machine.machine_id, {now}", [])
        .piece(&verdict(&format!("machine.fence < {}", i64::MAX)))
        .piece(&verdict(&format!(
            "{}.\"{}\" IS NOT NULL",
            rule.item, rule.item_machine_id
        )));
    for clause in &rule.clauses {
        text.piece(&verdict(&clause.sql));
    }
    text.piece(&SqlFragment::text(format!(" FROM {} WHERE ", rule.machines(true))))
        .put("machine.machine_id IN (", [])
        .each(machines, "$1", |machine| [(*machine).into()])
        .put(")", []);
    let rows = tx.query_all_raw(text.finish()).await.map_err(Error::database(DOING))?;
    let read = |row: &QueryResult| {
        let machine: MachineId = row.try_get_by_index(0)?;
        let at: DateTime<Utc> = row.try_get_by_index(1)?;
        let met = |place: usize| Ok::<_, DbErr>(row.try_get_by_index::<i64>(place)? == 1);
        let mut states = Vec::with_capacity(rule.clauses.len() + 1);
        let clause = format!("has {}", rule.item.replace('"', ""));
        // Unless the process asks for it in so many words.
        if rule.has_item() && rule.clauses.iter().all(|asked| asked.why != clause) {
            states.push(ClauseState { clause, met: met(3)? });
        }
        if !met(2)? {
            let clause = "its fence can rise".to_owned();
            states.push(ClauseState { clause, met: false });
        }
        for (clause, place) in std::iter::zip(&rule.clauses, 4..) {
            let (clause, met) = (clause.why.clone(), met(place)?);
            states.push(ClauseState { clause, met });
        }
        Ok((machine, Ok((states, at))))
    };
    rows.iter()
        .map(read)
        .collect::<Result<_, _>>()
        .map_err(Error::database(DOING))
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
        write_obstacles(
            f,
            &self.slot,
            self.holder.as_ref(),
            self.backoff.as_ref(),
            &self.holds,
            self.pause.as_ref(),
        )?;
        match self.earliest {
            Some(earliest) => writeln!(f, "  earliest: {earliest}"),
            None => Ok(()),
        }
    }
}
