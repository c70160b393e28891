//! The protocol as a stateright model: which actions there are in a state, and where each leads.

use stateright::{Model, Property};

use crate::action::{Action, SessionAction, SlotAction};
use crate::config::{Clock, Config};
use crate::mechanism::Mechanism;
use crate::state::{End, Phase, Session, State};
use crate::witness::{Witness, Witnesses};
use crate::{property, symmetry};

/// The model of one [`Config`].
#[derive(Clone, Debug)]
pub struct Protocol {
    /// What it covers.
    pub config: Config,
    /// What has happened so far, in all its searches.
    pub witnesses: Witnesses,
}

impl Protocol {
    /// The model of a configuration.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            witnesses: Witnesses::default(),
        }
    }

    pub(crate) fn has(&self, mechanism: Mechanism) -> bool {
        self.config.has(mechanism)
    }

    pub(crate) fn note(&self, witness: Witness, happened: bool) {
        if happened {
            self.witnesses.note(witness);
        }
    }

    /// Whether the session's process may act in its name.
    #[must_use]
    pub fn believes(&self, session: &Session) -> bool {
        session.phase == Phase::Live && (session.trust > 0 || !self.has(Mechanism::TrustWindow))
    }

    /// What follows from an action, with sessions and fences numbered as before. `None`: it cannot happen now, or changes nothing.
    pub(crate) fn step(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        next.violation = None;
        match action {
            Action::Tick => self.tick(&mut next),
            Action::JumpAhead => self.jump(&mut next, 1),
            Action::JumpBack => self.jump(&mut next, -1),
            Action::Start => self.start(&mut next),
            Action::Sweep => self.sweep(&mut next),
            Action::CollectorRestarts => self.restart_collector(&mut next),
            Action::Expire { s } => self.expire(&mut next, s),
            Action::Need { k } => self.need(&mut next, k),
            Action::Hold { k } => self.hold(&mut next, k),
            Action::Arrive { k } => self.arrive(&mut next, k),
            Action::Of(s, action) => self.session_step(&mut next, s, action),
            Action::On(s, k, action) => self.slot_step(&mut next, s, k, action),
        }?;
        (next != *state).then_some(next)
    }
}

const SESSION_ACTIONS: [SessionAction; 11] = [
    SessionAction::Beat,
    SessionAction::BeatLands,
    SessionAction::BeatAnswered,
    SessionAction::BeatGivenUp,
    SessionAction::Notice,
    SessionAction::Crash,
    SessionAction::Close,
    SessionAction::Break,
    SessionAction::Body,
    SessionAction::BodyLands,
    SessionAction::BodyVanishes,
];

const SLOT_ACTIONS: [SlotAction; 25] = [
    SlotAction::Look,
    SlotAction::Claim,
    SlotAction::LookGivenUp,
    SlotAction::ClaimLands,
    SlotAction::ClaimVanishes,
    SlotAction::ClaimAnswered,
    SlotAction::ClaimSettled,
    SlotAction::ClaimQueued,
    SlotAction::End(End::Finish),
    SlotAction::End(End::Fail),
    SlotAction::End(End::Cancel),
    SlotAction::EndRuns,
    SlotAction::EndLands,
    SlotAction::EndVanishes,
    SlotAction::Drop,
    SlotAction::Body,
    SlotAction::BodyLands,
    SlotAction::BodyVanishes,
    SlotAction::EffectBegins,
    SlotAction::EffectSteps,
    SlotAction::Effect,
    SlotAction::LateEffect,
    SlotAction::Ask,
    SlotAction::DeleteWork,
    SlotAction::FailOver,
];

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State::start();
        symmetry::normalize(&self.config, &mut state);
        vec![state]
    }

    /// Every action that has a subject; `step` knows which can happen.
    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        match self.config.clock {
            Clock::Steady => {}
            Clock::Ahead => actions.push(Action::JumpAhead),
            Clock::Back => actions.push(Action::JumpBack),
            Clock::Sparse if state.jumped != 0 => {}
            Clock::Sparse | Clock::Both => actions.extend([Action::JumpAhead, Action::JumpBack]),
        }
        actions.extend([Action::Start, Action::Sweep, Action::CollectorRestarts]);
        for k in 0..self.config.slots {
            actions.extend([Action::Need { k }, Action::Hold { k }, Action::Arrive { k }]);
        }
        for (s, session) in state.sessions.iter().enumerate() {
            if session.phase == Phase::Free {
                continue;
            }
            actions.push(Action::Expire { s });
            actions.extend(SESSION_ACTIONS.map(|action| Action::Of(s, action)));
            for k in 0..self.config.slots {
                actions.extend(SLOT_ACTIONS.map(|action| Action::On(s, k, action)));
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = self.step(state, action)?;
        symmetry::normalize(&self.config, &mut next);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        property::all(self.config.without.is_empty())
    }
}
