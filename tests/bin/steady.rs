//! A component that claims and ends without pause while its database is taken away from it, and says for how long it had none.
//!
//! `steady URL INTERVAL_MS`. Each line of standard input is the name of what happens next; at the next line, it says what came of the last:
//! how many claims and ends were acknowledged, and the longest time without one. When standard input ends it waits for an acknowledgement and
//! compares what it was told with the database's history; the exit status is 0 only if nothing that was acknowledged is missing there.

use std::collections::{BTreeMap, HashSet};
use std::error::Error as StdError;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bmdb::{Bmdb, CancellationToken, Config, Error, Fence, MachineId, Session, WorkId, agent_heartbeat, machine};
use bmdb_entity::work_history::Event;
use harness::{Snapshot, Survey};
use sea_orm::EntityTrait;
use tokio::task::JoinSet;

const MACHINES: usize = 64;
const TASKS: usize = 8;

/// One word of the database's that it must keep.
type Word = (MachineId, Fence, Event, WorkId);

/// What has happened since the last line of standard input.
struct Phase {
    name: String,
    began: Instant,
    acknowledged: Option<Instant>,
    words: u64,
    longest: Duration,
    errors: BTreeMap<String, u64>,
    sessions: u64,
}

impl Phase {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            began: Instant::now(),
            acknowledged: None,
            words: 0,
            longest: Duration::ZERO,
            errors: BTreeMap::new(),
            sessions: 0,
        }
    }

    fn acknowledge(&mut self) {
        let now = Instant::now();
        let since = self.acknowledged.unwrap_or(self.began);
        self.longest = self.longest.max(now - since);
        self.acknowledged = Some(now);
        self.words += 1;
    }

    fn report(&self) {
        println!(
            "{}: {:.1} s, {} acknowledged, longest without {:.1} s, {} sessions begun, errors {:?}",
            self.name,
            self.began.elapsed().as_secs_f64(),
            self.words,
            self.longest.as_secs_f64(),
            self.sessions,
            self.errors,
        );
    }
}

struct Log {
    phase: Phase,
    words: HashSet<Word>,
}

type Shared = Arc<Mutex<Log>>;

fn with<T>(log: &Shared, change: impl FnOnce(&mut Log) -> T) -> T {
    change(&mut log.lock().expect("BUG: nothing panics while it holds this lock"))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, interval] = arguments.as_slice() else {
        eprintln!("usage: steady URL INTERVAL_MS");
        return ExitCode::from(2);
    };
    match run(url, interval).await {
        Ok(missing) => {
            missing.iter().for_each(|missing| println!("VIOLATION {missing}"));
            ExitCode::from(u8::from(!missing.is_empty()))
        }
        Err(error) => fail(&*error),
    }
}

fn fail(error: &dyn StdError) -> ExitCode {
    let mut error = Some(error);
    while let Some(one) = error {
        eprintln!("steady: {one}");
        error = one.source();
    }
    ExitCode::FAILURE
}

/// What is wrong at the end.
async fn run(url: &str, interval: &str) -> Result<Vec<String>, Box<dyn StdError>> {
    let interval = Duration::from_millis(interval.parse()?);
    let bmdb = Bmdb::connect(Config::new(url, "steady", bmdb::runtime_info!()).interval(interval)).await?;
    let session = bmdb.start_session().await?;
    let provide = async |tx: &bmdb::Tx| {
        for nth in 0..MACHINES {
            let new = machine::NewMachine::new("steady", format!("m{nth}"));
            machine::provide(tx, new).await?;
        }
        Ok::<_, Error>(())
    };
    session.transact(provide).await?;
    session.close().await?;

    let log = Arc::new(Mutex::new(Log {
        phase: Phase::new("start"),
        words: HashSet::new(),
    }));
    let over = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(bmdb.collector().run(over.clone()));
    tasks.spawn(live(bmdb.clone(), Arc::clone(&log), over.clone()));
    let heard = Arc::clone(&log);
    tokio::task::spawn_blocking(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            with(&heard, |log| {
                log.phase.report();
                log.phase = Phase::new(&line);
            });
        }
    })
    .await?;
    let begun = Instant::now();
    while with(&log, |log| log.phase.words == 0) && begun.elapsed() < Duration::from_secs(120) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    with(&log, |log| log.phase.report());
    over.cancel();
    tasks.join_all().await;
    bmdb.close().await;
    let options = sea_orm::ConnectOptions::new(url).sqlx_logging(false).to_owned();
    let raw = sea_orm::Database::connect(options).await?;
    let found = Snapshot::of(&raw).await;
    let mut missing = found.violations();
    let history: HashSet<Word> = found
        .history
        .into_iter()
        .map(|row| (row.machine_id, row.fence, row.event, row.work_id))
        .collect();
    let acknowledged = with(&log, |log| std::mem::take(&mut log.words));
    println!("all: {} acknowledged, {} in history", acknowledged.len(), history.len());
    missing.extend(
        acknowledged
            .difference(&history)
            .map(|word| format!("it was acknowledged and is gone: {word:?}")),
    );
    if !machine::Entity::find().all(&raw).await?.len().eq(&MACHINES) {
        missing.push("machines are gone".to_owned());
    }
    Ok(missing)
}

/// One session after the other.
async fn live(bmdb: Bmdb, log: Shared, over: CancellationToken) {
    while !over.is_cancelled() {
        let session = match bmdb.start_session().await {
            Ok(session) => session,
            Err(error) => {
                note(&log, &error);
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        with(&log, |log| log.phase.sessions += 1);
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            tasks.spawn(rounds(session.clone(), Arc::clone(&log), over.clone()));
        }
        tasks.join_all().await;
        if let Err(error) = session.close().await {
            note(&log, &error);
        }
    }
}

async fn rounds(session: Session, log: Shared, over: CancellationToken) {
    while !over.is_cancelled() && !session.lost().is_cancelled() {
        if let Err(error) = round(&session, &log).await {
            note(&log, &error);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn round(session: &Session, log: &Shared) -> Result<(), Error> {
    let process = session.bmdb().register(Survey).await?;
    let Some(work) = session.claim(&process).await? else {
        tokio::time::sleep(Duration::from_millis(20)).await;
        return Ok(());
    };
    let (machine, fence, id) = (work.machine(), work.fence(), work.id());
    let keep = |event| {
        with(log, |log| {
            log.words.insert((machine, fence, event, id));
            log.phase.acknowledge();
        });
    };
    keep(Event::Started);
    tokio::time::sleep(Duration::from_millis(5)).await;
    work.done().stating(agent_heartbeat::row()).await?;
    keep(Event::Finished);
    Ok(())
}

/// What kind of error it was, in one word.
fn note(log: &Shared, error: &Error) {
    let text = format!("{error:?}");
    let word = text.chars().take_while(char::is_ascii_alphanumeric).collect();
    with(log, |log| *log.phase.errors.entry(word).or_default() += 1);
}
