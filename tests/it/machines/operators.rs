//! What operators do to machines, works and sessions, and what is written down of it.

use std::time::Duration;

use bmdb::{Backoff, Eligible, Error, Hold, Process, Until, WorkId, entity::work, provided};
use harness::{ada, of, on_each_backend, until};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use crate::world::{LONG, Survey, connect, provide, row_counts};

struct Stubborn;

impl Process for Stubborn {
    const NAME: &'static str = "stubborn";
    const BACKOFF: Backoff = Backoff::NONE.max_attempts(2);
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines
    }
}

/// Waits until the database's clock shows another time: what it did at one, SQLite's in a millisecond, has no order.
async fn tick(bmdb: &bmdb::Bmdb) {
    let before = bmdb.now().await.unwrap();
    until("time goes on", LONG, async || bmdb.now().await.unwrap() > before).await;
}

on_each_backend! {
    async fn each_act_of_an_operator_is_written_down_with_its_reason(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let session = bmdb.start_session().await.unwrap();
        let (machine, registered) = (provide(&session, 1).await[0], bmdb.register(Stubborn).await.unwrap());
        for nth in 0..2 {
            let mut work = None;
            until("the backoff is over", LONG, async || {
                work = session.claim(&registered).await.unwrap();
                work.is_some()
            }).await;
            work.expect("it was claimed").fail(format!("broken {nth}")).await.unwrap();
        }
        let work = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("another slot is free");
        let ada = bmdb.operator("ada", "replacing a disk").unwrap().ticket("OPS-4471").unwrap();
        ada.place_hold(machine, Hold::new().slot("stubborn").until(Until::For(Duration::from_secs(90)))).await.unwrap();
        tick(&bmdb).await;
        assert_eq!(ada.drain_machine(machine, Hold::new()).await.unwrap(), [work.id()]);
        tick(&bmdb).await;
        assert!(ada.lift_hold(machine, Some("stubborn")).await.unwrap());
        tick(&bmdb).await;
        assert!(ada.ask_to_stop(work.id()).await.unwrap());
        tick(&bmdb).await;
        assert!(ada.run_now(machine, "stubborn").await.unwrap());
        tick(&bmdb).await;
        assert!(ada.clear_backoff(machine, "stubborn").await.unwrap());
        tick(&bmdb).await;
        let other = bmdb.start_session().await.unwrap();
        assert!(ada.break_session(other.id()).await.unwrap().is_some());
        tick(&bmdb).await;

        let of_machine = bmdb.operations(Some(machine)).await.unwrap().rows;
        let said: Vec<_> = of_machine.iter().rev().map(|act| (act.verb.as_str(), act.slot.as_deref(), act.process.as_deref(), act.work_id)).collect();
        assert_eq!(said, [
            ("place-hold", Some("stubborn"), None, None),
            ("drain-machine", Some("*"), None, None),
            ("lift-hold", Some("stubborn"), None, None),
            ("ask-to-stop", Some("survey"), Some("survey"), Some(work.id())),
            ("run-now", None, Some("stubborn"), None),
            ("clear-backoff", None, Some("stubborn"), None),
        ]);
        assert_eq!(of_machine[5].detail.as_deref(), Some("for 90 s"));
        assert_eq!(of_machine[4].detail.as_deref(), Some("until lifted; works asked to stop: 1"));
        let all = bmdb.operations(None).await.unwrap().rows;
        assert_eq!((all.len(), all[0].verb.as_str(), all[0].session_id), (7, "break-session", Some(other.id())));
        for act in &all {
            assert_eq!((act.done_by.as_str(), act.reason.as_str(), act.ticket.as_deref(), act.component.as_str()), ("ada", "replacing a disk", Some("OPS-4471"), "test"));
        }
        assert!(all.is_sorted_by(|newer, older| (newer.at, newer.operation_id) > (older.at, older.operation_id)));

        // Page by page it is the same list.
        let (mut paged, mut page) = (Vec::new(), bmdb.operations(None).limit(2).await.unwrap());
        loop {
            paged.extend(page.rows);
            let Some(last) = page.next else { break };
            page = bmdb.operations(None).limit(2).after(last).await.unwrap();
        }
        assert_eq!(paged, all);
        let hold = bmdb.holds(Some(machine)).await.unwrap().rows.remove(0);
        assert_eq!((hold.placed_by.as_str(), hold.reason.as_str(), hold.ticket.as_deref()), ("ada", "replacing a disk", Some("OPS-4471")));
    }

    async fn a_hold_shortens_none_that_stands(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let machine = provide(&bmdb.start_session().await.unwrap(), 1).await[0];
        let (ada, bob) = (bmdb.operator("ada", "the disk").unwrap(), bmdb.operator("bob", "the fan").unwrap());
        let minutes = |minutes: u64| Hold::new().until(Until::For(Duration::from_secs(60 * minutes)));
        bob.place_hold(machine, minutes(10)).await.unwrap();
        ada.place_hold(machine, minutes(20)).await.unwrap();
        ada.place_hold(machine, Hold::new()).await.unwrap();
        for shorter in [minutes(30), Hold::new(), Hold::new().until(Until::Time((std::time::SystemTime::now() + Duration::from_secs(60)).into()))] {
            let error = bob.place_hold(machine, shorter.clone()).await.expect_err("ada's stands");
            assert!(matches!(&error, Error::AlreadyHeld { placed_by, reason, until: None, .. } if placed_by == "ada" && reason == "the disk"), "{error:?}");
            assert!(error.to_string().ends_with("is held already by ada until lifted: the disk; lift that hold first"), "{error}");
            assert_eq!(bob.drain_machine(machine, shorter).await.unwrap(), [], "it is held, and nobody works on it");
        }
        let hold = bmdb.holds(Some(machine)).await.unwrap().rows.remove(0);
        assert_eq!((hold.placed_by.as_str(), hold.until), ("ada", None));
        let details: Vec<_> = bmdb.operations(Some(machine)).await.unwrap().rows.into_iter().map(|act| act.detail.unwrap()).collect();
        assert_eq!(details.iter().filter(|detail| *detail == "held already; works asked to stop: 0").count(), 3, "{details:?}");
        assert_eq!(details.len(), 6, "what was refused is not written down: {details:?}");
        assert!(bob.lift_hold(machine, None).await.unwrap());
        bob.place_hold(machine, minutes(1)).await.unwrap();
    }

    async fn what_changes_nothing_is_not_written_down(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let session = bmdb.start_session().await.unwrap();
        let (machine, raw) = (provide(&session, 1).await[0], db.raw().await);
        bmdb.register(Stubborn).await.unwrap();
        let before = row_counts(&raw).await;
        let ada = ada(&bmdb);
        assert!(!ada.lift_hold(machine, None).await.unwrap());
        assert!(!ada.clear_backoff(machine, "stubborn").await.unwrap());
        assert!(!ada.run_now(machine, "stubborn").await.unwrap());
        assert!(!ada.ask_to_stop(WorkId::random()).await.unwrap());
        assert_eq!(ada.break_session(bmdb::SessionId::random()).await.unwrap(), None);
        assert_eq!(row_counts(&raw).await, before);
    }

    async fn a_process_that_is_to_run_now_keeps_count_of_its_failures(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let session = bmdb.start_session().await.unwrap();
        let (machine, registered) = (provide(&session, 1).await[0], bmdb.register(Stubborn).await.unwrap());
        for _ in 0..2 {
            let mut work = None;
            until("the backoff is over", LONG, async || {
                work = session.claim(&registered).await.unwrap();
                work.is_some()
            }).await;
            work.expect("it was claimed").fail("broken").await.unwrap();
        }
        assert!(session.claim(&registered).await.unwrap().is_none(), "it is parked");
        assert!(ada(&bmdb).run_now(machine, "stubborn").await.unwrap());
        session.claim(&registered).await.unwrap().expect("it runs once more").fail("broken still").await.unwrap();
        let backoff = bmdb.backoffs(Some(machine)).await.unwrap().rows.remove(0);
        assert_eq!((backoff.until, backoff.attempts), (None, 3), "it is parked again");
    }

    async fn a_holder_is_broken_only_with_the_fence_that_was_seen(db: TestDatabase) {
        let (bmdb, other) = (connect(&db).await, connect(&db).await);
        let session = other.start_session().await.unwrap();
        provide(&session, 1).await;
        let work = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is eligible");
        let ada = ada(&bmdb);
        assert_eq!(ada.break_holder(work.id(), bmdb::Fence(work.fence().0 - 1)).await.unwrap(), None);
        assert_eq!(ada.break_holder(WorkId::random(), work.fence()).await.unwrap(), None);
        assert!(bmdb.operations(None).await.unwrap().rows.is_empty());
        assert!(bmdb.sessions().await.unwrap().rows[0].left().expect("it has a deadline") > chrono::TimeDelta::zero(), "nothing was done");
        let held = ada.break_holder(work.id(), work.fence()).await.unwrap().expect("it is held with this fence");
        assert_eq!(held.works, [(work.machine(), "survey".to_owned())]);
        assert!(bmdb.sessions().await.unwrap().rows[0].left().expect("it has a deadline") <= chrono::TimeDelta::zero());
        let act = bmdb.operations(None).await.unwrap().rows.remove(0);
        assert_eq!((act.verb.as_str(), act.machine_id, act.work_id, act.session_id), ("break-session", Some(work.machine()), Some(work.id()), Some(session.id())));
    }

    // Nothing is claimed once a drain has answered, and whatever was claimed before has been asked.
    async fn a_drain_leaves_no_work_that_was_not_asked_to_stop(db: TestDatabase) {
        let (bmdb, raw) = (connect(&db).await, db.raw().await);
        let machine = provide(&bmdb.start_session().await.unwrap(), 1).await[0];
        let ada = ada(&bmdb);
        // Both orders must have been seen, however slow this machine is today.
        let (mut asked, mut spared, began) = (0, 0, std::time::Instant::now());
        for nth in 0_u64.. {
            if nth >= 40 && (asked > 0 && spared > 0 || began.elapsed() > LONG) {
                break;
            }
            // At another moment of the claims each time, or they at another moment of the drain.
            let late = Duration::from_micros(nth / 2 % 20 * (400 + 10 * nth));
            let (claims_wait, drain_waits) = if nth % 2 == 0 { (Duration::ZERO, late) } else { (late, Duration::ZERO) };
            let mut claimers = tokio::task::JoinSet::new();
            for _ in 0..4 {
                let session = bmdb.start_session().await.unwrap();
                claimers.spawn(async move {
                    tokio::time::sleep(claims_wait).await;
                    let work = session.claim(&of::<Survey>(&session).await).await.unwrap();
                    (session, work)
                });
            }
            tokio::time::sleep(drain_waits).await;
            let stopping = ada.drain_machine(machine, Hold::new()).await.unwrap();
            let claimed = claimers.join_all().await;
            let live = work::Entity::find().filter(work::Column::MachineId.eq(machine)).all(&raw).await.unwrap();
            assert_eq!(live.iter().map(|work| work.work_id).collect::<Vec<_>>(), stopping);
            for work in &live {
                assert_eq!(work.stop_requested.as_deref(), Some("a test"));
            }
            asked += live.len();
            spared += usize::from(live.is_empty());
            for (session, work) in claimed {
                if let Some(work) = work {
                    work.cancel().await.unwrap();
                }
                session.close().await.unwrap();
            }
            assert!(ada.lift_hold(machine, None).await.unwrap());
        }
        assert!(asked > 0 && spared > 0, "{asked} drains came after the claim, and {spared} before it");
    }
}
