//! Commits whose answer never came: settled where they can be, told where they cannot.

use bmdb::{Error, Unfinished, agent_started};
use harness::on_postgres;
use sea_orm::{ConnectionTrait, DatabaseConnection, EntityTrait};

use crate::transact::fail_at_commit;
use crate::world::{AgentStart, connect_to, events, provide, session, tamper, works};

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
        let work = session
            .claim::<AgentStart>()
            .await
            .unwrap()
            .expect("the second attempt takes it");
        assert!(failures(&raw).await >= 1, "the trap has sprung");
        assert_eq!(works(&raw).await, 1);
        assert_eq!(events(&raw, machine).await, ["started"]);
        work.cancel().await.unwrap();
    }

    async fn an_end_of_unknown_outcome_is_settled(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        let work = session
            .claim::<AgentStart>()
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
        let work = session
            .claim::<AgentStart>()
            .await
            .unwrap()
            .expect("one machine is eligible");
        fail_at_commit(&raw, "work", "57P01", 1).await;
        work.fail("no answer").await.unwrap();
        assert_eq!(events(&raw, machine).await, ["started", "failed"]);
        tamper(&raw, "DELETE FROM work_backoff").await;
        let work = session
            .claim::<AgentStart>()
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
        let work = session
            .claim::<AgentStart>()
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
        let work = session.claim::<AgentStart>().await.unwrap().expect("one machine is eligible");
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

/// The answer to a claim is lost, and before the component looks what it has taken, the machine's fence rises for another reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_found_again_has_the_fence_that_it_was_given() {
    harness::bounded(async {
        let db = harness::TestDatabase::migrated(harness::Backend::Postgres).await;
        let proxy = harness::Proxy::to(db.url()).await;
        let session = connect_to(proxy.url()).await.start_session().await.unwrap();
        let machine = provide(&session, 1).await[0];
        session
            .claim::<AgentStart>()
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
            } else if passing.sql.contains("bmdb_work_fence") && may_go_on.is_some() {
                looks.send(()).unwrap();
                harness::Fate::Wait(may_go_on.take().expect("it is there"))
            } else {
                harness::Fate::Pass
            }
        });
        let raw = db.raw().await;
        let claim = async { session.claim::<AgentStart>().await.unwrap().expect("it was taken") };
        let meanwhile = async {
            looking.recv().await.expect("it looks");
            tamper(&raw, "UPDATE machine SET fence = fence + 10").await;
            go_on.send(()).unwrap();
        };
        let (work, ()) = tokio::join!(claim, meanwhile);
        assert_eq!((work.machine(), work.fence().0), (machine, 2));
        work.done().await.unwrap();
    })
    .await;
}
