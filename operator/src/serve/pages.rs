//! The pages: each reads what is so, and makes a view of it. A file for each.

mod actions;
mod attention;
mod collector;
mod fleet;
mod history;
mod machine;
mod machines;
mod process;
mod processes;
mod schema;
mod sessions;
mod works;

use bmdb::{SessionId, WorkId, WorksOf};
use uuid::Uuid;

use crate::facts;
use crate::failure::Failure;
use crate::serve::console::Console;
use crate::serve::page::{Machines, Page};
use crate::serve::view::View;

/// Reads a page. `may_write`: acts are offered on it.
pub(super) async fn read(console: &Console, page: &Page, may_write: bool) -> Result<View, Failure> {
    match page {
        Page::Fleet => fleet::read(console).await,
        Page::Attention => attention::read(console, may_write).await,
        Page::Machines(machines) => machines::read(console, machines).await,
        Page::Machine { id, why } => machine::read(console, *id, why.as_deref(), may_write).await,
        Page::History(id) => history::read(console, *id).await,
        Page::Works(works) => works::list(console, works).await,
        Page::Work(id) => works::one(console, *id, may_write).await,
        Page::Sessions => sessions::list(console).await,
        Page::Session(id) => sessions::one(console, *id, may_write).await,
        Page::Processes => processes::read(console).await,
        Page::Process(name) => process::read(console, name, may_write).await,
        Page::Actions(actions) => actions::read(console, actions).await,
        Page::Collector => collector::read(console).await,
        Page::Schema => schema::read(console).await,
    }
}

/// The page of what a text names: a machine, a work, a session or a process; the list of machines where it names several, or none.
pub(super) async fn find(console: &Console, text: &str) -> Result<Page, Failure> {
    let bmdb = &console.source.bmdb;
    if text.is_empty() {
        return Ok(Page::Machines(Machines::default()));
    }
    if let Ok(id) = Uuid::try_parse(text) {
        if let Some(work) = bmdb.works(WorksOf::Work(WorkId(id))).await?.rows.first() {
            return Ok(Page::Work(work.work));
        }
        let sessions = facts::session::read(&console.source).await?;
        if sessions.rows.iter().any(|row| row.session == SessionId(id)) {
            return Ok(Page::Session(SessionId(id)));
        }
    }
    let machines = facts::name::all_named(bmdb, text).await?;
    if let [machine] = machines.as_slice() {
        let id = machine.machine;
        return Ok(Page::Machine { id, why: None });
    }
    let processes = facts::process::registered(bmdb).await?;
    if machines.is_empty() && processes.iter().any(|(process, _)| process == text) {
        return Ok(Page::Process(text.to_owned()));
    }
    Ok(Page::Machines(Machines {
        name: Some(text.to_owned()),
        ..Machines::default()
    }))
}
