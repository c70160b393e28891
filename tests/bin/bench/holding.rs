//! What it costs to go on holding, all else at rest: a session, which has one heartbeat whatever it holds, beside a lock per key.

use std::time::{Duration, Instant};

use bmdb::{Bmdb, Config};
use harness::{AgentStart, OwnServer, Proxy};

use crate::Failure;
use crate::fleet::{Fleet, Size};
use crate::keys::Keys;
use crate::run::{Meters, Outcome};

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
    let idle = async || {
        let before = Meters::read(Some(&server), &fleet, std::process::id()).await?;
        let (began, statements) = (Instant::now(), network.round_trips());
        tokio::time::sleep(lasts).await;
        let statements = network.round_trips() - statements;
        let after = Meters::read(Some(&server), &fleet, std::process::id()).await?;
        Ok::<_, Failure>(Outcome {
            cycles: statements,
            took: began.elapsed(),
            ..Outcome::between(before, after)
        })
    };
    println!("| held | by | turn | statements/s | server ms/s | client ms/s | WAL B/s | lost |");
    println!("|---:|---|---:|---:|---:|---:|---:|---:|");
    let tell = |by: &str, turn: usize, outcome: &Outcome, lost: usize| {
        let a_second = |amount: f64| amount / outcome.took.as_secs_f64();
        println!(
            "| {held} | {by} | {turn} | {:.1} | {:.2} | {:.2} | {:.0} | {lost} |",
            a_second(outcome.cycles as f64),
            a_second(outcome.server_cpu.as_secs_f64() * 1e3),
            a_second(outcome.client_cpu.as_secs_f64() * 1e3),
            a_second(outcome.wal as f64),
        );
    };
    for turn in 1..=turns {
        let bmdb = Bmdb::connect(Config::new(network.url(), "bench", bmdb::runtime_info!())).await?;
        let session = bmdb.start_session().await?;
        let mut works = Vec::new();
        while works.len() < held as usize {
            let more = session.claim_many::<AgentStart>(100).await?;
            if more.is_empty() {
                return Err(format!("only {} machines could be claimed", works.len()).into());
            }
            works.extend(more);
        }
        let outcome = idle().await?;
        let lost = if session.lost().is_cancelled() { works.len() } else { 0 };
        tell("one session", turn, &outcome, lost);
        session.close().await?;
        drop(works);
        bmdb.close().await;

        let keys = Keys::connect(network.url()).await?;
        let mut keeps = keys.hold(held).await?;
        let outcome = idle().await?;
        let mut lost = 0;
        while let Some(ended) = keeps.try_join_next() {
            eprintln!("{}", ended?);
            lost += 1;
        }
        tell("a lock per key", turn, &outcome, lost);
        drop(keeps);
        keys.leave().await?;
    }
    Ok(())
}
