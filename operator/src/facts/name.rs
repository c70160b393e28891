//! What people call a machine, and the machine that is called so.

use std::fmt;

use bmdb::{Bmdb, MachineFilter, MachineId, MachineStatus, Unreadable};
use uuid::Uuid;

use crate::answer::words::foreign;
use crate::failure::{Failure, Kind};

/// More that have one name are counted, not named.
const NAMED: usize = 10;

/// The one machine that has this id, this provider's id, or this address.
pub(crate) async fn find(bmdb: &Bmdb, text: &str) -> Result<MachineStatus, Failure> {
    let mut found = all_named(bmdb, text).await?;
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Failure::not_found(format!(
            "no machine is called {text:?}. Searched: id, provider's id, address. `bmdb whatis` looks further"
        ))),
        many => {
            let them = found.iter().take(NAMED).map(|machine| {
                let provider = machine.provider.as_deref().unwrap_or("no provider");
                format!("  {} of {}", machine.machine, foreign(provider))
            });
            let them: Vec<_> = them.collect();
            let text = format!(
                "{many} machines are called {text:?}. Name one by its id:\n{}",
                them.join("\n")
            );
            Err(Failure::usage(text))
        }
    }
}

/// All that are called so.
pub(crate) async fn all_named(bmdb: &Bmdb, text: &str) -> Result<Vec<MachineStatus>, Failure> {
    let mut page = bmdb.machines(MachineFilter::new().name(text)).limit(1000).await?;
    if let Ok(id) = Uuid::try_parse(text) {
        let by_id = bmdb.machines(MachineFilter::new().ids([MachineId(id)])).await?;
        page.unreadable.extend(by_id.unreadable);
        // One may be called by its own id.
        page.rows.retain(|row| row.machine != MachineId(id));
        page.rows.extend(by_id.rows);
    }
    match page.unreadable.first() {
        Some(row) if page.rows.is_empty() => Err(unreadable(row)),
        _ => Ok(page.rows),
    }
}

/// What is there and cannot be read is not missing.
pub(crate) fn unreadable(row: &Unreadable) -> Failure {
    let text = format!("row {} is there and cannot be read: {}", row.row, row.error);
    Failure::new(Kind::Unreachable, text)
}

/// What people call a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// In a sentence: its provider's id, or else its own.
    pub(crate) shown: String,
    /// In a command that somebody pastes: its own id, for two providers may call two machines the same.
    pub(crate) pasted: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

pub(crate) fn name_of(machine: MachineId, provider_id: Option<&str>) -> Name {
    let pasted = machine.to_string();
    let shown = provider_id.map_or_else(|| pasted.clone(), foreign);
    Name { shown, pasted }
}

/// What people call some machines.
pub(crate) async fn names(
    bmdb: &Bmdb,
    machines: impl IntoIterator<Item = MachineId>,
) -> Result<impl Fn(MachineId) -> Name, Failure> {
    let mut ids: Vec<_> = machines.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    let mut known = std::collections::HashMap::new();
    for some in ids.chunks(1000) {
        let page = bmdb.machines(MachineFilter::new().ids(some)).await?;
        known.extend(page.rows.into_iter().map(|row| (row.machine, row.provider_id)));
    }
    Ok(move |machine: MachineId| name_of(machine, known.get(&machine).and_then(Option::as_deref)))
}
