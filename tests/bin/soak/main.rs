//! Hours of everything that can go wrong, at once: components as processes, each behind a network of its own, killed, frozen, cut off, told lies.
//!
//! `cargo run -p bmdb-tests --bin soak -- --minutes 1`. Every component says what it was told; at the end their words are joined with the
//! database's history. The exit status is 0 only if nothing was wrong.

mod component;
mod deeds;
mod fleet;
mod ledger;
mod network;

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bmdb::{Bmdb, CancellationToken, Error, MachineId, machine};
use bmdb_entity::work_history::Event;
use clap::{Parser, ValueEnum};
use harness::{Backend, Proxy, Snapshot, TestDatabase};
use sea_orm::{ConnectionTrait, DatabaseConnection, EntityTrait, PaginatorTrait};
use tokio::task::JoinSet;

use deeds::{DEEDS, Deed, break_one, lock_file, make_odd, tamper_with_one};
use fleet::Fleet;
use ledger::Ledger;
use network::{Tally, disturb, wait};

#[derive(Parser)]
#[command(name = "soak")]
struct Cli {
    /// How long faults are injected.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// How many component processes run at once.
    #[arg(long, default_value_t = 6)]
    components: usize,
    /// How many machines they work on.
    #[arg(long, default_value_t = 24)]
    machines: usize,
    #[arg(long, value_enum, default_value_t = Faults::All)]
    faults: Faults,
    /// An empty database: postgres://USER@HOST:PORT/DATABASE or sqlite://FILE?mode=rwc. `postgres` and `sqlite` make one for the occasion.
    #[arg(long, default_value = "postgres")]
    database: String,
    /// What decides the order of things; a random one if none is given.
    #[arg(long)]
    seed: Option<u64>,
    /// The sessions' interval in milliseconds.
    #[arg(long, default_value_t = 2000)]
    interval: u64,
    /// How many faults a second the networks inject, all together.
    #[arg(long, default_value_t = 12.0)]
    rate: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Faults {
    /// Networks, COMMITs, connections, processes, operators.
    All,
    /// Nothing is disturbed.
    None,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, url, name, interval, seed] = arguments.as_slice()
        && word == "component"
    {
        let interval = Duration::from_millis(interval.parse().expect("we wrote a number"));
        component::run(url, name, interval, seed.parse().expect("we wrote a number")).await;
        return ExitCode::SUCCESS;
    }
    match soak(&Cli::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprintln!("  {error}");
                source = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// So many machines more than are asked for cannot be read by who claims for a survey.
const ODD: usize = 2;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs it all; whether nothing was wrong.
async fn soak(cli: &Cli) -> Result<bool, Failure> {
    let seed = cli.seed.unwrap_or_else(|| fastrand::u64(0..1_000_000));
    let interval = Duration::from_millis(cli.interval);
    println!("soak: seed {seed}");
    let own;
    let url = match cli.database.as_str() {
        "postgres" | "sqlite" => {
            let backend = if cli.database == "sqlite" {
                Backend::Sqlite
            } else {
                Backend::Postgres
            };
            own = TestDatabase::migrated(backend).await;
            own.url()
        }
        url => {
            bmdb_migration::up(url, None).await?;
            url
        }
    };
    let sqlite = url.starts_with("sqlite:");
    let bmdb = Bmdb::connect(component::config(url, "soak", interval)).await?;
    let machines = provide(&bmdb, cli.machines + ODD).await?;
    let raw = sea_orm::Database::connect(sea_orm::ConnectOptions::new(url).sqlx_logging(false).to_owned()).await?;
    let odd = if cli.faults == Faults::All {
        &machines[cli.machines..]
    } else {
        &[]
    };
    make_odd(&raw, odd).await?;
    // One that is never disturbed, so that take-overs have a bound.
    let over = CancellationToken::new();
    let collecting = JoinSet::from_iter([bmdb.collector().run(over.clone())]);

    let mut proxies = Vec::new();
    let mut urls = Vec::new();
    for _ in 0..cli.components {
        if sqlite {
            urls.push(url.to_owned());
        } else {
            let proxy = Proxy::to(url).await;
            urls.push(proxy.url().to_owned());
            proxies.push(proxy);
        }
    }
    let tally = Arc::new(Mutex::new(Tally::default()));
    let mut soak = Soak {
        fleet: Fleet::start(urls, interval, seed),
        ledger: Ledger::of(odd),
        random: fastrand::Rng::with_seed(seed),
        bmdb,
        raw,
        proxies,
        tally,
        interval,
        sqlite,
        began: Instant::now(),
        disturbed: Duration::ZERO,
        waiting: JoinSet::new(),
    };
    let time = Duration::from_secs_f64(cli.minutes * 60.0);
    soak.run(cli, seed, time).await;
    let converged = soak.calm_down().await;
    over.cancel();
    collecting.join_all().await;
    soak.report(converged, seed).await
}

async fn provide(bmdb: &Bmdb, machines: usize) -> Result<Vec<MachineId>, Error> {
    let session = bmdb.start_session().await?;
    let provide = async |tx: &bmdb::Tx| {
        let mut provided = Vec::new();
        for nth in 0..machines {
            let new = machine::NewMachine::new("soak", format!("m{nth}"));
            provided.push(machine::provide(tx, new).await?);
        }
        Ok::<_, Error>(provided)
    };
    let provided = session.transact(provide).await?;
    session.close().await?;
    Ok(provided)
}

struct Soak {
    fleet: Fleet,
    ledger: Ledger,
    random: fastrand::Rng,
    bmdb: Bmdb,
    raw: DatabaseConnection,
    proxies: Vec<Proxy>,
    tally: Arc<Mutex<Tally>>,
    interval: Duration,
    sqlite: bool,
    began: Instant,
    /// For how long there were faults.
    disturbed: Duration,
    /// The faults that are done through the database. A frozen process may keep them waiting, and must wake all the same.
    waiting: JoinSet<()>,
}

impl Soak {
    async fn run(&mut self, cli: &Cli, seed: u64, time: Duration) {
        let disturbed = cli.faults == Faults::All;
        if disturbed {
            let every = Duration::from_secs_f64(cli.components as f64 / cli.rate);
            for (nth, proxy) in self.proxies.iter().enumerate() {
                disturb(proxy, seed + 1000 + nth as u64, every, Arc::clone(&self.tally));
            }
        }
        let mut due = DEEDS.map(|(_, mean)| Instant::now() + wait(&mut self.random, mean));
        let mut shown = Instant::now();
        while self.began.elapsed() < time {
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.fleet.listen(&mut self.ledger);
            self.fleet.wake(Instant::now());
            for (due, (deed, mean)) in std::iter::zip(&mut due, DEEDS) {
                if disturbed && *due <= Instant::now() {
                    *due = Instant::now() + wait(&mut self.random, mean);
                    self.commit(deed);
                }
            }
            let pause = if std::io::stdout().is_terminal() { 1 } else { 30 };
            if shown.elapsed() > Duration::from_secs(pause) {
                shown = Instant::now();
                self.show();
            }
        }
    }

    fn commit(&mut self, deed: Deed) {
        let place = self.random.usize(..self.fleet.len());
        let name = match (deed, self.proxies.get(place)) {
            (Deed::Kill, _) => {
                self.fleet.kill(place);
                "process killed"
            }
            (Deed::Freeze, _) => {
                let time = self.interval.mul_f64(0.2 + 2.0 * self.random.f64());
                self.fleet.freeze(place, time, &mut self.ledger);
                "process frozen"
            }
            (Deed::Cut, Some(proxy)) => {
                proxy.cut();
                "network cut"
            }
            (Deed::Cut | Deed::EndBackend, None) => {
                let time = Duration::from_millis(self.random.u64(10..400));
                self.waiting.spawn(lock_file(self.raw.clone(), time));
                "file locked"
            }
            (Deed::EndBackend, Some(_)) => {
                const END: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                     AND pid <> pg_backend_pid() AND application_name LIKE 'bmdb soak-%' ORDER BY random() LIMIT 1";
                let raw = self.raw.clone();
                self.waiting.spawn(async move {
                    if let Err(error) = raw.execute_unprepared(END).await {
                        eprintln!("soak: a backend was not ended: {error}");
                    }
                });
                "backend ended"
            }
            (Deed::Break, _) => {
                let chosen = self.random.f64();
                self.waiting
                    .spawn(break_one(self.bmdb.clone(), self.raw.clone(), chosen));
                "session broken"
            }
            (Deed::Tamper, _) => {
                let chosen = self.random.f64();
                self.waiting
                    .spawn(tamper_with_one(self.raw.clone(), self.interval, chosen));
                "deadline tampered with"
            }
        };
        self.tally
            .lock()
            .expect("nothing panics while it holds this lock")
            .count(name);
    }

    fn show(&self) {
        let tally = self
            .tally
            .lock()
            .expect("nothing panics while it holds this lock")
            .clone();
        let line = format!(
            "{:>5} s  {} operations  {} faults  {} ambiguous commits  {} kills  {} sessions lost  {} wrong",
            self.began.elapsed().as_secs(),
            self.ledger.operations,
            tally.all(),
            tally.ambiguous,
            self.fleet.kills.len(),
            self.ledger.sessions_lost,
            self.ledger.wrong.len(),
        );
        if std::io::stdout().is_terminal() {
            print!("\r{line}\x1b[K");
        } else {
            println!("{line}");
        }
        if let Err(error) = std::io::stdout().flush() {
            eprintln!("soak: {error}");
        }
    }

    /// The faults stop. Then the components must work on, and after their end everything they held must come free.
    async fn calm_down(&mut self) -> bool {
        self.disturbed = self.began.elapsed();
        for proxy in &self.proxies {
            proxy.calm();
            // What is half-open would stay so: a fault that has not stopped.
            proxy.cut();
        }
        self.fleet.wake(Instant::now() + Duration::from_secs(3600));
        std::mem::take(&mut self.waiting).join_all().await;
        tokio::time::sleep(2 * self.interval).await;
        self.fleet.listen(&mut self.ledger);
        let before = self.ledger.claims();
        tokio::time::sleep(2 * self.interval).await;
        self.fleet.listen(&mut self.ledger);
        if self.ledger.claims() == before {
            self.ledger
                .wrong
                .push("nothing was claimed after the faults had stopped".to_owned());
        }
        self.fleet.end(&mut self.ledger);
        let limit = Instant::now() + self.bound() + Duration::from_secs(5);
        loop {
            let works = bmdb_entity::work::Entity::find().count(&self.raw).await;
            let sessions = bmdb_entity::session::Entity::find().count(&self.raw).await;
            if let (Ok(0), Ok(0)) = (works, sessions) {
                return true;
            }
            if Instant::now() > limit {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How long after its holder's end a machine may be held: the interval, two sweeps of the collector, one interval more when it brakes, and a
    /// statement's limit when it must wait for a transaction on a dead connection.
    fn bound(&self) -> Duration {
        self.interval * 2 + self.interval / 4 * 2 + self.interval / 4
    }

    /// How much of this time a frozen process may have kept everybody from writing, as a writer of SQLite does; it then also costs the living
    /// their sessions, for which the collector brakes once more.
    fn stalled(&self, from: u128, to: u128) -> Duration {
        if !self.sqlite {
            return Duration::ZERO;
        }
        let overlap =
            |(start, end): &(u128, u128)| (*end.min(&to)).checked_sub(*start.max(&from)).filter(|time| *time > 0);
        let stalls = self.fleet.freezes.iter().filter_map(overlap);
        let stalled = |time| Duration::from_millis(u64::try_from(time).unwrap_or(u64::MAX)) + self.interval;
        stalls.map(stalled).sum()
    }

    async fn report(mut self, converged: bool, seed: u64) -> Result<bool, Failure> {
        let snapshot = Snapshot::of(&self.raw).await;
        let tally = self
            .tally
            .lock()
            .expect("nothing panics while it holds this lock")
            .clone();
        let (take_overs, worst) = self.take_overs(&snapshot);
        let mut wrong = self.ledger.check(&snapshot);
        if !converged {
            wrong.push("the dead still hold works or sessions".to_owned());
        }
        // One second for what a busy machine adds.
        if worst > self.bound() + Duration::from_secs(1) {
            wrong.push(format!("a take-over took {worst:?}"));
        }
        let seconds = self.disturbed.as_secs_f64();
        println!();
        println!("backend          {}", if self.sqlite { "SQLite" } else { "PostgreSQL" });
        println!("time             {seconds:.0} s of faults");
        println!("operations       {}", self.ledger.operations);
        println!("history rows     {}", snapshot.history.len());
        println!(
            "faults           {} ({:.1} a second)",
            tally.all(),
            tally.all() as f64 / seconds
        );
        for (kind, times) in &tally.by_kind {
            println!("  {times:>6}  {kind}");
        }
        println!("errors told      {}", self.ledger.errors.values().sum::<u64>());
        for (kind, times) in &self.ledger.errors {
            println!("  {times:>6}  {kind}");
        }
        let unknown = self.ledger.unknown;
        println!(
            "ambiguous        {} commits; {unknown} answers left open, all closed by history",
            tally.ambiguous
        );
        println!("given up         {} calls", self.ledger.given_up);
        println!(
            "unread machines  {} claims have failed, {} panics of the driver were caught",
            self.ledger.unread(&snapshot),
            self.ledger.driver_panics
        );
        println!("sessions lost    {}", self.ledger.sessions_lost);
        println!(
            "late effects     {} refused by their fence",
            self.ledger.late_effects_refused
        );
        println!("kills            {}", self.fleet.kills.len());
        println!(
            "take-overs       {take_overs}, the longest {:.2} s of at most {:.2} s",
            worst.as_secs_f64(),
            self.bound().as_secs_f64()
        );
        println!("violations       {}", wrong.len());
        for what in wrong.iter().take(20) {
            println!("  {what}");
        }
        println!("seed             {seed}");
        self.bmdb.close().await;
        Ok(wrong.is_empty())
    }

    /// How many works of killed processes were expired, and the longest time from a kill to that, less what frozen writers of SQLite cost.
    fn take_overs(&mut self, snapshot: &Snapshot) -> (usize, Duration) {
        let expired: HashMap<_, _> = snapshot
            .history
            .iter()
            .filter(|row| row.event == Event::Expired)
            .map(|row| (row.work_id, row.at.timestamp_millis()))
            .collect();
        let (mut count, mut worst) = (0, Duration::ZERO);
        for (process, killed) in &self.fleet.kills {
            for work in self.ledger.held_by(*process) {
                let at = expired.get(&work).and_then(|at| u128::try_from(*at).ok());
                // Expired before the kill: it had been frozen, or broken.
                if let Some((at, took)) = at.and_then(|at| Some((at, at.checked_sub(*killed)?))) {
                    count += 1;
                    let took = Duration::from_millis(u64::try_from(took).unwrap_or(u64::MAX));
                    worst = worst.max(took.saturating_sub(self.stalled(*killed, at)));
                }
            }
        }
        (count, worst)
    }
}
