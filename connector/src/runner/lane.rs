//! One worker of a runner with its parallelism: claims and spawns, until it is told to stop.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bmdb::registered::Registered;
use crate::error::Error;
use crate::rules::process::Process;
use crate::runner::tally::Tally;
use crate::runner::verdict::carry_out;
use crate::runner::worker::Worker;
use crate::runtime::lock::locked;
use crate::runtime::supervised::{panic_text, supervised};
use crate::session::Session;

/// How a worker claims.
#[derive(Clone, Copy, Debug)]
pub struct WorkerOptions {
    /// On how many machines it works at once, at least one. Default: 1.
    pub parallel: usize,
    /// How many machines it claims per second at most, above 0; for one an hour, `1.0 / 3600.0`. Default: no limit.
    pub rate: Option<f64>,
    /// How long it waits when nothing is eligible, with half of it as jitter. Default: 1 s.
    pub poll: Duration,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            parallel: 1,
            rate: None,
            poll: Duration::from_secs(1),
        }
    }
}

impl WorkerOptions {
    /// At least so long lies between two claims.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a rate that is none.
    fn between_claims(&self) -> Result<Option<Duration>, Error> {
        match self.rate {
            None => Ok(None),
            // So seldom is never.
            Some(rate) if rate > 0.0 => Ok(Some(Duration::try_from_secs_f64(rate.recip()).unwrap_or(Duration::MAX))),
            Some(rate) => Err(Error::invalid(
                "a rate",
                &rate.to_string(),
                "a number of claims per second above 0",
            )),
        }
    }
}

/// One worker with its parallelism; which worker it is, is not known any more.
pub(crate) struct Lane {
    pub(crate) process: &'static str,
    pub(crate) tally: Arc<Tally>,
    worker: Arc<dyn AnyWorker>,
    options: WorkerOptions,
}

/// A worker whatever its process: claims one machine and works on it, and on those that follow.
#[async_trait::async_trait]
trait AnyWorker: Send + Sync {
    /// `None`: nothing is eligible. Else the work, under way.
    async fn claim(&self, session: &Session, more: More) -> Result<Option<BoxFuture<'static, ()>>, Error>;
}

/// Whether a work's end may claim the next.
#[derive(Clone)]
struct More {
    no_more: CancellationToken,
    /// Each claim is made by the lane, in its time.
    is_paced: bool,
}

impl More {
    fn is_wanted(&self) -> bool {
        !self.is_paced && !self.no_more.is_cancelled()
    }
}

struct Typed<W: Worker> {
    process: Registered<W::Process>,
    worker: Arc<W>,
    tally: Arc<Tally>,
}

#[async_trait::async_trait]
impl<W: Worker> AnyWorker for Typed<W> {
    async fn claim(&self, session: &Session, more: More) -> Result<Option<BoxFuture<'static, ()>>, Error> {
        let Some(first) = session.claim(&self.process).await? else {
            return Ok(None);
        };
        let (process, worker, tally) = (self.process.clone(), Arc::clone(&self.worker), Arc::clone(&self.tally));
        Ok(Some(Box::pin(async move {
            let mut next = Some(first);
            while let Some(work) = next {
                let ended = carry_out(&*worker, &process, work, &tally, || more.is_wanted()).await;
                // What was claimed while the runner was told to stop is released.
                next = ended.filter(|_| more.is_wanted());
            }
        })))
    }
}

/// One lane in one session.
struct Claims<'a> {
    lane: &'a Lane,
    session: &'a Session,
    between: Option<Duration>,
    no_more: &'a CancellationToken,
    works: &'a Mutex<JoinSet<()>>,
    permits: Arc<Semaphore>,
    next_claim: Mutex<Instant>,
}

impl Lane {
    pub(crate) fn new<W: Worker>(
        process: &Registered<W::Process>,
        worker: W,
        options: WorkerOptions,
        tally: Arc<Tally>,
    ) -> Self {
        Self {
            process: W::Process::NAME,
            worker: Arc::new(Typed {
                process: process.clone(),
                worker: Arc::new(worker),
                tally: Arc::clone(&tally),
            }),
            tally,
            options,
        }
    }

    /// # Errors
    /// [`Error::Invalid`] for options that make no sense.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.options.between_claims().map(drop)
    }

    /// Claims and spawns, until told to stop or the session takes no more.
    pub(crate) async fn run(
        &self,
        session: &Session,
        no_more: &CancellationToken,
        works: &Mutex<JoinSet<()>>,
    ) -> Result<(), Error> {
        let claims = Claims {
            lane: self,
            session,
            between: self.options.between_claims()?,
            no_more,
            works,
            permits: Arc::new(Semaphore::new(self.options.parallel.max(1))),
            next_claim: Mutex::new(Instant::now()),
        };
        let running = supervised(self.process, || claims.run());
        tokio::select! {
            () = no_more.cancelled() => Ok(()),
            ended = running => ended,
        }
    }
}

impl Claims<'_> {
    async fn run(&self) -> Result<(), Error> {
        loop {
            let permit = Arc::clone(&self.permits).acquire_owned().await;
            let permit = permit.expect("BUG: the semaphore is never closed");
            self.wait_for_turn().await;
            let more = More {
                no_more: self.no_more.clone(),
                is_paced: self.between.is_some(),
            };
            let (process, poll) = (self.lane.process, self.lane.options.poll);
            match self.lane.worker.claim(self.session, more).await {
                Ok(Some(work)) => {
                    let mut works = locked(self.works);
                    while works.try_join_next().is_some() {}
                    works.spawn(async move {
                        if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                            let panic = panic_text(&*panic);
                            tracing::error!(process, panic, "a work's task panicked");
                            // Its machine may be the next that is claimed.
                            tokio::time::sleep(jittered(poll)).await;
                        }
                        drop(permit);
                    });
                    continue;
                }
                Ok(None) => {}
                Err(error) if error.is_permanent() => return Err(error),
                Err(Error::SessionExpired { .. } | Error::Draining { .. }) => return Ok(()),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(process, error, "a claim failed");
                }
            }
            tokio::time::sleep(jittered(poll)).await;
        }
    }

    async fn wait_for_turn(&self) {
        let Some(between) = self.between else { return };
        let next_claim = || locked(&self.next_claim);
        let due = *next_claim();
        tokio::time::sleep_until(due).await;
        let now = Instant::now();
        // What lies beyond all clocks never comes.
        *next_claim() = now.checked_add(between).unwrap_or(now + NEVER);
    }
}

/// Thirty years.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + 0.5 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(rate: f64) -> WorkerOptions {
        WorkerOptions {
            rate: Some(rate),
            ..Default::default()
        }
    }

    #[test]
    fn every_rate_has_a_time_between_claims_or_is_refused() {
        for (rate, between) in [
            (0.5, Duration::from_secs(2)),
            (1e-30, Duration::MAX),
            (f64::MIN_POSITIVE, Duration::MAX),
            (5e-324, Duration::MAX),
            (f64::INFINITY, Duration::ZERO),
            (f64::MAX, Duration::ZERO),
        ] {
            assert_eq!(options(rate).between_claims().unwrap(), Some(between), "{rate}");
        }
        for rate in [0.0, -0.0, -1.0, f64::NAN, f64::NEG_INFINITY] {
            let refused = options(rate).between_claims();
            assert!(matches!(refused, Err(Error::Invalid { what: "a rate", .. })), "{rate}");
        }
    }
}
