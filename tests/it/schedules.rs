//! The library's own statements, interleaved one by one on PostgreSQL.
//!
//! Each participant connects through a [`Proxy`] that keeps every statement back until a scheduler lets it pass: a random choice among those that
//! wait, from a printed seed. So each schedule of statements can happen, also those that never do by themselves. `BMDB_TEST_SCHEDULES` is how many
//! are run; the default is enough for every change, a night is enough for 100,000.

use std::any::Any;
use std::collections::HashSet;
use std::time::Duration;

use bmdb::{Bmdb, MachineId, Session, agent_started, machine};
use harness::{AgentStart, Backend, Fate, Passing, Proxy, Survey, TestDatabase, check_history};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::world::{config, tamper};

/// Longer than any schedule takes, so that no heartbeat tells anybody what has happened.
const INTERVAL: Duration = Duration::from_secs(120);
/// How many run at once, each in a database of its own: a collector sees every session of a database.
const AT_ONCE: usize = 6;

/// Takes a mechanism out of the statements of a participant.
type Ablation = fn(&str) -> Option<String>;

/// The lock that keeps a session's and a work's row from being deleted under a transaction.
fn without_key_share(sql: &str) -> Option<String> {
    sql.contains("FOR KEY SHARE").then(|| sql.replace("FOR KEY SHARE", ""))
}

/// The demand that a machine's fence is still the one that the claim has seen. The claim then takes the fence as it finds it; else the keys of work
/// and history, which hold no fence twice, would refuse it.
fn without_fence_compare(sql: &str) -> Option<String> {
    let found =
        |fence: &str, machine: &str| format!("(SELECT fence + 0 * {fence} FROM machine WHERE machine_id = {machine})");
    if sql.starts_with("UPDATE machine SET fence") {
        Some(sql.replace("AND fence = $2", "AND CAST($2 AS BIGINT) IS NOT NULL"))
    } else if sql.starts_with("INSERT INTO work (") {
        Some(sql.replace("$1, $6, now()", &format!("$1, {}, now()", found("$6", "$2"))))
    } else if sql.starts_with("INSERT INTO work_history") {
        Some(sql.replace("($6, $7, $1", &format!("($6, {}, $1", found("$7", "$6"))))
    } else {
        None
    }
}

fn with_everything(_sql: &str) -> Option<String> {
    None
}

/// A component whose statements wait to be let pass.
struct Participant {
    bmdb: Bmdb,
    proxy: Proxy,
}

/// A statement that waits.
struct Arrival {
    participant: usize,
    commits: bool,
    pass: oneshot::Sender<()>,
}

impl Participant {
    async fn of(db: &TestDatabase, ablation: Ablation) -> Self {
        let proxy = Proxy::to(db.url()).await;
        proxy.rewrite(ablation);
        let config = bmdb::Config::new(proxy.url(), "scheduled", "").interval(INTERVAL);
        let bmdb = Bmdb::connect(config).await.expect("the proxy lets it pass");
        Self { bmdb, proxy }
    }

    fn keep_back(&self, participant: usize, arrivals: &mpsc::UnboundedSender<Arrival>) {
        let arrivals = arrivals.clone();
        self.proxy.decide(move |passing: &Passing<'_>| {
            if passing.sql.contains("SQLx ping") || passing.sql.contains("UPDATE session_lease") {
                return Fate::Pass;
            }
            let (pass, waits) = oneshot::channel();
            let commits = passing.commits;
            match arrivals.send(Arrival {
                participant,
                commits,
                pass,
            }) {
                Ok(()) => Fate::Wait(waits),
                Err(_over) => Fate::Pass,
            }
        });
    }
}

enum State {
    /// Let pass and not seen since: the server works on it, or it waits for a lock.
    Running,
    Waiting(Arrival),
    Done,
}

/// What came of one schedule.
struct Run {
    /// Who went when.
    order: Vec<u8>,
    /// Which participants were done, and with success, when each one's last COMMIT was let pass.
    before_commit: Vec<Vec<bool>>,
    succeeded: Vec<bool>,
}

