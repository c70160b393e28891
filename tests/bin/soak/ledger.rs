//! What the components said, and whether the database's history agrees.

use std::collections::{BTreeMap, HashMap, HashSet};

use bmdb::{Fence, MachineId, Process, WorkId};
use bmdb_entity::work_history::Event;
use harness::{Snapshot, Survey};

/// One claim as its component saw it.
#[derive(Debug)]
struct Claim {
    /// Which component process, counted from the first that was started.
    process: usize,
    machine: MachineId,
    slot: String,
    fence: Fence,
    /// When it was told that it holds.
    at: u128,
    /// When it last began an outside effect.
    last_effect: Option<u128>,
    asked: Option<Event>,
    answer: Option<Answer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Ended,
    Unknown,
    Refused,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    claims: HashMap<WorkId, Claim>,
    by_fence: HashMap<(MachineId, Fence), WorkId>,
    /// When each process was last frozen: what it did after that may have been late.
    frozen: HashMap<usize, u128>,
    /// The newest fence that each place has seen, as a resource would.
    newest: HashMap<(MachineId, String), Fence>,
    /// The machines that nobody can read who claims for a survey.
    odd: HashSet<MachineId>,
    pub(crate) errors: BTreeMap<String, u64>,
    /// How often the driver panicked at a time that it cannot read.
    pub(crate) driver_panics: u64,
    /// How many callers gave up before they had their answer.
    pub(crate) given_up: u64,
    pub(crate) operations: u64,
    pub(crate) unknown: u64,
    pub(crate) late_effects_refused: u64,
    pub(crate) sessions_lost: u64,
    pub(crate) wrong: Vec<String>,
}

impl Ledger {
    /// An empty one of a fleet with these odd machines.
    pub(crate) fn of(odd: &[MachineId]) -> Self {
        Self {
            odd: odd.iter().copied().collect(),
            ..Self::default()
        }
    }

    /// Takes down a line that a process said.
    pub(crate) fn hear(&mut self, process: usize, line: &str) {
        if self.try_hear(process, line).is_none() {
            self.wrong.push(format!("process {process} said {line:?}"));
        }
    }

