//! The rows of processes: a component makes sure of each before its first claim.

use std::sync::Arc;

use sea_orm::sea_query::Value;
use tokio::sync::watch;

use crate::db::database::Database;
use crate::db::dialect::milliseconds;
use crate::db::transaction::Tx;
use crate::error::Error;
use crate::rules::process::{Process, check};
use crate::runtime::lock::locked;
use crate::store::known::{Known, Registering, Registration, Row};

/// Checks `P` and makes sure of its row. The database is asked once per component, however many ask at once: by the first of them, for all.
pub(crate) async fn register<P: Process>(database: &Arc<Database>, known: &Arc<Known>) -> Result<(), Error> {
    let mut registering = {
        let mut registered = locked(&known.registered);
        match registered.get(P::NAME) {
            Some(Registration::Registered(slot)) => {
                return agree::<P>(slot, &database.config.component);
            }
            // Closed, it has panicked.
            Some(Registration::UnderWay(registering)) if registering.has_changed().is_ok() => registering.clone(),
            _ => {
                check::<P>()?;
                let registering = begin::<P>(database, known);
                registered.insert(P::NAME, Registration::UnderWay(registering.clone()));
                registering
            }
        }
    };
    let answer = registering.wait_for(Option::is_some).await;
    let answer = answer.ok().and_then(|answer| answer.clone());
    // Without an answer the runtime is shutting down.
    let (slot, registered_by) = answer.ok_or(Error::CommitUnknown {
        doing: REGISTERING,
        source: None,
    })??;
    agree::<P>(&slot, &registered_by)
}

/// Registers `P` in a task, so that those who wait need not poll. Whoever comes after a failure begins anew.
fn begin<P: Process>(database: &Arc<Database>, known: &Arc<Known>) -> Registering {
    let (tell, told) = watch::channel(None);
    let (own, known) = (Arc::clone(database), Arc::clone(known));
    database.tasks.spawn(async move {
        let row = write_row::<P>(&own).await;
        let mut registered = locked(&known.registered);
        match &row {
            Ok((slot, _)) if slot == P::SLOT => registered.insert(P::NAME, Registration::Registered(P::SLOT)),
            _ => registered.remove(P::NAME),
        };
        drop(registered);
        tell.send_replace(Some(row));
    });
    told
}

fn agree<P: Process>(slot: &str, registered_by: &str) -> Result<(), Error> {
    if slot == P::SLOT {
        return Ok(());
    }
    Err(Error::SlotClash {
        process: P::NAME.to_owned(),
        slot: P::SLOT.to_owned(),
        registered: slot.to_owned(),
        registered_by: registered_by.to_owned(),
    })
}

const REGISTERING: &str = "register a process";

/// Writes the row unless another component has. A slot that differs changes nothing.
async fn write_row<P: Process>(database: &Database) -> Result<Row, Error> {
    const REGISTER: &str = "
        INSERT INTO process (name, slot, description, cool_down_ms, registered_at, registered_by)
        VALUES ($1, $2, $3, $4, {now}, $5)
        ON CONFLICT (name) DO UPDATE SET description = excluded.description, cool_down_ms = excluded.cool_down_ms
        WHERE process.slot = excluded.slot";
    let cool_down = milliseconds(P::COOL_DOWN);
    let component = database.config.component.clone();
    let scope = database.scope(REGISTERING);
    let register = async |tx: &Tx| {
        let values: [Value; 5] = [
            P::NAME.into(),
            P::SLOT.into(),
            P::DESCRIPTION.into(),
            cool_down.into(),
            component.clone().into(),
        ];
        tx.execute_text(REGISTER, values).await?;
        tx.execute_text(ADD_SEARCHES, [P::NAME.into()]).await?;
        let rows = tx
            .query_text(
                "SELECT slot, registered_by FROM process WHERE name = $1",
                [P::NAME.into()],
            )
            .await?;
        let row = rows
            .first()
            .ok_or(sea_orm::DbErr::RecordNotFound("process".to_owned()))?;
        Ok::<_, Error>((row.try_get_by_index(0)?, row.try_get_by_index(1)?))
    };
    scope.run_or_error(register).await
}

/// None has begun: a search before all others is due.
const ADD_SEARCHES: &str = "
    INSERT INTO work_retrieval (process, begun, ended, began_at, until) VALUES ($1, 0, 0, {now}, {now})
    ON CONFLICT (process) DO NOTHING";

/// Writes the row of the searches for `P` again, which somebody has deleted.
pub(crate) async fn add_searches<P: Process>(database: &Database) -> Result<(), Error> {
    let scope = database.scope(REGISTERING);
    let add = async |tx: &Tx| {
        tx.execute_text(ADD_SEARCHES, [P::NAME.into()])
            .await
            .map_err(Error::from)
    };
    scope.run_or_error(add).await.map(drop)
}

/// The slots of all registered processes.
pub(crate) async fn known_slots(database: &Database) -> Result<Vec<String>, Error> {
    names(database, "SELECT DISTINCT slot FROM process ORDER BY slot").await
}

/// The names of all registered processes.
pub(crate) async fn known_names(database: &Database) -> Result<Vec<String>, Error> {
    names(database, "SELECT name FROM process ORDER BY name").await
}

async fn names(database: &Database, text: &str) -> Result<Vec<String>, Error> {
    let rows = database.read("list processes", text, []).await?;
    let names = rows.iter().map(|row| row.try_get_by_index(0));
    names
        .collect::<Result<_, _>>()
        .map_err(Error::database("list processes"))
}
