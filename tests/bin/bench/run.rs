//! One turn of one contender.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::OwnServer;
use sea_orm::{ConnectionTrait, Statement};

use crate::Failure;
use crate::contender::{Contender, Cycle, Kind};
use crate::fleet::Fleet;

/// How long a worker waits that found nothing.
const IDLE: Duration = Duration::from_micros(500);
/// How often finished machines are made eligible again.
const RECYCLE: Duration = Duration::from_millis(50);

pub(crate) struct Run<'a> {
    pub(crate) kind: Kind,
    pub(crate) url: &'a str,
    pub(crate) workers: usize,
    /// Whether who makes machines eligible says so.
    pub(crate) hints: bool,
    pub(crate) lasts: Duration,
    /// Whose CPU and log of writes are measured.
    pub(crate) meter: Option<&'a OwnServer>,
}

/// What came of a turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) cycles: u64,
    pub(crate) took: Duration,
    /// Of each claim that found a machine, sorted.
    pub(crate) claims: Vec<Duration>,
    pub(crate) retries: u64,
    pub(crate) server_cpu: Duration,
    pub(crate) client_cpu: Duration,
    pub(crate) wal: u64,
    pub(crate) held_twice: u64,
    pub(crate) done_again: u64,
}

impl Run<'_> {
    pub(crate) async fn measure(&self, fleet: &Fleet) -> Result<Outcome, Failure> {
        fleet.survey().await?;
        let contender = Contender::enter(self.kind, self.url, self.workers).await?;
        // Connections, prepared statements and hints are not what is measured.
        self.work(&contender, fleet, self.lasts.min(Duration::from_millis(500)))
            .await?;
        let before = self.meters(fleet).await?;
        let began = Instant::now();
        let cycles = self.work(&contender, fleet, self.lasts).await?;
        let took = began.elapsed();
        let after = self.meters(fleet).await?;
        contender.leave().await?;
        fleet.recycle(self.hints && self.kind.goes_by_hints()).await?;
        let (held_twice, done_again) = fleet.violations();
        let mut claims: Vec<Duration> = cycles.iter().map(|cycle| cycle.claim).collect();
        claims.sort();
        Ok(Outcome {
            cycles: cycles.iter().map(|cycle| u64::from(cycle.machines)).sum(),
            took,
            claims,
            retries: cycles.iter().map(|cycle| u64::from(cycle.retries)).sum(),
            server_cpu: after.server_cpu - before.server_cpu,
            client_cpu: after.client_cpu - before.client_cpu,
            wal: after.wal - before.wal,
            held_twice,
            done_again,
        })
    }

    async fn work(&self, contender: &Contender, fleet: &Fleet, lasts: Duration) -> Result<Vec<Cycle>, Failure> {
        let over = AtomicBool::new(false);
        let worker = async |number: usize| {
            let mut cycles = Vec::new();
            while !over.load(Ordering::Relaxed) {
                match contender.cycle(number, fleet).await? {
                    Some(cycle) => cycles.push(cycle),
                    None => tokio::time::sleep(IDLE).await,
                }
            }
            Ok::<_, Failure>(cycles)
        };
        let recycler = async {
            let began = Instant::now();
            while began.elapsed() < lasts {
                tokio::time::sleep(RECYCLE).await;
                fleet.recycle(self.hints && self.kind.goes_by_hints()).await?;
            }
            over.store(true, Ordering::Relaxed);
            Ok::<_, Failure>(())
        };
        let workers = futures_util::future::try_join_all((0..self.workers).map(worker));
        let (cycles, ()) = futures_util::try_join!(workers, recycler)?;
        Ok(cycles.into_iter().flatten().collect())
    }

    async fn meters(&self, fleet: &Fleet) -> Result<Meters, Failure> {
        let Some(server) = self.meter else {
            return Ok(Meters {
                client_cpu: client_cpu(),
                ..Meters::default()
            });
        };
        let ask = Statement::from_string(
            fleet.raw().get_database_backend(),
            "SELECT CAST(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') AS BIGINT)",
        );
        let row = fleet.raw().query_one_raw(ask).await?.expect("a function has an answer");
        Ok(Meters {
            server_cpu: server.cpu_time(),
            client_cpu: client_cpu(),
            wal: row.try_get_by_index::<i64>(0)?.unsigned_abs(),
        })
    }
}

#[derive(Clone, Copy, Default)]
struct Meters {
    server_cpu: Duration,
    client_cpu: Duration,
    wal: u64,
}

/// The time that this process has computed for.
fn client_cpu() -> Duration {
    harness::cpu_time(std::process::id()).unwrap_or_default()
}