/// Who it was, whether it did what it wanted, and what must not be dropped before the schedule is over, because it would send statements.
type Answer = (usize, bool, Box<dyn Any + Send>);

/// Runs the tasks, one statement at a time. A task's answer says whether it did what it wanted.
async fn interleave(
    raw: &DatabaseConnection,
    random: &mut fastrand::Rng,
    mut arrivals: mpsc::UnboundedReceiver<Arrival>,
    mut tasks: JoinSet<Answer>,
    calm_down: impl FnOnce(),
) -> Run {
    let count = tasks.len();
    // Some are quick and some are slow, so that one overtakes another by many statements as often as by one.
    let weights: Vec<u32> = (0..count).map(|_| 4_u32.pow(random.u32(0..4))).collect();
    let mut kept = Vec::new();
    let mut states: Vec<State> = (0..count).map(|_| State::Running).collect();
    let mut run = Run {
        order: Vec::new(),
        before_commit: vec![vec![false; count]; count],
        succeeded: vec![false; count],
    };
    loop {
        // Until everybody waits, is done, or waits for a lock that another one holds.
        let mut looked = 0;
        while states.iter().any(|state| matches!(state, State::Running)) {
            tokio::select! {
                biased;
                arrival = arrivals.recv() => {
                    let arrival = arrival.expect("the proxies hold senders");
                    let place = arrival.participant;
                    states[place] = State::Waiting(arrival);
                }
                Some(ended) = tasks.join_next() => {
                    let (place, succeeded, keep) = ended.expect("no participant panics");
                    kept.push(keep);
                    states[place] = State::Done;
                    run.succeeded[place] = succeeded;
                }
                () = tokio::time::sleep(Duration::from_millis(2)) => {
                    looked += 1;
                    let running = states.iter().filter(|state| matches!(state, State::Running)).count();
                    let others = states.iter().any(|state| matches!(state, State::Waiting(_)));
                    if others && waiting_for_locks(raw).await >= running {
                        break;
                    }
                    assert!(looked < 5000, "a schedule does not go on: {:?}", run.order);
                }
            }
        }
        let waiting: Vec<usize> = (0..count)
            .filter(|place| matches!(states[*place], State::Waiting(_)))
            .collect();
        if waiting.is_empty() {
            // Before what was kept is dropped.
            calm_down();
            return run;
        }
        let next = chosen(random, &waiting, &weights);
        let State::Waiting(arrival) = std::mem::replace(&mut states[next], State::Running) else {
            unreachable!("it was chosen among those that wait");
        };
        run.order.push(u8::try_from(next).expect("there are few"));
        if arrival.commits {
            run.before_commit[next] = run.succeeded.clone();
        }
        // Its connection may have ended meanwhile.
        let _passed = arrival.pass.send(());
    }
}

fn chosen(random: &mut fastrand::Rng, waiting: &[usize], weights: &[u32]) -> usize {
    let all: u32 = waiting.iter().map(|place| weights[*place]).sum();
    let mut left = random.u32(..all);
    for place in waiting {
        match left.checked_sub(weights[*place]) {
            Some(rest) => left = rest,
            None => return *place,
        }
    }
    unreachable!("the weights add up")
}

async fn waiting_for_locks(raw: &DatabaseConnection) -> usize {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let statement = Statement::from_string(raw.get_database_backend(), count);
    let row = raw.query_one_raw(statement).await.unwrap().expect("a count has a row");
    usize::try_from(row.try_get_by_index::<i64>(0).unwrap()).unwrap()
}

async fn new_machine(session: &Session, provider_id: String) -> MachineId {
    let new = machine::NewMachine {
        provider: "test".to_owned(),
        provider_id,
        ..Default::default()
    };
    let provide = async |tx: &bmdb::Tx| machine::provide(tx, new.clone()).await;
    session.transact(provide).await.expect("nothing is kept back")
}

