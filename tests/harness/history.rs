//! The history checker: what must not be in a database, whatever happened to it.

use std::collections::{HashMap, HashSet};

use bmdb::{Fence, MachineId, WorkId};
use bmdb_entity::work_history::{self, Event};
use bmdb_entity::{machine, work};
use sea_orm::{
    DatabaseBackend, DatabaseConnection, EntityTrait, IsolationLevel, QuerySelect, TransactionOptions, TransactionTrait,
};

/// What the checker needs of the database.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// All of it.
    pub history: Vec<work_history::Model>,
    /// What is held.
    pub works: Vec<work::Model>,
    /// The machines' fences.
    pub fences: HashMap<MachineId, Fence>,
}

impl Snapshot {
    /// One transaction, so that no claim comes between the tables.
    ///
    /// # Panics
    /// Panics if the database cannot be read.
    pub async fn of(raw: &DatabaseConnection) -> Self {
        let options = TransactionOptions {
            isolation_level: (raw.get_database_backend() == DatabaseBackend::Postgres)
                .then_some(IsolationLevel::RepeatableRead),
            ..TransactionOptions::default()
        };
        let tx = raw.begin_with_options(options).await.expect("we may read");
        // Nothing else of them, for a test may have made it unreadable.
        let fences = machine::Entity::find()
            .select_only()
            .columns([machine::Column::MachineId, machine::Column::Fence])
            .into_tuple::<(MachineId, Fence)>();
        let fences = fences.all(&tx).await.expect("machines can be read");
        let snapshot = Self {
            history: work_history::Entity::find()
                .all(&tx)
                .await
                .expect("history can be read"),
            works: work::Entity::find().all(&tx).await.expect("works can be read"),
            fences: fences.into_iter().collect(),
        };
        tx.commit().await.expect("a read can end");
        snapshot
    }

    /// What history says that must not be. One pass, in the order of fences, which is the order of claims.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut rows: Vec<_> = self.history.iter().collect();
        rows.sort_by_key(|row| (row.machine_id, row.fence, row.event != Event::Started));
        let mut held: HashMap<_, _> = self
            .works
            .iter()
            .map(|row| ((row.machine_id, row.fence), row))
            .collect();
        let mut wrong = Vec::new();
        let mut ids = HashSet::new();
        // Claims that have not ended, by slot.
        let mut open: HashMap<(MachineId, &str), Fence> = HashMap::new();
        for claim in rows.chunk_by(|one, next| (one.machine_id, one.fence) == (next.machine_id, next.fence)) {
            let first = claim[0];
            let (machine, fence) = (first.machine_id, first.fence);
            let mut say = |what: &str| wrong.push(format!("machine {machine}, fence {fence}: {what}"));
            let starts = claim.iter().filter(|row| row.event == Event::Started).count();
            match starts {
                0 => say("it ended and was never started"),
                1 => {}
                _ => say("it was started twice"),
            }
            let ends = claim.len() - starts;
            if ends > 1 {
                say("it ended twice");
            }
            let identity =
                |row: &work_history::Model| (row.work_id, row.process.clone(), row.slot.clone(), row.session_id);
            if claim.iter().any(|row| identity(row) != identity(first)) {
                say("its rows are not of one claim");
            }
            if !ids.insert(first.work_id) {
                say("its work id is that of another claim");
            }
            if self.fences.get(&machine).is_some_and(|raised| *raised < fence) {
                say("the machine's fence is below it");
            }
            if let Some(earlier) = open.remove(&(machine, first.slot.as_str())) {
                say(&format!("it was claimed while fence {earlier} held the slot"));
            }
            match held.remove(&(machine, fence)) {
                Some(_) if ends > 0 => say("it ended and is still held"),
                Some(row) if row.work_id != first.work_id => say("it is held under another work id"),
                None if ends == 0 => say("it never ended and is not held"),
                _ => {}
            }
            if ends == 0 {
                open.insert((machine, &first.slot), fence);
            }
        }
        wrong.extend(
            held.into_keys()
                .map(|(machine, fence)| format!("machine {machine}, fence {fence}: it is held and was never started")),
        );
        wrong
    }

    /// Where the clients' words and history differ. Every claim that a client was told of is there once, so is its end, and nothing else is.
    #[must_use]
    pub fn differences(&self, told: &[Told]) -> Vec<String> {
        let mut history: HashMap<_, _> = HashMap::new();
        for row in &self.history {
            history.insert((row.machine_id, row.fence, row.event.clone()), row.work_id);
        }
        let mut wrong = Vec::new();
        for told in told {
            match history.remove(&(told.machine, told.fence, told.event.clone())) {
                None => wrong.push(format!("history does not know, or clients were told twice: {told:?}")),
                Some(work) if told.work.is_some_and(|told| told != work) => {
                    wrong.push(format!("history knows another work id: {told:?}"));
                }
                Some(_) => {}
            }
        }
        wrong.extend(history.into_keys().map(|ghost| format!("no client did it: {ghost:?}")));
        wrong
    }
}

/// Everything that is wrong with the history, the works and the fences in a database; nothing, if all is well.
///
/// # Panics
/// Panics if the database cannot be read.
pub async fn check_history(raw: &DatabaseConnection) -> Vec<String> {
    Snapshot::of(raw).await.violations()
}

/// Something that a client was told to have happened.
#[derive(Clone, Debug)]
pub struct Told {
    /// Where.
    pub machine: MachineId,
    /// By which claim.
    pub fence: Fence,
    /// What.
    pub event: Event,
    /// The claim's id, if the client said it.
    pub work: Option<WorkId>,
}
