//! Commits whose answer never came: settled where they can be, told where they cannot.

use std::future::IntoFuture;

use bmdb::{Error, MachineId, Registered, Session, Unfinished, Work, agent_started};
use harness::{Fate, Fault, Proxy, TestDatabase, of, on_postgres, until};
use sea_orm::{ConnectionTrait, DatabaseConnection, EntityTrait};

use crate::connection::transact::fail_at_commit;
use crate::world::{AgentStart, LONG, Survey, connect_to, events, provide, session, tamper, waiting_at, works};

/// How often the trap has sprung.
async fn failures(raw: &DatabaseConnection) -> i64 {
    let statement = sea_orm::Statement::from_string(raw.get_database_backend(), "SELECT last_value FROM failures");
    raw.query_one_raw(statement)
        .await
        .unwrap()
        .unwrap()
        .try_get_by_index(0)
        .unwrap()
}

on_postgres! {
    async fn a_claim_of_unknown_outcome_is_run_again(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        fail_at_commit(&raw, "work", "57P01", 1).await;
        let work = session.claim(&of::<AgentStart>(&session).await)
            .await
            .unwrap()
            .expect("the second attempt takes it");
        assert!(failures(&raw).await >= 1, "the trap has sprung");
        assert_eq!(works(&raw).await, 1);
        assert_eq!(events(&raw, machine).await, ["started"]);
        work.cancel().await.unwrap();
    }

    async fn a_claim_that_is_under_way_when_its_session_is_closed_is_told_so(db: TestDatabase) {
        let (_proxy, bmdb, mut claims) = waiting_at(&db, "INSERT INTO work (").await;
        let session = bmdb.start_session().await.unwrap();
        provide(&session, 1).await;
        let mut claim = session.claim(&of::<Survey>(&session).await).into_future();
        let _go_on = tokio::select! {
            go_on = claims.recv() => go_on.expect("it claims"),
            answer = &mut claim => unreachable!("{answer:?}"),
        };
        session.clone().close().await.unwrap();
        let answer = claim.await;
        assert!(matches!(answer, Err(Error::SessionExpired { .. })), "{answer:?}");
        assert_eq!(works(&db.raw().await).await, 0);
    }

    async fn an_end_of_unknown_outcome_is_settled(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        let work = session.claim(&of::<AgentStart>(&session).await)
            .await
            .unwrap()
            .expect("one machine is eligible");
        fail_at_commit(&raw, "work", "57P01", 1).await;
        let runs = std::sync::atomic::AtomicU32::new(0);
        let finished = work.finish(async |tx| {
            runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            agent_started::set(tx, machine, *b"key").await
        });
        finished.await.unwrap();
        assert_eq!(runs.into_inner(), 2, "the first run was not committed");
        assert_eq!(events(&raw, machine).await, ["started", "finished"]);
        assert!(agent_started::Entity::find().one(&raw).await.unwrap().is_some());
    }

    async fn failing_and_canceling_survive_a_lost_commit(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        let work = session.claim(&of::<AgentStart>(&session).await)
            .await
            .unwrap()
            .expect("one machine is eligible");
        fail_at_commit(&raw, "work", "57P01", 1).await;
        work.fail("no answer").await.unwrap();
        assert_eq!(events(&raw, machine).await, ["started", "failed"]);
        tamper(&raw, "DELETE FROM work_backoff").await;
        let work = session.claim(&of::<AgentStart>(&session).await)
            .await
            .unwrap()
            .expect("one machine is eligible");
        tamper(&raw, "ALTER SEQUENCE failures RESTART").await;
        work.cancel().await.unwrap();
        assert!(failures(&raw).await >= 2, "the trap has sprung again");
        assert_eq!(
            events(&raw, machine).await,
            ["started", "failed", "started", "canceled"]
        );
        assert_eq!(works(&raw).await, 0);
    }

    async fn a_conflict_at_commit_runs_every_operation_again(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        fail_at_commit(&raw, "work", "40001", 3).await;
        let work = session.claim(&of::<AgentStart>(&session).await)
            .await
            .unwrap()
            .expect("it is tried until it commits");
        tamper(&raw, "ALTER SEQUENCE failures RESTART").await;
        work.finish(async |tx| agent_started::set(tx, machine, *b"key").await)
            .await
            .unwrap();
        assert_eq!(events(&raw, machine).await, ["started", "finished"]);
    }

    async fn a_second_attempt_is_settled_by_history(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible");
        // What an earlier attempt of this client left, whose answer never came.
        let (fence, id) = (work.fence(), work.id());
        tamper(
            &raw,
            &format!(
                "WITH gone AS (DELETE FROM work RETURNING *) INSERT INTO work_history SELECT machine_id, {fence}, 'finished', '{id}', \
                 process, slot, session_id, 'test', '', now(), NULL FROM gone"
            ),
        )
        .await;
        let second = work.finish(async |tx| agent_started::set(tx, machine, *b"twice").await).await;
        assert!(matches!(second, Err(Unfinished::Over(Error::AlreadyFinished { .. }))), "{second:?}");
        assert_eq!(events(&raw, machine).await, ["started", "finished"]);
        assert!(agent_started::Entity::find().one(&raw).await.unwrap().is_none());
    }
}

