//! How long to wait before something is tried again.

use std::time::Duration;

/// Full jitter between nothing and 2 ms doubled with each attempt, at most 256 ms
/// (aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
pub(crate) fn pause_after(attempts: u32) -> Duration {
    let ceiling = 2_000_u64 << attempts.clamp(1, 8).saturating_sub(1);
    Duration::from_micros(fastrand::u64(0..=ceiling))
}

/// How long it waits before it runs again; `None`: that would be too late.
pub(crate) fn pause_within(budget: Duration, elapsed: Duration, attempts: u32) -> Option<Duration> {
    let pause = pause_after(attempts);
    (elapsed + pause <= budget).then_some(pause)
}

/// Who waits for a search waits longer by a quarter at most, and asks seldom.
pub(crate) fn pause_for_a_search(elapsed: Duration) -> Duration {
    elapsed.mul_f64(0.25 * fastrand::f64()) + Duration::from_millis(1)
}

/// Pauses before what failed as a whole is begun anew: from a tenth of a second up to 12.8, each twice as long as the one before, half of it jitter.
#[derive(Default)]
pub(crate) struct Pauses {
    failures: u32,
}

impl Pauses {
    const SHORTEST: Duration = Duration::from_millis(200);
    /// What went well for so long was not at fault when it failed.
    const LONG_LIVED: Duration = Duration::from_secs(60);

    /// The next one, after something that lived for so long.
    pub(crate) fn after(&mut self, lived: Duration) -> Duration {
        if lived > Self::LONG_LIVED {
            self.failures = 0;
        }
        let longest = Self::SHORTEST * 2_u32.pow(self.failures);
        self.failures = (self.failures + 1).min(6);
        longest.mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_quarter_of_a_second() {
        for (attempts, most) in [(0, 2), (1, 2), (2, 4), (5, 32), (8, 256), (9, 256), (u32::MAX, 256)] {
            let longest = (0..1000).map(|_| pause_after(attempts)).max().unwrap();
            let most = Duration::from_millis(most);
            assert!(
                longest <= most && longest > most * 3 / 4,
                "{longest:?} after {attempts}"
            );
        }
    }

    #[test]
    fn nothing_runs_again_when_the_budget_is_used_up() {
        let (budget, moment) = (Duration::from_secs(10), Duration::from_millis(10));
        for _ in 0..100 {
            assert_eq!(pause_within(budget, budget + moment, 8), None);
            assert!(pause_within(budget, budget - Duration::from_millis(256), 8).is_some());
        }
        // Its pause would end too late.
        assert!((0..100).any(|_| pause_within(budget, budget - moment, 8).is_none()));
    }

    #[test]
    fn who_waits_for_a_search_asks_less_and_less_often() {
        let pauses: Vec<Duration> = (0..1000).map(|_| pause_for_a_search(Duration::from_secs(8))).collect();
        let (most, least) = (pauses.iter().max().unwrap(), pauses.iter().min().unwrap());
        assert!(
            *least >= Duration::from_millis(1) && *least < Duration::from_secs(1),
            "{least:?}"
        );
        assert!(
            *most <= Duration::from_millis(2001) && *most > Duration::from_secs(1),
            "{most:?}"
        );
    }

    #[test]
    fn what_keeps_failing_is_begun_less_and_less_often() {
        let mut pauses = Pauses::default();
        let mut within = |lived, longest| {
            let pause = pauses.after(lived);
            assert!(pause <= longest && pause >= longest / 2, "{pause:?} of {longest:?}");
        };
        for longest in [200, 400, 800, 1600, 3200, 6400, 12_800, 12_800] {
            within(Duration::from_secs(60), Duration::from_millis(longest));
        }
        within(Duration::from_millis(60_001), Duration::from_millis(200));
        within(Duration::ZERO, Duration::from_millis(400));
    }
}