/// The scene of one database: who takes part, and one session that nobody disturbs.
struct Scene {
    db: TestDatabase,
    raw: DatabaseConnection,
    participants: Vec<Participant>,
    calm: Session,
}

impl Scene {
    async fn of(count: usize, ablation: Ablation) -> Self {
        let db = TestDatabase::migrated(Backend::Postgres).await;
        let mut participants = Vec::new();
        for _ in 0..count {
            participants.push(Participant::of(&db, ablation).await);
        }
        let calm = Bmdb::connect(config(&db).interval(INTERVAL)).await.unwrap();
        Self {
            raw: db.raw().await,
            calm: calm.start_session().await.unwrap(),
            participants,
            db,
        }
    }

    fn keep_back(&self) -> mpsc::UnboundedReceiver<Arrival> {
        let (sender, arrivals) = mpsc::unbounded_channel();
        for (place, participant) in self.participants.iter().enumerate() {
            participant.keep_back(place, &sender);
        }
        arrivals
    }

    fn calm_down(&self) {
        self.participants
            .iter()
            .for_each(|participant| participant.proxy.calm());
    }
}

/// An owner whose session is dead writes or finishes; a collector expires it; another claims. The owner must not commit once the session is
/// expired or another holds.
async fn expiry(scene: &Scene, random: &mut fastrand::Rng, nth: usize) -> (Run, bool) {
    let [owner, collector, claimer] = &scene.participants[..] else {
        unreachable!("there are three")
    };
    let machine = new_machine(&scene.calm, format!("expiry-{nth}")).await;
    let dead = owner.bmdb.start_session().await.unwrap();
    let work = dead.claim::<Survey>().on(machine).await.unwrap().expect("it is new");
    let other = claimer.bmdb.start_session().await.unwrap();
    // Claims of a process are not the first of their component's, which would also register it.
    other.claim::<Survey>().on(machine).await.unwrap();
    let id = dead.id();
    tamper(
        &scene.raw,
        &format!("UPDATE session_lease SET deadline = now() - INTERVAL '1 hour' WHERE session_id = '{id}'"),
    )
    .await;
    tamper(
        &scene.raw,
        &format!("UPDATE session SET interval_ms = 1 WHERE session_id = '{id}'"),
    )
    .await;
    let mut collecting = collector.bmdb.collector();
    assert!(
        collecting.sweep().await.unwrap().expired.is_empty(),
        "one look is not enough"
    );
    tokio::time::sleep(Duration::from_millis(2)).await;

    let arrivals = scene.keep_back();
    let mut tasks = JoinSet::new();
    let finishes = random.bool();
    tasks.spawn(async move {
        let body = async |tx: &bmdb::Tx| agent_started::set(tx, machine, *b"late").await;
        if finishes {
            let finished = work.finish(body).await;
            (0, finished.is_ok(), Box::new(finished) as _)
        } else {
            (0, work.transact(body).await.is_ok(), Box::new(work) as _)
        }
    });
    tasks.spawn(async move {
        let sweep = collecting.sweep().await;
        (
            1,
            sweep.is_ok_and(|sweep| sweep.expired.contains(&id)),
            Box::new(()) as _,
        )
    });
    let claim = other.clone();
    tasks.spawn(async move {
        let claimed = claim.claim::<Survey>().on(machine).await;
        (2, claimed.as_ref().is_ok_and(Option::is_some), Box::new(claimed) as _)
    });
    let run = interleave(&scene.raw, random, arrivals, tasks, || scene.calm_down()).await;
    let violated = run.succeeded[0] && run.before_commit[0][1..].contains(&true);
    drop(dead);
    other.close().await.unwrap();
    (run, violated)
}

