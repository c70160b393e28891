//! Machines: how they come into the database.

pub use crate::store::exclusion::exclude_claims;
pub use crate::store::hints::hint;
pub use crate::store::removal::remove;
pub use bmdb_entity::machine::*;

use std::collections::{HashMap, HashSet};

use bmdb_entity::{MachineId, machine_hardware_report, machine_provided};
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryResult, QuerySelect,
};

use crate::db::dialect::Dialect;
use crate::db::sql::SqlBuilder;
use crate::db::tx::Tx;
use crate::error::Error;
use crate::rules::check::check_text;
use crate::rules::facts::{Fact, Identity};

/// A machine as a provider describes it.
///
/// ```
/// let new = bmdb::machine::NewMachine::new("equinix", "i-1").address("192.0.2.7").location("fra2/r14/u3");
/// assert_eq!(new.address.as_deref(), Some("192.0.2.7"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewMachine {
    /// The provider's name.
    pub provider: String,
    /// The provider's id of the machine.
    pub provider_id: String,
    /// The provider's reservation.
    pub reservation: Option<String>,
    /// Where it answers.
    pub address: Option<String>,
    /// Where it stands.
    pub location: Option<String>,
    /// What it is made of, as it came.
    pub hardware_report: Option<Vec<u8>>,
}

impl NewMachine {
    /// A machine of which only the provider and the provider's id are known.
    #[must_use]
    pub fn new(provider: impl Into<String>, provider_id: impl Into<String>) -> Self {
        Self {
            provider: provider.into(),
            provider_id: provider_id.into(),
            reservation: None,
            address: None,
            location: None,
            hardware_report: None,
        }
    }

    /// The provider's reservation.
    #[must_use]
    pub fn reservation(mut self, reservation: impl Into<String>) -> Self {
        self.reservation = Some(reservation.into());
        self
    }

    /// Where it answers.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = Some(address.into());
        self
    }

    /// Where it stands.
    #[must_use]
    pub fn location(mut self, location: impl Into<String>) -> Self {
        self.location = Some(location.into());
        self
    }

    /// What it is made of, as it came.
    #[must_use]
    pub fn hardware_report(mut self, report: impl Into<Vec<u8>>) -> Self {
        self.hardware_report = Some(report.into());
        self
    }

    /// Checks its texts, as [`provide`] and [`import`] do.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty provider or provider id, and for texts with NUL or that are too long.
    pub fn check(&self) -> Result<(), Error> {
        const LONGEST: usize = 4096;
        /// In a unique index: PostgreSQL cannot index a row above 2704 bytes.
        const LONGEST_ID: usize = 1024;
        for (what, text) in [
            ("the name of a provider", &self.provider),
            ("a provider id", &self.provider_id),
        ] {
            if text.is_empty() || text.len() > LONGEST_ID || text.contains('\0') {
                return Err(Error::invalid(what, text, "1 to 1024 bytes without NUL"));
            }
        }
        let texts = [
            ("a reservation", &self.reservation),
            ("an address", &self.address),
            ("a location", &self.location),
        ];
        for (what, text) in texts {
            text.as_ref().map_or(Ok(()), |text| check_text(what, text, LONGEST))?;
        }
        Ok(())
    }
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Machines that are new.
    pub created: usize,
    /// Machines that were there already, or stood in the batch before; they were not touched.
    pub known: usize,
}

/// The most machines that one [`import`] takes, in one transaction.
pub const LARGEST_IMPORT: usize = 5000;

/// How many machines one statement writes: each is up to seven bound values, and SQLite takes 32766 (PostgreSQL 65535).
const AT_ONCE: usize = 4000;

const FIND: &str = "find a machine";

/// Creates a machine that has no tag yet.
///
/// # Errors
/// When the database cannot be written.
///
/// # Cancel safety
/// Dropping the future half-way spoils the transaction: it rolls back, and a body that returns `Ok` gets [`Error::Poisoned`].
pub async fn create(tx: &Tx) -> Result<MachineId, Error> {
    let machine = MachineId::random();
    insert_machines(tx, &[machine])
        .await
        .map_err(Error::database("create a machine"))?;
    Ok(machine)
}