    fn try_hear(&mut self, process: usize, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["claimed", machine, slot, fence, work, at] => {
                self.operations += 1;
                let claim = Claim {
                    process,
                    machine: machine.parse().ok()?,
                    slot: (*slot).to_owned(),
                    fence: Fence(fence.parse().ok()?),
                    at: at.parse().ok()?,
                    last_effect: None,
                    asked: None,
                    answer: None,
                };
                self.apply(&claim.machine, &claim.slot, claim.fence);
                let work = work.parse().ok()?;
                self.by_fence.insert((claim.machine, claim.fence), work);
                self.claims.insert(work, claim);
            }
            ["effect", machine, slot, fence, at] => {
                self.operations += 1;
                let (machine, fence) = (machine.parse().ok()?, Fence(fence.parse().ok()?));
                if !self.apply(&machine, slot, fence) {
                    self.late_effects_refused += 1;
                }
                let at = at.parse().ok()?;
                if self.frozen.get(&process).is_none_or(|frozen| *frozen > at) {
                    let work = self.by_fence.get(&(machine, fence))?;
                    self.claims.get_mut(work)?.last_effect = Some(at);
                }
            }
            ["ending", work, event, _at] => {
                self.claims.get_mut(&work.parse().ok()?)?.asked = Some(event_of(event)?);
            }
            [answer @ ("ended" | "unknown" | "refused"), work, _event] => {
                self.operations += 1;
                let answer = match *answer {
                    "ended" => Answer::Ended,
                    "unknown" => Answer::Unknown,
                    _ => Answer::Refused,
                };
                self.unknown += u64::from(answer == Answer::Unknown);
                self.claims.get_mut(&work.parse().ok()?)?.answer = Some(answer);
            }
            ["error", kind] => {
                *self.errors.entry((*kind).to_owned()).or_default() += 1;
                self.unknown += u64::from(*kind == "CommitUnknown");
            }
            // That driver panics at a time that it cannot read, and only there may anything panic.
            ["panic", place] if place.contains("/sqlx-postgres-") => self.driver_panics += 1,
            ["gave-up"] => {
                self.operations += 1;
                self.given_up += 1;
            }
            ["lost", _session] => self.sessions_lost += 1,
            ["dropped" | "session", _id] => {}
            _ => return None,
        }
        Some(())
    }

    /// As a resource that compares fences: `false`, it refuses.
    fn apply(&mut self, machine: &MachineId, slot: &str, fence: Fence) -> bool {
        let newest = self.newest.entry((*machine, slot.to_owned())).or_insert(fence);
        *newest = (*newest).max(fence);
        *newest == fence
    }

    /// A process was frozen at this time.
    pub(crate) fn froze(&mut self, process: usize, at: u128) {
        self.frozen.insert(process, at);
    }

    /// Everything in which the components' words and history differ.
    pub(crate) fn check(&self, snapshot: &Snapshot) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        wrong.extend(snapshot.violations());
        let (mut started, mut ends) = (HashMap::new(), HashMap::new());
        for row in &snapshot.history {
            match row.event {
                Event::Started => started.insert(row.work_id, row).is_some(),
                _ => ends.insert(row.work_id, row).is_some(),
            };
        }
        for (work, claim) in &self.claims {
            let Some(row) = started.get(work) else {
                wrong.push(format!(
                    "history does not know a claim that was acknowledged: {claim:?}"
                ));
                continue;
            };
            if (row.machine_id, row.fence, row.slot.as_str()) != (claim.machine, claim.fence, claim.slot.as_str()) {
                wrong.push(format!("history has it otherwise: {claim:?}"));
            }
            if row.process == Survey::NAME && self.odd.contains(&claim.machine) {
                wrong.push(format!("a machine was handed out that cannot be read: {claim:?}"));
            }
            let end = ends.get(work).map(|row| &row.event);
            let as_asked = end.is_some() && end == claim.asked.as_ref();
            match claim.answer {
                Some(Answer::Ended) if !as_asked => {
                    wrong.push(format!(
                        "it was told that it had ended, and history says {end:?}: {claim:?}"
                    ));
                }
                // A guard that came back is dropped, so it may be canceled after all.
                Some(Answer::Refused) if as_asked && end != Some(&Event::Canceled) => {
                    wrong.push(format!("it was told that it had not ended, and it had: {claim:?}"));
                }
                _ => {}
            }
        }
        for (work, row) in &ends {
            let asked = self.claims.get(work).and_then(|claim| claim.asked.as_ref());
            let is_unread = row.event == Event::Failed && self.odd.contains(&row.machine_id);
            if matches!(row.event, Event::Finished | Event::Failed) && asked != Some(&row.event) && !is_unread {
                wrong.push(format!("nobody asked for this end: {row:?}"));
            }
        }
        wrong.extend(self.overlaps());
        if !self.odd.is_empty() && self.unread(snapshot) == 0 {
            wrong.push("no machine that cannot be read was tried".to_owned());
        }
        wrong
    }

    /// How often a claim has failed because the machine could not be read.
    pub(crate) fn unread(&self, snapshot: &Snapshot) -> usize {
        let failed = snapshot.history.iter().filter(|row| row.event == Event::Failed);
        failed
            .filter(|row| self.odd.contains(&row.machine_id) && !self.claims.contains_key(&row.work_id))
            .count()
    }

    /// Effects that began while another already knew that it held the place. Processes that were frozen are left out: nothing but the resource can
    /// refuse what they do when they wake.
    fn overlaps(&self) -> Vec<String> {
        let mut places: HashMap<(MachineId, &str), Vec<&Claim>> = HashMap::new();
        for claim in self.claims.values() {
            places
                .entry((claim.machine, claim.slot.as_str()))
                .or_default()
                .push(claim);
        }
        let mut wrong = Vec::new();
        for claims in places.values_mut() {
            claims.sort_by_key(|claim| claim.fence);
            for pair in claims.windows(2) {
                let [earlier, later] = pair else { continue };
                if earlier.last_effect.is_some_and(|effect| effect > later.at) {
                    wrong.push(format!("two believed to hold: {earlier:?} and {later:?}"));
                }
            }
        }
        wrong
    }

    /// The works that a process held when it was killed, as far as it had said.
    pub(crate) fn held_by(&self, process: usize) -> HashSet<WorkId> {
        let open = |claim: &Claim| claim.process == process && claim.asked.is_none();
        self.claims
            .iter()
            .filter(|(_, claim)| open(claim))
            .map(|(work, _)| *work)
            .collect()
    }

    pub(crate) fn claims(&self) -> usize {
        self.claims.len()
    }
}

fn event_of(word: &str) -> Option<Event> {
    let ends = [Event::Finished, Event::Failed, Event::Canceled];
    ends.into_iter().find(|event| event.to_string() == word)
}
