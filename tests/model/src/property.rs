//! What must hold in every state that can be reached.

use stateright::Property;

use crate::protocol::Protocol;
use crate::recovery;
use crate::state::{Guard, Phase, State};
use crate::witness::Witness;

/// What a step can do wrong, by the names of the design (bmdb.md §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Violation {
    /// A transaction of a session or of a work committed although its row was gone.
    StaleCommit,
    /// A claim ended without an end in history, or with two.
    History,
    /// A claim got a fence that is not above all earlier ones.
    FenceFell,
    /// A claim took what was not eligible.
    NotEligible,
    /// The resource applied an effect of an earlier holder after one of a later.
    OldEffectApplied,
    /// A session expired while its process still believed in it.
    ExpiredBeliever,
    /// An effect did a step while another process held the slot.
    StepBesideHolder,
}

/// At most one live work per slot.
pub const I1: &str = "I1 at most one live work per slot";
/// A stale fence changes nothing.
pub const I2: &str = "I2 a stale fence or session changes nothing";
/// Nobody may start an outside effect while another holds.
pub const I3: &str = "I3 nobody believes while another holds";
/// History.
pub const I5: &str = "I5 every claim has one start and at most one end, and one when it has ended";
/// Fences.
pub const I6: &str = "I6 fences strictly rise";
/// No leaks.
pub const I7: &str = "I7 a live session owns no work that its client does not know of";
/// Eligibility.
pub const I8: &str = "I8 what was claimed was eligible";
/// Fencing outside.
pub const R: &str = "R a resource never applies an older fence after a newer";
/// Recovery.
pub const L1: &str = "L1 a slot that the dead hold becomes claimable in time";
/// The living.
pub const L2: &str = "L2 a session that its process rightly believes in is not expired";

/// The names of all properties that must always hold.
pub const ALL: [&str; 10] = [I1, I2, I3, I5, I6, I7, I8, R, L1, L2];

pub(crate) fn all(with_witnesses: bool) -> Vec<Property<Protocol>> {
    let mut properties = vec![
        Property::always(I1, |model: &Protocol, state: &State| {
            (0..model.config.slots).all(|k| rows_of(state, k) <= 1)
        }),
        Property::always(I2, |_, state: &State| state.violation != Some(Violation::StaleCommit)),
        Property::always(I3, |model, state: &State| {
            state.violation != Some(Violation::StepBesideHolder)
                && (0..model.config.slots).all(|k| beliefs_agree(model, state, k))
        }),
        Property::always(I5, |_, state: &State| state.violation != Some(Violation::History)),
        Property::always(I6, |_, state: &State| state.violation != Some(Violation::FenceFell)),
        Property::always(I7, |model, state| {
            (0..model.config.slots).all(|k| knows_its_works(state, k))
        }),
        Property::always(I8, |_, state: &State| state.violation != Some(Violation::NotEligible)),
        Property::always(R, |_, state: &State| {
            state.violation != Some(Violation::OldEffectApplied)
        }),
        Property::always(L1, |model, state| {
            (0..model.config.slots).all(|k| recovery::frees(model, state, k))
        }),
        Property::always(L2, |_, state: &State| {
            state.violation != Some(Violation::ExpiredBeliever)
        }),
    ];
    if with_witnesses {
        properties.extend(SOMETIMES);
    }
    properties
}

fn rows_of(state: &State, k: usize) -> usize {
    state
        .sessions
        .iter()
        .filter(|session| session.shares[k].row.is_some())
        .count()
}

/// A believer is a process that may start an outside effect now. There is at most one, and nobody else holds the slot.
fn beliefs_agree(model: &Protocol, state: &State, k: usize) -> bool {
    let holder = state.holder(k);
    let mut believers = 0;
    for (number, session) in state.sessions.iter().enumerate() {
        let Guard::Held { fence } = session.shares[k].guard else {
            continue;
        };
        if model.believes(session) {
            believers += 1;
            if holder.is_some_and(|held| held != (number, fence)) {
                return false;
            }
        }
    }
    believers <= 1
}

/// Of each work of a live session there is a guard, a claim or an end under way, or an entry in the release queue.
fn knows_its_works(state: &State, k: usize) -> bool {
    state
        .sessions
        .iter()
        .filter(|session| session.phase == Phase::Live)
        .all(|session| {
            let share = &session.shares[k];
            share.row.is_none() || share.row == share.guard.fence()
        })
}

macro_rules! sometimes {
    ($($witness:ident)*) => {
        [$(Property {
            expectation: stateright::Expectation::Sometimes,
            name: Witness::$witness.name(),
            condition: |model, _| model.witnesses.count(Witness::$witness) > 0,
        }),*]
    };
}

/// One for each witness, in their order.
const SOMETIMES: [Property<Protocol>; Witness::ALL.len()] = sometimes!(
    TakeOver ClaimSettledLanded ClaimSettledVanished ClaimLandedLate LostRace EndVanished EndTooLate Released LateEffectRefused
    StrayLanded Reprieved JumpSeen ExpiredUnaware LateBodyLanded Broken AskedAndLetGo ClosedWithWork EffectCutShort
);
