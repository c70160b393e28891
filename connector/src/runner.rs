//! Runs a component's processes in one session after the other, until it is told to stop.

pub(crate) mod lane;
pub(crate) mod tally;
pub(crate) mod verdict;
pub(crate) mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bmdb::Bmdb;
use crate::bmdb::registered::Registered;
use crate::error::Error;
use crate::rules::process::Process;
use crate::runner::lane::{Lane, WorkerOptions};
use crate::runner::tally::Counts;
use crate::runner::worker::Worker;
use crate::runtime::awake::Awake;
use crate::runtime::lock::locked;
use crate::runtime::retry::Pauses;
use crate::session::Session;

/// Runs any number of workers in one session, with a collector, until it is told to stop.
///
/// A lost session stops its works; a new one is started, with growing pauses. While a session lives, an end that the database does not take is tried
/// again, with growing pauses: what a work has established is not thrown away, and its machine is not blamed for the database.
///
/// On shutdown no new work is claimed, and running work has the [drain](Self::drain) time to end. Then its stop token fires, and it has the
/// [grace](Self::grace). What has not ended by then is aborted, and the session is closed, which together has the grace once more. So a shutdown takes
/// at most the drain time and twice the grace: by default 9 s, which fits the 10 s that `docker stop` waits before it kills. Kubernetes waits for 30 s
/// (`terminationGracePeriodSeconds`): `.drain(Duration::from_secs(20)).grace(Duration::from_secs(4))` fits that.
///
/// A work that blocks its thread cannot be aborted: it keeps its machine, and its session lives until the work or the process ends, even if the
/// [`Bmdb`] is closed. If works block every thread of the runtime, shutdown cannot keep its times: leave one thread free.
///
/// ```no_run
/// # use bmdb::{Bmdb, Config, Process, Runner, Worker, WorkerOptions, runtime_info};
/// # async fn example<P: Process>(agent_start: P, starter: impl Worker<Process = P>) -> Result<(), bmdb::Error> {
/// let bmdb = Bmdb::connect(Config::from_env("shepherd", runtime_info!())?).await?;
/// let start = bmdb.register(agent_start).await?;
/// let options = WorkerOptions { parallel: 16, ..Default::default() };
/// let shutdown = bmdb::CancellationToken::new();
/// let counts = Runner::new(bmdb).worker(&start, starter, options).run(shutdown).await?;
/// # Ok(())
/// # }
/// ```
pub struct Runner {
    bmdb: Bmdb,
    lanes: Vec<Lane>,
    collector: bool,
    drain: Duration,
    grace: Duration,
}

impl Runner {
    /// A runner without workers, which only collects, without a session.
    #[must_use]
    pub fn new(bmdb: Bmdb) -> Self {
        Self {
            bmdb,
            lanes: Vec::new(),
            collector: true,
            drain: Duration::from_secs(5),
            grace: Duration::from_secs(2),
        }
    }

    /// Adds a worker for a process that was registered on the runner's connection.
    #[must_use]
    pub fn worker<W: Worker>(mut self, process: &Registered<W::Process>, worker: W, options: WorkerOptions) -> Self {
        let of_process = self.lanes.iter().find(|lane| lane.process == W::Process::NAME);
        let tally = of_process.map_or_else(Arc::default, |lane| Arc::clone(&lane.tally));
        self.lanes.push(Lane::new(process, worker, options, tally));
        self
    }

    /// Whether to run a collector. Default: yes. Without any collector in the fleet, the machines of dead components stay claimed for ever.
    #[must_use]
    pub fn collector(mut self, collector: bool) -> Self {
        self.collector = collector;
        self
    }

