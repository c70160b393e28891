//! A process that is paused: nobody claims for it, and it goes on where it was.

use std::time::Duration;

use bmdb::{Eligible, Error, Process, StopReason, Until, machine, provided};
use harness::{ada, of, on_each_backend, until};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, DatabaseConnection, Order, Statement};

use crate::world::{AgentStart, LONG, Survey, connect, provide};

/// Takes the machine with the highest fence first.
struct InOrder;

impl Process for InOrder {
    const NAME: &'static str = "in-order";
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines.order(Expr::col(machine::Column::Fence), Order::Desc)
    }
}

/// How many hints there are for a process, and how many searches have begun.
async fn hints_and_searches(raw: &DatabaseConnection, process: &str) -> (i64, i64) {
    let text = format!(
        "SELECT (SELECT CAST(count(*) AS BIGINT) FROM work_candidate WHERE process LIKE '{process}@%'), CAST(max(begun) AS BIGINT) \
         FROM work_retrieval WHERE process LIKE '{process}@%'"
    );
    let row = raw
        .query_one_raw(Statement::from_string(raw.get_database_backend(), text))
        .await;
    let row = row.unwrap().expect("it is an aggregate");
    (row.try_get_by_index(0).unwrap(), row.try_get_by_index(1).unwrap())
}

