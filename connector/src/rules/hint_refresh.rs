//! When a component refreshes the hints of a rule. Claims use them up: to search only when there are none would have all wait for it.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bmdb_entity::MachineId;
use uuid::Uuid;

use crate::rules::claim_plan::{AttemptReport, CandidateSource};
use crate::runtime::lock::locked;

/// Every so many claims, and not later than this, a component counts how many hints are left.
const CLAIMS_BETWEEN_CHECKS: u64 = 64;
const LONGEST_BETWEEN_CHECKS: Duration = Duration::from_secs(5);
/// A search that found nothing new is not repeated sooner than this, for the sake of a fleet in which little is eligible.
pub(crate) const AFTER_NOTHING: Duration = Duration::from_secs(30);

/// Of the circle of 2^128. Each next point that is so far from the last falls into the widest gap that those before it have left (Knuth, The Art of
/// Computer Programming 3, 6.4, theorem S).
const GOLDEN_SECTION: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

/// What this component knows of the hints of a rule.
pub(crate) struct HintRefresh(Mutex<State>);

impl HintRefresh {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State::new(Instant::now())))
    }

    /// By which hints the next claim begins.
    pub(crate) fn hints(&self) -> CandidateSource {
        if self.state().plenty {
            CandidateSource::HintsOnly
        } else {
            CandidateSource::HintsThenSearch
        }
    }

    /// Where the next claim begins among the hints, which lie around a circle: far from where those before it began, which may be under way.
    pub(crate) fn start(&self) -> MachineId {
        let mut state = self.state();
        state.start = state.start.wrapping_add(GOLDEN_SECTION);
        MachineId(Uuid::from_u128(state.start))
    }

    /// Counts a claim by hints that took something, or nothing. Whether it is time to count the hints that are left.
    pub(crate) fn is_due(&self, took: bool, report: Option<&AttemptReport>) -> bool {
        if !took && report.is_some_and(|report| report.eligible) {
            // Others have what there was; it says nothing of the hints.
            return false;
        }
        let is_low = report.is_some_and(|report| !report.more);
        self.state().is_due(took, is_low, Instant::now())
    }

    /// It is not time before so long from now.
    pub(crate) fn rest(&self, rest: Duration) {
        self.state().not_before = Instant::now() + rest;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.0)
    }
}

struct State {
    start: u128,
    /// The last claim by hints took something.
    plenty: bool,
    claims: u64,
    last: Instant,
    not_before: Instant,
}

impl State {
    fn new(now: Instant) -> Self {
        Self {
            start: MachineId::random().0.as_u128(),
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
        let is_low = is_low || self.claims.is_multiple_of(CLAIMS_BETWEEN_CHECKS);
        if now < self.not_before || !(is_low || now > self.last + LONGEST_BETWEEN_CHECKS) {
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

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_claim_begins_where_the_last_one_took_something() {
        let refresh = HintRefresh::new();
        assert_eq!(refresh.hints(), CandidateSource::HintsThenSearch);
        refresh.is_due(true, None);
        assert_eq!(refresh.hints(), CandidateSource::HintsOnly);
        refresh.is_due(false, Some(&AttemptReport::LOST_RACE));
        assert_eq!(refresh.hints(), CandidateSource::HintsOnly, "others took something");
        refresh.is_due(false, None);
        assert_eq!(refresh.hints(), CandidateSource::HintsThenSearch);
    }

    #[test]
    fn claims_that_are_under_way_begin_far_from_each_other() {
        let refresh = HintRefresh::new();
        let starts: Vec<u128> = (0..100).map(|_| refresh.start().0.as_u128()).collect();
        for (many, share) in [(2, 0.38), (8, 0.05), (100, 0.005)] {
            for some in starts.windows(many) {
                let mut some = some.to_vec();
                some.sort();
                let around = some.iter().zip(some.iter().cycle().skip(1));
                let narrowest = around
                    .map(|(one, next)| next.wrapping_sub(*one))
                    .min()
                    .expect("there are some");
                assert!(narrowest > (u128::MAX as f64 * share) as u128, "{narrowest} of {many}");
            }
        }
        assert_ne!(HintRefresh::new().start(), HintRefresh::new().start());
    }

    #[test]
    fn hints_are_few_when_a_claim_saw_less_than_it_looks_at() {
        let report = |more| AttemptReport {
            more,
            paused: false,
            eligible: false,
            search_lease: None,
            searches: None,
        };
        let is_due = |report: Option<&AttemptReport>| HintRefresh::new().is_due(true, report);
        assert!(is_due(Some(&report(false))));
        assert!(!is_due(Some(&report(true))) && !is_due(None));
        let refresh = HintRefresh::new();
        assert!(refresh.is_due(true, Some(&report(false))));
        assert!(!refresh.is_due(true, Some(&report(false))));
        refresh.rest(Duration::ZERO);
        assert!(refresh.is_due(true, Some(&report(false))));
        refresh.rest(SECOND * 3600);
        assert!(!refresh.is_due(true, Some(&report(false))));
    }

    #[test]
    fn few_hints_are_looked_after_at_once_and_then_not_for_a_while() {
        let began = Instant::now();
        let mut state = State::new(began);
        assert!(state.is_due(true, true, began));
        assert!(!state.is_due(true, true, began + AFTER_NOTHING - SECOND));
        assert!(state.is_due(true, true, began + AFTER_NOTHING));
    }

    #[test]
    fn a_search_says_when_to_look_again() {
        let began = Instant::now();
        let mut state = State::new(began);
        state.not_before = began + SECOND;
        assert!(!state.is_due(true, true, began));
        assert!(state.is_due(true, true, began + SECOND));
    }

    #[test]
    fn who_sees_enough_looks_every_so_many_claims() {
        let began = Instant::now();
        let mut state = State::new(began);
        let due: Vec<u64> = (1..=200)
            .filter(|_| {
                state.not_before = began;
                state.is_due(true, false, began)
            })
            .collect();
        assert_eq!(due, [64, 128, 192]);
    }

    #[test]
    fn who_sees_enough_and_claims_seldom_looks_every_so_often() {
        let began = Instant::now();
        let mut state = State::new(began);
        assert!(!state.is_due(true, false, began + LONGEST_BETWEEN_CHECKS));
        let later = began + LONGEST_BETWEEN_CHECKS + SECOND;
        assert!(state.is_due(true, false, later));
        state.not_before = later;
        assert!(!state.is_due(true, false, later + LONGEST_BETWEEN_CHECKS));
    }

    #[test]
    fn a_claim_that_took_nothing_searches_itself() {
        let began = Instant::now();
        let mut state = State::new(began);
        assert!(!state.is_due(false, true, began) && !state.plenty);
        assert!(state.is_due(true, true, began) && state.plenty);
    }
}
