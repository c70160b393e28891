//! Stating, reading and withdrawing facts about machines.

pub use bmdb_entity::Tag;

use bmdb_entity::MachineId;
use sea_orm::ConnectionTrait;
use sea_orm::sea_query::Value;

use crate::error::Error;
use crate::fact::Fact;
use crate::once::is_dangling;
use crate::tx::Tx;

/// States a fact about a machine: writes the tag's row, or the columns that are set in `row` if the machine has the tag already. The column
/// [`Tag::STATED_AT`] is filled by the database's clock, whatever `row` says.
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
/// [`Error::Invalid`] for a row that names no machine, and for a text with NUL, which only some databases hold; [`Error::UnknownMachine`];
/// [`Error::Database`] when a rule of the tag's table refuses the row.
pub async fn set<T: Tag>(tx: &Tx, row: T::ActiveModel) -> Result<(), Error> {
    const DOING: &str = "set a tag";
    let fact = Fact::of(&row);
    fact.check()?;
    let Some(machine) = fact.about else {
        return Err(Error::invalid("a tag's row", T::name(), "a row that names its machine"));
    };
    let insert = Fact::state(tx.dialect(), [(machine, &fact)]);
    match tx.execute(&insert).await.map_err(Error::database(DOING)) {
        Ok(_) => Ok(()),
        // PostgreSQL refuses further statements in this transaction, so the machine cannot be looked for here; the key's name tells.
        Err(error) if is_dangling(&error) => Err(Error::UnknownMachine { machine }),
        Err(error) => Err(error),
    }
}

/// PostgreSQL holds no NUL in texts and JSON; SQLite would.
pub(crate) fn check_value(value: &Value) -> Result<(), Error> {
    let text = match value {
        Value::String(Some(text)) if text.contains('\0') => text.as_str(),
        Value::Json(Some(json)) if has_nul(json) => "JSON",
        _ => return Ok(()),
    };
    Err(Error::invalid("a tag's value", text, "text without NUL"))
}

/// Whether a text or a name in it holds NUL.
pub(crate) fn has_nul(json: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Object, String};
    match json {
        String(text) => text.contains('\0'),
        Array(items) => items.iter().any(has_nul),
        Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// Reads a machine's tag.
///
/// # Errors
/// When the database cannot be read.
pub async fn get<T: Tag>(connection: &impl ConnectionTrait, machine: MachineId) -> Result<Option<T::Model>, Error> {
    T::find_by_id(machine)
        .one(connection)
        .await
        .map_err(Error::database("read a tag"))
}

/// Withdraws a fact. `false`: the machine did not have the tag.
///
/// # Errors
/// When the database cannot be written.
pub async fn delete<T: Tag>(tx: &Tx, machine: MachineId) -> Result<bool, Error> {
    let deleted = T::delete_by_id(machine)
        .exec(tx)
        .await
        .map_err(Error::database("delete a tag"))?;
    Ok(deleted.rows_affected == 1)
}

macro_rules! tag_module {
    ($(#[$doc:meta])* $name:ident = $entity:ident { $($item:item)* }) => {
        $(#[$doc])*
        pub mod $name {
            pub use bmdb_entity::$entity::*;
            $($item)*
        }
    };
}

tag_module! {
    /// Tag: a provider gave us this machine. See [`machine::provide`](crate::machine::provide).
    provided = machine_provided {}
}

tag_module! {
    /// Tag: an agent was started on this machine.
    agent_started = machine_agent_started {
        use bmdb_entity::MachineId;
        use sea_orm::ActiveValue::{NotSet, Set};

        /// States that an agent was started now, with this public key.
        ///
        /// # Errors
        /// As [`tag::set`](crate::tag::set).
        pub async fn set(tx: &crate::Tx, machine: MachineId, public_key: impl Into<Vec<u8>>) -> Result<(), crate::Error> {
            let row = ActiveModel { machine_id: Set(machine), ..row(public_key) };
            crate::tag::set::<Entity>(tx, row).await
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
        /// As [`tag::set`](crate::tag::set).
        pub async fn set(tx: &crate::Tx, machine: MachineId) -> Result<(), crate::Error> {
            crate::tag::set::<Entity>(tx, ActiveModel { machine_id: Set(machine), ..row() }).await
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
    os_installation_report = machine_os_installation_report {}
}
