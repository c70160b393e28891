//! Facts that somebody who holds no work has seen, of many machines at once: agents that report in, a scan of the network.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bmdb_entity::MachineId;
use bmdb_entity::machine::{Column, Entity};
use sea_orm::sea_query::{LockType, Query, SelectStatement};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr};

use crate::db::dialect::Dialect;
use crate::db::tx::Tx;
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::rules::facts::{Fact, Facts};
use crate::session::Session;
use crate::session::shared::Shared;
use crate::store::machine;

/// Facts about a machine, seen by somebody who holds no work on it. They are stated by [`Session::state`].
///
/// ```
/// use bmdb::{MachineId, Observation, agent_heartbeat, agent_started};
///
/// # fn example(machine: MachineId, key: Vec<u8>) -> Observation {
/// // The agent with this key was heard, if it is still the one that was started.
/// Observation::new(machine, agent_heartbeat::row()).only_if(agent_started::row(key))
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Observation {
    machine: MachineId,
    facts: Facts,
    only_if: Facts,
}

impl Observation {
    /// These facts about a machine.
    #[must_use]
    pub fn new(machine: MachineId, facts: impl Into<Facts>) -> Self {
        Self {
            machine,
            facts: facts.into(),
            only_if: Facts::none(),
        }
    }

    /// States the facts only if the machine has these tags with these values. The tags stay locked until the facts are written.
    #[must_use]
    pub fn only_if(mut self, known: impl Into<Facts>) -> Self {
        self.only_if = self.only_if.and(known);
        self
    }

    fn check(&self) -> Result<(), Error> {
        self.facts.check(self.machine)?;
        if let Some(update) = self.facts.updates().chain(self.only_if.updates()).next() {
            let expected = "whole rows: columns are updated by an end or in a body";
            return Err(Error::invalid("an observation", update.tag, expected));
        }
        self.only_if.check_demands(self.machine)
    }

    /// How many values it binds at most in one statement.
    fn values(&self) -> usize {
        1 + self.facts.values().max(self.only_if.values())
    }
}

/// How many observations are one transaction, and how many values one statement binds: SQLite takes 32,766, and terms of a condition 1000 deep.
const AT_ONCE: usize = 400;
const VALUES: usize = 10_000;

impl Session {
    /// States facts about machines on which this session holds no work, and answers for each observation, in their order, whether it was stated:
    /// whether there is such a machine and it fulfils what was demanded of it. Of two observations of one machine the later one counts.
    ///
    /// Any number may be given at once; each few hundred are a transaction of their own, which checks that the session lives and holds the rows of
    /// the facts for some milliseconds. On PostgreSQL it runs READ COMMITTED, so components that hear the same agents wait for each other
    /// instead of failing. Facts that depend on other facts belong in a body of [`transact`](Session::transact).
    ///
    /// ```no_run
    /// # async fn example(session: bmdb::Session, heard: Vec<(bmdb::MachineId, Vec<u8>)>) -> Result<(), bmdb::Error> {
    /// use bmdb::{Observation, agent_heartbeat, agent_started};
    ///
    /// let heard = heard.into_iter().map(|(machine, key)| {
    ///     Observation::new(machine, agent_heartbeat::row()).only_if(agent_started::row(key))
    /// });
    /// let stated = session.state(heard).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::TagIncomplete`]; [`Error::Invalid`] for a row that names another machine, for two rows of one tag, for [`Facts::updating`], and for a text
    /// with NUL: before anything is written; [`Error::DuplicateProviderId`];
    /// [`Error::SessionExpired`]; [`Error::Contended`], [`Error::CommitUnknown`] and [`Error::Database`] for one of the transactions, and those before
    /// it are made. To state it all again does no harm.
    ///
    /// # Cancel safety
    /// Dropping the future leaves what is committed, and of the rest nothing.
    pub async fn state(&self, observations: impl IntoIterator<Item = Observation>) -> Result<Vec<bool>, Error> {
        let observations: Vec<_> = observations.into_iter().collect();
        observations.iter().try_for_each(Observation::check)?;
        let mut stated = Vec::with_capacity(observations.len());
        let mut rest = observations.as_slice();
        while !rest.is_empty() {
            let mut values = 0;
            let fit = rest.iter().take(AT_ONCE).take_while(|one| {
                values += one.values();
                values <= VALUES
            });
            let (part, others) = rest.split_at(fit.count().max(1));
            stated.extend(state_part(self.shared(), part).await?);
            rest = others;
        }
        Ok(stated)
    }
}

