//! Turns of other people's systems: each is a program of its own that works through jobs of its own, in a database of its own on the same server.
//!
//! A program is started with the numbers of workers and jobs, prepares, says `ready`, works from the line `work` until its input ends, and then may
//! tell latencies. How many jobs are done is asked of the database: what a program believes, or has yet to write, does not count.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sea_orm::sqlx::{self, AssertSqlSafe, Connection, Executor, PgConnection};
use url::Url;

use crate::Failure;
use crate::contender::Kind;
use crate::contenders::install::{Program, Programs};
use crate::contenders::running::Running;
use crate::run::{Meters, Outcome, Run, WARM_UP};

const END_ITS_CONNECTIONS: &str = "
    SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()";

/// One way to run a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) program: Program,
    pub(crate) is_batched: bool,
}

impl Peer {
    /// Where it keeps everything.
    fn schema(self) -> &'static str {
        match self.program {
            Program::GraphileWorker => "graphile_worker",
            Program::PgBoss => "pgboss",
            Program::Apalis => "apalis",
        }
    }

    /// The number of jobs that are not done.
    fn left(self) -> &'static str {
        match self.program {
            Program::GraphileWorker => "SELECT count(*) FROM graphile_worker._private_jobs",
            Program::PgBoss => "SELECT count(*) FROM pgboss.job WHERE name = 'bench' AND state < 'completed'",
            Program::Apalis => "SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'",
        }
    }

    /// How many jobs one worker may hold.
    fn at_once(self) -> u64 {
        match (self.is_batched, self.program) {
            (true, _) => 500,
            (false, Program::Apalis) => 10,
            (false, _) => 1,
        }
    }

    /// How many jobs a second, to begin with.
    fn guess(self) -> u64 {
        match (self.is_batched, self.program) {
            (true, _) => 10_000,
            (false, Program::PgBoss) => 400,
            (false, _) => 1_500,
        }
    }
}

/// What is there to run peers with, on one server.
pub(crate) struct Peers<'a> {
    programs: &'a Programs,
    /// How many jobs to make. Not many more than are done in a turn: pg-boss sorts all that wait for each that it takes.
    jobs: Mutex<HashMap<(Kind, usize), u64>>,
}

impl<'a> Peers<'a> {
    pub(crate) fn new(programs: &'a Programs) -> Self {
        let jobs = Mutex::default();
        Self { programs, jobs }
    }

    /// One turn; another one with more jobs if they ran out.
    pub(crate) async fn measure(&self, run: &Run<'_>, peer: Peer) -> Result<Outcome, Failure> {
        let key = (run.kind, run.workers);
        let held = run.workers as u64 * peer.at_once();
        let known = self.jobs().get(&key).copied();
        let mut jobs = known.unwrap_or_else(|| {
            let seconds = (run.lasts + WARM_UP).as_secs_f64();
            (seconds * peer.guess() as f64) as u64 + 2 * held
        });
        loop {
            let (outcome, left) = self.turn(run, peer, jobs).await?;
            if left > held {
                self.jobs().insert(key, 2 * (jobs - left + held));
                return Ok(outcome);
            }
            eprintln!("{}: {jobs} jobs were too few, again with more", run.kind.name());
            jobs *= 2;
        }
    }

    fn jobs(&self) -> std::sync::MutexGuard<'_, HashMap<(Kind, usize), u64>> {
        self.jobs.lock().expect("nothing panics while it holds this lock")
    }

    /// One turn, and how many jobs were left.
    async fn turn(&self, run: &Run<'_>, peer: Peer, jobs: u64) -> Result<(Outcome, u64), Failure> {
        let server = run.server.ok_or("peers run on PostgreSQL")?;
        let mut database = own_database(server.database().url(), peer.schema()).await?;
        let mut url = Url::parse(run.url)?;
        url.set_path(peer.schema());
        let mut command = self.programs.command(peer.program);
        command.args([run.workers.to_string(), jobs.to_string()]);
        command.arg(if peer.is_batched { "batched" } else { "one" });
        command.env("BMDB_PEER_URL", url.as_str());
        let mut running = Running::start(command)?;
        running.says("ready").await?;
        database.execute("VACUUM (ANALYZE)").await?;
        let mut left = async || -> Result<(Instant, u64), Failure> {
            let asked = Instant::now();
            let count: i64 = sqlx::query_scalar(peer.left()).fetch_one(&mut database).await?;
            Ok((asked, u64::try_from(count)?))
        };
        running.tell("work").await?;
        tokio::time::sleep(WARM_UP).await;
        running.tell("measure").await?;
        let (began, left_before) = left().await?;
        let before = Meters::read(run.server, run.fleet, running.process()?).await?;
        tokio::time::sleep(run.lasts).await;
        let after = Meters::read(run.server, run.fleet, running.process()?).await?;
        let (ended, left_after) = left().await?;
        let latencies = Latencies::read(&running.end().await?)?;
        // Its last statements may still run.
        database.execute(END_ITS_CONNECTIONS).await?;
        database
            .execute(AssertSqlSafe(format!("DROP SCHEMA {} CASCADE", peer.schema())))
            .await?;
        database.close().await?;
        let outcome = Outcome {
            cycles: left_before.saturating_sub(left_after),
            took: ended - began,
            claims: latencies.claim,
            whole: latencies.done,
            ..Outcome::between(before, after)
        };
        Ok((outcome, left_after))
    }
}

/// A database of this name, made if there is none, on the server of another.
pub(crate) async fn own_database(beside: &str, name: &str) -> Result<PgConnection, Failure> {
    let mut url = Url::parse(beside)?;
    let mut server = PgConnection::connect(url.as_str()).await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(&mut server)
        .await?;
    if !exists {
        // Never dropped: that would be a checkpoint, and whoever comes next would write whole pages.
        let create = format!("CREATE DATABASE {name} TEMPLATE template0");
        server.execute(AssertSqlSafe(create)).await?;
    }
    server.close().await?;
    url.set_path(name);
    Ok(PgConnection::connect(url.as_str()).await?)
}

/// What a program told at its end, sorted; empty if it tells nothing of the kind.
#[derive(Default)]
struct Latencies {
    claim: Vec<Duration>,
    done: Vec<Duration>,
}

impl Latencies {
    fn read(told: &[String]) -> Result<Self, Failure> {
        let mut latencies = Self::default();
        for line in told {
            let mut words = line.split_whitespace();
            let of = match words.next() {
                Some("claim") => &mut latencies.claim,
                Some("done") => &mut latencies.done,
                _ => return Err(format!("the peer's program says {line:?}").into()),
            };
            let numbers = words.map(|word| word.parse().map(Duration::from_micros));
            *of = numbers.collect::<Result<_, _>>()?;
            of.sort();
        }
        Ok(latencies)
    }
}
