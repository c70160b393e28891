//! Looks at every state that a model can reach.

use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::action::Action;
use crate::config::Config;
use crate::protocol::Protocol;
use crate::witness::{Witness, Witnesses};

/// A property that does not hold, and how to get there.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The property's name.
    pub property: &'static str,
    /// The steps from the start to the violation; a search with one thread finds the shortest.
    pub steps: Vec<Action>,
}

/// What a search has found.
#[derive(Clone, Debug)]
pub struct Report {
    /// How many distinct states it looked at.
    pub states: usize,
    /// How many steps the farthest is away from the start.
    pub depth: usize,
    /// How long it took.
    pub time: Duration,
    /// Whether every state was looked at: false when it stopped at a counterexample.
    pub complete: bool,
    /// What does not hold.
    pub broken: Vec<Broken>,
    /// What has happened.
    pub witnesses: Witnesses,
}

/// When a search ends before it has looked at every state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When everything is broken, which is never.
    Complete,
    /// When something is broken.
    AnythingBroken,
    /// When this is broken.
    IsBroken(&'static str),
}

/// Looks at the states breadth first, with so many threads. With one, the counterexamples are the shortest there are.
#[must_use]
pub fn search(config: Config, threads: usize, until: Until) -> Report {
    let model = Protocol::new(config);
    let witnesses = model.witnesses.clone();
    let always: Vec<&'static str> = model
        .properties()
        .iter()
        .filter(|property| property.expectation == Expectation::Always)
        .map(|property| property.name)
        .collect();
    let started = Instant::now();
    let finish = match until {
        Until::Complete => HasDiscoveries::AllFailures,
        Until::AnythingBroken => HasDiscoveries::AnyFailures,
        Until::IsBroken(property) => HasDiscoveries::AllOf([property].into()),
    };
    let checker = model.checker().threads(threads).finish_when(finish).spawn_bfs().join();
    let broken: Vec<Broken> = always
        .into_iter()
        .filter_map(|property| {
            let steps = checker.discovery(property)?.into_actions();
            Some(Broken { property, steps })
        })
        .collect();
    Report {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        time: started.elapsed(),
        complete: broken.is_empty() || until == Until::Complete,
        broken,
        witnesses,
    }
}

impl Report {
    /// The names of the properties that do not hold.
    #[must_use]
    pub fn broken_names(&self) -> Vec<&'static str> {
        self.broken.iter().map(|broken| broken.property).collect()
    }

    /// The witnesses that never happened.
    #[must_use]
    pub fn unseen(&self) -> Vec<&'static str> {
        Witness::ALL
            .into_iter()
            .filter(|witness| self.witnesses.count(*witness) == 0)
            .map(Witness::name)
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.complete { "complete" } else { "cut short" };
        let (states, depth, time) = (self.states, self.depth, self.time.as_secs_f64());
        writeln!(
            f,
            "{states} distinct states, {depth} steps deep, {whole}, in {time:.1} s"
        )?;
        for Broken { property, steps } in &self.broken {
            writeln!(f, "  BROKEN in {} steps: {property}", steps.len())?;
            for step in steps {
                writeln!(f, "    {step:?}")?;
            }
        }
        Ok(())
    }
}