async fn state_part(shared: &Shared, part: &[Observation]) -> Result<Vec<bool>, Error> {
    let runner = shared.library("state facts");
    let body = async |tx: &Tx| {
        shared.lock_row(tx).await?;
        write(tx, part).await
    };
    let stated = match runner.run(body).await {
        // To state it again is the same, a moment later.
        Err(TxError::Unknown { .. }) => runner.run(body).await,
        done => done,
    };
    let error = match stated.map_err(|failure| failure.into_error(runner.doing)) {
        Err(error) if error.is_key_violation() => error,
        other => return other,
    };
    for one in part {
        machine::check_identities(&*shared.database, one.machine, one.facts.iter()).await?;
    }
    Err(error)
}

async fn write(tx: &Tx, part: &[Observation]) -> Result<Vec<bool>, Error> {
    let there = there(tx, part).await?;
    let mut stated = vec![false; part.len()];
    // One after the other for each machine: a statement writes no row twice, and a demand is checked for one observation.
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    let mut before: HashMap<MachineId, usize> = HashMap::new();
    for (place, one) in part.iter().enumerate().filter(|(_, one)| there.contains(&one.machine)) {
        let round = before.entry(one.machine).or_default();
        if rounds.len() == *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(place);
        *round += 1;
    }
    for mut round in rounds {
        // Everybody goes through the machines in one order, so that few meet crosswise.
        round.sort_by_key(|place| part[*place].machine);
        for demanded in by_shape(round.iter().map(|place| &part[*place]), |one| &one.only_if) {
            let asked: HashSet<_> = demanded.iter().map(|(machine, _)| *machine).collect();
            let equal = with_these(tx, demanded).await?;
            round.retain(|place| !asked.contains(&part[*place].machine) || equal.contains(&part[*place].machine));
        }
        for rows in by_shape(round.iter().map(|place| &part[*place]), |one| &one.facts) {
            let insert = Fact::set_all(tx.dialect(), rows);
            tx.execute(&insert).await.map_err(Error::database("state facts"))?;
        }
        for place in round {
            stated[place] = true;
        }
    }
    Ok(stated)
}

/// The rows that fit one statement together, in an order that is the same for everybody.
fn by_shape<'a>(
    observations: impl Iterator<Item = &'a Observation>,
    facts: impl Fn(&'a Observation) -> &'a Facts,
) -> Vec<Vec<(MachineId, &'a Fact)>> {
    let mut shapes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for one in observations {
        for fact in facts(one).iter() {
            shapes.entry(fact.shape()).or_default().push((one.machine, fact));
        }
    }
    shapes.into_values().collect()
}

/// The machines whose tag has what is demanded of it. Their rows stay so until the transaction ends.
async fn with_these(tx: &Tx, demanded: Vec<(MachineId, &Fact)>) -> Result<HashSet<MachineId>, Error> {
    let mut select = Fact::select_equal(demanded);
    if tx.dialect() != Dialect::Sqlite {
        select.lock(LockType::Update);
    }
    read(tx, &select).await.map_err(Error::database("read facts"))
}

/// The machines that there are. They stay until the transaction ends.
async fn there(tx: &Tx, part: &[Observation]) -> Result<HashSet<MachineId>, Error> {
    let machines: BTreeSet<_> = part.iter().map(|one| one.machine).collect();
    let mut select = Query::select();
    select
        .column(Column::MachineId)
        .from(Entity)
        .and_where(Column::MachineId.is_in(machines));
    if tx.dialect() == Dialect::Postgres {
        select.lock(LockType::KeyShare);
    }
    read(tx, &select).await.map_err(Error::database("find machines"))
}

async fn read(tx: &Tx, select: &SelectStatement) -> Result<HashSet<MachineId>, DbErr> {
    let rows = tx.query_all(select).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}
