//! What a process is, and its row in the database.

use std::sync::Arc;
use std::time::Duration;

use bmdb_entity::MachineRow;
use sea_orm::sea_query::Value;
use sea_orm::{FromQueryResult, ModelTrait};
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::database::Database;
use crate::dialect::{LONGEST, milliseconds};
use crate::eligible::Eligible;
use crate::error::Error;
use crate::lock::locked;

/// A kind of work: a type with a name, and the rule by which machines are fit for it.
///
/// ```
/// use bmdb::{Backoff, Eligible, Process, agent_started, provided};
/// use std::time::Duration;
///
/// pub struct AgentStart;
///
/// impl Process for AgentStart {
///     const NAME: &'static str = "agent-start";
///     const SLOT: &'static str = "agent";
///     const BACKOFF: Backoff = Backoff::exponential(Duration::from_secs(300), 1.2, Duration::from_secs(4 * 3600));
///     type Item = provided::Model;
///
///     fn eligible(machines: Eligible<Self>) -> Eligible<Self> {
///         machines.lacks::<agent_started::Entity>()
///     }
/// }
/// ```
pub trait Process: Sized + Send + Sync + 'static {
    /// Its name, `[A-Za-z0-9_.-]{1,64}`. Names are for ever: history and backoffs keep them.
    const NAME: &'static str;

    /// What it occupies on a machine. Two processes with one slot exclude each other.
    const SLOT: &'static str = Self::NAME;

    /// What it does, for people.
    const DESCRIPTION: &'static str = "";

    /// How it backs off from a machine on which it failed.
    const BACKOFF: Backoff = Backoff::NONE;

    /// How long a machine is left alone after its holder died: time for effects that are still on their way to arrive. At most a century.
    const COOL_DOWN: Duration = Duration::from_secs(15);

    /// After how long the stop token of a work fires; `None` lets it run as long as its session lives. At most a century.
    const MAX_RUN: Option<Duration> = None;

    /// The row that the guard carries: a machine's, or that of a tag that every machine of this process has.
    type Item: ModelTrait<Entity: MachineRow> + FromQueryResult + Sync + 'static;

    /// Which machines are fit. The only source for claims, counts and explanations. Machines that are held, in work on this slot or backed off
    /// from are left out by BMDB itself. It must answer the same each time: a component builds some of its statements once.
    fn eligible(machines: Eligible<Self>) -> Eligible<Self>;
}

/// That this component has made sure of a process's row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registered {
    slot: &'static str,
}

const NAME_EXPECTED: &str = "1 to 64 of the characters A-Z a-z 0-9 _ . -";

/// Whether `name` can name a process or slot: `[A-Za-z0-9_.-]{1,64}`.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), Error> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if (1..=64).contains(&name.len()) && name.bytes().all(good) {
        Ok(())
    } else {
        Err(Error::invalid(what, name, NAME_EXPECTED))
    }
}

/// The row of a process: its slot, and the component that registered it.
type Row = (String, String);

/// A registration under way, for all who wait for it: what came of it, once it is there.
pub(crate) type Registering = watch::Receiver<Option<Result<Row, Error>>>;

/// What a component knows of the rows of processes, by their names.
pub(crate) enum Registration {
    /// It has made sure of it.
    Registered(Registered),
    UnderWay(Registering),
}

/// Checks `P` and makes sure of its row. The database is asked once per component, however many ask at once: by the first of them, for all.
pub(crate) async fn register<P: Process>(database: &Arc<Database>) -> Result<(), Error> {
    let mut registering = {
        let mut known = locked(&database.registered);
        match known.get(P::NAME) {
            Some(Registration::Registered(registered)) => {
                return agree::<P>(registered.slot, &database.config.component);
            }
            // Closed, it has panicked.
            Some(Registration::UnderWay(registering)) if registering.has_changed().is_ok() => registering.clone(),
            _ => {
                check::<P>()?;
                let registering = begin::<P>(database);
                known.insert(P::NAME, Registration::UnderWay(registering.clone()));
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

/// Checks what `P` says of itself.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn check<P: Process>() -> Result<(), Error> {
    check_name("the name of a process", P::NAME)?;
    check_name("the name of a slot", P::SLOT)?;
    check_text("the description of a process", P::DESCRIPTION, 4096)?;
    check_time::<P>("COOL_DOWN", P::COOL_DOWN)?;
    check_time::<P>("MAX_RUN", P::MAX_RUN.unwrap_or_default())?;
    P::BACKOFF.check().map_err(|source| Error::InvalidBackoff {
        process: P::NAME,
        source,
    })
}

/// Registers `P` in a task, so that those who wait need not poll. Whoever comes after a failure begins anew.
fn begin<P: Process>(database: &Arc<Database>) -> Registering {
    let (tell, told) = watch::channel(None);
    let registers = Arc::clone(database);
    database.tasks.spawn(async move {
        let row = write_row::<P>(&registers).await;
        let mut known = locked(&registers.registered);
        match &row {
            Ok((slot, _)) if slot == P::SLOT => {
                known.insert(P::NAME, Registration::Registered(Registered { slot: P::SLOT }))
            }
            _ => known.remove(P::NAME),
        };
        drop(known);
        tell.send_replace(Some(row));
    });
    told
}

fn check_time<P: Process>(setting: &'static str, value: Duration) -> Result<(), Error> {
    if value <= LONGEST {
        return Ok(());
    }
    Err(Error::InvalidTime {
        process: P::NAME,
        setting,
        value,
        longest: LONGEST,
    })
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
    let register = async |tx: &crate::Tx| {
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
    let add = async |tx: &crate::Tx| {
        tx.execute_text(ADD_SEARCHES, [P::NAME.into()])
            .await
            .map_err(Error::from)
    };
    scope.run_or_error(add).await.map(drop)
}

/// Whether `text` can be stored on every backend: no NUL, and not longer than `longest` bytes.
pub(crate) fn check_text(what: &'static str, text: &str, longest: usize) -> Result<(), Error> {
    match text {
        _ if text.contains('\0') => Err(Error::invalid(what, text, "text without NUL")),
        _ if text.len() > longest => Err(Error::invalid(what, text, "at most 4 kB")),
        _ => Ok(()),
    }
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A process for which every machine is fit.
    pub(crate) struct Survey;

    impl Process for Survey {
        const NAME: &'static str = "survey";
        type Item = bmdb_entity::machine::Model;

        fn eligible(machines: Eligible<Self>) -> Eligible<Self> {
            machines
        }
    }
}
