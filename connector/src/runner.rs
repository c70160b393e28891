//! Runs a component's processes: claims, works, ends, until it is told to stop.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bmdb::Bmdb;
use crate::ending::{End, fit_cause};
use crate::error::Error;
use crate::fact::Facts;
use crate::process::Process;
use crate::session::Session;
use crate::tally::{Counts, Tally, add};
use crate::tx::Tx;
use crate::unfinished::Unfinished;
use crate::work::Work;

/// What a component author writes: how one machine is worked on.
///
/// ```
/// use bmdb::{Facts, Work, Worker, agent_started};
/// # use bmdb::{Eligible, Process, provided};
/// # struct AgentStart;
/// # impl Process for AgentStart {
/// #     const NAME: &'static str = "agent-start";
/// #     type Item = provided::Model;
/// #     fn eligible(machines: Eligible<Self>) -> Eligible<Self> { machines.lacks::<agent_started::Entity>() }
/// # }
/// struct Starter;
///
/// impl Worker for Starter {
///     type Process = AgentStart;
///     type Outcome = Vec<u8>;
///
///     async fn run(&self, work: &Work<AgentStart>) -> Result<Vec<u8>, String> {
///         let address = work.address.as_deref().ok_or("the machine has no address")?;
///         Ok(format!("key of the agent at {address}, fence {}", work.fence()).into_bytes())
///     }
///
///     fn facts(&self, key: &Vec<u8>) -> Option<Facts> {
///         Some(agent_started::row(key.clone()).into())
///     }
/// }
/// ```
pub trait Worker: Send + Sync + 'static {
    /// The process whose machines it works on.
    type Process: Process;

    /// What the work establishes, for the commit phase.
    type Outcome: Send + Sync;

    /// The work phase, outside of any transaction, for as long as it takes. It should end soon when [`work.stop()`](Work::stop) fires.
    ///
    /// # Errors
    /// A cause, and the work fails: the process backs off from the machine. After the stop token has fired, the work is canceled instead. A panic
    /// is a failure too.
    fn run(&self, work: &Work<Self::Process>) -> impl Future<Output = Result<Self::Outcome, String>> + Send;

    /// What the work has established, when facts about its machine are all of it, or nothing is. The work's end is then one statement, and so is the
    /// next claim with it. `None`: it is for [`commit`](Self::commit). That is the default.
    fn facts(&self, outcome: &Self::Outcome) -> Option<Facts> {
        let _not_all = outcome;
        None
    }

    /// The commit phase: writes what the work has established, in the transaction that finishes the work. It may run many times. Default: nothing.
    ///
    /// # Errors
    /// Nothing is written, and the work fails with the error as its cause.
    fn commit(
        &self,
        tx: &Tx,
        machine: bmdb_entity::MachineId,
        outcome: &Self::Outcome,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        let _nothing = (tx, machine, outcome);
        std::future::ready(Ok(()))
    }
}

/// Runs any number of workers in one session, with a collector, until it is told to stop.
///
/// A lost session stops its works; a new one is started, with growing pauses. On shutdown no new work is claimed, running work has the drain time to
/// end, then its stop token fires, and what has not ended after a further grace is canceled.
///
/// ```no_run
/// # use bmdb::{Bmdb, Config, Runner, Worker, runtime_info};
/// # async fn example(starter: impl Worker) -> Result<(), bmdb::Error> {
/// let bmdb = Bmdb::connect(Config::from_env("shepherd", runtime_info!())?).await?;
/// let shutdown = tokio_util::sync::CancellationToken::new();
/// let counts = Runner::new(bmdb).worker(starter, 16).run(shutdown).await?;
/// # Ok(())
/// # }
/// ```
pub struct Runner {
    bmdb: Bmdb,
    lanes: Vec<Lane>,
    settings: Settings,
    collector: bool,
    drain: Duration,
    grace: Duration,
}

#[derive(Clone, Copy)]
struct Settings {
    poll: Duration,
    rate: Option<f64>,
}

/// One worker with its parallelism; which worker it is, is not known any more.
struct Lane {
    process: &'static str,
    tally: Arc<Tally>,
    worker: Arc<dyn AnyWorker>,
    parallel: usize,
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
    /// A rate counts claims, so each is made by the lane.
    is_rated: bool,
}

impl More {
    fn is_wanted(&self) -> bool {
        !self.is_rated && !self.no_more.is_cancelled()
    }
}

struct Typed<W> {
    worker: Arc<W>,
    tally: Arc<Tally>,
}