/// In the statement that looks for what a claim of unknown outcome has taken.
const LOOKS_FOR_WORKS: &str = r#""work"."fence" AS "bmdb_fence""#;

/// The answer to a claim is lost, and before the component looks what it has taken, the machine's fence rises for another reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_found_again_has_the_fence_that_it_was_given() {
    harness::bounded(async {
        let db = harness::TestDatabase::migrated(harness::Backend::Postgres).await;
        let proxy = harness::Proxy::to(db.url()).await;
        let session = connect_to(proxy.url()).await.start_session().await.unwrap();
        let machine = provide(&session, 1).await[0];
        session
            .claim(&of::<AgentStart>(&session).await)
            .await
            .unwrap()
            .expect("it is eligible")
            .cancel()
            .await
            .unwrap();
        let (go_on, may_go_on) = tokio::sync::oneshot::channel();
        let (looks, mut looking) = tokio::sync::mpsc::unbounded_channel();
        let (mut may_go_on, mut is_lost) = (Some(may_go_on), false);
        proxy.decide(move |passing| {
            if passing.sql.contains("INSERT INTO work (") && !std::mem::replace(&mut is_lost, true) {
                harness::Fate::Fail(harness::Fault::DropAfter)
            } else if passing.sql.contains(LOOKS_FOR_WORKS) && may_go_on.is_some() {
                looks.send(()).unwrap();
                harness::Fate::Wait(may_go_on.take().expect("it is there"))
            } else {
                harness::Fate::Pass
            }
        });
        let raw = db.raw().await;
        let claim = async {
            session
                .claim(&of::<AgentStart>(&session).await)
                .await
                .unwrap()
                .expect("it was taken")
        };
        let meanwhile = async {
            looking.recv().await.expect("it looks");
            tamper(&raw, "UPDATE machine SET fence = fence + 10").await;
            go_on.send(()).unwrap();
        };
        let (work, ()) = tokio::join!(claim, meanwhile);
        let row = bmdb_entity::work::Entity::find()
            .one(&raw)
            .await
            .unwrap()
            .expect("it is held");
        assert_eq!((work.machine(), work.fence()), (machine, row.fence));
        let raised = bmdb::machine::Entity::find()
            .one(&raw)
            .await
            .unwrap()
            .expect("it is there");
        assert!(raised.fence > work.fence());
        work.done().await.unwrap();
    })
    .await;
}

/// A component behind a proxy, with more machines than a claim passes over.
struct Behind {
    _db: TestDatabase,
    proxy: Proxy,
    session: Session,
    survey: Registered<Survey>,
    machines: Vec<MachineId>,
    raw: DatabaseConnection,
}

impl Behind {
    async fn new() -> Self {
        let db = TestDatabase::migrated(harness::Backend::Postgres).await;
        let proxy = Proxy::to(db.url()).await;
        let session = connect_to(proxy.url()).await.start_session().await.unwrap();
        let machines = provide(&session, 40).await;
        let raw = db.raw().await;
        // Registered, and hints are plenty.
        for _ in 0..2 {
            session
                .claim(&of::<Survey>(&session).await)
                .await
                .unwrap()
                .expect("forty are fit")
                .cancel()
                .await
                .unwrap();
        }
        Self {
            _db: db,
            proxy,
            survey: of::<Survey>(&session).await,
            session,
            machines,
            raw,
        }
    }

