//! What people call a machine, and the machine that is called so.

use std::fmt;

use bmdb::{Bmdb, MachineFilter, MachineId, MachineStatus};
use uuid::Uuid;

use crate::answer::words::{foreign, quoted};
use crate::cli::Which;
use crate::failure::Failure;

/// More that have one name are counted, not named.
const NAMED: usize = 10;

/// The one machine that has this id, this provider's id, or this address.
pub(crate) async fn find(bmdb: &Bmdb, which: &Which) -> Result<MachineStatus, Failure> {
    find_named(bmdb, &which.machine).await
}

pub(crate) async fn find_named(bmdb: &Bmdb, text: &str) -> Result<MachineStatus, Failure> {
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
    let by_id = Uuid::try_parse(text).ok().map(MachineId);
    if let Some(machine) = by_id {
        let found = bmdb.machines(MachineFilter::new().ids([machine])).await?.rows;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(bmdb.machines(MachineFilter::new().name(text)).limit(1000).await?.rows)
}

/// What people call a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// In a sentence: its provider's id, or else its own.
    pub(crate) shown: String,
    /// In a command that somebody pastes: the same, unless a shell or a reader would take it for something else.
    pub(crate) pasted: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

pub(crate) fn name_of(machine: MachineId, provider_id: Option<&str>) -> Name {
    let id = machine.to_string();
    match provider_id {
        None => Name {
            shown: id.clone(),
            pasted: id,
        },
        Some(text) => {
            let shown = foreign(text);
            let is_safe = shown == text && !text.starts_with('-');
            Name {
                pasted: if is_safe { quoted(text) } else { id },
                shown,
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_names_the_machine_and_nothing_else() {
        let id = MachineId(Uuid::nil());
        let pasted = |text| name_of(id, Some(text)).pasted;
        assert_eq!(pasted("OAK-4177"), "OAK-4177");
        assert_eq!(pasted("rack 3; reboot"), "'rack 3; reboot'");
        for odd in ["--help", "a\nb", "\u{202e}a"] {
            assert_eq!(pasted(odd), id.to_string(), "{odd:?}");
        }
        assert_eq!(name_of(id, None).shown, id.to_string());
    }
}
