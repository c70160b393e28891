//! A component as a process of its own, for the tests that kill, freeze and end one.
//!
//! `component URL INTERVAL_MS hold` claims a machine and holds it. Told `write` on standard input, it tries to write and ends; a SIGTERM closes
//! its session. `… body` holds a transaction of its work open until told anything. `… rounds SEED ROUNDS FOLDER` claims and ends at random; a
//! file in FOLDER stands for each machine and slot that some process believes to hold. It ends with its standard input. `… effect` and `… effect-alone`
//! do something outside the database, step by step, the second on a runtime of one thread.

use std::error::Error as StdError;
use std::fmt::Debug;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bmdb::{Bmdb, Config, Error, Process, Session, Unfinished, Work, agent_heartbeat, agent_started};
use harness::{AgentStart, Rivet, Survey, Weld};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

type Told = mpsc::UnboundedReceiver<String>;

fn main() -> Result<(), Box<dyn StdError>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut runtime = match arguments.get(2).map(String::as_str) {
        Some("effect-alone") => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    runtime
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run(&arguments))
}

async fn run(arguments: &[String]) -> Result<(), Box<dyn StdError>> {
    let [url, interval, task, rest @ ..] = arguments else {
        return Err("usage: component URL INTERVAL_MS hold|body|rounds ..".into());
    };
    let config = Config::new(url, "component", bmdb::runtime_info!());
    let config = config.interval(Duration::from_millis(interval.parse()?));
    let bmdb = Bmdb::connect(config).await?;
    let session = bmdb.start_session().await?;
    let mut tellers = JoinSet::new();
    tellers.spawn({
        let lost = session.lost();
        async move {
            lost.cancelled().await;
            println!("lost");
        }
    });
    match (task.as_str(), rest) {
        ("hold", []) => hold(session, told()).await,
        ("body", []) => body(session, told()).await,
        ("effect" | "effect-alone", []) => effect(&session, told()).await,
        ("rounds", [seed, rounds, folder]) => {
            rounds_of(&session, seed.parse()?, rounds.parse()?, Path::new(folder)).await?;
            session.close().await?;
            println!("done");
            Ok(())
        }
        _ => Err("a task is one of hold, body, effect, effect-alone, rounds SEED ROUNDS FOLDER".into()),
    }
}

/// The lines of standard input.
fn told() -> Told {
    let (teller, told) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if teller.send(line).is_err() {
                return;
            }
        }
    });
    told
}

async fn claimed<P: Process + Default>(session: &Session) -> Result<Work<P>, Error> {
    let process = session.bmdb().register(P::default()).await?;
    loop {
        if let Some(work) = session.claim(&process).await? {
            println!("claimed {} {} {}", work.machine(), work.fence(), work.id());
            return Ok(work);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn say<T, E: Debug>(what: &str, outcome: Result<T, E>) {
    match outcome {
        Ok(_) => println!("wrote {what}"),
        Err(error) => println!("refused {what} {error:?}"),
    }
}

async fn hold(session: Session, mut told: Told) -> Result<(), Box<dyn StdError>> {
    let mut terminated = signal(SignalKind::terminate())?;
    let work = claimed::<AgentStart>(&session).await?;
    tokio::select! {
        _ = terminated.recv() => {
            session.close().await?;
            println!("closed");
            return Ok(());
        }
        line = told.recv() => if line.is_none() { return Ok(()) },
    }
    let machine = work.machine();
    let late = async |tx: &bmdb::Tx| agent_started::set(tx, machine, *b"late").await;
    say("work.transact", work.transact(late).await);
    let outcome = session
        .transact(async |tx| agent_heartbeat::set(tx, machine).await)
        .await;
    say("session.transact", outcome);
    say("work.progress", work.progress(&"late").await);
    say("work.finish", work.finish(late).await);
    told.recv().await;
    Ok(())
}

async fn body(session: Session, told: Told) -> Result<(), Box<dyn StdError>> {
    let work = claimed::<AgentStart>(&session).await?;
    let machine = work.machine();
    let told = Mutex::new(told);
    let outcome = work
        .transact(async |tx| {
            agent_started::set(tx, machine, *b"late").await?;
            println!("inside");
            told.lock().await.recv().await;
            agent_heartbeat::set(tx, machine).await
        })
        .await;
    say("work.transact", outcome);
    told.lock().await.recv().await;
    Ok(())
}

/// A signal that stops the process just between the look at the clock and the step has that step run on afterwards, as nobody can prevent. That some ten
/// microseconds are met by chance is as rare as steps are.
const BETWEEN_STEPS: Duration = Duration::from_millis(100);

async fn effect(session: &Session, mut told: Told) -> Result<(), Box<dyn StdError>> {
    let work = claimed::<Survey>(session).await?;
    let mut steps = 0_u64;
    let endless: Result<(), Error> = work
        .guarded(Duration::ZERO, async {
            loop {
                steps += 1;
                if session.trust_left().is_zero() {
                    println!("violation step {steps} without trust");
                }
                tokio::time::sleep(BETWEEN_STEPS).await;
            }
        })
        .await;
    say("effect", endless);
    told.recv().await;
    Ok(())
}

async fn rounds_of(session: &Session, seed: u64, rounds: u32, folder: &Path) -> Result<(), Box<dyn StdError>> {
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..rounds {
        match random.u8(0..3) {
            0 => round::<Weld>(session, &mut random, folder).await?,
            1 => round::<Rivet>(session, &mut random, folder).await?,
            _ => round::<Survey>(session, &mut random, folder).await?,
        }
    }
    Ok(())
}

async fn round<P: Process + Default>(
    session: &Session,
    random: &mut fastrand::Rng,
    folder: &Path,
) -> Result<(), Box<dyn StdError>> {
    let work = claimed::<P>(session).await?;
    let (machine, fence) = (work.machine(), work.fence());
    let witness: PathBuf = folder.join(format!("{machine}.{}", P::SLOT));
    if File::create_new(&witness).is_err() {
        println!("violation two processes hold {machine} {}", P::SLOT);
    }
    tokio::time::sleep(Duration::from_micros(random.u64(0..1000))).await;
    // From the end on another may hold it, before we are told.
    fs::remove_file(&witness)?;
    let (event, outcome): (&str, Result<(), Unfinished<P>>) = match random.u8(0..100) {
        0..50 => (
            "finished",
            work.finish(async |tx| agent_heartbeat::set(tx, machine).await).await,
        ),
        50..53 => ("failed", work.fail("a test's failure").await),
        53..90 => ("canceled", work.cancel().await),
        _ => {
            drop(work);
            ("canceled", Ok(()))
        }
    };
    outcome?;
    println!("ended {machine} {fence} {event}");
    Ok(())
}
