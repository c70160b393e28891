//! What the process believes of its session, and until when. Local and pure: the database's deadline never enters here.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

/// An instant on the clock that counts from boot and goes on while the machine is suspended.
///
/// `std::time::Instant` stands still during suspend on Linux; a process that slept through its deadline would wake up believing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootInstant(Duration);

impl BootInstant {
    /// Reads the clock.
    pub(crate) fn now() -> Self {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let clock = rustix::time::ClockId::Boottime;
        // Elsewhere (macOS) the monotonic clock is the one that counts suspend.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let clock = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).expect("BUG: the boot clock is not negative");
        let nanos = u32::try_from(time.tv_nsec).expect("BUG: nanoseconds are below 10^9");
        Self(Duration::new(seconds, nanos))
    }

    /// The time from `earlier` to this moment; zero if that lies ahead.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment so long after this one; the last there is, if that is further away.
    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// The trust that a process has in its own session: `trusted_until ≤ sent + interval − margin`, and over for good once it is over.
#[derive(Debug)]
pub(crate) struct Lease {
    /// What one heartbeat gives, less the margin.
    term: Duration,
    /// Nanoseconds since boot.
    trusted_until: AtomicU64,
    /// One seen expiry latches: a session never comes back.
    over: AtomicBool,
}

impl Lease {
    /// A lease that was first granted by a request sent at `sent`.
    pub(crate) fn new(interval: Duration, margin: Duration, sent: BootInstant) -> Self {
        let lease = Self {
            term: interval.saturating_sub(margin),
            trusted_until: AtomicU64::new(0),
            over: AtomicBool::new(false),
        };
        lease.renewed(sent);
        lease
    }

    /// Notes a renewal. Trust counts from before the request was sent, so that a slow answer cannot stretch it.
    pub(crate) fn renewed(&self, sent: BootInstant) {
        self.trusted_until
            .fetch_max(nanos(sent.plus(self.term)), Ordering::AcqRel);
    }

    /// How much trust is left at `now`; zero is for ever.
    pub(crate) fn remaining(&self, now: BootInstant) -> Duration {
        if self.over.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        let left = Duration::from_nanos(self.trusted_until.load(Ordering::Acquire).saturating_sub(nanos(now)));
        if left.is_zero() {
            self.end();
        }
        left
    }

    /// How long ago the request was sent that trust counts from.
    pub(crate) fn age(&self, now: BootInstant) -> Duration {
        self.term.saturating_sub(self.remaining(now))
    }

    /// Waits until trust is over, however often it is renewed meanwhile. Timers do not count suspend, so it looks again at least every second.
    pub(crate) async fn over(&self) {
        loop {
            let left = self.remaining(BootInstant::now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        }
    }

    /// Runs `effect` for as long as there is trust, and no step of it later: it reads the clock before each. Whoever was to tell that trust is over may
    /// wake up later than the effect, when the process was stopped or its threads were blocked. `None`: trust ended first.
    pub(crate) async fn while_trusted<T>(&self, effect: impl Future<Output = T>) -> Option<T> {
        let mut effect = pin!(effect);
        poll_fn(|context| {
            if self.remaining(BootInstant::now()).is_zero() {
                return Poll::Ready(None);
            }
            effect.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// The longest trust that there ever is: that of a heartbeat which is answered as it is sent.
    pub(crate) fn longest(&self) -> Duration {
        self.term
    }

    /// Ends all trust, for good.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }
}

/// When something last showed that it runs.
pub(crate) struct Ticks(AtomicU64);

impl Ticks {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(nanos(BootInstant::now())))
    }

    pub(crate) fn tick(&self) {
        self.0.store(nanos(BootInstant::now()), Ordering::Release);
    }

    /// How long ago that was.
    pub(crate) fn age(&self) -> Duration {
        Duration::from_nanos(nanos(BootInstant::now()).saturating_sub(self.0.load(Ordering::Acquire)))
    }
}

fn nanos(moment: BootInstant) -> u64 {
    u64::try_from(moment.0.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const MARGIN: Duration = Duration::from_secs(2);

    fn at(seconds: u64) -> BootInstant {
        BootInstant(Duration::from_secs(seconds))
    }

    #[test]
    fn trust_counts_from_before_the_request_was_sent() {
        let lease = Lease::new(INTERVAL, MARGIN, at(100));
        // The answer came at 105: it does not matter.
        assert_eq!(lease.remaining(at(105)), Duration::from_secs(3));
    }

    #[test]
    fn a_late_renewal_of_an_older_request_does_not_shorten_trust() {
        let lease = Lease::new(INTERVAL, MARGIN, at(100));
        lease.renewed(at(104));
        lease.renewed(at(102));
        assert_eq!(lease.remaining(at(104)), Duration::from_secs(8));
    }

    #[test]
    fn one_seen_expiry_latches() {
        let lease = Lease::new(INTERVAL, MARGIN, at(100));
        assert_eq!(lease.remaining(at(108)), Duration::ZERO);
        lease.renewed(at(109));
        assert_eq!(lease.remaining(at(109)), Duration::ZERO);
    }

    #[tokio::test]
    async fn no_step_of_an_effect_runs_after_trust_has_ended() {
        let hour = Duration::from_secs(3600);
        for ends in 0..5 {
            let lease = Lease::new(hour, MARGIN, BootInstant::now());
            let mut steps = 0;
            let effect = poll_fn(|context| {
                assert!(!lease.remaining(BootInstant::now()).is_zero(), "a step without trust");
                steps += 1;
                if steps == ends {
                    lease.end();
                }
                // It asks for its next step at once, before anybody else can do anything.
                context.waker().wake_by_ref();
                if steps == 3 { Poll::Ready("done") } else { Poll::Pending }
            });
            let ended = lease.while_trusted(effect).await;
            assert_eq!(
                (ended, steps),
                if matches!(ends, 1 | 2) {
                    (None, ends)
                } else {
                    (Some("done"), 3)
                }
            );
        }
    }

    #[test]
    fn for_ever_is_a_moment_too() {
        let end = at(100).plus(Duration::MAX);
        assert!(end > at(u64::MAX / 2) && end.plus(Duration::MAX) == end);
        assert_eq!(at(100).since(end), Duration::ZERO);
    }

    #[test]
    fn the_boot_clock_runs_forward() {
        let first = BootInstant::now();
        assert!(BootInstant::now() >= first);
    }
}
