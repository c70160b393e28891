//! One turn of one contender.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::OwnServer;
use sea_orm::{ConnectionTrait, Statement};
use tokio::task::JoinSet;

use crate::Failure;
use crate::contender::{Contender, Cycle, Kind};
use crate::contenders::peers::Peers;
use crate::fleet::Fleet;

/// How long a worker waits that found nothing.
const IDLE: Duration = Duration::from_micros(500);
/// How long a contender works before it is measured: connections, prepared statements and hints are not what is measured.
pub(crate) const WARM_UP: Duration = Duration::from_millis(500);
/// How often finished machines are made eligible again, at least; more often where few are eligible, so that all of them can be worked on
/// 20,000 times a second: the fastest way is not to wait for it.
const RECYCLE: Duration = Duration::from_millis(50);
const RECYCLE_EACH: Duration = Duration::from_micros(50);

pub(crate) struct Run<'a> {
    pub(crate) kind: Kind,
    pub(crate) url: &'a str,
    pub(crate) workers: usize,
    /// Whether who makes machines eligible says so.
    pub(crate) hints: bool,
    pub(crate) lasts: Duration,
    /// Whose CPU and log of writes are measured; none on SQLite.
    pub(crate) server: Option<&'a OwnServer>,
    pub(crate) fleet: &'a Arc<Fleet>,
    pub(crate) peers: &'a Peers<'a>,
}

/// What came of a turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) cycles: u64,
    pub(crate) took: Duration,
    /// Of each claim that found a machine, sorted.
    pub(crate) claims: Vec<Duration>,
    /// Of each claim with its finishes, sorted.
    pub(crate) whole: Vec<Duration>,
    pub(crate) retries: u64,
    pub(crate) server_cpu: Duration,
    pub(crate) client_cpu: Duration,
    pub(crate) wal: u64,
    pub(crate) held_twice: u64,
    pub(crate) done_again: u64,
}

impl Run<'_> {
    pub(crate) async fn measure(&self) -> Result<Outcome, Failure> {
        if let Some(peer) = self.kind.peer() {
            return self.peers.measure(self, peer).await;
        }
        let (fleet, process) = (self.fleet, std::process::id());
        let eligible = fleet.survey().await?;
        let recycle = RECYCLE.min(RECYCLE_EACH * eligible);
        let contender = Arc::new(Contender::enter(self.kind, self.url, self.workers, fleet).await?);
        self.work(&contender, self.lasts.min(WARM_UP), recycle).await?;
        let before = Meters::read(self.server, fleet, process).await?;
        let began = Instant::now();
        let (cycles, mut whole): (Vec<Cycle>, Vec<Duration>) =
            self.work(&contender, self.lasts, recycle).await?.into_iter().unzip();
        let took = began.elapsed();
        let after = Meters::read(self.server, fleet, process).await?;
        Arc::into_inner(contender).ok_or("a worker is left")?.leave().await?;
        fleet.recycle(self.hints && self.kind.goes_by_hints()).await?;
        let (held_twice, done_again) = fleet.violations();
        let mut claims: Vec<Duration> = cycles.iter().map(|cycle| cycle.claim).collect();
        claims.sort();
        whole.sort();
        Ok(Outcome {
            cycles: cycles.iter().map(|cycle| u64::from(cycle.machines)).sum(),
            took,
            claims,
            whole,
            retries: cycles.iter().map(|cycle| u64::from(cycle.retries)).sum(),
            held_twice,
            done_again,
            ..Outcome::between(before, after)
        })
    }

    /// Each cycle and how long it took. Each worker is a task, as a component's workers are.
    async fn work(
        &self,
        contender: &Arc<Contender>,
        lasts: Duration,
        recycle: Duration,
    ) -> Result<Vec<(Cycle, Duration)>, Failure> {
        let over = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for number in 0..self.workers {
            let (contender, fleet, over) = (Arc::clone(contender), Arc::clone(self.fleet), Arc::clone(&over));
            workers.spawn(async move {
                let mut cycles = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    match contender.cycle(number, &fleet).await? {
                        Some(cycle) => cycles.push((cycle, began.elapsed())),
                        None => tokio::time::sleep(IDLE).await,
                    }
                }
                Ok::<_, Failure>(cycles)
            });
        }
        let began = Instant::now();
        while began.elapsed() < lasts {
            tokio::time::sleep(recycle).await;
            self.fleet.recycle(self.hints && self.kind.goes_by_hints()).await?;
        }
        over.store(true, Ordering::Relaxed);
        let mut cycles = Vec::new();
        while let Some(worker) = workers.join_next().await {
            cycles.extend(worker??);
        }
        Ok(cycles)
    }
}

impl Outcome {
    /// What was used between two readings.
    pub(crate) fn between(before: Meters, after: Meters) -> Self {
        Self {
            server_cpu: after.server_cpu - before.server_cpu,
            client_cpu: after.client_cpu - before.client_cpu,
            wal: after.wal - before.wal,
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Meters {
    server_cpu: Duration,
    client_cpu: Duration,
    wal: u64,
}

impl Meters {
    /// What the server and a process of the client's have used so far.
    pub(crate) async fn read(server: Option<&OwnServer>, fleet: &Fleet, client: u32) -> Result<Self, Failure> {
        let client_cpu = harness::cpu_time(client).unwrap_or_default();
        let Some(server) = server else {
            return Ok(Self {
                client_cpu,
                ..Self::default()
            });
        };
        let wal = "SELECT CAST(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') AS BIGINT)";
        let wal = ask(fleet, wal).await?;
        Ok(Self {
            server_cpu: server.cpu_time(),
            client_cpu,
            wal,
        })
    }
}

/// How many connections to the server there are beside the bench's own.
pub(crate) async fn connections(fleet: &Fleet) -> Result<u64, Failure> {
    const ALL: &str = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
    let all = ask(fleet, ALL).await?;
    Ok(all.saturating_sub(fleet.raw().get_postgres_connection_pool().size().into()))
}

/// The number that a question has for an answer.
pub(crate) async fn ask(fleet: &Fleet, question: &str) -> Result<u64, Failure> {
    let ask = Statement::from_string(fleet.raw().get_database_backend(), question);
    let row = fleet.raw().query_one_raw(ask).await?.ok_or("there is no answer")?;
    Ok(row.try_get_by_index::<i64>(0)?.unsigned_abs())
}