    /// The answer to the first statement with these words is lost, and what asks for its outcome is refused for good.
    fn lose_and_refuse(&self, lost: &'static str, asks: &'static str) {
        let mut is_lost = false;
        self.proxy.decide(move |passing| {
            if passing.sql.contains(lost) && !std::mem::replace(&mut is_lost, true) {
                Fate::Fail(Fault::DropAfter)
            } else if is_lost && passing.sql.contains(asks) {
                Fate::Fail(Fault::Refused("22P02"))
            } else {
                Fate::Pass
            }
        });
    }

    /// How many events of this kind history has of all machines.
    async fn count(&self, wanted: &str) -> usize {
        let mut count = 0;
        for machine in &self.machines {
            let events = events(&self.raw, *machine).await;
            count += events.iter().filter(|event| *event == wanted).count();
        }
        count
    }

    /// Every claim has ended, as its history says as well.
    async fn nothing_is_held(&self) {
        let none = async || works(&self.raw).await == 0 && self.session.held().is_empty();
        until("nothing is held", LONG, none).await;
        assert_eq!(harness::check_history(&self.raw).await, Vec::<String>::new());
    }
}

const SETTLES: &str = "SET stop_requested = stop_requested";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_whose_outcome_could_not_be_asked_for_are_let_go_of() {
    harness::bounded(async {
        let it = Behind::new().await;
        it.lose_and_refuse("INSERT INTO work (", LOOKS_FOR_WORKS);
        let claimed = it.session.claim_many(&it.survey, 3).await;
        assert!(matches!(claimed, Err(Error::CommitUnknown { .. })), "{claimed:?}");
        it.nothing_is_held().await;
        assert_eq!(it.count("started").await, 2 + 3, "it had taken effect");
        it.proxy.calm();
        assert_eq!(it.session.claim_many(&it.survey, 3).await.unwrap().len(), 3);
    })
    .await;
}

