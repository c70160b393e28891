//! How long a process leaves a machine alone after failures. Pure.

use std::time::Duration;

use crate::db::dialect::LONGEST;
use crate::error::backoff_error::BackoffError;

/// How the process has failed on the machine before, in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failures {
    pub(crate) attempts: i64,
    pub(crate) last_interval_seconds: i64,
}

/// How a process backs off from a machine on which it failed.
///
/// The first interval is `initial`. Each next one is the last times `exponent`, at least `initial`, at most `maximum` and a century, in whole seconds
/// rounded up. Jitter shortens the wait by up to its share, not the interval that the next one is computed from. After `max_attempts` failures in a
/// row the machine is *parked*: only a person brings it back.
///
/// ```
/// use bmdb::Backoff;
/// use std::time::Duration;
///
/// let rule = Backoff::exponential(Duration::from_secs(60), 1.1, Duration::from_secs(120));
/// assert_eq!(rule.interval_after(None), 60);
/// assert_eq!(rule.interval_after(Some(60)), 66);
/// assert_eq!(rule.interval_after(Some(119)), 120);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    initial: Duration,
    exponent: f64,
    maximum: Option<Duration>,
    jitter: f64,
    max_attempts: Option<u32>,
}

impl Backoff {
    /// One second, again and again.
    pub const NONE: Self = Self::constant(Duration::from_secs(1));

    /// The same interval after every failure.
    #[must_use]
    pub const fn constant(interval: Duration) -> Self {
        Self {
            initial: interval,
            exponent: 1.0,
            maximum: None,
            jitter: 0.0,
            max_attempts: None,
        }
    }

    /// Intervals that grow from `initial` by `exponent` up to `maximum`, with a tenth of jitter.
    #[must_use]
    pub const fn exponential(initial: Duration, exponent: f64, maximum: Duration) -> Self {
        Self {
            initial,
            exponent,
            maximum: Some(maximum),
            jitter: 0.1,
            max_attempts: None,
        }
    }

    /// The share, 0 to 1, by which a wait may be shorter than its interval, so that machines that failed together do not return together.
    #[must_use]
    pub const fn jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// After how many failures in a row the machine is parked.
    #[must_use]
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Checks that the rule makes sense.
    ///
    /// # Errors
    /// What is wrong with it. A process with such a rule cannot claim.
    pub fn check(&self) -> Result<(), BackoffError> {
        if self.initial.is_zero() {
            return Err(BackoffError::ZeroInitial);
        }
        if !(self.exponent.is_finite() && self.exponent >= 1.0) {
            return Err(BackoffError::Exponent(self.exponent));
        }
        if let Some(maximum) = self.maximum.filter(|maximum| *maximum < self.initial) {
            let initial = self.initial;
            return Err(BackoffError::MaximumBelowInitial { maximum, initial });
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(BackoffError::Jitter(self.jitter));
        }
        if self.max_attempts == Some(0) {
            return Err(BackoffError::ZeroAttempts);
        }
        Ok(())
    }

    /// The interval in seconds that follows `last`, the one before it.
    #[must_use]
    pub fn interval_after(&self, last: Option<i64>) -> i64 {
        const NANOS: f64 = 1e9;
        let initial = self.initial.as_nanos();
        let grown = match last.filter(|_| self.maximum.is_some()) {
            // The first, or one that never grows: what another rule left does not count.
            None => initial,
            // Cut to whole nanoseconds before rounding up to seconds: 90 s × 1.1 is 99.000000000000014 s in floating point and means 99.
            Some(last) => (last.max(0) as f64 * NANOS * self.exponent) as u128,
        };
        let maximum = self.maximum.map_or(u128::MAX, |maximum| maximum.as_nanos());
        let seconds = grown.max(initial).min(maximum).div_ceil(1_000_000_000);
        let longest = LONGEST.as_secs().cast_signed();
        i64::try_from(seconds).unwrap_or(i64::MAX).clamp(1, longest)
    }

    /// Whether the machine is parked after this many failures in a row.
    #[must_use]
    pub fn parks_after(&self, attempts: i64) -> bool {
        self.max_attempts.is_some_and(|most| attempts >= i64::from(most))
    }

