//! When a component looks after the hints for each process. Claims use them up: to search only when there are none would have all wait for it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::process::Process;
use crate::source::{Source, Told};

/// Every so many claims, and not later than this, a component looks how many hints are left.
const CLAIMS_BETWEEN_LOOKS: u64 = 64;
const LONGEST_BETWEEN_LOOKS: Duration = Duration::from_secs(5);
/// A search that found nothing new is not repeated sooner than this, for the sake of a fleet in which little is eligible.
pub(crate) const AFTER_NOTHING: Duration = Duration::from_secs(30);

/// What this component knows of the hints for each process.
#[derive(Default)]
pub(crate) struct Looking(Mutex<HashMap<&'static str, Look>>);

impl Looking {
    /// By which hints the next claim begins.
    pub(crate) fn hints<P: Process>(&self) -> Source {
        let looks = self.0.lock().expect("BUG: nothing panics while it holds this lock");
        match looks.get(P::NAME) {
            Some(look) if look.plenty => Source::Plenty,
            _ => Source::Hints,
        }
    }

    /// Counts a claim by hints that took something, or nothing. Whether it is time to look.
    pub(crate) fn is_due<P: Process>(&self, took: bool, told: Option<&Told>, window: u64) -> bool {
        let is_low = told.is_some_and(|told| told.candidates < window);
        let now = Instant::now();
        let mut looks = self.0.lock().expect("BUG: nothing panics while it holds this lock");
        looks
            .entry(P::NAME)
            .or_insert_with(|| Look::new(now))
            .is_due(took, is_low, now)
    }

    /// It is not time before so long from now.
    pub(crate) fn rest<P: Process>(&self, rest: Duration) {
        let mut looks = self.0.lock().expect("BUG: nothing panics while it holds this lock");
        if let Some(look) = looks.get_mut(P::NAME) {
            look.not_before = Instant::now() + rest;
        }
    }
}

struct Look {
    /// The last claim by hints took something.
    plenty: bool,
    claims: u64,
    last: Instant,
    not_before: Instant,
}

impl Look {
    fn new(now: Instant) -> Self {
        Self {
            plenty: false,
            claims: 0,
            last: now,
            not_before: now,
        }
    }

    fn is_due(&mut self, took: bool, is_low: bool, now: Instant) -> bool {
        self.plenty = took;
        if !took {
            return false;
        }
        self.claims += 1;
        let is_low = is_low || self.claims.is_multiple_of(CLAIMS_BETWEEN_LOOKS);
        if now < self.not_before || !(is_low || now > self.last + LONGEST_BETWEEN_LOOKS) {
            return false;
        }
        self.last = now;
        // Until the search says when.
        self.not_before = now + AFTER_NOTHING;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::tests::Survey;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_claim_begins_where_the_last_one_took_something() {
        let looking = Looking::default();
        assert_eq!(looking.hints::<Survey>(), Source::Hints);
        looking.is_due::<Survey>(true, None, 10);
        assert_eq!(looking.hints::<Survey>(), Source::Plenty);
        looking.is_due::<Survey>(false, None, 10);
        assert_eq!(looking.hints::<Survey>(), Source::Hints);
    }

    #[test]
    fn hints_are_few_when_a_claim_saw_less_than_it_looks_at() {
        let told = |candidates| Told {
            candidates,
            eligible: false,
            turn: None,
            searches: None,
        };
        let is_due = |told: Option<&Told>| Looking::default().is_due::<Survey>(true, told, 10);
        assert!(is_due(Some(&told(0))) && is_due(Some(&told(9))));
        assert!(!is_due(Some(&told(10))) && !is_due(Some(&told(11))) && !is_due(None));
        let looking = Looking::default();
        assert!(looking.is_due::<Survey>(true, Some(&told(0)), 10));
        assert!(!looking.is_due::<Survey>(true, Some(&told(0)), 10));
        looking.rest::<Survey>(Duration::ZERO);
        assert!(looking.is_due::<Survey>(true, Some(&told(0)), 10));
        looking.rest::<Survey>(SECOND * 3600);
        assert!(!looking.is_due::<Survey>(true, Some(&told(0)), 10));
    }

    #[test]
    fn few_hints_are_looked_after_at_once_and_then_not_for_a_while() {
        let began = Instant::now();
        let mut look = Look::new(began);
        assert!(look.is_due(true, true, began));
        assert!(!look.is_due(true, true, began + AFTER_NOTHING - SECOND));
        assert!(look.is_due(true, true, began + AFTER_NOTHING));
    }

    #[test]
    fn a_search_says_when_to_look_again() {
        let began = Instant::now();
        let mut look = Look::new(began);
        look.not_before = began + SECOND;
        assert!(!look.is_due(true, true, began));
        assert!(look.is_due(true, true, began + SECOND));
    }

    #[test]
    fn who_sees_enough_looks_every_so_many_claims() {
        let began = Instant::now();
        let mut look = Look::new(began);
        let due: Vec<u64> = (1..=200)
            .filter(|_| {
                look.not_before = began;
                look.is_due(true, false, began)
            })
            .collect();
        assert_eq!(due, [64, 128, 192]);
    }

    #[test]
    fn who_sees_enough_and_claims_seldom_looks_every_so_often() {
        let began = Instant::now();
        let mut look = Look::new(began);
        assert!(!look.is_due(true, false, began + LONGEST_BETWEEN_LOOKS));
        let later = began + LONGEST_BETWEEN_LOOKS + SECOND;
        assert!(look.is_due(true, false, later));
        look.not_before = later;
        assert!(!look.is_due(true, false, later + LONGEST_BETWEEN_LOOKS));
    }

    #[test]
    fn a_claim_that_took_nothing_searches_itself() {
        let began = Instant::now();
        let mut look = Look::new(began);
        assert!(!look.is_due(false, true, began) && !look.plenty);
        assert!(look.is_due(true, true, began) && look.plenty);
    }
}