/// The server has done it, and says that it does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_the_server_disowns_is_found() {
    harness::bounded(async {
        let it = Behind::new().await;
        let mut is_disowned = false;
        it.proxy.decide(move |passing| {
            if passing.sql.contains("INSERT INTO work (") && !std::mem::replace(&mut is_disowned, true) {
                Fate::Fail(Fault::Disowned("40003"))
            } else {
                Fate::Pass
            }
        });
        let work = it.session.claim(&it.survey).await.unwrap().expect("it was taken");
        assert_eq!(works(&it.raw).await, 1);
        work.done().await.unwrap();
        it.nothing_is_held().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_whose_outcome_could_not_be_asked_for_are_unknown() {
    harness::bounded(async {
        let it = Behind::new().await;
        let claim = async || it.session.claim(&it.survey).await.unwrap().expect("forty are fit");
        let settled = async |work: Work<Survey>| {
            it.proxy.calm();
            let again = work.finish(async |_tx| Ok::<_, Error>(())).await;
            assert!(
                matches!(again, Err(Unfinished::Over(Error::AlreadyFinished { .. }))),
                "{again:?}"
            );
            it.nothing_is_held().await;
        };
        let held = |answer: Unfinished<Survey>| match answer {
            Unfinished::Unknown {
                work,
                error: Error::CommitUnknown { .. },
            } => work,
            other => panic!("{other:?}"),
        };

        let work = claim().await;
        it.lose_and_refuse("DELETE FROM work USING", SETTLES);
        settled(held(work.done().await.expect_err("nobody knows"))).await;

        let work = claim().await;
        it.lose_and_refuse("COMMIT", SETTLES);
        settled(held(
            work.finish(async |_tx| Ok::<_, Error>(()))
                .await
                .expect_err("nobody knows"),
        ))
        .await;

        let work = claim().await;
        it.lose_and_refuse("DELETE FROM work USING", SETTLES);
        settled(held(
            work.done()
                .then(it.session.claim(&it.survey))
                .await
                .expect_err("nobody knows"),
        ))
        .await;
    })
    .await;
}

/// An end never arrives, and before the component asks for its outcome somebody else ends the work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_ends_while_an_end_is_in_doubt_is_lost() {
    harness::bounded(async {
        let it = Behind::new().await;
        for (nth, way) in ["done", "fail", "then", "finish"].into_iter().enumerate() {
            let work = it.session.claim(&it.survey).await.unwrap().expect("forty are fit");
            let (asks, mut asking) = tokio::sync::mpsc::unbounded_channel();
            let mut is_lost = false;
            it.proxy.decide(move |passing| {
                let ends = if way == "finish" { "COMMIT" } else { "DELETE FROM work USING" };
                if passing.sql.contains(ends) && !std::mem::replace(&mut is_lost, true) {
                    Fate::Fail(Fault::DropBefore)
                } else if passing.sql.contains(SETTLES) {
                    let (go_on, may_go_on) = tokio::sync::oneshot::channel();
                    let _done = asks.send(go_on);
                    Fate::Wait(may_go_on)
                } else {
                    Fate::Pass
                }
            });
            let expires = async {
                let go_on: tokio::sync::oneshot::Sender<()> = asking.recv().await.expect("it asks");
                let expired = "WITH gone AS (DELETE FROM work RETURNING *) INSERT INTO work_history SELECT machine_id, fence, 'expired', work_id, \
                               process, slot, session_id, 'test', '', now(), NULL FROM gone";
                tamper(&it.raw, expired).await;
                it.proxy.calm();
                go_on.send(()).expect("it waits");
            };
            let ends = async {
                match way {
                    "done" => work.done().await,
                    "fail" => work.fail("no answer").await,
                    "then" => work.done().then(it.session.claim(&it.survey)).await.map(drop),
                    _ => work.finish(async |_tx| Ok::<_, Error>(())).await,
                }
            };
            let (ended, ()) = tokio::join!(ends, expires);
            assert!(matches!(ended, Err(Unfinished::Over(Error::WorkLost { .. }))), "{way}: {ended:?}");
            it.nothing_is_held().await;
            assert_eq!(it.count("expired").await, nth + 1, "{way}");
        }
    })
    .await;
}

/// The answer to a statement that ends and claims for several is lost, and one of them had lost its work before: what it took under that one's id, for
/// another, is let go of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_claimed_for_another_under_the_id_of_who_had_lost_its_work_is_let_go_of() {
    harness::bounded(async {
        let it = Behind::new().await;
        // Whoever has lost its work is the first, the second, the third, the fourth of those who share the statement.
        for lost in 0..4 {
            let mut held = Vec::new();
            for _ in 0..6 {
                held.push(it.session.claim(&it.survey).await.unwrap().expect("forty are fit"));
            }
            let gone = held[2 + lost].id();
            let (arrives, mut arriving) = tokio::sync::mpsc::unbounded_channel();
            let mut seen = 0;
            it.proxy.decide(move |passing| {
                if !(passing.sql.contains("to_end (") && passing.sql.contains("INSERT INTO work (")) {
                    return Fate::Pass;
                }
                seen += 1;
                match seen {
                    // Two wait, so that the others come to share the third.
                    1 | 2 => {
                        let (go_on, may_go_on) = tokio::sync::oneshot::channel::<()>();
                        arrives.send(go_on).expect("the test listens");
                        Fate::Wait(may_go_on)
                    }
                    3 => Fate::Fail(Fault::DropAfter),
                    _ => Fate::Pass,
                }
            });
            let cycles = held.into_iter().map(|work| async {
                let id = work.id();
                (id, work.done().then(it.session.claim(&it.survey)).await)
            });
            let meanwhile = async {
                let mut waiting = Vec::new();
                for _ in 0..2 {
                    waiting.push(arriving.recv().await.expect("they arrive"));
                }
                tamper(&it.raw, &format!("DELETE FROM work WHERE work_id = '{gone}'")).await;
            };
            let (cycles, ()) = tokio::join!(futures_util::future::join_all(cycles), meanwhile);
            for (id, answer) in cycles {
                match answer {
                    Err(Unfinished::Over(Error::WorkLost { .. })) => assert_eq!(id, gone),
                    answer => answer.unwrap().unwrap().expect("forty are fit").done().await.unwrap(),
                }
            }
            it.proxy.calm();
            let none = async || works(&it.raw).await == 0 && it.session.held().is_empty();
            until("nothing is held", LONG, none).await;
        }
    })
    .await;
}
