//! What it costs to go on holding, all else at rest: a session, which has one heartbeat whatever it holds, beside a lock per key.
//!
//! Whoever holds does so in a process of its own, so that its memory and its CPU are told from the bench's.

use std::time::{Duration, Instant};

use bmdb::{Bmdb, Config};
use clap::ValueEnum;
use harness::{AgentStart, OwnServer, Proxy, of};
use tokio::process::Command;

use crate::Failure;
use crate::contenders::keys::Keys;
use crate::contenders::running::Running;
use crate::fleet::{Fleet, Size};
use crate::run::{Meters, Outcome, connections};

/// Who holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Holder {
    Session,
    Keys,
}

impl Holder {
    fn name(self) -> &'static str {
        match self {
            Self::Session => "one session",
            Self::Keys => "a lock per key",
        }
    }
}

/// What a turn shows, the statements as its cycles.
struct Turn {
    used: Outcome,
    /// The memory of whoever holds, in KiB, and how much that was before it held anything.
    resident: u64,
    resident_before: u64,
    connections: u64,
    lost: String,
}

/// Prints a table.
pub(crate) async fn compare(held: u32, lasts: Duration, turns: usize, durable: bool) -> Result<(), Failure> {
    let server = OwnServer::for_measurements(durable).await;
    let database = server.database();
    let size = Size {
        machines: held,
        share: 1.0,
    };
    let fleet = Fleet::fill(&database, size).await?;
    // It counts the statements.
    let network = Proxy::to(database.url()).await;
    println!(
        "| held | by | turn | statements/s | server ms/s | client ms/s | WAL B/s | RSS MiB | grown by MiB | connections | lost |"
    );
    println!("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for turn in 1..=turns {
        for holder in Holder::value_variants() {
            let one = measure(*holder, held, lasts, &server, &fleet, &network).await?;
            let a_second = |amount: f64| amount / one.used.took.as_secs_f64();
            let mib = |kib: u64| kib as f64 / 1024.0;
            println!(
                "| {held} | {} | {turn} | {:.1} | {:.2} | {:.2} | {:.0} | {:.1} | {:.1} | {} | {} |",
                holder.name(),
                a_second(one.used.cycles as f64),
                a_second(one.used.server_cpu.as_secs_f64() * 1e3),
                a_second(one.used.client_cpu.as_secs_f64() * 1e3),
                a_second(one.used.wal as f64),
                mib(one.resident),
                mib(one.resident) - mib(one.resident_before),
                one.connections,
                one.lost,
            );
        }
    }
    Ok(())
}

async fn measure(
    holder: Holder,
    held: u32,
    lasts: Duration,
    server: &OwnServer,
    fleet: &Fleet,
    network: &Proxy,
) -> Result<Turn, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    let name = holder.to_possible_value().ok_or("every holder has a name")?;
    command.args(["hold", name.get_name(), &held.to_string(), network.url()]);
    let mut running = Running::start(command)?;
    let process = running.process()?;
    running.says("connected").await?;
    let resident_before = resident(process)?;
    running.tell("hold").await?;
    running.says("holding").await?;
    let before = Meters::read(Some(server), fleet, process).await?;
    let (began, statements) = (Instant::now(), network.round_trips());
    tokio::time::sleep(lasts).await;
    let (took, statements) = (began.elapsed(), network.round_trips() - statements);
    let after = Meters::read(Some(server), fleet, process).await?;
    Ok(Turn {
        used: Outcome {
            cycles: statements,
            took,
            ..Outcome::between(before, after)
        },
        resident: resident(process)?,
        resident_before,
        connections: connections(fleet).await?,
        lost: running.end().await?.concat(),
    })
}

/// The memory that a process has in use, in KiB.
fn resident(process: u32) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(number.ok_or("the system does not tell a process's memory")?.parse()?)
}

/// What the process of a turn does: it holds until its input ends, and then says how many it has lost.
pub(crate) async fn hold(holder: Holder, count: u32, url: &str) -> Result<(), Failure> {
    let lost = match holder {
        Holder::Session => hold_in_a_session(count, url).await?,
        Holder::Keys => hold_keys(count, url).await?,
    };
    println!("{lost}");
    Ok(())
}

async fn hold_in_a_session(count: u32, url: &str) -> Result<usize, Failure> {
    let bmdb = Bmdb::connect(Config::new(url, "bench", bmdb::runtime_info!())).await?;
    let session = bmdb.start_session().await?;
    println!("connected");
    ordered().await?;
    let mut works = Vec::new();
    while works.len() < count as usize {
        let more = session.claim_many(&of::<AgentStart>(&session).await, 100).await?;
        if more.is_empty() {
            return Err(format!("only {} machines could be claimed", works.len()).into());
        }
        works.extend(more);
    }
    println!("holding");
    ordered().await?;
    let lost = if session.lost().is_cancelled() { works.len() } else { 0 };
    session.close().await?;
    drop(works);
    bmdb.close().await;
    Ok(lost)
}

async fn hold_keys(count: u32, url: &str) -> Result<usize, Failure> {
    let keys = Keys::connect(url).await?;
    println!("connected");
    ordered().await?;
    let mut keeps = keys.hold(count).await?;
    println!("holding");
    ordered().await?;
    let mut lost = 0;
    while let Some(ended) = keeps.try_join_next() {
        eprintln!("{}", ended?);
        lost += 1;
    }
    drop(keeps);
    keys.leave().await?;
    Ok(lost)
}

/// Waits for the next line of the input, or its end.
async fn ordered() -> Result<(), Failure> {
    let line = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    line.await??;
    Ok(())
}