#[async_trait::async_trait]
impl<W: Worker> AnyWorker for Typed<W> {
    async fn claim(&self, session: &Session, more: More) -> Result<Option<BoxFuture<'static, ()>>, Error> {
        let Some(first) = session.claim::<W::Process>().await? else {
            return Ok(None);
        };
        let (worker, tally) = (Arc::clone(&self.worker), Arc::clone(&self.tally));
        Ok(Some(Box::pin(async move {
            let mut next = Some(first);
            while let Some(work) = next {
                add(&tally.claimed);
                // What was claimed while the runner was told to stop is let go of.
                next = handle(&*worker, work, &tally, &more).await.filter(|_| more.is_wanted());
            }
        })))
    }
}

/// The work phase and the end that follows from it, with the next claim where that costs nothing more.
async fn handle<W: Worker>(worker: &W, work: Work<W::Process>, tally: &Tally, more: &More) -> Option<Work<W::Process>> {
    let stop = work.stop();
    let ended = match AssertUnwindSafe(worker.run(&work)).catch_unwind().await {
        Ok(Ok(outcome)) => {
            let committed = match worker.facts(&outcome) {
                Some(facts) => end(work.done().stating(facts), &tally.finished, more).await,
                None => {
                    let machine = work.machine();
                    let committed = work.finish(async |tx| worker.commit(tx, machine, &outcome).await);
                    committed.await.map(|()| {
                        add(&tally.finished);
                        None
                    })
                }
            };
            match committed {
                Err(Unfinished::NotCommitted { work, error }) => {
                    end(work.fail(fit_cause(&error_text(&error))), &tally.failed, more).await
                }
                committed => committed,
            }
        }
        // Being interrupted is not a failure of the machine.
        Ok(Err(_cause)) if stop.is_cancelled() => end(work.cancel(), &tally.canceled, more).await,
        Ok(Err(cause)) => end(work.fail(fit_cause(&cause)), &tally.failed, more).await,
        Err(panic) => {
            add(&tally.panicked);
            let cause = format!("the worker panicked: {}", panic_text(panic.as_ref()));
            end(work.fail(fit_cause(&cause)), &tally.failed, more).await
        }
    };
    ended.unwrap_or_else(|gone| {
        add(&tally.lost);
        let error = gone.into_error();
        tracing::warn!(
            process = W::Process::NAME,
            error = &error as &dyn std::error::Error,
            "a work was lost"
        );
        None
    })
}

/// Ends a work, and claims the next if it may.
async fn end<P: Process>(end: End<P>, count: &AtomicU64, more: &More) -> Result<Option<Work<P>>, Unfinished<P>> {
    let next = if more.is_wanted() {
        let next = end.session().claim::<P>();
        end.then(next).await?
    } else {
        end.await.map(|()| Ok(None))?
    };
    add(count);
    // The lane claims next, and meets the error again.
    Ok(next.unwrap_or_else(|error| {
        tracing::debug!(process = P::NAME, %error, "the claim after an end failed");
        None
    }))
}

/// An error with everything that led to it, for people.
fn error_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

impl Runner {
    /// A runner without workers, which only collects.
    #[must_use]
    pub fn new(bmdb: Bmdb) -> Self {
        Self {
            bmdb,
            lanes: Vec::new(),
            settings: Settings {
                poll: Duration::from_secs(1),
                rate: None,
            },
            collector: true,
            drain: Duration::from_secs(30),
            grace: Duration::from_secs(5),
        }
    }

    /// Adds a worker that works on up to `parallel` machines at once (at least one).
    #[must_use]
    pub fn worker<W: Worker>(mut self, worker: W, parallel: usize) -> Self {
        let tally = Arc::new(Tally::default());
        self.lanes.push(Lane {
            process: W::Process::NAME,
            worker: Arc::new(Typed {
                worker: Arc::new(worker),
                tally: Arc::clone(&tally),
            }),
            tally,
            parallel: parallel.max(1),
        });
        self
    }

    /// How long a worker waits when nothing is eligible, with half of it as jitter. Default: 1 s.
    #[must_use]
    pub fn poll(mut self, poll: Duration) -> Self {
        self.settings.poll = poll;
        self
    }

    /// How many machines each worker claims per second at most. Default: no limit.
    #[must_use]
    pub fn rate(mut self, per_second: f64) -> Self {
        self.settings.rate = (per_second > 0.0).then_some(per_second);
        self
    }

    /// Whether to run a collector. Default: yes. Without any collector in the fleet, the machines of dead components stay claimed for ever.
    #[must_use]
    pub fn collector(mut self, collector: bool) -> Self {
        self.collector = collector;
        self
    }

