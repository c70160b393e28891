//! L1, checked without a graph: from a state in which the dead hold a slot, faults stop, and the slot must become claimable in time.
//!
//! `eventually` of stateright is unsound on cycles, and a backward pass needs the whole graph in memory. So each state is asked to prove itself:
//! from it runs the one schedule in which the dead session's own transactions are rolled back (the server notices that its client is gone),
//! nobody else acts, and the collector sweeps once every tick; and once more with collectors that live for one tick each. These are steps of the model like any others, so if the schedule frees the slot, a
//! way out of the state exists; and it must be there within a bound, which is more than existence.

use crate::action::{Action, SessionAction, SlotAction};
use crate::protocol::Protocol;
use crate::state::{Phase, State};
use crate::step::COOL_DOWN;

/// Whether slot `k`, if the dead hold it, becomes claimable within the bound: one interval until the lease has passed (a stray heartbeat may renew
/// it once), one of grace, one sweep, the cool-down. Collectors that live for one tick each look at every second one, and grace takes twice as long.
pub(crate) fn frees(model: &Protocol, state: &State, k: usize) -> bool {
    let Some((s, _fence)) = state.holder(k) else {
        return true;
    };
    if state.sessions[s].phase != Phase::Dead {
        return true;
    }
    let interval = model.config.interval;
    frees_within(model, state, (s, k), 2 * interval + 1 + COOL_DOWN, false)
        && frees_within(model, state, (s, k), 3 * interval + 1 + COOL_DOWN, true)
}

fn frees_within(model: &Protocol, state: &State, (s, k): (usize, usize), bound: u8, restarts: bool) -> bool {
    let mut now = *state;
    let mut attempt = |action| match model.step(&now, action) {
        Some(next) => {
            now = next;
            (now.holder(k).is_none() && now.slots[k].held_back == 0, true)
        }
        None => (false, false),
    };
    attempt(Action::Of(s, SessionAction::BeatLands));
    attempt(Action::Of(s, SessionAction::BodyVanishes));
    for slot in 0..model.config.slots {
        for gone in [
            SlotAction::BodyVanishes,
            SlotAction::ClaimVanishes,
            SlotAction::EndVanishes,
        ] {
            attempt(Action::On(s, slot, gone));
        }
    }
    for tick in 0..=bound {
        // The second is for a collector that works in two steps.
        for action in [Action::Sweep, Action::Expire { s }, Action::Expire { s }] {
            if let (true, true) = attempt(action) {
                return true;
            }
        }
        if restarts && tick % 2 == 1 {
            attempt(Action::CollectorRestarts);
        }
        if let (true, true) = attempt(Action::Tick) {
            return true;
        }
    }
    false
}