    /// How long running work has to end by itself on shutdown. Default: 5 s.
    #[must_use]
    pub fn drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// How long work has to end after its stop token fired, before it is aborted; and then, how long that and closing the session may take.
    /// Default: 2 s.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Runs until `shutdown` fires, and then until everything has ended: at most the drain time and twice the grace. Answers what was done, by process.
    ///
    /// # Errors
    /// What will not go away by itself: a rate that is not valid, a handle of another connection, or SQLite's file replaced or damaged. Everything else is tried again,
    /// with growing pauses.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the works; their guards release their machines.
    pub async fn run(self, shutdown: CancellationToken) -> Result<HashMap<&'static str, Counts>, Error> {
        for lane in &self.lanes {
            lane.check()?;
        }
        let _awake = Awake::begin();
        let collecting = CancellationToken::new();
        let _collecting = collecting.clone().drop_guard();
        let mut collector = JoinSet::new();
        if self.collector {
            collector.spawn(self.bmdb.collector().run(collecting.clone()));
        }
        if self.lanes.is_empty() {
            shutdown.cancelled().await;
        }
        let mut pauses = Pauses::default();
        while !shutdown.is_cancelled() {
            let began = Instant::now();
            match self.run_session(&shutdown).await {
                Ok(Ended::Drained) => {
                    shutdown.cancelled().await;
                    break;
                }
                Ok(Ended::Over) => {}
                Err(error) if error.is_permanent() => return Err(error),
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a session ended early"),
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pauses.after(began.elapsed())) => {}
            }
        }
        collecting.cancel();
        while collector.join_next().await.is_some() {}
        let counts = self.lanes.iter().map(|lane| (lane.process, lane.tally.counts()));
        Ok(counts.collect())
    }

    /// One session, until shutdown or its loss.
    async fn run_session(&self, shutdown: &CancellationToken) -> Result<Ended, Error> {
        let session = tokio::select! {
            // What was begun, a collector expires.
            () = shutdown.cancelled() => return Ok(Ended::Over),
            started = self.bmdb.start_session() => started?,
        };
        let lost = session.lost();
        let no_more = shutdown.child_token();
        let works = Arc::new(Mutex::new(JoinSet::new()));
        let lanes = self.lanes.iter().map(|lane| lane.run(&session, &no_more, &works));
        let lanes = futures_util::future::try_join_all(lanes);
        let claimed = tokio::select! {
            () = lost.cancelled() => Ok(()),
            () = shutdown.cancelled() => Ok(()),
            ended = lanes => match ended {
                // It shows that the component lives, with less and less to do.
                Ok(_) if session.shared().is_drained() => tokio::select! {
                    () = lost.cancelled() => Ok(()),
                    () = shutdown.cancelled() => Ok(()),
                },
                ended => ended.map(drop),
            },
        };
        no_more.cancel();
        let works = std::mem::take(&mut *locked(&works));
        let ended = if session.shared().is_drained() {
            Ended::Drained
        } else {
            Ended::Over
        };
        self.wind_down(session, works).await;
        claimed.map(|()| ended)
    }

    /// Has the works end, and the session after them, in bounded time.
    async fn wind_down(&self, session: Session, mut works: JoinSet<()>) {
        let lost = session.lost();
        if !lost.is_cancelled() {
            tokio::select! {
                () = lost.cancelled() => {}
                _ = tokio::time::timeout(self.drain, all(&mut works)) => {}
            }
            session.stop_all();
        }
        let _some_are_late = tokio::time::timeout(self.grace, all(&mut works)).await;
        works.abort_all();
        let closing = session.clone();
        let ending = async {
            // What cannot be aborted goes on in its thread, and must not lose its machine to somebody else meanwhile.
            all(&mut works).await;
            closing.close().await
        };
        match tokio::time::timeout(self.grace, ending).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(session = %session.id(), error, "a session was not closed; a collector will expire it");
            }
            Err(_elapsed) => {
                tracing::warn!(session = %session.id(), "a session is not closed yet: it goes on by itself")
            }
        }
        if !works.is_empty() {
            session.shared().stay();
        }
        for held in session.held() {
            tracing::error!(
                process = held.process,
                machine = %held.machine,
                held_for = ?held.held_for,
                "a work cannot be aborted: it blocks its thread"
            );
        }
    }
}

/// How a session of a runner ended.
enum Ended {
    /// It was lost, or the runner is told to end.
    Over,
    /// An operator had drained it, whatever ended it then: another session would take new work.
    Drained,
}

async fn all(works: &mut JoinSet<()>) {
    while works.join_next().await.is_some() {}
}
