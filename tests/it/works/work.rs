//! The life of work: claimed, ended, claimed again.

use std::time::Duration;

use bmdb::{Error, Process, Unfinished, Work, agent_started, provided};
use bmdb_entity::work_history::{self, Event};
use bmdb_entity::{work, work_backoff};
use harness::{literal, of, on_each_backend, until};
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};

use crate::world::{
    AgentRecovery, AgentStart, INTERVAL, LONG, Survey, deadline, events, provide, session, tamper, works,
};

on_each_backend! {
    async fn a_claimed_machine_is_finished_with_its_facts(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible");
        assert_eq!((work.machine(), work.provider_id.as_str()), (machine, "m0"));
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
        assert!(session.claim(&of::<AgentStart>(&session).await).await.unwrap().is_none(), "the rule is not met any more");
        session.close().await.unwrap();
    }

    async fn two_sessions_one_slot_one_winner(db: TestDatabase) {
        let (one, two) = (session(&db).await, session(&db).await);
        let machine = provide(&one, 1).await[0];
        let work = one.claim(&of::<AgentStart>(&one).await).await.unwrap().expect("one machine is eligible");
        assert!(two.claim(&of::<AgentStart>(&two).await).await.unwrap().is_none());
        assert!(two.claim(&of::<AgentStart>(&two).await).on(machine).await.unwrap().is_none());
        // Recovery has the same slot, a survey has its own.
        let raw = db.raw().await;
        tamper(&raw, "UPDATE machine_provided SET status = 'running'").await;
        assert!(two.claim(&of::<AgentRecovery>(&two).await).await.unwrap().is_none());
        let survey = two.claim(&of::<Survey>(&two).await).await.unwrap().expect("another slot is free");
        assert!(survey.machine() == machine && survey.fence() > work.fence());
        work.cancel().await.unwrap();
        let again = two.claim(&of::<AgentStart>(&two).await).await.unwrap().expect("it is free again");
        assert!(again.fence() > survey.fence());
        assert_eq!(works(&raw).await, 2);
    }

    async fn a_failure_backs_off_and_a_finish_forgets_it(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        for (attempt, seconds) in [(1, 300), (2, 360), (3, 432)] {
            let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("the machine is eligible");
            work.fail("no answer").await.unwrap();
            let backoff = work_backoff::Entity::find().one(&raw).await.unwrap().expect("a backoff was written");
            assert_eq!((backoff.attempts, backoff.last_interval_seconds), (attempt, seconds));
            assert_eq!(backoff.cause, "no answer");
            assert!(session.claim(&of::<AgentStart>(&session).await).await.unwrap().is_none(), "it backs off");
            tamper(&raw, "UPDATE work_backoff SET until = '2020-01-01 00:00:00.000'").await;
        }
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("the backoff is over");
        work.finish(async |_tx| Ok::<_, Error>(())).await.unwrap();
        assert_eq!(work_backoff::Entity::find().one(&raw).await.unwrap(), None);
        assert_eq!(events(&raw, machine).await, ["started", "failed", "started", "failed", "started", "failed", "started", "finished"]);
    }

    async fn an_end_and_the_next_claim_go_round_the_fleet(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide(&session, 5).await;
        let raw = db.raw().await;
        let mut next = session.claim(&of::<AgentStart>(&session).await).await.unwrap();
        let mut seen = Vec::new();
        while let Some(work) = next {
            seen.push(work.machine());
            next = work.fail("no answer").then(session.claim(&of::<AgentStart>(&session).await)).await.unwrap().unwrap();
            assert_eq!(session.held().len(), usize::from(next.is_some()));
        }
        seen.sort();
        let mut expected = machines.clone();
        expected.sort();
        assert_eq!(seen, expected, "each has failed once and then backs off");
        assert_eq!(works(&raw).await, 0);
        for machine in machines {
            assert_eq!(events(&raw, machine).await, ["started", "failed"]);
        }
        assert_eq!(work_backoff::Entity::find().all(&raw).await.unwrap().len(), 5);
    }

    async fn an_end_that_is_not_ours_claims_nothing(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 3).await;
        let raw = db.raw().await;
        let lost = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("three are eligible");
        let machine = lost.machine();
        tamper(&raw, "DELETE FROM work").await;
        let answer = lost.done().then(session.claim(&of::<AgentStart>(&session).await)).await;
        assert!(matches!(answer, Err(Unfinished::Over(Error::WorkLost { .. }))), "{answer:?}");
        assert_eq!((works(&raw).await, session.held().len()), (0, 0));
        assert_eq!(events(&raw, machine).await, ["started"]);
        // Nobody has to wait for a search that was not made: the other two are taken by hints, and then one is made at once.
        let two = session.claim_many(&of::<AgentStart>(&session).await, 3).await.unwrap();
        let third = tokio::time::timeout(INTERVAL / 2, session.claim(&of::<AgentStart>(&session).await)).await.unwrap().unwrap();
        assert_eq!((two.len(), third.expect("it is free").machine()), (2, machine));
    }

    async fn what_somebody_else_has_ended_is_lost_and_not_finished(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 6).await;
        let raw = db.raw().await;
        let mut works = session.claim_many(&of::<AgentStart>(&session).await, 3).await.unwrap();
        // As a collector does it; this session still trusts itself.
        tamper(&raw, "
            INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at)
            SELECT machine_id, fence, 'expired', work_id, process, slot, session_id, component_name, runtime_info, at
            FROM work_history WHERE event = 'started'").await;
        tamper(&raw, "DELETE FROM work").await;
        let is_lost = |unfinished: &Unfinished<AgentStart>| matches!(unfinished, Unfinished::Over(Error::WorkLost { .. }));
        let mut next = || works.pop().expect("three are held");
        assert!(next().done().await.is_err_and(|unfinished| is_lost(&unfinished)));
        assert!(next().fail("no answer").then(session.claim(&of::<AgentStart>(&session).await)).await.is_err_and(|unfinished| is_lost(&unfinished)));
        let finished = next().finish(async |_tx| Ok::<_, Error>(())).await;
        assert!(matches!(finished, Err(Unfinished::Over(Error::WorkLost { .. }))), "{finished:?}");
        assert_eq!(session.held().len(), 0);
    }

    async fn each_of_many_failures_follows_its_own(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide(&session, 3).await;
        let raw = db.raw().await;
        for (failures, machine) in machines.iter().enumerate() {
            for _ in 0..failures {
                let work = session.claim(&of::<AgentStart>(&session).await).on(*machine).await.unwrap().expect("its backoff is over");
                work.fail("no answer").await.unwrap();
                tamper(&raw, "UPDATE work_backoff SET until = '2020-01-01 00:00:00.000'").await;
            }
        }
        let works = session.claim_many(&of::<AgentStart>(&session).await, 3).await.unwrap();
        assert_eq!(works.len(), 3);
        for ended in Work::fail_many(works, "no answer").await {
            ended.unwrap();
        }
        for (failures, machine) in machines.iter().enumerate() {
            let backoff = work_backoff::Entity::find_by_id((*machine, AgentStart::NAME.to_owned())).one(&raw).await.unwrap();
            assert_eq!(backoff.expect("it has failed").attempts, failures as i64 + 1);
        }
    }

    async fn an_end_and_a_claim_that_cannot_be_one_come_one_after_the_other(db: TestDatabase) {
        let (one, two) = (session(&db).await, session(&db).await);
        let machines = provide(&one, 3).await;
        let raw = db.raw().await;
        let work = one.claim(&of::<AgentStart>(&one).await).on(machines[0]).await.unwrap().expect("it is eligible");
        let second = work.done().then(one.claim(&of::<AgentStart>(&one).await).on(machines[1])).await.unwrap().unwrap().expect("it is eligible");
        assert_eq!(second.machine(), machines[1]);
        // Another session's claim, of another process.
        let third = second.cancel().then(two.claim(&of::<Survey>(&two).await).on(machines[2])).await.unwrap().unwrap().expect("it is eligible");
        assert_eq!((third.machine(), third.session().id()), (machines[2], two.id()));
        // The same by hints, which claims of its own session would share a statement with the end.
        let mut third = third;
        for (by, other) in [(&one, &two), (&two, &one)] {
            let survey = by.claim(&of::<Survey>(&by).await).await.unwrap().expect("it is always eligible");
            let next = survey.cancel().then(other.claim(&of::<Survey>(&other).await)).await.unwrap().unwrap().expect("it is always eligible");
            let row = work::Entity::find().filter(work::Column::WorkId.eq(next.id())).one(&raw).await.unwrap().expect("it is held");
            assert_eq!((next.session().id(), row.session_id), (other.id(), other.id()));
            std::mem::replace(&mut third, next).cancel().await.unwrap();
        }
        // A backoff that was cleared meanwhile.
        third.fail("no answer").await.unwrap();
        let failed = one.claim(&of::<AgentStart>(&one).await).on(machines[0]).await.unwrap().expect("it is eligible");
        failed.fail("no answer").await.unwrap();
        tamper(&raw, "UPDATE work_backoff SET until = '2020-01-01 00:00:00.000'").await;
        let again = one.claim(&of::<AgentStart>(&one).await).on(machines[0]).await.unwrap().expect("the backoff is over");
        tamper(&raw, "DELETE FROM work_backoff").await;
        let next = again.fail("no answer").then(one.claim(&of::<AgentStart>(&one).await)).await.unwrap().unwrap().expect("two are eligible");
        assert_ne!(next.machine(), machines[0]);
        let backoff = work_backoff::Entity::find().one(&raw).await.unwrap().expect("it has failed");
        assert_eq!((backoff.machine_id, backoff.attempts, backoff.last_interval_seconds), (machines[0], 1, 300));
        // A session that drains ends, and claims no more.
        one.drain(Duration::ZERO).await;
        let starts = || work_history::Entity::find().filter(work_history::Column::Event.eq(Event::Started)).count(&raw);
        let before = starts().await.unwrap();
        let refused = next.done().then(one.claim(&of::<AgentStart>(&one).await)).await.unwrap();
        assert!(matches!(refused, Err(Error::Draining { .. })), "{refused:?}");
        assert_eq!((works(&raw).await, starts().await.unwrap()), (0, before));
    }

    async fn many_works_end_at_once_and_each_is_told(db: TestDatabase) {
        let (one, two) = (session(&db).await, session(&db).await);
        provide(&one, 9).await;
        let raw = db.raw().await;
        let mut works_of_all = one.claim_many(&of::<AgentStart>(&one).await, 4).await.unwrap();
        let lost = works_of_all.remove(1);
        let machine = lost.machine();
        let key = literal(&raw, machine.0);
        tamper(&raw, &format!("DELETE FROM work WHERE machine_id = {key}")).await;
        works_of_all.insert(1, lost);
        works_of_all.extend(two.claim_many(&of::<AgentStart>(&two).await, 2).await.unwrap());
        let ended = Work::fail_many(works_of_all, "no answer").await;
        let told: Vec<bool> = ended.iter().map(Result::is_ok).collect();
        assert_eq!(told, [true, false, true, true, true, true]);
        assert!(matches!(&ended[1], Err(Unfinished::Over(Error::WorkLost { .. }))), "{:?}", ended[1]);
        drop(ended);
        assert_eq!(work_backoff::Entity::find().all(&raw).await.unwrap().len(), 5);
        assert_eq!((works(&raw).await, one.held().len(), two.held().len()), (0, 0, 0));

        let works_of_one = one.claim_many(&of::<AgentStart>(&one).await, 3).await.unwrap();
        let too_long = Work::fail_many(works_of_one, "x".repeat(5000)).await;
        assert_eq!((too_long.len(), works(&raw).await), (3, 3), "nothing is written, and the guards come back");
        let guards: Vec<_> = too_long.into_iter().map(|ended| ended.unwrap_err().into_work().unwrap()).collect();
        assert!(Work::done_many(guards).await.into_iter().all(|ended| ended.is_ok()));
        let mut canceled = Vec::new();
        loop {
            let more = one.claim_many(&of::<AgentStart>(&one).await, 9).await.unwrap();
            if more.is_empty() { break; }
            canceled.extend(more);
        }
        assert_eq!(canceled.len(), 4, "three were done without a fact that says so, and one was lost");
        assert!(Work::cancel_many(canceled).await.into_iter().all(|ended| ended.is_ok()));
        assert!(Work::cancel_many(Vec::<Work<Survey>>::new()).await.is_empty());
        assert_eq!(works(&raw).await, 0);
    }

    async fn a_dropped_guard_is_canceled(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        drop(session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible"));
        until("the work is let go of", LONG, async || works(&raw).await == 0).await;
        assert_eq!(events(&raw, machine).await, ["started", "canceled"]);
        // From a thread without a runtime, and in a panic.
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible");
        std::thread::spawn(move || {
            let _work = work;
            panic!("a test's panic");
        })
        .join()
        .expect_err("it panics");
        until("the work is let go of", LONG, async || works(&raw).await == 0).await;
        assert_eq!(events(&raw, machine).await, ["started", "canceled", "started", "canceled"]);
    }

    async fn one_work_that_cannot_be_let_go_of_keeps_no_other(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide(&session, 5).await;
        let raw = db.raw().await;
        let mut works_of_all = session.claim_many(&of::<Survey>(&session).await, 5).await.unwrap();
        let stuck = literal(&raw, machines[2].0);
        for sql in match raw.get_database_backend() {
            sea_orm::DatabaseBackend::Sqlite => vec![format!(
                "CREATE TRIGGER keep BEFORE DELETE ON work WHEN OLD.machine_id = {stuck} BEGIN SELECT RAISE(ABORT, 'a test'); END"
            )],
            _ => vec![
                "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a test'; END $$".to_owned(),
                format!("CREATE TRIGGER keep BEFORE DELETE ON work FOR EACH ROW WHEN (OLD.machine_id = {stuck}) EXECUTE FUNCTION keep()"),
            ],
        } {
            tamper(&raw, &sql).await;
        }
        // It is the first of them.
        let at = works_of_all.iter().position(|work| work.machine() == machines[2]).expect("it is claimed");
        drop(works_of_all.swap_remove(at));
        drop(works_of_all);
        until("all others are let go of", LONG, async || works(&raw).await == 1).await;
        tamper(&raw, match raw.get_database_backend() {
            sea_orm::DatabaseBackend::Sqlite => "DROP TRIGGER keep",
            _ => "DROP TRIGGER keep ON work",
        }).await;
        until("it too, when it can be", LONG, async || works(&raw).await == 0).await;
        assert_eq!(events(&raw, machines[2]).await, ["started", "canceled"]);
    }

    async fn a_lost_work_leaves_no_trace_of_its_commit_phase(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible");
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
        let stale = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible");
        tamper(&raw, "DELETE FROM work").await;
        let fresh = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it looks free");
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
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible");
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
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible");
        let id = work.id();
        std::mem::forget(work);
        let raw = db.raw().await;
        let before = deadline(&raw).await;
        until("a heartbeat has passed", LONG, async || deadline(&raw).await > before).await;
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
        let works = session.claim_many(&of::<AgentStart>(&session).await, 3).await.unwrap();
        assert_eq!(works.len(), 3);
        let rest = session.claim_many(&of::<AgentStart>(&session).await, 100).await.unwrap();
        assert_eq!(rest.len(), 2);
        let mut claimed: Vec<_> = works.iter().chain(&rest).map(|work| work.machine()).collect();
        claimed.sort();
        let mut all = machines.clone();
        all.sort();
        assert_eq!(claimed, all);
        assert!(matches!(session.claim_many(&of::<AgentStart>(&session).await, 0).await, Err(Error::Invalid { .. })));
        for work in works.into_iter().chain(rest) {
            work.cancel().await.unwrap();
        }
        assert_eq!(self::works(&db.raw().await).await, 0);
    }

    async fn a_claim_can_be_narrowed(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide(&session, 9).await;
        let work = session.claim(&of::<AgentStart>(&session).await).filter(provided::Column::ProviderId.eq("m7")).await.unwrap();
        let work = work.expect("m7 is eligible");
        assert_eq!(work.machine(), machines[7]);
        assert!(session.claim(&of::<AgentStart>(&session).await).filter(provided::Column::ProviderId.eq("m7")).await.unwrap().is_none());
        let other = session.claim(&of::<AgentStart>(&session).await).on(machines[3]).await.unwrap().expect("m3 is eligible");
        assert_eq!(other.provider_id, "m3");
    }

    async fn a_long_work_transacts_and_reports_progress(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible");
        work.progress(&serde_json::json!({"step": "copy", "percent": 40})).await.unwrap();
        work.transact(async |tx| agent_started::set(tx, machine, *b"key").await).await.unwrap();
        let raw = db.raw().await;
        let row = work::Entity::find().one(&raw).await.unwrap().expect("the work is held");
        assert_eq!(row.progress, Some(serde_json::json!({"step": "copy", "percent": 40})));
        assert!(matches!(work.progress(&"\0").await, Err(Error::Invalid { .. })));
        // With its quotes it is 64 kB, and one more.
        work.progress(&"x".repeat(64 * 1024 - 2)).await.unwrap();
        assert!(matches!(work.progress(&"x".repeat(64 * 1024 - 1)).await, Err(Error::Invalid { .. })));
    }

    async fn an_outside_effect_needs_trust(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 1).await;
        let raw = db.raw().await;
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible");
        assert_eq!(work.guarded(Duration::from_millis(10), async { 5 }).await.unwrap(), 5);
        let started = std::sync::atomic::AtomicBool::new(false);
        let effect = async { started.store(true, std::sync::atomic::Ordering::Relaxed) };
        assert!(matches!(work.guarded(Duration::from_secs(3600), effect).await, Err(Error::NeedImpossible { .. })));
        assert!(!started.into_inner());
        tamper(&raw, "DELETE FROM session").await;
        let aborted = work.guarded(Duration::ZERO, std::future::pending::<()>()).await;
        assert!(matches!(aborted, Err(Error::SessionExpired { .. })), "it ends when trust ends");
        assert!(work.stop().is_cancelled());
        assert_eq!(work.stop_reason(), Some(bmdb::StopReason::SessionLost));
    }
}