/// Creates a machine that a provider gave us.
///
/// # Errors
/// [`Error::DuplicateProviderId`] when the provider has given us that id before; [`Error::Invalid`] for texts with NUL or over 4 kB.
///
/// # Cancel safety
/// Dropping the future half-way spoils the transaction: it rolls back, and a body that returns `Ok` gets [`Error::Poisoned`].
pub async fn provide(tx: &Tx, new: NewMachine) -> Result<MachineId, Error> {
    new.check()?;
    check_identity(tx, None, (Some(&new.provider), Some(&new.provider_id))).await?;
    let machine = MachineId::random();
    insert(tx, &[(machine, &new)])
        .await
        .map_err(Error::database("create a machine"))?;
    Ok(machine)
}

/// The machine that has this id at this provider, if one has.
///
/// ```no_run
/// # async fn example(bmdb: bmdb::Bmdb) -> Result<(), bmdb::Error> {
/// if let Some(machine) = bmdb::machine::find(bmdb.reads(), "equinix", "i-1").await? {
///     println!("{machine}");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the database cannot be read.
///
/// # Cancel safety
/// Safe: it only reads.
pub async fn find(
    connection: &impl ConnectionTrait,
    provider: &str,
    provider_id: &str,
) -> Result<Option<MachineId>, Error> {
    use machine_provided::{Column, Entity};
    let found = Entity::find()
        .select_only()
        .column(Column::MachineId)
        .filter(Column::Provider.eq(provider))
        .filter(Column::ProviderId.eq(provider_id))
        .into_tuple()
        .one(connection);
    found.await.map_err(Error::database(FIND))
}

/// Whether another machine has the provider's id that these rows give this one.
pub(crate) async fn check_identities(
    connection: &impl ConnectionTrait,
    machine: MachineId,
    facts: impl IntoIterator<Item = &Fact>,
) -> Result<(), Error> {
    for identity in facts.into_iter().filter_map(Fact::identity) {
        check_identity(connection, Some(machine), identity).await?;
    }
    Ok(())
}

/// Whether a provider's id is this machine's, or nobody's. What is not said of it, the machine's own row says.
async fn check_identity(
    connection: &impl ConnectionTrait,
    machine: Option<MachineId>,
    (provider, provider_id): Identity<'_>,
) -> Result<(), Error> {
    use machine_provided::Entity;
    let own = match machine {
        Some(machine) if provider.is_none() || provider_id.is_none() => Entity::find_by_id(machine)
            .one(connection)
            .await
            .map_err(Error::database(FIND))?,
        _ => None,
    };
    let own = own.map(|own| (own.provider, own.provider_id)).unzip();
    let text = |said: Option<&str>, own: Option<String>| said.map(str::to_owned).or(own);
    let (Some(provider), Some(provider_id)) = (text(provider, own.0), text(provider_id, own.1)) else {
        return Ok(());
    };
    match find(connection, &provider, &provider_id).await? {
        Some(known) if machine != Some(known) => Err(Error::DuplicateProviderId {
            provider,
            provider_id,
            machine: known,
        }),
        _ => Ok(()),
    }
}

/// Creates the machines of a batch that are not there yet, by provider and provider id. Importing the same again changes nothing.
///
/// ```no_run
/// # async fn example(session: bmdb::Session, inventory: Vec<bmdb::machine::NewMachine>) -> Result<(), bmdb::Error> {
/// use bmdb::machine;
///
/// for batch in inventory.chunks(machine::LARGEST_IMPORT) {
///     let imported = session.transact(async |tx| machine::import(tx, batch).await).await?;
///     println!("{} are new, {} were known", imported.created, imported.known);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Invalid`] for a batch over [`LARGEST_IMPORT`], and for texts with NUL or over 4 kB.
///
/// # Cancel safety
/// Dropping the future half-way spoils the transaction: it rolls back, and a body that returns `Ok` gets [`Error::Poisoned`].
pub async fn import(tx: &Tx, batch: &[NewMachine]) -> Result<Imported, Error> {
    if batch.len() > LARGEST_IMPORT {
        return Err(Error::invalid(
            "the size of an import",
            &batch.len().to_string(),
            "at most 5000 machines at a time",
        ));
    }
    batch.iter().try_for_each(NewMachine::check)?;
    let known = known_ids(tx, batch).await.map_err(Error::database("find machines"))?;
    let mut seen = HashSet::new();
    let fresh: Vec<_> = batch
        .iter()
        .filter(|new| {
            let identity = (new.provider.clone(), new.provider_id.clone());
            !known.contains_key(&identity) && seen.insert(identity)
        })
        .map(|new| (MachineId::random(), new))
        .collect();
    for some in fresh.chunks(AT_ONCE) {
        insert(tx, some).await.map_err(Error::database("create machines"))?;
    }
    Ok(Imported {
        created: fresh.len(),
        known: batch.len() - fresh.len(),
    })
}

