//! One component of a soak: a process that claims, works, ends, and says on standard output what it was told. It is killed, not stopped.

use std::future::IntoFuture;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bmdb::{Bmdb, CancellationToken, Config, Error, Process, Registered, Session, Unfinished, Work, agent_heartbeat};
use bmdb_entity::work_history::Event;
use harness::{Rivet, Survey, Weld};
use tokio::task::JoinSet;

/// How the components of a soak connect: impatient, so that much happens in little time.
pub(crate) fn config(url: &str, name: &str, interval: Duration) -> Config {
    Config::new(url, name, bmdb::runtime_info!())
        .interval(interval)
        .statement_timeout(interval / 4)
        .acquire_timeout(interval / 2)
        .retry_budget(interval * 2)
        .max_connections(4)
}

const TASKS: u64 = 4;

/// Runs until it is killed, or standard input ends.
pub(crate) async fn run(url: &str, name: &str, interval: Duration, seed: u64) {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or("nowhere", |location| location.file());
        say(&format!("panic {}", place.replace(' ', "_")));
    }));
    let mut lives = JoinSet::new();
    let (url, name) = (url.to_owned(), name.to_owned());
    lives.spawn(async move {
        loop {
            if let Err(error) = live(&url, &name, interval, seed).await {
                say(&format!("error {}", word_of(&error)));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut line = String::new();
    let ended = tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line));
    drop(ended.await);
    std::process::exit(0);
}

/// One session, until it is lost.
async fn live(url: &str, name: &str, interval: Duration, seed: u64) -> Result<(), Error> {
    let bmdb = Bmdb::connect(config(url, name, interval)).await?;
    let session = bmdb.start_session().await?;
    say(&format!("session {}", session.id()));
    let mut tasks = JoinSet::new();
    tasks.spawn(bmdb.collector().run(CancellationToken::new()));
    for task in 0..TASKS {
        let worker = Worker {
            session: session.clone(),
            random: fastrand::Rng::with_seed(seed * TASKS + task),
            pause: Arc::new(interval / 50),
        };
        tasks.spawn(worker.work());
    }
    session.lost().cancelled().await;
    say(&format!("lost {}", session.id()));
    Ok(())
}

/// What becomes of an end, and of the claim of the next with it.
type Ended<P> = Result<Result<Option<Work<P>>, Error>, Unfinished<P>>;

struct Worker {
    session: Session,
    random: fastrand::Rng,
    pause: Arc<Duration>,
}

impl Worker {
    async fn work(mut self) {
        loop {
            let claimed = match self.random.u8(0..3) {
                0 => self.round::<Weld>().await,
                1 => self.round::<Rivet>().await,
                _ => self.round::<Survey>().await,
            };
            match claimed {
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(*self.pause / 4).await,
                Err(error) => {
                    say(&format!("error {}", word_of(&error)));
                    tokio::time::sleep(*self.pause).await;
                }
            }
        }
    }

    async fn round<P: Process + Default>(&mut self) -> Result<bool, Error> {
        let process = self.session.bmdb().register(P::default()).await?;
        let claim = self.session.claim(&process);
        let Some(claimed) = self.patiently(claim).await else {
            return Ok(false);
        };
        let mut next = claimed?;
        let found = next.is_some();
        while let Some(work) = next {
            next = self.hold(&process, work).await?;
        }
        Ok(found)
    }

    /// What this answers; one in eight callers does not wait for long, and then it is none.
    async fn patiently<T>(&mut self, asked: impl IntoFuture<Output = T>) -> Option<T> {
        let patience = match self.random.u8(0..8) {
            0 => self.pause.mul_f64(self.random.f64() / 2.0),
            _ => Duration::MAX,
        };
        let answer = tokio::time::timeout(patience, asked.into_future()).await;
        if answer.is_err() {
            say("gave-up");
        }
        answer.ok()
    }

    /// Works on a machine, and ends with the next claim or alone.
    async fn hold<P: Process>(&mut self, process: &Registered<P>, work: Work<P>) -> Result<Option<Work<P>>, Error> {
        let (machine, fence, id) = (work.machine(), work.fence(), work.id());
        say(&format!("claimed {machine} {} {fence} {id} {}", P::SLOT, now()));
        for _ in 0..self.random.u8(0..4) {
            tokio::time::sleep(self.pause.mul_f64(self.random.f64())).await;
            let effect = async { say(&format!("effect {machine} {} {fence} {}", P::SLOT, now())) };
            if let Err(error) = work.guarded(Duration::from_millis(1), effect).await {
                say(&format!("error {}", word_of(&error)));
                break;
            }
        }
        if self.random.u8(0..4) == 0 {
            let outcome = work.transact(async |tx| agent_heartbeat::set(tx, machine).await).await;
            if let Err(error) = outcome {
                say(&format!("error {}", word_of(&error)));
            }
        }
        self.end(process, work).await
    }

    async fn end<P: Process>(&mut self, process: &Registered<P>, work: Work<P>) -> Result<Option<Work<P>>, Error> {
        let (machine, id) = (work.machine(), work.id());
        let event = match self.random.u8(0..100) {
            0..60 => Event::Finished,
            60..65 => Event::Failed,
            65..90 => Event::Canceled,
            _ => {
                say(&format!("dropped {id}"));
                drop(work);
                return Ok(None);
            }
        };
        let name = event.to_string();
        say(&format!("ending {id} {name} {}", now()));
        let by_body = event == Event::Finished && self.random.bool();
        let next = self.random.bool().then(|| self.session.claim(process));
        let ends = async move {
            let end = match event {
                Event::Finished if by_body => {
                    let finished = work.finish(async |tx| agent_heartbeat::set(tx, machine).await).await;
                    return finished.map(|()| Ok(None));
                }
                Event::Finished => work.done().stating(agent_heartbeat::row()),
                Event::Failed => work.fail("a soak's failure"),
                _ => work.cancel(),
            };
            match next {
                Some(claim) => end.then(claim).await,
                None => end.await.map(|()| Ok(None)),
            }
        };
        // Who gives up is told nothing of what becomes of it.
        let Some(outcome): Option<Ended<P>> = self.patiently(ends).await else {
            return Ok(None);
        };
        let answer = match &outcome {
            Ok(_) => "ended",
            Err(Unfinished::Unknown { .. }) => "unknown",
            // Its guard is dropped: it will be canceled.
            Err(_) => "refused",
        };
        say(&format!("{answer} {id} {name}"));
        outcome.unwrap_or(Ok(None))
    }
}

/// What kind of error it was, in one word.
fn word_of(error: &Error) -> String {
    let text = format!("{error:?}");
    text.chars().take_while(char::is_ascii_alphanumeric).collect()
}

/// Milliseconds of this machine's clock, which all components and the database share.
pub(crate) fn now() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("it is after 1970").as_millis()
}

/// One line, whole, at once: whoever reads it must have it though we are killed next.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    // Nobody listens any more.
    if written.is_err() {
        std::process::exit(0);
    }
}
