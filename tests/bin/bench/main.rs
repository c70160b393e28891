//! How fast machines are claimed and finished, side by side with what could at best be reached and with what the original does.
//!
//! `cargo run --release -p bmdb-tests --bin bench`. Every contender runs on the same server, the same fleet and in the same run, taking turns;
//! what counts are the ratios. With `--peers`, systems that others use for something like it take turns too. Every run checks that no machine is held twice and that no finished work is done again.

mod contender;
mod contenders;
mod costs;
mod fleet;
mod results;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use harness::{OwnServer, Proxy, TestDatabase};

use contender::Kind;
use contenders::install::Programs;
use contenders::peers::Peers;
use costs::heartbeats::Heartbeats;
use costs::holding::Holder;
use fleet::{Fleet, Size};
use results::report::{Line, Report};
use run::Run;

#[derive(Parser)]
#[command(name = "bench", disable_help_subcommand = true)]
struct Cli {
    /// Where: `postgres`, which starts a server of its own, or `sqlite`.
    #[arg(long, default_value = "postgres")]
    database: String,
    /// Numbers of machines and the share of them that is eligible, such as 1000:0.1.
    #[arg(long, value_delimiter = ',', default_value = "1000:0.1,100000:0.01,1000000:0.01")]
    fleets: Vec<Size>,
    /// How many workers claim at once.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16,64")]
    workers: Vec<usize>,
    /// Who takes part; all but the peers if none is named.
    #[arg(long, value_delimiter = ',', value_enum)]
    contenders: Vec<Kind>,
    /// Whether all peers take part too. They are installed first, from npm and crates.io.
    #[arg(long)]
    peers: bool,
    /// How often each contender has its turn.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// For how many seconds each turn lasts.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Whether a commit waits for the disk (PostgreSQL's synchronous_commit, SQLite's synchronous).
    #[arg(long)]
    durable: bool,
    /// Milliseconds that the network adds to each round trip.
    #[arg(long, default_value_t = 0)]
    rtt: u64,
    /// Whoever makes machines eligible does not hint at them (`machine::hint`), so that searches must find them.
    #[arg(long)]
    no_hints: bool,
    /// Instead: what it costs to hold this many, of one session and of a lock per key.
    #[arg(long)]
    holding: Option<u32>,
    /// Instead: what it costs to keep this many sessions alive.
    #[arg(long)]
    heartbeats: Option<u32>,
    /// For how many seconds one of their heartbeats lasts.
    #[arg(long, default_value_t = 10.0)]
    interval: f64,
    /// Instead: how fast machines are imported and dead sessions are expired.
    #[arg(long)]
    rates: bool,
    /// A folder for results.csv and the plots.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(subcommand)]
    alone: Option<Alone>,
}

/// What the bench has itself do in a process of its own.
#[derive(Subcommand)]
enum Alone {
    /// Holds so many, until its input ends.
    #[command(hide = true)]
    Hold { holder: Holder, count: u32, url: String },
}

impl Cli {
    fn contenders(&self, on_sqlite: bool) -> Result<Vec<Kind>, Failure> {
        let takes_part = |kind: &Kind| {
            let by_default = if kind.is_peer() {
                self.peers
            } else if kind.rules().is_some() {
                false
            } else {
                self.contenders.is_empty()
            };
            by_default || self.contenders.contains(kind)
        };
        let mut contenders: Vec<Kind> = Kind::all().filter(takes_part).collect();
        if on_sqlite {
            if contenders.iter().any(|kind| kind.is_peer()) {
                return Err("the peers run on PostgreSQL only".into());
            }
            contenders.retain(|kind| kind.runs_on_sqlite());
        }
        if self.no_hints {
            // It never searches.
            contenders.retain(|kind| *kind != Kind::Loop);
        }
        Ok(contenders)
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    match bench(&Cli::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn bench(cli: &Cli) -> Result<bool, Failure> {
    if let Some(Alone::Hold { holder, count, url }) = &cli.alone {
        costs::holding::hold(*holder, *count, url).await?;
        return Ok(true);
    }
    if let Some(held) = cli.holding {
        costs::holding::compare(held, Duration::from_secs_f64(cli.seconds), cli.turns, cli.durable).await?;
        return Ok(true);
    }
    if let Some(sessions) = cli.heartbeats {
        let heartbeats = Heartbeats {
            sessions,
            interval: Duration::from_secs_f64(cli.interval),
            lasts: Duration::from_secs_f64(cli.seconds),
            server: &OwnServer::for_measurements(cli.durable).await,
        };
        return costs::heartbeats::compare(heartbeats, cli.turns).await;
    }
    let on_sqlite = match cli.database.as_str() {
        "postgres" => false,
        "sqlite" => true,
        other => return Err(format!("--database is postgres or sqlite, not {other}").into()),
    };
    if cli.rates {
        let own;
        let server = if on_sqlite {
            None
        } else {
            own = OwnServer::for_measurements(cli.durable).await;
            Some(&own)
        };
        costs::rates::compare(server, cli.turns, cli.durable).await?;
        return Ok(true);
    }
    let contenders = cli.contenders(on_sqlite)?;
    let programs = contenders
        .iter()
        .filter_map(|kind| kind.peer())
        .map(|peer| peer.program);
    let programs = Programs::install(&programs.collect())?;
    let mut report = Report::default();
    for size in &cli.fleets {
        let own;
        let (database, server) = if on_sqlite {
            (TestDatabase::sqlite_for_measurements(cli.durable).await, None)
        } else {
            own = OwnServer::for_measurements(cli.durable).await;
            (own.database(), Some(&own))
        };
        let network = match cli.rtt {
            0 => None,
            milliseconds => Some(delayed(&database, milliseconds).await),
        };
        let url = network
            .as_ref()
            .map_or(database.url(), |network| network.url())
            .to_owned();
        eprintln!("{size}: filling the database");
        let fleet = Arc::new(Fleet::fill(&database, *size).await?);
        let peers = Peers::new(&programs);
        for workers in &cli.workers {
            for turn in 1..=cli.turns {
                for kind in &contenders {
                    let run = Run {
                        kind: *kind,
                        url: &url,
                        workers: *workers,
                        hints: !cli.no_hints,
                        lasts: Duration::from_secs_f64(cli.seconds),
                        server,
                        fleet: &fleet,
                        peers: &peers,
                    };
                    let outcome = run.measure().await?;
                    let line = Line::new(*size, *workers, *kind, turn, outcome);
                    eprintln!("{line}");
                    report.add(line);
                }
            }
        }
    }
    println!("{report}");
    if let Some(folder) = &cli.out {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("results.csv"), report.csv())?;
        results::plot::write_all(&report, folder)?;
    }
    Ok(report.is_clean())
}

/// A network that takes its time.
async fn delayed(database: &TestDatabase, milliseconds: u64) -> Proxy {
    let network = Proxy::to(database.url()).await;
    network.decide(move |_| harness::Fate::Delay(Duration::from_millis(milliseconds)));
    network
}
