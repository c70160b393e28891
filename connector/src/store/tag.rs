//! Stating, reading and withdrawing facts about machines.

pub use bmdb_entity::Tag;

use std::panic::AssertUnwindSafe;

use bmdb_entity::MachineId;
use futures_util::FutureExt;
use sea_orm::{ConnectionTrait, DbErr};

use crate::db::tx::Tx;
use crate::error::Error;
use crate::rules::facts::{Fact, Verb};
use crate::store::machine;

/// States a fact: `row` becomes the machine's whole row of the tag. Columns that are not set get NULL or the table's default; [`Tag::STATED_AT`] is
/// filled by the database's clock, whatever `row` says. To change single columns, [`update`].
///
/// ```no_run
/// # async fn example(session: bmdb::Session, machine: bmdb::MachineId) -> Result<(), bmdb::Error> {
/// use bmdb::{os_installation_request, tag};
/// use sea_orm::ActiveValue::Set;
///
/// session
///     .transact(async |tx| {
///         let request = os_installation_request::ActiveModel { machine_id: Set(machine), generation: Set(1), raw: Set(Vec::new()) };
///         tag::set::<os_installation_request::Entity>(tx, request).await
///     })
///     .await
/// # }
/// ```
///
/// What a work has established needs no transaction of its own: [`End::stating`](crate::End::stating).
///
/// # Errors
/// [`Error::TagIncomplete`] when a column is not set that must be; [`Error::Invalid`] for a row that names no machine, and for a text with NUL, which only
/// some databases hold: before anything is written. [`Error::UnknownMachine`]; [`Error::DuplicateProviderId`]; [`Error::Database`] when a rule of the tag's
/// table refuses the row.
///
/// # Cancel safety
/// Dropping the future half-way spoils the transaction: it rolls back, and a body that returns `Ok` gets [`Error::Poisoned`].
pub async fn set<T: Tag>(tx: &Tx, row: T::ActiveModel) -> Result<(), Error> {
    const DOING: &str = "set a tag";
    let (machine, fact) = named::<T>(&row, Verb::Set)?;
    machine::check_identities(tx, machine, [&fact]).await?;
    let insert = fact.set(tx.dialect(), machine);
    match tx.execute(&insert).await.map_err(Error::database(DOING)) {
        Ok(_) => Ok(()),
        // PostgreSQL refuses further statements in this transaction, so the machine cannot be looked for here; the key's name tells.
        Err(error) if error.is_foreign_key_violation() => Err(Error::UnknownMachine { machine }),
        Err(error) => Err(error),
    }
}

/// Changes the columns that are set in `row`, of the row of the tag that the machine has; all others stay what they are. The column
/// [`Tag::STATED_AT`] is filled by the database's clock.
///
/// ```no_run
/// # async fn example(session: bmdb::Session, machine: bmdb::MachineId) -> Result<(), bmdb::Error> {
/// use bmdb::{provided, tag};
/// use sea_orm::ActiveValue::Set;
///
/// session
///     .transact(async |tx| {
///         let runs = provided::ActiveModel { machine_id: Set(machine), status: Set(provided::Status::Running), ..Default::default() };
///         tag::update::<provided::Entity>(tx, runs).await
///     })
///     .await
/// # }
/// ```
///
/// # Errors
/// [`Error::TagMissing`] when the machine does not have the tag, and nothing was written; else as [`set`].
///
/// # Cancel safety
/// Dropping the future half-way spoils the transaction: it rolls back, and a body that returns `Ok` gets [`Error::Poisoned`].
pub async fn update<T: Tag>(tx: &Tx, row: T::ActiveModel) -> Result<(), Error> {
    let (machine, fact) = named::<T>(&row, Verb::Update)?;
    machine::check_identities(tx, machine, [&fact]).await?;
    let update = fact.update_one(tx.dialect(), machine);
    let updated = tx.execute(&update).await.map_err(Error::database("update a tag"))?;
    if updated.rows_affected() == 1 {
        Ok(())
    } else {
        Err(Error::TagMissing {
            tag: T::name(),
            machine,
        })
    }
}

fn named<T: Tag>(row: &T::ActiveModel, verb: Verb) -> Result<(MachineId, Fact), Error> {
    let fact = Fact::of(row, verb);
    fact.check()?;
    let machine = fact.about;
    let machine = machine.ok_or_else(|| Error::invalid("a tag's row", T::name(), "a row that names its machine"))?;
    Ok((machine, fact))
}