    /// How long running work has to end by itself on shutdown. Default: 30 s.
    #[must_use]
    pub fn drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// How long work has to end after its stop token fired on shutdown, before it is aborted. Default: 5 s.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Runs until `shutdown` fires, and then until everything has ended: at most the drain time and the grace. Answers what was done, by process.
    ///
    /// # Errors
    /// What will not go away by itself: a process that is not valid, or a slot clash. Everything else is tried again, with growing pauses.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the works; their guards let go of their machines.
    pub async fn run(self, shutdown: CancellationToken) -> Result<HashMap<&'static str, Counts>, Error> {
        let collecting = CancellationToken::new();
        let _collecting = collecting.clone().drop_guard();
        let mut collector = JoinSet::new();
        if self.collector {
            collector.spawn(self.bmdb.collector().run(collecting.clone()));
        }
        let mut failures = 0;
        while !shutdown.is_cancelled() {
            let began = Instant::now();
            match self.run_session(&shutdown).await {
                Ok(()) => {}
                Err(error) if is_permanent(&error) => return Err(error),
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a session ended early"),
            }
            // A session that lived for a while was not at fault.
            failures = if began.elapsed() > Duration::from_secs(60) {
                0
            } else {
                failures + 1
            };
            let pause = Duration::from_millis(100) * 2_u32.pow(u32::min(failures, 7));
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())) => {}
            }
        }
        collecting.cancel();
        collector.join_all().await;
        Ok(self
            .lanes
            .iter()
            .map(|lane| (lane.process, lane.tally.counts()))
            .collect())
    }

    /// One session, until shutdown or its loss.
    async fn run_session(&self, shutdown: &CancellationToken) -> Result<(), Error> {
        let session = self.bmdb.start_session().await?;
        let lost = session.lost();
        let no_more = shutdown.child_token();
        let works = Arc::new(Mutex::new(JoinSet::new()));
        let lanes = self
            .lanes
            .iter()
            .map(|lane| lane.run(&session, &no_more, self.settings, &works));
        let lanes = futures_util::future::try_join_all(lanes);
        let claimed = tokio::select! {
            () = lost.cancelled() => Ok(()),
            () = shutdown.cancelled() => Ok(()),
            ended = lanes => ended.map(drop),
        };
        no_more.cancel();
        let mut works = std::mem::take(&mut *works.lock().expect("BUG: nothing panics while it holds this lock"));
        if !lost.is_cancelled() {
            let drained = async { while works.join_next().await.is_some() {} };
            tokio::select! {
                () = lost.cancelled() => {}
                _ = tokio::time::timeout(self.drain, drained) => {}
            }
            session.stop_all();
        }
        let ended = async { while works.join_next().await.is_some() {} };
        if tokio::time::timeout(self.grace, ended).await.is_err() {
            works.shutdown().await;
        }
        let closed = session.close().await;
        claimed.and(closed)
    }
}

impl Lane {
    /// Claims and spawns, until told to stop.
    async fn run(
        &self,
        session: &Session,
        no_more: &CancellationToken,
        settings: Settings,
        works: &Mutex<JoinSet<()>>,
    ) -> Result<(), Error> {
        let permits = Arc::new(tokio::sync::Semaphore::new(self.parallel));
        let mut next_claim = tokio::time::Instant::now();
        let more = More {
            no_more: no_more.clone(),
            is_rated: settings.rate.is_some(),
        };
        loop {
            let permit = tokio::select! {
                () = no_more.cancelled() => return Ok(()),
                permit = Arc::clone(&permits).acquire_owned() => permit.expect("BUG: the semaphore is never closed"),
            };
            tokio::select! {
                () = no_more.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(next_claim) => {}
            }
            if let Some(rate) = settings.rate {
                next_claim = tokio::time::Instant::now() + Duration::from_secs_f64(1.0 / rate);
            }
            let claimed = tokio::select! {
                () = no_more.cancelled() => return Ok(()),
                claimed = self.worker.claim(session, more.clone()) => claimed,
            };
            let idle = match claimed {
                Ok(Some(work)) => {
                    let mut works = works.lock().expect("BUG: nothing panics while it holds this lock");
                    while works.try_join_next().is_some() {}
                    works.spawn(async move {
                        work.await;
                        drop(permit);
                    });
                    continue;
                }
                Ok(None) => settings.poll,
                Err(error) if is_permanent(&error) => return Err(error),
                Err(Error::SessionExpired { .. } | Error::Draining { .. }) => return Ok(()),
                Err(error) => {
                    tracing::warn!(
                        process = self.process,
                        error = &error as &dyn std::error::Error,
                        "a claim failed"
                    );
                    settings.poll
                }
            };
            tokio::select! {
                () = no_more.cancelled() => return Ok(()),
                () = tokio::time::sleep(idle.mul_f64(0.5 + 0.5 * fastrand::f64())) => {}
            }
        }
    }
}

/// Whether waiting cannot mend it.
fn is_permanent(error: &Error) -> bool {
    matches!(
        error,
        Error::Config(_) | Error::Invalid { .. } | Error::InvalidBackoff { .. } | Error::SlotClash { .. }
    )
}
