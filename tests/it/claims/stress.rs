//! Many claims at once: two holders are never seen, and history tells the whole truth.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use bmdb::{CancellationToken, Fence, MachineId, Process, Session, SessionId, Unfinished, WorkId, agent_heartbeat};
use bmdb_entity::work_history::{self, Event};
use harness::{Backend, Snapshot, TestDatabase, Told, check_history, of, on_each_backend, on_postgres, until};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};
use tokio::task::JoinSet;

use crate::failures::crash::Component;
use crate::world::{AgentStart, INTERVAL, LONG, Rivet, Survey, Weld, events, provide, session, tamper, works};

/// Who holds what, as seen from outside the database: one cell for each machine and slot.
struct Fleet(HashMap<(MachineId, &'static str), Cell>);

#[derive(Default)]
struct Cell {
    taken: AtomicBool,
    last: AtomicI64,
}

impl Fleet {
    fn of(machines: &[MachineId]) -> Arc<Self> {
        let slots = [Weld::SLOT, Survey::SLOT];
        let cells = machines
            .iter()
            .flat_map(|machine| slots.map(|slot| ((*machine, slot), Cell::default())));
        Arc::new(Self(cells.collect()))
    }

    fn enter(&self, machine: MachineId, slot: &'static str, fence: Fence) {
        let cell = &self.0[&(machine, slot)];
        assert!(
            !cell.taken.swap(true, Ordering::SeqCst),
            "two hold {machine} {slot}, one by fence {fence}"
        );
        let last = cell.last.swap(fence.0, Ordering::SeqCst);
        assert!(last < fence.0, "fence {fence} came after {last} on {machine}");
    }

    fn leave(&self, machine: MachineId, slot: &'static str) {
        self.0[&(machine, slot)].taken.store(false, Ordering::SeqCst);
    }
}

/// One task of a component.
struct Worker {
    session: Session,
    fleet: Arc<Fleet>,
    random: fastrand::Rng,
    told: Vec<Told>,
    /// Some claims are given up, at any moment.
    gives_up: bool,
}

impl Worker {
    async fn work(mut self, rounds: u32) -> Vec<Told> {
        let mut done = 0;
        while done < rounds {
            let did = match self.random.u8(0..3) {
                0 => self.round::<Weld>().await,
                1 => self.round::<Rivet>().await,
                _ => self.round::<Survey>().await,
            };
            done += u32::from(did);
        }
        self.told
    }

    async fn round<P: Process + Default>(&mut self) -> bool {
        let claim = self.session.claim(&of::<P>(&self.session).await).into_future();
        let patience = match self.random.u8(0..3) {
            0 if self.gives_up => Duration::from_micros(self.random.u64(0..4000)),
            _ => LONG,
        };
        let Ok(claimed) = tokio::time::timeout(patience, claim).await else {
            return false;
        };
        let work = match claimed {
            Ok(Some(work)) => work,
            Ok(None) => {
                tokio::time::sleep(Duration::from_millis(2)).await;
                return false;
            }
            Err(error) => panic!("{error:?}"),
        };
        let (machine, fence, id) = (work.machine(), work.fence(), work.id());
        self.fleet.enter(machine, P::SLOT, fence);
        let mut tell = |event| {
            self.told.push(Told {
                machine,
                fence,
                event,
                work: Some(id),
            });
        };
        tell(Event::Started);
        tokio::time::sleep(Duration::from_micros(self.random.u64(0..1500))).await;
        // From the end on another may hold it, before we are told.
        self.fleet.leave(machine, P::SLOT);
        let (event, outcome): (_, Result<(), Unfinished<P>>) = match self.random.u8(0..100) {
            0..50 => (
                Event::Finished,
                work.finish(async |tx| agent_heartbeat::set(tx, machine).await).await,
            ),
            50..53 => (Event::Failed, work.fail("a test's failure").await),
            53..90 => (Event::Canceled, work.cancel().await),
            _ => {
                drop(work);
                (Event::Canceled, Ok(()))
            }
        };
        outcome.expect("the end is acknowledged");
        tell(event);
        true
    }
}

const MACHINES: usize = 6;
const COMPONENTS: u64 = 3;
/// Tasks of each component: twelve in all for twelve places, so that they meet.
const TASKS: u32 = 4;

/// Runs `rounds` rounds in each of three components and checks everything.
async fn run(db: &TestDatabase, rounds: u32, gives_up: bool) {
    let seed = seed();
    let first = session(db).await;
    let fleet = Fleet::of(&provide(&first, MACHINES).await);
    first.close().await.unwrap();
    let mut workers = JoinSet::new();
    for component in 0..COMPONENTS {
        // Connections of its own, as another process would have.
        let session = session(db).await;
        for task in 0..TASKS {
            let worker = Worker {
                session: session.clone(),
                fleet: Arc::clone(&fleet),
                random: fastrand::Rng::with_seed(seed + component * 100 + u64::from(task)),
                told: Vec::new(),
                gives_up,
            };
            workers.spawn(worker.work(rounds / TASKS));
        }
    }
    let began = std::time::Instant::now();
    let mut told = Vec::new();
    while let Some(ended) = workers.join_next().await {
        told.extend(ended.expect("no worker saw anything wrong"));
    }
    let raw = db.raw().await;
    until("what was dropped is let go of", LONG, async || works(&raw).await == 0).await;
    eprintln!("{} events in {:?}", told.len(), began.elapsed());
    if gives_up {
        // What they have made nobody was told of: it is in history all the same, and whole.
        let snapshot = Snapshot::of(&raw).await;
        assert_eq!(snapshot.violations(), Vec::<String>::new());
        let mut differences = snapshot.differences(&told);
        differences.retain(|difference| !difference.starts_with("no client did it"));
        assert_eq!(differences, Vec::<String>::new());
    } else {
        is_whole(&raw, &told).await;
    }
    assert!(
        told.len() >= 2 * 3 * (rounds as usize) - 2 * 3 * (TASKS as usize),
        "all rounds were done"
    );
}

async fn is_whole(raw: &DatabaseConnection, told: &[Told]) {
    let snapshot = Snapshot::of(raw).await;
    assert_eq!(snapshot.violations(), Vec::<String>::new());
    assert_eq!(snapshot.differences(told), Vec::<String>::new());
}

/// From the environment, to run one again.
fn seed() -> u64 {
    let given = std::env::var("BMDB_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(0..1_000_000));
    eprintln!("BMDB_TEST_SEED={seed}");
    seed
}

on_each_backend! {
    async fn no_two_hold_a_slot_at_once(db: TestDatabase) {
        run(&db, 700, false).await;
    }

    async fn no_two_hold_a_slot_at_once_though_claims_are_given_up_at_any_moment(db: TestDatabase) {
        run(&db, 300, true).await;
    }

    async fn no_two_hold_a_slot_at_once_while_transactions_fail(db: TestDatabase) {
        let raw = db.raw().await;
        let over = CancellationToken::new();
        let mut intruders = JoinSet::new();
        match db.backend() {
            Backend::Postgres => conflicts(&raw).await,
            Backend::Sqlite => { intruders.spawn(lock_now_and_then(raw.clone(), over.clone())); }
        }
        run(&db, 200, false).await;
        over.cancel();
        if db.backend() == Backend::Postgres {
            let statement = Statement::from_string(raw.get_database_backend(), "SELECT last_value FROM conflicts");
            let injected: i64 = raw.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap();
            eprintln!("{injected} conflicts");
            assert!(injected > 100, "{injected} conflicts were injected");
        }
        let locked: u32 = intruders.join_all().await.into_iter().sum();
        assert!(db.backend() == Backend::Postgres || locked > 20, "locked {locked} times");
    }

    async fn no_two_processes_hold_a_slot_at_once(db: TestDatabase) {
        let seed = seed();
        let first = session(&db).await;
        provide(&first, MACHINES).await;
        let folder = tempfile::TempDir::new().unwrap();
        let mut components = Vec::new();
        for component in 0..COMPONENTS {
            let (seed, folder) = ((seed + component).to_string(), folder.path().display().to_string());
            components.push(Component::start(&db, INTERVAL, &["rounds", &seed, "250", &folder]));
        }
        let mut told = Vec::new();
        for mut component in components {
            let lines = component.says_until_its_end().await;
            assert_eq!(lines.last().map(String::as_str), Some("done"), "{lines:?}");
            told.extend(lines.iter().filter_map(|line| heard(line)));
        }
        assert_eq!(told.len(), 3 * 250 * 2);
        is_whole(&db.raw().await, &told).await;
        first.close().await.unwrap();
    }

    async fn the_checker_goes_red(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide(&session, 2).await;
        let raw = db.raw().await;
        let mut fences = Vec::new();
        for _ in 0..3 {
            let work = session.claim(&of::<Weld>(&session).await).on(machines[0]).await.unwrap().expect("it is free");
            fences.push(work.fence());
            work.cancel().await.unwrap();
        }
        let held = session.claim(&of::<Weld>(&session).await).on(machines[0]).await.unwrap().expect("it is free");
        assert_eq!(check_history(&raw).await, Vec::<String>::new());
        fences.push(held.fence());
        let good = async || Snapshot::of(&raw).await;
        let place = |snapshot: &Snapshot, claim: usize, event: Event| {
            snapshot.history.iter().position(|row| row.fence == fences[claim - 1] && row.event == event).expect("it is there")
        };
        let meanwhile = format!("it was claimed while fence {} held the slot", fences[1]);
        type Deed<'a> = Box<dyn Fn(&mut Snapshot) + 'a>;
        let deeds: Vec<(&str, Deed<'_>)> = vec![
            ("it ended and was never started", Box::new(|s| { s.history.remove(place(s, 2, Event::Started)); })),
            ("it was started twice", Box::new(|s| { s.history.push(s.history[place(s, 2, Event::Started)].clone()); })),
            ("it ended twice", Box::new(|s| {
                let end = s.history[place(s, 2, Event::Canceled)].clone();
                s.history.push(work_history::Model { event: Event::Finished, ..end });
            })),
            ("its rows are not of one claim", Box::new(|s| {
                let end = place(s, 2, Event::Canceled);
                s.history[end].session_id = SessionId::random();
            })),
            ("its work id is that of another claim", Box::new(|s| {
                let id = s.history[place(s, 1, Event::Started)].work_id;
                s.history.iter_mut().filter(|row| row.fence == fences[1]).for_each(|row| row.work_id = id);
            })),
            ("the machine's fence is below it", Box::new(|s| { s.fences.insert(machines[0], fences[2]); })),
            (&meanwhile, Box::new(|s| { s.history.remove(place(s, 2, Event::Canceled)); })),
            ("it ended and is still held", Box::new(|s| {
                let start = s.history[place(s, 4, Event::Started)].clone();
                s.history.push(work_history::Model { event: Event::Expired, ..start });
            })),
            ("it is held under another work id", Box::new(|s| s.works[0].work_id = WorkId::random())),
            ("it never ended and is not held", Box::new(|s| s.works.clear())),
            ("it is held and was never started", Box::new(|s| { s.history.remove(place(s, 4, Event::Started)); })),
        ];
        for (expected, deed) in deeds {
            let mut bad = good().await;
            deed(&mut bad);
            let found = bad.violations();
            assert!(found.iter().any(|violation| violation.ends_with(expected)), "{expected:?} is not among {found:?}");
        }
        // The same through the database, where its keys allow it.
        tamper(&raw, &format!("DELETE FROM work_history WHERE fence = {} AND event = 'canceled'", fences[1])).await;
        assert_eq!(check_history(&raw).await.len(), 2, "never ended, and claimed meanwhile");

        let snapshot = good().await;
        let truth: Vec<Told> = snapshot.history.iter()
            .map(|row| Told { machine: row.machine_id, fence: row.fence, event: row.event.clone(), work: Some(row.work_id) })
            .collect();
        assert_eq!(snapshot.differences(&truth), Vec::<String>::new());
        assert!(snapshot.differences(&truth[1..])[0].starts_with("no client did it"));
        let twice = [truth.as_slice(), &truth[..1]].concat();
        assert!(snapshot.differences(&twice)[0].starts_with("history does not know, or clients were told twice"));
        let mut other = truth.clone();
        other[0].work = Some(WorkId::random());
        assert!(snapshot.differences(&other)[0].starts_with("history knows another work id"));
        let outside = Fleet::of(&machines);
        outside.enter(machines[0], Weld::SLOT, Fence(7));
        let twice = std::panic::catch_unwind(|| outside.enter(machines[0], Weld::SLOT, Fence(8)));
        assert!(twice.is_err(), "two holders are seen");
        outside.leave(machines[1], Weld::SLOT);
        let older = std::panic::catch_unwind(|| {
            outside.enter(machines[1], Weld::SLOT, Fence(5));
            outside.leave(machines[1], Weld::SLOT);
            outside.enter(machines[1], Weld::SLOT, Fence(5));
        });
        assert!(older.is_err(), "a fence that does not rise is seen");
        held.cancel().await.unwrap();
    }
}

on_postgres! {
    async fn a_claim_that_waited_for_another_looks_again(db: TestDatabase) {
        // T2 looks, T1 claims and finishes, T2 goes on. Without the compare of fences T2 would redo finished work, at every isolation level
        // below SERIALIZABLE. On SQLite there is one writer: T2 cannot look in between.
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        // Registers the process, and opens connections.
        session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is free").cancel().await.unwrap();

        let (claim, fence) = claim_behind(&session, &raw, machine, false).await;
        let work = claim.expect("it is eligible still");
        assert!(work.fence() > fence);
        assert_eq!(events(&raw, machine).await, ["started", "canceled", "started", "finished", "started"]);
        work.cancel().await.unwrap();

        // Now T1 also states the fact after which nobody is to claim it: whoever goes by what it saw first, claims.
        let (claim, _fence) = claim_behind(&session, &raw, machine, true).await;
        assert!(claim.is_none(), "it was verified again: {claim:?}");
        assert_eq!(check_history(&raw).await, Vec::<String>::new());
        assert_eq!(works(&raw).await, 0);
        session.close().await.unwrap();
    }
}

/// Lets the session's claim wait for the machine's row while another claims and finishes by hand; its fence comes back with the claim's outcome.
async fn claim_behind(
    session: &Session,
    raw: &DatabaseConnection,
    machine: MachineId,
    state: bool,
) -> (Option<bmdb::Work<AgentStart>>, Fence) {
    let by_hand = raw.begin().await.unwrap();
    let lock = format!("SELECT fence FROM machine WHERE machine_id = '{machine}' FOR UPDATE");
    let lock = Statement::from_string(by_hand.get_database_backend(), lock);
    let row = by_hand.query_one_raw(lock).await.unwrap().expect("it is there");
    let fence = row.try_get_by_index::<i64>(0).unwrap() + 1;
    let mut claims = JoinSet::new();
    let claim = session.claim(&of::<AgentStart>(&session).await).on(machine);
    claims.spawn(async move { claim.await.unwrap() });
    until("the claim has looked and waits for the row", LONG, async || {
        waiting_for_a_lock(raw).await == 1
    })
    .await;
    let (work, other) = (WorkId::random(), SessionId::random());
    by_hand
        .execute_unprepared(&format!(
            "UPDATE machine SET fence = {fence} WHERE machine_id = '{machine}';
             INSERT INTO work_history SELECT '{machine}', {fence}, event, '{work}', 'agent-start', 'agent', '{other}', 'by hand', '', now(), NULL
             FROM (VALUES ('started'), ('finished')) AS events (event);"
        ))
        .await
        .unwrap();
    if state {
        let row =
            format!("INSERT INTO machine_agent_started (machine_id, at, public_key) VALUES ('{machine}', now(), '')");
        by_hand.execute_unprepared(&row).await.unwrap();
    }
    by_hand.commit().await.unwrap();
    let claimed = claims
        .join_next()
        .await
        .expect("there is one")
        .expect("it does not panic");
    (claimed, Fence(fence))
}

async fn count_backends(raw: &DatabaseConnection, which: &str) -> usize {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {which}");
    let statement = Statement::from_string(raw.get_database_backend(), sql);
    let row = raw.query_one_raw(statement).await.unwrap().expect("a count has a row");
    usize::try_from(row.try_get_by_index::<i64>(0).unwrap()).unwrap()
}

/// How many connections wait for another's lock; PostgreSQL only.
pub(crate) async fn waiting_for_a_lock(raw: &DatabaseConnection) -> usize {
    count_backends(raw, "wait_event_type = 'Lock'").await
}

/// How many connections stand idle inside a transaction; PostgreSQL only.
pub(crate) async fn idle_in_transaction(raw: &DatabaseConnection) -> usize {
    count_backends(raw, "state LIKE 'idle in transaction%'").await
}

/// What a component said, if it is of a work.
fn heard(line: &str) -> Option<Told> {
    let words: Vec<_> = line.split(' ').collect();
    let machine = |word: &str| MachineId(word.parse().expect("a machine's id"));
    let fence = |word: &str| Fence(word.parse().expect("a fence"));
    match *words.as_slice() {
        ["claimed", machine_id, number, work] => Some(Told {
            machine: machine(machine_id),
            fence: fence(number),
            event: Event::Started,
            work: Some(WorkId(work.parse().expect("a work's id"))),
        }),
        ["ended", machine_id, number, event] => Some(Told {
            machine: machine(machine_id),
            fence: fence(number),
            event: [Event::Finished, Event::Failed, Event::Canceled]
                .into_iter()
                .find(|one| one.to_string() == event)
                .expect("an end"),
            work: None,
        }),
        ["done"] => None,
        _ => panic!("the component says {line:?}"),
    }
}

/// From now on a tenth of all statements on machines and of all commits that touch works fail with a serialization failure.
async fn conflicts(raw: &DatabaseConnection) {
    for sql in [
        // A sequence is not rolled back with what it makes fail.
        "CREATE SEQUENCE conflicts",
        "CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF random() < 0.1 THEN
                 PERFORM nextval('conflicts');
                 RAISE EXCEPTION 'restart transaction' USING ERRCODE = '40001';
             END IF;
             RETURN NULL;
         END $$",
        "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT OR DELETE ON work DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION conflict()",
        "CREATE TRIGGER at_once AFTER UPDATE ON machine FOR EACH STATEMENT EXECUTE FUNCTION conflict()",
        "CREATE TRIGGER at_once AFTER INSERT ON work_history FOR EACH STATEMENT EXECUTE FUNCTION conflict()",
    ] {
        tamper(raw, sql).await;
    }
}

/// Keeps everybody else from writing, for short times, until it is over; how often.
async fn lock_now_and_then(raw: DatabaseConnection, over: CancellationToken) -> u32 {
    let mut random = fastrand::Rng::with_seed(1);
    let locked = AtomicU32::new(0);
    while !over.is_cancelled() {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        // It may be busy for longer than this connection waits.
        if let Ok(tx) = raw.begin_with_options(options).await {
            locked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(random.u64(1..30))).await;
            tx.commit().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(random.u64(1..30))).await;
    }
    locked.into_inner()
}
