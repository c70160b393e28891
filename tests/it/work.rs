//! The life of work: claimed, ended, claimed again.

use std::time::Duration;

use bmdb::{Error, Unfinished, agent_started, provided};
use bmdb_entity::{work, work_backoff};
use harness::{on_each_backend, until};
use sea_orm::{ColumnTrait, EntityTrait};

use crate::world::{AgentRecovery, AgentStart, INTERVAL, LONG, Survey, events, provide, session, tamper, works};

on_each_backend! {
    async fn a_claimed_machine_is_finished_with_its_facts(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let work = session.claim::<AgentStart>().await.unwrap().expect("one machine is eligible");
        assert_eq!((work.machine(), work.provider_id.as_str(), work.fence().0), (machine, "m0", 1));
        assert_eq!(session.held().len(), 1);
        let answer = work.finish(async |tx| {
            agent_started::set(tx, machine, *b"key").await?;
            Ok::<_, Error>(7)
        });
        assert_eq!(answer.await.unwrap(), 7);

        let raw = db.raw().await;
        assert_eq!(works(&raw).await, 0);
        assert!(session.held().is_empty());
        assert_eq!(events(&raw, machine).await, ["started", "finished"]);
        let tag = agent_started::Entity::find_by_id(machine).one(&raw).await.unwrap().expect("the fact was stated");
        assert_eq!(tag.public_key, b"key");
        assert!(session.claim::<AgentStart>().await.unwrap().is_none(), "the rule is not met any more");
        session.close().await.unwrap();
    }

    async fn two_sessions_one_slot_one_winner(db: TestDatabase) {
        let (one, two) = (session(&db).await, session(&db).await);
        let machine = provide(&one, 1).await[0];
        let work = one.claim::<AgentStart>().await.unwrap().expect("one machine is eligible");
        assert!(two.claim::<AgentStart>().await.unwrap().is_none());
        assert!(two.claim::<AgentStart>().on(machine).await.unwrap().is_none());
        // Recovery has the same slot, a survey has its own.
        let raw = db.raw().await;
        tamper(&raw, "UPDATE machine_provided SET status = 'running'").await;
        assert!(two.claim::<AgentRecovery>().await.unwrap().is_none());
        let survey = two.claim::<Survey>().await.unwrap().expect("another slot is free");
        assert_eq!((survey.machine(), survey.fence().0), (machine, 2));
        work.cancel().await.unwrap();
        let again = two.claim::<AgentStart>().await.unwrap().expect("it is free again");
        assert_eq!(again.fence().0, 3);
        assert_eq!(works(&raw).await, 2);
    }

    async fn a_failure_backs_off_and_a_finish_forgets_it(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        for (attempt, seconds) in [(1, 300), (2, 360), (3, 432)] {
            let work = session.claim::<AgentStart>().await.unwrap().expect("the machine is eligible");
            work.fail("no answer").await.unwrap();
            let backoff = work_backoff::Entity::find().one(&raw).await.unwrap().expect("a backoff was written");
            assert_eq!((backoff.attempts, backoff.last_interval_seconds), (attempt, seconds));
            assert_eq!(backoff.cause, "no answer");
            assert!(session.claim::<AgentStart>().await.unwrap().is_none(), "it backs off");
            tamper(&raw, "UPDATE work_backoff SET until = '2020-01-01 00:00:00.000'").await;
        }
        let work = session.claim::<AgentStart>().await.unwrap().expect("the backoff is over");
        work.finish(async |_tx| Ok::<_, Error>(())).await.unwrap();
        assert_eq!(work_backoff::Entity::find().one(&raw).await.unwrap(), None);
        assert_eq!(events(&raw, machine).await, ["started", "failed", "started", "failed", "started", "failed", "started", "finished"]);
    }

    async fn a_dropped_guard_is_canceled(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        drop(session.claim::<AgentStart>().await.unwrap().expect("one machine is eligible"));
        until("the work is let go of", LONG, async || works(&raw).await == 0).await;
        assert_eq!(events(&raw, machine).await, ["started", "canceled"]);
        // From a thread without a runtime, and in a panic.
        let work = session.claim::<AgentStart>().await.unwrap().expect("one machine is eligible");
        std::thread::spawn(move || {
            let _work = work;
            panic!("a test's panic");
        })
        .join()
        .expect_err("it panics");
        until("the work is let go of", LONG, async || works(&raw).await == 0).await;
        assert_eq!(events(&raw, machine).await, ["started", "canceled", "started", "canceled"]);
    }

    async fn a_lost_work_leaves_no_trace_of_its_commit_phase(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        let work = session.claim::<AgentStart>().await.unwrap().expect("one machine is eligible");
        tamper(&raw, "DELETE FROM work").await;
        let lost = work.finish(async |tx| agent_started::set(tx, machine, *b"key").await).await;
        assert!(matches!(lost, Err(Unfinished::Over(Error::WorkLost { .. }))), "{lost:?}");
        assert_eq!(agent_started::Entity::find().one(&raw).await.unwrap(), None);
        assert_eq!(events(&raw, machine).await, ["started"]);
    }

    async fn a_stale_fence_changes_nothing(db: TestDatabase) {
        // The same session, machine, slot and process, but an earlier claim: the original's ABA.
        let session = session(&db).await;
        provide(&session, 1).await;
        let raw = db.raw().await;
        let stale = session.claim::<AgentStart>().await.unwrap().expect("one machine is eligible");
        tamper(&raw, "DELETE FROM work").await;
        let fresh = session.claim::<AgentStart>().await.unwrap().expect("it looks free");
        assert!(matches!(stale.progress(&1).await, Err(Error::WorkLost { .. })));
        let transacted = stale.transact(async |_tx| Ok::<_, Error>(())).await;
        assert!(matches!(transacted, Err(Error::WorkLost { .. })));
        assert!(matches!(stale.fail("late").await, Err(Unfinished::Over(Error::WorkLost { .. }))));
        assert_eq!(works(&raw).await, 1);
        fresh.cancel().await.unwrap();
    }

    async fn a_body_that_fails_hands_the_guard_back(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let work = session.claim::<AgentStart>().await.unwrap().expect("one machine is eligible");
        #[derive(Debug, PartialEq)]
        enum Mine { Refused, Theirs(String) }
        impl From<Error> for Mine {
            fn from(error: Error) -> Self { Self::Theirs(error.to_string()) }
        }
        let refused = work.finish(async |tx| {
            agent_started::set(tx, machine, *b"key").await?;
            Err::<(), _>(Mine::Refused)
        });
        let Err(Unfinished::NotCommitted { work, error: Mine::Refused }) = refused.await else {
            panic!("the body's own error comes back");
        };
        assert_eq!(session.held().len(), 1);
        work.finish(async |tx| agent_started::set(tx, machine, *b"key").await).await.unwrap();
        assert_eq!(events(&db.raw().await, machine).await, ["started", "finished"]);
    }

    async fn a_forgotten_guard_is_kept_and_listed_until_its_session_closes(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let work = session.claim::<AgentStart>().await.unwrap().expect("one machine is eligible");
        let id = work.id();
        std::mem::forget(work);
        let raw = db.raw().await;
        let trusted = session.trusted_until();
        until("a heartbeat has passed", LONG, async || session.trusted_until() > trusted + INTERVAL / 10).await;
        assert_eq!(works(&raw).await, 1, "nobody can tell that its guard is gone");
        let held: Vec<_> = session.held().into_iter().map(|held| (held.machine, held.work)).collect();
        assert_eq!(held, [(machine, id)]);
        session.close().await.unwrap();
        assert_eq!(works(&raw).await, 0);
        assert_eq!(events(&raw, machine).await, ["started", "canceled"]);
    }

    async fn many_machines_are_claimed_in_one_transaction(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide(&session, 5).await;
        let works = session.claim_many::<AgentStart>(3).await.unwrap();
        assert_eq!(works.len(), 3);
        let rest = session.claim_many::<AgentStart>(100).await.unwrap();
        assert_eq!(rest.len(), 2);
        let mut claimed: Vec<_> = works.iter().chain(&rest).map(|work| work.machine()).collect();
        claimed.sort();
        let mut all = machines.clone();
        all.sort();
        assert_eq!(claimed, all);
        assert!(matches!(session.claim_many::<AgentStart>(0).await, Err(Error::Invalid { .. })));
        for work in works.into_iter().chain(rest) {
            work.cancel().await.unwrap();
        }
        assert_eq!(self::works(&db.raw().await).await, 0);
    }

    async fn a_claim_can_be_narrowed(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide(&session, 9).await;
        let work = session.claim::<AgentStart>().filter(provided::Column::ProviderId.eq("m7")).await.unwrap();
        let work = work.expect("m7 is eligible");
        assert_eq!(work.machine(), machines[7]);
        assert!(session.claim::<AgentStart>().filter(provided::Column::ProviderId.eq("m7")).await.unwrap().is_none());
        let other = session.claim::<AgentStart>().on(machines[3]).await.unwrap().expect("m3 is eligible");
        assert_eq!(other.provider_id, "m3");
    }

    async fn a_long_work_transacts_and_reports_progress(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let work = session.claim::<AgentStart>().await.unwrap().expect("one machine is eligible");
        work.progress(&serde_json::json!({"step": "copy", "percent": 40})).await.unwrap();
        work.transact(async |tx| agent_started::set(tx, machine, *b"key").await).await.unwrap();
        let raw = db.raw().await;
        let row = work::Entity::find().one(&raw).await.unwrap().expect("the work is held");
        assert_eq!(row.progress, Some(serde_json::json!({"step": "copy", "percent": 40})));
        assert!(matches!(work.progress(&"\0").await, Err(Error::Invalid { .. })));
        assert!(matches!(work.progress(&"x".repeat(70_000)).await, Err(Error::Invalid { .. })));
    }

    async fn an_outside_effect_needs_trust(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 1).await;
        let raw = db.raw().await;
        let work = session.claim::<AgentStart>().await.unwrap().expect("one machine is eligible");
        assert_eq!(work.guarded(Duration::from_millis(10), async { 5 }).await.unwrap(), 5);
        let started = std::sync::atomic::AtomicBool::new(false);
        let effect = async { started.store(true, std::sync::atomic::Ordering::Relaxed) };
        assert!(matches!(work.guarded(Duration::from_secs(3600), effect).await, Err(Error::TrustTooShort { .. })));
        assert!(!started.into_inner());
        tamper(&raw, "DELETE FROM session").await;
        let aborted = work.guarded(Duration::ZERO, std::future::pending::<()>()).await;
        assert!(matches!(aborted, Err(Error::SessionExpired { .. })), "it ends when trust ends");
        assert!(work.stop().is_cancelled());
        assert_eq!(work.stop_reason(), Some(bmdb::StopReason::SessionLost));
    }
}
