//! What has happened on a machine, claim by claim.

use std::collections::HashMap;

use bmdb::entity::work_history;
use bmdb::{Bmdb, Fence, MachineId};
use serde_json::{Value, json};

use crate::facts::pages::read_all;
use crate::failure::Failure;

/// All events of a machine, in the order of its fences.
pub(crate) async fn events(bmdb: &Bmdb, machine: MachineId) -> Result<Vec<work_history::Model>, Failure> {
    Ok(read_all(|| bmdb.history(machine).limit(10_000)).await?.rows)
}

/// For programs.
pub(crate) fn event_json(event: &work_history::Model) -> Value {
    json!({
        "fence": event.fence.to_string(), "event": event.event.as_str(), "at": event.at.to_rfc3339(), "process": event.process, "slot": event.slot,
        "work": event.work_id.to_string(), "session": event.session_id.to_string(), "component": event.component_name,
        "runtime_info": event.runtime_info, "cause": event.cause,
    })
}

/// The events of the latest claims: whole claims, a start and its end together.
pub(crate) fn latest(events: &[work_history::Model], claims: usize) -> &[work_history::Model] {
    let mut seen = 0;
    let mut begin = events.len();
    while begin > 0 {
        let fence = events[begin - 1].fence;
        if events.get(begin).is_none_or(|later| later.fence != fence) {
            if seen == claims {
                break;
            }
            seen += 1;
        }
        begin -= 1;
    }
    &events[begin..]
}

/// A claim: its start and its end together.
pub(crate) struct Claim<'a> {
    pub(crate) fence: Fence,
    pub(crate) start: Option<&'a work_history::Model>,
    /// `None`: it goes on.
    pub(crate) end: Option<&'a work_history::Model>,
}

impl<'a> Claim<'a> {
    /// What says whose it is: both events do.
    pub(crate) fn any(&self) -> Option<&'a work_history::Model> {
        self.end.or(self.start)
    }
}

/// The claims of some events, in the order of their fences.
pub(crate) fn claims(events: &[work_history::Model]) -> Vec<Claim<'_>> {
    let started = |event: &&work_history::Model| event.event == work_history::Event::Started;
    let ends: HashMap<_, _> = events
        .iter()
        .filter(|event| !started(event))
        .map(|event| (event.fence, event))
        .collect();
    let starts: HashMap<_, _> = events
        .iter()
        .filter(started)
        .map(|event| (event.fence, event))
        .collect();
    let mut fences: Vec<_> = events.iter().map(|event| event.fence).collect();
    fences.dedup();
    let claim = |fence| Claim {
        fence,
        start: starts.get(&fence).copied(),
        end: ends.get(&fence).copied(),
    };
    fences.into_iter().map(claim).collect()
}