/// Reads a machine's tag.
///
/// # Errors
/// When the database cannot be read, or the row, such as a time that somebody has set to `infinity`.
pub async fn get<T: Tag>(connection: &impl ConnectionTrait, machine: MachineId) -> Result<Option<T::Model>, Error> {
    const DOING: &str = "read a tag";
    // sqlx panics on `infinity` in a time, and a type of the user's may on anything.
    match AssertUnwindSafe(T::find_by_id(machine).one(connection))
        .catch_unwind()
        .await
    {
        Ok(row) => row.map_err(Error::database(DOING)),
        Err(_panic) => Err(Error::database(DOING)(DbErr::Type(format!(
            "{} of machine {machine} holds a value outside of what its type can hold",
            T::name()
        )))),
    }
}

/// Withdraws a fact. `false`: the machine did not have the tag.
///
/// # Errors
/// When the database cannot be written.
///
/// # Cancel safety
/// Dropping the future half-way spoils the transaction: it rolls back, and a body that returns `Ok` gets [`Error::Poisoned`].
pub async fn delete<T: Tag>(tx: &Tx, machine: MachineId) -> Result<bool, Error> {
    let deleted = T::delete_by_id(machine)
        .exec(tx)
        .await
        .map_err(Error::database("delete a tag"))?;
    Ok(deleted.rows_affected == 1)
}

macro_rules! tag_module {
    ($(#[$doc:meta])* $name:ident = $entity:ident $(with $own:ident)? { $($item:item)* }) => {
        $(#[$doc])*
        pub mod $name {
            pub use bmdb_entity::$entity::{ActiveModel, Column, Entity, Model, PrimaryKey};
            $(pub use bmdb_entity::$entity::$own;)?
            #[doc(hidden)]
            pub use bmdb_entity::$entity::*;
            $($item)*
        }
    };
}

tag_module! {
    /// Tag: a provider gave us this machine. See [`provide`](crate::store::machine::provide).
    provided = machine_provided with Status {}
}

tag_module! {
    /// Tag: an agent was started on this machine.
    agent_started = machine_agent_started {
        use bmdb_entity::MachineId;
        use sea_orm::ActiveValue::{NotSet, Set};

        /// States that an agent was started now, with this public key.
        ///
        /// # Errors
        /// As [`tag::set`](crate::store::tag::set).
        pub async fn set(tx: &crate::db::tx::Tx, machine: MachineId, public_key: impl Into<Vec<u8>>) -> Result<(), crate::error::Error> {
            let row = ActiveModel { machine_id: Set(machine), ..row(public_key) };
            crate::store::tag::set::<Entity>(tx, row).await
        }

        /// The fact that an agent was started now, with this public key, about whichever machine it is stated.
        #[must_use]
        pub fn row(public_key: impl Into<Vec<u8>>) -> ActiveModel {
            ActiveModel { machine_id: NotSet, at: NotSet, public_key: Set(public_key.into()) }
        }
    }
}

tag_module! {
    /// Tag: the agent on this machine was heard.
    agent_heartbeat = machine_agent_heartbeat {
        use bmdb_entity::MachineId;
        use sea_orm::ActiveValue::{NotSet, Set};

        /// States that the agent was heard now.
        ///
        /// # Errors
        /// As [`tag::set`](crate::store::tag::set).
        pub async fn set(tx: &crate::db::tx::Tx, machine: MachineId) -> Result<(), crate::error::Error> {
            crate::store::tag::set::<Entity>(tx, ActiveModel { machine_id: Set(machine), ..row() }).await
        }

        /// The fact that the agent was heard now, about whichever machine it is stated.
        #[must_use]
        pub fn row() -> ActiveModel {
            ActiveModel { machine_id: NotSet, at: NotSet }
        }
    }
}

tag_module! {
    /// Tag: what hardware this machine is made of.
    hardware_report = machine_hardware_report {}
}

tag_module! {
    /// Tag: an operating system shall be installed on this machine.
    os_installation_request = machine_os_installation_request {}
}

tag_module! {
    /// Tag: what came of an installation.
    os_installation_report = machine_os_installation_report with Outcome {}
}