on_each_backend! {
    async fn nobody_claims_for_a_paused_process_in_any_way(db: TestDatabase) {
        let (bmdb, raw) = (connect(&db).await, db.raw().await);
        let session = bmdb.start_session().await.unwrap();
        let machines = provide(&session, 5).await;
        let (start, ordered) = (of::<AgentStart>(&session).await, bmdb.register(InOrder).await.unwrap());
        // It leaves hints at the others.
        let first = session.claim(&start).await.unwrap().expect("five are eligible");
        let free: Vec<_> = machines.iter().filter(|machine| **machine != first.machine_id).copied().collect();
        let before = hints_and_searches(&raw, "agent-start").await;
        assert_eq!(before.0, 4);
        for process in ["agent-start", "in-order"] {
            ada(&bmdb).pause_process(process, Until::Open).await.unwrap();
        }
        for _ in 0..3 {
            assert!(session.claim(&start).await.unwrap().is_none(), "from hints");
            assert!(session.claim_many(&start, 3).await.unwrap().is_empty());
        }
        assert!(session.claim(&start).on(free[0]).await.unwrap().is_none());
        assert!(session.claim(&start).filter(provided::Column::Provider.is_not_null()).await.unwrap().is_none());
        assert!(session.claim(&ordered).await.unwrap().is_none());
        let next = first.cancel().then(session.claim(&start)).await.unwrap();
        assert!(next.unwrap().is_none(), "with the end of another");
        assert_eq!(hints_and_searches(&raw, "agent-start").await, (5, before.1), "hints stay, one comes with what is free again, and nobody searched");
        // Where there is no hint, nobody searches either, nor waits for who would.
        let none = hints_and_searches(&raw, "in-order").await;
        raw.execute_unprepared("DELETE FROM work_candidate").await.unwrap();
        assert!(session.claim(&start).await.unwrap().is_none());
        assert_eq!(hints_and_searches(&raw, "agent-start").await, (0, before.1));
        assert_eq!(hints_and_searches(&raw, "in-order").await, none);
        assert_eq!(start.count().await.unwrap(), 5, "a pause changes no machine");
        // Others of the same machines go on.
        session.claim(&of::<Survey>(&session).await).await.unwrap().expect("that is another process").cancel().await.unwrap();

        assert!(ada(&bmdb).resume_process("agent-start").await.unwrap());
        assert_eq!(session.claim_many(&start, 5).await.unwrap().len(), 5);
        assert!(session.claim(&ordered).await.unwrap().is_none(), "it is still paused");
    }

    async fn a_pause_ends_by_itself(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let session = bmdb.start_session().await.unwrap();
        let (machine, survey) = (provide(&session, 1).await[0], of::<Survey>(&session).await);
        ada(&bmdb).pause_process("survey", Until::For(Duration::from_millis(400))).await.unwrap();
        let explained = survey.explain(machine).await.unwrap();
        let end = explained.pause.as_ref().expect("it is paused").until;
        assert!(!explained.eligible && end.is_some() && explained.earliest == end, "{explained}");
        until("the pause is over", LONG, async || session.claim(&survey).await.unwrap().is_some()).await;
        assert!(bmdb.now().await.unwrap() >= end.unwrap());
        until("the guard is let go of", LONG, async || survey.explain(machine).await.unwrap().eligible).await;
        assert!(bmdb.processes().await.unwrap()[0].pause.is_none());
        assert!(bmdb.pauses().await.unwrap().is_empty());
        assert!(!ada(&bmdb).resume_process("survey").await.unwrap(), "it was over");
    }

    async fn a_pause_says_who_and_why_wherever_one_asks(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let session = bmdb.start_session().await.unwrap();
        let (machine, survey) = (provide(&session, 1).await[0], of::<Survey>(&session).await);
        let ada = bmdb.operator("ada", "the new image does not boot").unwrap().ticket("OPS-1").unwrap();
        ada.pause_process("survey", Until::Open).await.unwrap();
        let explained = survey.explain(machine).await.unwrap();
        let obstacles = bmdb.obstacles("survey", machine).await.unwrap();
        let status = bmdb.processes().await.unwrap().remove(0);
        assert!(!explained.eligible && explained.earliest.is_none());
        assert!(explained.to_string().contains("[ ] paused by ada until resumed: the new image does not boot"), "{explained}");
        assert_eq!(explained.pause, obstacles.pause);
        assert_eq!(explained.pause, status.pause);
        let pause = status.pause.expect("it is paused");
        assert_eq!(
            (pause.process.as_str(), pause.until, pause.reason.as_str(), pause.paused_by.as_str(), pause.ticket.as_deref()),
            ("survey", None, "the new image does not boot", "ada", Some("OPS-1"))
        );
        assert!(pause.paused_at <= status.as_of);
        assert_eq!(bmdb.pauses().await.unwrap(), [pause]);
        ada.resume_process("survey").await.unwrap();
        let explained = survey.explain(machine).await.unwrap();
        assert!(explained.eligible && explained.to_string().contains("[x] the process is not paused"), "{explained}");
        let verbs: Vec<_> = bmdb.operations(None).await.unwrap().rows.into_iter().map(|act| (act.verb, act.process, act.detail)).collect();
        let survey = || Some("survey".to_owned());
        assert_eq!(verbs.len(), 2);
        assert!(verbs.contains(&("pause-process".to_owned(), survey(), Some("until resumed".to_owned()))), "{verbs:?}");
        assert!(verbs.contains(&("resume-process".to_owned(), survey(), None)), "{verbs:?}");
    }

    async fn a_pause_shortens_none_that_stands_and_wrong_ones_are_refused(db: TestDatabase) {
        let bmdb = connect(&db).await;
        bmdb.register(Survey).await.unwrap();
        let (ada, bob) = (bmdb.operator("ada", "the image").unwrap(), bmdb.operator("bob", "the fan").unwrap());
        let minutes = |minutes: u64| Until::For(Duration::from_secs(60 * minutes));
        bob.pause_process("survey", minutes(10)).await.unwrap();
        ada.pause_process("survey", minutes(20)).await.unwrap();
        ada.pause_process("survey", Until::Open).await.unwrap();
        for shorter in [minutes(30), Until::Open] {
            let error = bob.pause_process("survey", shorter).await.expect_err("ada's stands");
            assert!(matches!(&error, Error::AlreadyPaused { paused_by, reason, until: None, .. } if paused_by == "ada" && reason == "the image"), "{error:?}");
            assert_eq!(error.to_string(), "process survey is paused already by ada until resumed: the image; resume it first");
        }
        let past = Until::Time(bmdb.now().await.unwrap() - Duration::from_secs(1));
        for wrong in [past, Until::For(Duration::MAX)] {
            let error = bob.pause_process("survey", wrong).await.expect_err("no such end");
            assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
        }
        for refused in [
            bob.pause_process("surwey", Until::Open).await.err(),
            bob.resume_process("surwey").await.err(),
            bob.ask_all_to_stop("surwey").await.err(),
        ] {
            assert!(matches!(&refused, Some(Error::UnknownProcess { known, .. }) if known == &["survey"]), "{refused:?}");
        }
        assert_eq!(bmdb.operations(None).await.unwrap().rows.len(), 3, "what was refused is not written down");
    }

    async fn all_works_of_a_process_are_asked_to_stop_and_no_other(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let session = bmdb.start_session().await.unwrap();
        provide(&session, 3).await;
        let works = session.claim_many(&of::<Survey>(&session).await, 3).await.unwrap();
        let other = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("another slot is free");
        let ada = ada(&bmdb);
        ada.pause_process("survey", Until::Open).await.unwrap();
        assert_eq!(ada.ask_all_to_stop("survey").await.unwrap(), 3);
        for work in works {
            until("it hears of it", LONG, async || work.stop().is_cancelled()).await;
            assert_eq!(work.stop_reason(), Some(StopReason::Requested("a test".to_owned())));
            work.cancel().await.unwrap();
        }
        assert!(!other.stop().is_cancelled());
        assert_eq!(ada.ask_all_to_stop("survey").await.unwrap(), 0, "nobody works for it");
        let asked: Vec<_> = bmdb.operations(None).await.unwrap().rows.into_iter().filter(|act| act.verb == "ask-all-to-stop").collect();
        assert_eq!(asked.len(), 1, "what asked nobody is not written down");
        assert_eq!((asked[0].process.as_deref(), asked[0].detail.as_deref()), (Some("survey"), Some("works asked to stop: 3")));
    }
}
