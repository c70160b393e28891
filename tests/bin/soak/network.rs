//! The faults of one component's network, at random moments that a seed decides.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::{Fate, Fault, Passing, Proxy};

/// How often each fault was injected, and how many of them left a COMMIT without a true answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) by_kind: BTreeMap<String, u64>,
    pub(crate) ambiguous: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, kind: &str) {
        *self.by_kind.entry(kind.to_owned()).or_default() += 1;
    }

    pub(crate) fn all(&self) -> u64 {
        self.by_kind.values().sum()
    }
}

const LATE: Fault = Fault::Late(Duration::from_millis(150));
const AT_COMMIT: [Fault; 8] = [
    Fault::Refused("40001"),
    Fault::Refused("40003"),
    Fault::Disowned("40003"),
    Fault::DropBefore,
    Fault::DropAfter,
    LATE,
    Fault::HalfOpen,
    Fault::Terminated,
];
const ANYWHERE: [Fault; 6] = [
    Fault::Refused("40001"),
    Fault::Refused("40P01"),
    Fault::DropBefore,
    Fault::DropAfter,
    Fault::HalfOpen,
    Fault::Terminated,
];

/// From now on statements fail, on average one each `every`, half of them COMMITs; some are slow.
pub(crate) fn disturb(proxy: &Proxy, seed: u64, every: Duration, tally: Arc<Mutex<Tally>>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut next = Instant::now() + wait(&mut random, every);
    let mut at_commit = random.bool();
    proxy.decide(move |passing: &Passing<'_>| {
        if Instant::now() < next || at_commit && !passing.commits {
            return Fate::Pass;
        }
        next = Instant::now() + wait(&mut random, every);
        let (was_at_commit, slow) = (at_commit, random.u8(0..8) == 0);
        at_commit = random.bool();
        let mut tally = tally.lock().expect("nothing panics while it holds this lock");
        if slow {
            tally.count("slow statement");
            return Fate::Delay(Duration::from_millis(random.u64(10..300)));
        }
        let fault = if was_at_commit {
            AT_COMMIT[random.usize(..AT_COMMIT.len())]
        } else {
            ANYWHERE[random.usize(..ANYWHERE.len())]
        };
        let place = if passing.commits { "COMMIT" } else { "statement" };
        tally.count(&format!("{place} {}", name(fault)));
        // Only 40001 and 40P01 say for certain that it was rolled back.
        let is_certain = matches!(fault, Fault::Refused("40001" | "40P01"));
        tally.ambiguous += u64::from(passing.commits && !is_certain);
        Fate::Fail(fault)
    });
}

fn name(fault: Fault) -> String {
    match fault {
        Fault::Refused(sqlstate) => format!("refused {sqlstate}"),
        Fault::Disowned(sqlstate) => format!("applied and answered {sqlstate}"),
        Fault::DropBefore => "dropped before".to_owned(),
        Fault::DropAfter => "dropped after".to_owned(),
        Fault::Late(_) => "late".to_owned(),
        Fault::HalfOpen => "half-open".to_owned(),
        Fault::Terminated => "ended by 57P01".to_owned(),
    }
}

/// Exponentially distributed, as for things that happen independently of each other.
pub(crate) fn wait(random: &mut fastrand::Rng, mean: Duration) -> Duration {
    mean.mul_f64(-(1.0 - random.f64()).ln())
}