/// One claims and finishes with a fact after which nobody is to claim; another claims at the same time. It must not redo what was done.
async fn redoing(scene: &Scene, random: &mut fastrand::Rng, nth: usize) -> (Run, bool) {
    let [first, second] = &scene.participants[..] else {
        unreachable!("there are two")
    };
    let machine = new_machine(&scene.calm, format!("redoing-{nth}")).await;
    let (one, two) = (
        first.bmdb.start_session().await.unwrap(),
        second.bmdb.start_session().await.unwrap(),
    );
    for session in [&one, &two] {
        let registered = session.claim::<AgentStart>().on(MachineId::random()).await.unwrap();
        assert!(registered.is_none(), "there is no such machine");
    }
    let arrivals = scene.keep_back();
    let mut tasks = JoinSet::new();
    let claim = one.clone();
    tasks.spawn(async move {
        let claimed = claim.claim::<AgentStart>().on(machine).await;
        let Ok(Some(work)) = claimed else {
            return (0, false, Box::new(claimed) as _);
        };
        let finished = work
            .finish(async |tx| agent_started::set(tx, machine, *b"key").await)
            .await;
        (0, finished.is_ok(), Box::new(finished) as _)
    });
    let claim = two.clone();
    tasks.spawn(async move {
        let claimed = claim.claim::<AgentStart>().on(machine).await;
        (1, claimed.as_ref().is_ok_and(Option::is_some), Box::new(claimed) as _)
    });
    let run = interleave(&scene.raw, random, arrivals, tasks, || scene.calm_down()).await;
    let violated = run.succeeded == [true, true];
    one.close().await.unwrap();
    two.close().await.unwrap();
    (run, violated)
}

#[derive(Clone, Copy)]
enum Story {
    Expiry,
    Redoing,
}

/// How many schedules of how many that differ broke the rule.
async fn schedules(story: Story, ablation: Ablation, count: usize, seed: u64) -> (usize, usize) {
    let mut workers = JoinSet::new();
    for worker in 0..AT_ONCE {
        workers.spawn(async move {
            let participants = match story {
                Story::Expiry => 3,
                Story::Redoing => 2,
            };
            let scene = Scene::of(participants, ablation).await;
            let mut random = fastrand::Rng::with_seed(seed + worker as u64);
            let (mut violations, mut orders) = (0, HashSet::new());
            for nth in 0..count.div_ceil(AT_ONCE) {
                let (run, violated) = match story {
                    Story::Expiry => expiry(&scene, &mut random, nth).await,
                    Story::Redoing => redoing(&scene, &mut random, nth).await,
                };
                violations += usize::from(violated);
                orders.insert(run.order);
            }
            let whole = check_history(&scene.raw).await;
            drop(scene.db);
            (violations, orders, whole)
        });
    }
    let (mut violations, mut orders) = (0, HashSet::new());
    while let Some(ended) = workers.join_next().await {
        let (found, seen, whole) = ended.expect("no schedule panics");
        assert_eq!(whole, Vec::<String>::new(), "history is whole, whatever is taken out");
        violations += found;
        orders.extend(seen);
    }
    (violations, orders.len())
}

/// All of it, and the same again with a mechanism taken out: if that breaks nothing, the test sees nothing.
async fn holds_and_is_needed(story: Story, ablation: Ablation) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seed = number("BMDB_TEST_SEED").unwrap_or_else(|| fastrand::u64(0..1_000_000));
    let count = number("BMDB_TEST_SCHEDULES").map_or(500, |count| usize::try_from(count).unwrap());
    eprintln!("BMDB_TEST_SEED={seed}");
    let (violations, different) = schedules(story, with_everything, count, seed).await;
    eprintln!("{count} schedules, {different} of them different: {violations} violations");
    assert_eq!(violations, 0);
    // What is taken out shows in one schedule of some dozens.
    for batch in 0..10 {
        let (without, different) = schedules(story, ablation, 120, seed + 1000 * batch).await;
        eprintln!("120 schedules, {different} of them different, with the mechanism taken out: {without} violations");
        if without > 0 {
            return;
        }
    }
    panic!("without the mechanism something must break");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_schedule_lets_an_expired_owner_write() {
    holds_and_is_needed(Story::Expiry, without_key_share).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_schedule_does_finished_work_again() {
    holds_and_is_needed(Story::Redoing, without_fence_compare).await;
}