async fn known_ids(tx: &Tx, batch: &[NewMachine]) -> Result<HashMap<(String, String), MachineId>, DbErr> {
    use machine_provided::Column;
    let mut by_provider: HashMap<&str, Vec<&str>> = HashMap::new();
    for new in batch {
        by_provider.entry(&new.provider).or_default().push(&new.provider_id);
    }
    let mut known = HashMap::new();
    for (provider, ids) in by_provider {
        let rows: Vec<(MachineId, String)> = if tx.dialect() == Dialect::Postgres {
            look_up(tx, provider, &ids).await?
        } else {
            machine_provided::Entity::find()
                .select_only()
                .columns([Column::MachineId, Column::ProviderId])
                .filter(Column::Provider.eq(provider))
                .filter(Column::ProviderId.is_in(ids))
                .into_tuple()
                .all(tx)
                .await?
        };
        known.extend(
            rows.into_iter()
                .map(|(machine, id)| ((provider.to_owned(), id), machine)),
        );
    }
    Ok(known)
}

/// Looks each id up by its key. Told a list, PostgreSQL reads all machines of the provider while it has no statistics, as in a first import, and
/// compares each with the whole list.
async fn look_up(tx: &Tx, provider: &str, ids: &[&str]) -> Result<Vec<(MachineId, String)>, DbErr> {
    let mut text = SqlBuilder::new(tx.dialect());
    text.put("SELECT m.machine_id, m.provider_id FROM (VALUES ", [])
        .each(ids, "($1)", |id| [(*id).into()])
        .put(
            ") AS ids (id) CROSS JOIN LATERAL \
             (SELECT machine_id, provider_id FROM machine_provided WHERE provider = $1 AND provider_id = ids.id LIMIT 1) AS m",
            [provider.into()],
        );
    let rows = tx.query_all_raw(text.finish()).await?;
    let read = |row: &QueryResult| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?));
    rows.iter().map(read).collect()
}

async fn insert(tx: &Tx, machines: &[(MachineId, &NewMachine)]) -> Result<(), DbErr> {
    if machines.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = machines.iter().map(|(machine, _)| *machine).collect();
    insert_machines(tx, &ids).await?;
    let provided = machines.iter().map(|(machine, new)| machine_provided::ActiveModel {
        machine_id: Set(*machine),
        provider: Set(new.provider.clone()),
        provider_id: Set(new.provider_id.clone()),
        reservation: Set(new.reservation.clone()),
        address: Set(new.address.clone()),
        location: Set(new.location.clone()),
        status: Set(machine_provided::Status::Unstated),
    });
    machine_provided::Entity::insert_many(provided)
        .exec_without_returning(tx)
        .await?;
    let reports: Vec<_> = machines
        .iter()
        .filter_map(|(machine, new)| {
            let raw = new.hardware_report.clone()?;
            Some(machine_hardware_report::ActiveModel {
                machine_id: Set(*machine),
                raw: Set(raw),
            })
        })
        .collect();
    if !reports.is_empty() {
        machine_hardware_report::Entity::insert_many(reports)
            .exec_without_returning(tx)
            .await?;
    }
    Ok(())
}

async fn insert_machines(tx: &Tx, machines: &[MachineId]) -> Result<(), DbErr> {
    let mut insert = Query::insert();
    insert
        .into_table(Entity)
        .columns([Column::MachineId, Column::CreatedAt, Column::Fence]);
    for machine in machines {
        insert.values_panic([Expr::val(*machine), tx.dialect().now_expr(), Expr::val(0_i64)]);
    }
    tx.execute(&insert).await.map(drop)
}