    /// The wait for an interval, in milliseconds. `random` is from 0 to 1.
    pub(crate) fn wait_ms(&self, interval_seconds: i64, random: f64) -> i64 {
        let interval = interval_seconds.saturating_mul(1000);
        interval - (interval as f64 * self.jitter * random) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sequence(rule: Backoff, stored: Option<i64>, length: usize) -> Vec<i64> {
        let intervals = std::iter::successors(Some(rule.interval_after(stored)), |last| {
            Some(rule.interval_after(Some(*last)))
        });
        intervals.take(length).collect()
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_sequences_of_the_original_hold() {
        assert_eq!(sequence(Backoff::NONE, None, 3), [1, 1, 1]);
        assert_eq!(sequence(Backoff::constant(seconds(60)), None, 3), [60, 60, 60]);
        let slow = Backoff::exponential(seconds(60), 1.1, seconds(120));
        assert_eq!(sequence(slow, None, 9), [60, 66, 73, 81, 90, 99, 109, 120, 120]);
        assert_eq!(sequence(Backoff::constant(seconds(60)), Some(2), 3), [60, 60, 60]);
        for invalid in [0, -1] {
            assert_eq!(sequence(Backoff::NONE, Some(invalid), 3), [1, 1, 1]);
        }
        let endless = Backoff::exponential(seconds(60), 2.0, Duration::MAX);
        assert_eq!(sequence(endless, Some(i64::MAX), 2), [3_162_240_000, 3_162_240_000]);
        assert_eq!(endless.wait_ms(3_162_240_000, 0.0), 3_162_240_000_000);
        let doubling = Backoff::exponential(seconds(1), 2.0, seconds(120));
        assert_eq!(sequence(doubling, Some(2), 7), [4, 8, 16, 32, 64, 120, 120]);
    }

    /// An interval that another rule has left, of an earlier build say. The original lets an exponential rule grow from it, below the rule's own
    /// first interval (4, 8, 16, 32, 64, 120, 120 here), and a process without a rule keep it. Here the rule that the component has now is the one that
    /// counts: whoever raises `initial` to 60 seconds, to spare machines, does not mean that those that fail already are tried after 4.
    #[test]
    fn an_interval_of_another_rule_does_not_undercut_this_one_as_it_does_in_the_original() {
        let doubling = Backoff::exponential(seconds(60), 2.0, seconds(120));
        assert_eq!(sequence(doubling, Some(2), 3), [60, 120, 120]);
        assert_eq!(sequence(doubling, Some(5000), 2), [120, 120]);
        assert_eq!(sequence(Backoff::constant(seconds(60)), Some(5000), 2), [60, 60]);
        assert_eq!(sequence(Backoff::NONE, Some(60), 2), [1, 1]);
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_refused() {
        let rule = |exponent| Backoff::exponential(seconds(60), exponent, seconds(120));
        assert_eq!(rule(0.5).check(), Err(BackoffError::Exponent(0.5)));
        assert!(matches!(rule(f64::NAN).check(), Err(BackoffError::Exponent(_))));
        assert!(matches!(rule(f64::INFINITY).check(), Err(BackoffError::Exponent(_))));
        assert!(matches!(
            Backoff::exponential(seconds(60), 2.0, seconds(59)).check(),
            Err(BackoffError::MaximumBelowInitial { .. })
        ));
        assert_eq!(
            Backoff::constant(Duration::ZERO).check(),
            Err(BackoffError::ZeroInitial)
        );
        assert_eq!(Backoff::NONE.max_attempts(0).check(), Err(BackoffError::ZeroAttempts));
        assert_eq!(Backoff::NONE.jitter(1.5).check(), Err(BackoffError::Jitter(1.5)));
        assert!(Backoff::NONE.jitter(f64::NAN).check().is_err());
        assert_eq!(rule(1.0).check(), Ok(()));
        let text = rule(0.5).check().expect_err("it is wrong").to_string();
        assert_eq!(text, "its exponent is 0.5; expected a finite number of at least 1");
    }

    #[test]
    fn the_machine_is_parked_after_the_last_attempt() {
        let rule = Backoff::NONE.max_attempts(3);
        assert_eq!(
            [1, 2, 3, 4].map(|attempts| rule.parks_after(attempts)),
            [false, false, true, true]
        );
        assert!(!Backoff::NONE.parks_after(i64::MAX));
    }

    proptest! {
        #[test]
        fn intervals_follow_the_written_rule(
            initial_ms in 1_u64..10_000_000,
            exponent in 1.0_f64..10.0,
            more_ms in 0_u64..100_000_000,
            last in proptest::option::of(0_i64..1_000_000_000),
        ) {
            let (initial, maximum) = (Duration::from_millis(initial_ms), Duration::from_millis(initial_ms + more_ms));
            let rule = Backoff::exponential(initial, exponent, maximum);
            prop_assert_eq!(rule.check(), Ok(()));
            let next = rule.interval_after(last);
            let up = |ms: u64| i64::try_from(ms.div_ceil(1000)).expect("is small");
            prop_assert!(next >= up(initial_ms).max(1));
            prop_assert!(next <= up(initial_ms + more_ms).max(1));
            match last {
                None => prop_assert_eq!(next, up(initial_ms)),
                Some(last) => {
                    // Grows by the exponent, give or take the rounding, unless a bound holds it.
                    let grown = last as f64 * exponent;
                    let bounded = grown.clamp(initial.as_secs_f64(), maximum.as_secs_f64());
                    prop_assert!((next as f64) >= bounded - 1e-3 && (next as f64) < bounded + 1.001, "{next} for {bounded}");
                }
            }
        }

        #[test]
        fn jitter_only_shortens_and_never_below_its_share(interval in 1_i64..1_000_000, share in 0.0_f64..=1.0, random in 0.0_f64..=1.0) {
            let wait = Backoff::NONE.jitter(share).wait_ms(interval, random);
            let longest = interval * 1000;
            prop_assert!(wait <= longest);
            prop_assert!(wait as f64 >= longest as f64 * (1.0 - share) - 1.0);
        }
    }
}
