//! What an id, a name or an address stands for.

use bmdb::{Bmdb, SessionId, WorkId, WorksOf};
use serde_json::json;
use uuid::Uuid;

use crate::answer::Answer;
use crate::answer::words::{foreign, quoted, span};
use crate::facts::name::{all_named, name_of};
use crate::facts::{process, session};
use crate::failure::Failure;
use crate::source::Source;

/// Something that has this name.
struct Named {
    kind: &'static str,
    id: String,
    what: String,
    next: String,
}

pub(super) async fn run(source: &Source, text: &str) -> Result<Answer, Failure> {
    let bmdb = &source.bmdb;
    let mut found = Vec::new();
    for machine in all_named(bmdb, text).await? {
        let name = name_of(machine.machine, machine.provider_id.as_deref());
        found.push(Named {
            kind: "machine",
            id: machine.machine.to_string(),
            what: format!(
                "machine {name} of {}",
                machine
                    .provider
                    .as_deref()
                    .map_or_else(|| "no provider".to_owned(), foreign)
            ),
            next: format!("bmdb machine show {}", machine.machine),
        });
    }
    if let Ok(id) = Uuid::try_parse(text) {
        found.extend(by_id(bmdb, source, id).await?);
    }
    let processes = process::registered(bmdb).await?;
    for (process, slot) in processes.iter().filter(|(process, _)| process == text) {
        found.push(Named {
            kind: "process",
            id: process.clone(),
            what: format!("process {} in slot {}", foreign(process), foreign(slot)),
            next: format!("bmdb process show {}", quoted(process)),
        });
    }
    let those = processes.iter().filter(|(_, slot)| slot == text);
    let those: Vec<_> = those.map(|(process, _)| foreign(process)).collect();
    if !those.is_empty() {
        found.push(Named {
            kind: "slot",
            id: text.to_owned(),
            what: format!("the slot of {}", those.join(", ")),
            next: "bmdb process ls".to_owned(),
        });
    }
    let sentence = match found.as_slice() {
        [] => {
            return Err(Failure::not_found(format!(
                "nothing is called {text:?}. Searched: machines by id, provider's id and address; works, sessions, processes, slots"
            )));
        }
        [one] => format!("{} is {}.", foreign(text), one.what),
        more => format!("{} names {} things.", foreign(text), more.len()),
    };
    let lines = found
        .iter()
        .flat_map(|named| [named.what.clone(), format!("  next: {}", named.next)]);
    let json = found
        .iter()
        .map(|named| json!({"kind": named.kind, "id": named.id, "what": named.what, "next": named.next}));
    Answer::new(sentence, json!({"found": json.collect::<Vec<_>>()}))
        .lines(lines.collect())
        .from(bmdb)
        .await
}

async fn by_id(bmdb: &Bmdb, source: &Source, id: Uuid) -> Result<Vec<Named>, Failure> {
    let mut found = Vec::new();
    for work in bmdb.works(WorksOf::Work(WorkId(id))).await?.rows {
        found.push(Named {
            kind: "work",
            id: id.to_string(),
            what: format!(
                "work of {} on {} for {}",
                foreign(&work.process),
                name_of(work.machine, work.provider_id.as_deref()),
                span(work.age())
            ),
            next: format!("bmdb work show {id}"),
        });
    }
    let sessions = session::read(source).await?.rows;
    for session in sessions.iter().filter(|row| row.session == SessionId(id)) {
        found.push(Named {
            kind: "session",
            id: id.to_string(),
            what: format!("session of {}", foreign(&session.component)),
            next: format!("bmdb session show {id}"),
        });
    }
    Ok(found)
}
