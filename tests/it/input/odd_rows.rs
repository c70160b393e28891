//! Rows that no component writes, but somebody with a shell has: one odd row stops nobody else.

use std::collections::HashSet;
use std::time::Duration;

use bmdb::{Bmdb, Error, Hold, Session, SessionId, agent_heartbeat, tag};
use harness::{Backend, TestDatabase, ada, bounded, literal, of, on_each_backend, until};
use sea_orm::{DatabaseBackend, DatabaseConnection};

use crate::input::hostile::log::Kept;
use crate::world::{
    AgentStart, INTERVAL, LONG, Survey, config, connect, deadline, kill_session, provide, session, tamper,
};

/// What stands in a column of times, as SQL.
fn odd_times(raw: &DatabaseConnection) -> &'static [&'static str] {
    match raw.get_database_backend() {
        DatabaseBackend::Sqlite => &["'infinity'", "'-infinity'", "'soon'", "''", "x'ff'", "5"],
        _ => &["'infinity'", "'-infinity'", "'290000-01-01'", "'4000-01-01 BC'"],
    }
}

/// A session whose process has noticed that it is over, and writes no more.
async fn lost_session(db: &harness::TestDatabase, raw: &DatabaseConnection) -> Session {
    let dead = session(db).await;
    kill_session(raw, &dead).await;
    until("its process has noticed", LONG, async || dead.lost().is_cancelled()).await;
    dead
}

async fn expires(bmdb: &Bmdb, dead: &[&Session]) {
    let mut collector = bmdb.collector();
    let mut left: HashSet<SessionId> = dead.iter().map(|session| session.id()).collect();
    until("all are expired", LONG, async || {
        for session in collector.sweep().await.unwrap().expired {
            assert!(left.remove(&session), "{session} lives");
        }
        left.is_empty()
    })
    .await;
}

on_each_backend! {
    async fn an_odd_deadline_keeps_nobody_from_being_expired_nor_its_own_session(db: TestDatabase) {
        let raw = db.raw().await;
        let mut odd = Vec::new();
        for time in odd_times(&raw) {
            let dead = lost_session(&db, &raw).await;
            let id = literal(&raw, dead.id().0);
            tamper(&raw, &format!("UPDATE session_lease SET deadline = {time} WHERE session_id = {id}")).await;
            odd.push(dead);
        }
        let alive = session(&db).await;
        provide(&alive, 1).await;
        let dead = session(&db).await;
        let _work = dead.claim(&of::<AgentStart>(&dead).await).await.unwrap().expect("one machine is eligible");
        kill_session(&raw, &dead).await;
        expires(&connect(&db).await, &odd.iter().chain([&dead]).collect::<Vec<_>>()).await;
        until("its machine is claimed again", LONG, async || alive.claim(&of::<AgentStart>(&alive).await).await.unwrap().is_some()).await;
    }

    async fn a_tag_that_cannot_be_read_is_an_error(db: TestDatabase) {
        let raw = db.raw().await;
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        session.transact(async |tx| agent_heartbeat::set(tx, machine).await).await.unwrap();
        let bmdb = connect(&db).await;
        assert!(tag::get::<agent_heartbeat::Entity>(bmdb.reads(), machine).await.unwrap().is_some());
        tamper(&raw, "UPDATE machine_agent_heartbeat SET at = 'infinity'").await;
        let outside = tag::get::<agent_heartbeat::Entity>(bmdb.reads(), machine).await.map(drop);
        let inside = session.transact(async |tx| tag::get::<agent_heartbeat::Entity>(tx, machine).await).await.map(drop);
        for odd in [outside, inside] {
            assert!(matches!(odd, Err(Error::Database { doing: "read a tag", .. })), "{odd:?}");
        }
    }

    async fn a_session_that_lives_mends_its_odd_deadline(db: TestDatabase) {
        let session = session(&db).await;
        let raw = db.raw().await;
        let mut collector = connect(&db).await.collector();
        tamper(&raw, "UPDATE session_lease SET deadline = 'infinity'").await;
        let watched = tokio::time::timeout(INTERVAL * 5 / 2, async {
            loop {
                assert!(collector.sweep().await.unwrap().expired.is_empty());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        assert!(watched.await.is_err());
        assert!(!session.lost().is_cancelled());
        let now = deadline(&raw).await;
        until("its heart goes on beating", LONG, async || deadline(&raw).await > now).await;
    }

    async fn a_session_whose_row_cannot_be_read_is_named_and_the_others_are_expired(db: TestDatabase) {
        let raw = db.raw().await;
        // There the columns have types.
        let unreadable = (raw.get_database_backend() == DatabaseBackend::Sqlite).then_some("'soon'");
        let kept = Kept::default();
        let _listening = kept.listen();
        let odd = lost_session(&db, &raw).await;
        let interval = unreadable.unwrap_or("9223372036854775807");
        let id = literal(&raw, odd.id().0);
        tamper(&raw, &format!("UPDATE session SET interval_ms = {interval} WHERE session_id = {id}")).await;
        let (_alive, dead) = (session(&db).await, lost_session(&db, &raw).await);
        expires(&connect(&db).await, &[&dead]).await;
        let name = odd.id().0.simple().to_string().to_uppercase();
        let told = kept.text().matches(&name).count();
        assert_eq!(told, usize::from(unreadable.is_some()), "{}", kept.text());
    }

    async fn an_end_without_end_is_listed_explained_and_lifted(db: TestDatabase) {
        let (bmdb, session, raw) = (connect(&db).await, session(&db).await, db.raw().await);
        let machine = provide(&session, 1).await[0];
        bmdb.operator("ada", "moving").unwrap().place_hold(machine, Hold::new()).await.unwrap();
        assert!(session.claim(&of::<AgentStart>(&session).await).await.unwrap().is_none());
        ada(&bmdb).lift_hold(machine, None).await.unwrap();
        session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is eligible").fail("a test").await.unwrap();
        bmdb.operator("ada", "moving").unwrap().place_hold(machine, Hold::new()).await.unwrap();
        for (time, keeps) in [("'infinity'", true), ("'290000-01-01 00:00:00.000'", true), ("'-infinity'", false)] {
            for table in ["work_hold", "work_backoff"] {
                tamper(&raw, &format!("UPDATE {table} SET until = {time}")).await;
            }
            let hold = bmdb.holds(None).await.unwrap().rows.remove(0);
            let backoff = bmdb.backoffs(None).await.unwrap().rows.remove(0);
            assert_eq!((hold.until.is_none(), backoff.until.is_none()), (keeps, keeps), "{time}");
            let explained = of::<AgentStart>(&bmdb).await.explain(machine).await.unwrap();
            assert_eq!((explained.holds.len(), explained.backoff.is_some()), (usize::from(keeps), keeps), "{time}");
            assert_eq!((explained.eligible, explained.earliest), (!keeps, None), "{time}");
            let claimed = session.claim(&of::<AgentStart>(&session).await).await.unwrap();
            assert_eq!(claimed.is_some(), !keeps, "{time}");
            if let Some(work) = claimed {
                work.cancel().await.unwrap();
            }
        }
    }

    async fn times_beyond_all_calendars_are_read(db: TestDatabase) {
        let (bmdb, session, raw) = (connect(&db).await, session(&db).await, db.raw().await);
        let machine = provide(&session, 1).await[0];
        let _work = session.claim(&of::<AgentStart>(&session).await).on(machine).await.unwrap().expect("it is eligible");
        bmdb.operator("ada", "moving").unwrap().place_hold(machine, Hold::new()).await.unwrap();
        // A text that is no time is told of with the row that has it; where columns have types, the nearest time is.
        let is_text = raw.get_database_backend() == DatabaseBackend::Sqlite;
        tamper(&raw, "UPDATE work_history SET at = 'infinity'").await;
        tamper(&raw, "UPDATE work_hold SET placed_at = '-infinity'").await;
        let history = bmdb.history(machine).await.unwrap();
        let holds = bmdb.holds(Some(machine)).await.unwrap();
        let unreadable = [history.unreadable, holds.unreadable].concat();
        assert_eq!((history.rows.len(), holds.rows.len()), if is_text { (0, 0) } else { (1, 1) });
        assert_eq!(unreadable.len(), if is_text { 2 } else { 0 });
        for row in unreadable {
            assert!(row.row.contains(&machine.to_string()), "{row:?}");
        }
        if !is_text {
            tamper(&raw, "UPDATE work SET claimed_at = 'infinity'").await;
            tamper(&raw, "UPDATE session_lease SET deadline = 'infinity'").await;
            let explained = of::<AgentStart>(&bmdb).await.explain(machine).await.unwrap();
            assert_eq!(explained.holder.expect("it is held").claimed_at.to_string(), "9999-12-31 23:59:59.999 UTC");
        }
    }

    async fn one_unreadable_row_hides_no_other_of_its_page(db: TestDatabase) {
        let (bmdb, session, raw) = (connect(&db).await, session(&db).await, db.raw().await);
        let machines = provide(&session, 3).await;
        for machine in &machines {
            bmdb.operator("ada", "moving").unwrap().place_hold(*machine, Hold::new()).await.unwrap();
        }
        let is_text = raw.get_database_backend() == DatabaseBackend::Sqlite;
        if is_text {
            let odd = literal(&raw, machines[0].0);
            tamper(&raw, &format!("UPDATE work_hold SET placed_at = 'yesterday' WHERE machine_id = {odd}")).await;
        }
        let (mut rows, mut odd, mut after) = (Vec::new(), Vec::new(), None);
        loop {
            let list = bmdb.holds(None).limit(1);
            let page = match after {
                None => list.await,
                Some(key) => list.after(key).await,
            };
            let page = page.unwrap();
            assert_eq!(page.rows.len() + page.unreadable.len(), 1);
            rows.extend(page.rows);
            odd.extend(page.unreadable);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!((rows.len(), odd.len()), if is_text { (2, 1) } else { (3, 0) });
        assert!(rows.is_sorted_by_key(|hold| hold.machine_id.0.into_bytes()));
    }

    async fn history_comes_in_pages(db: TestDatabase) {
        let (bmdb, session) = (connect(&db).await, session(&db).await);
        let machine = provide(&session, 1).await[0];
        for _ in 0..4 {
            session.claim(&of::<Survey>(&session).await).on(machine).await.unwrap().expect("it is eligible").cancel().await.unwrap();
        }
        let held = session.claim(&of::<Survey>(&session).await).on(machine).await.unwrap().expect("it is eligible");
        let all = bmdb.history(machine).await.unwrap();
        assert_eq!((all.rows.len(), all.next.is_none()), (9, true));
        let words: Vec<String> = all.rows.iter().map(|event| event.event.to_string()).collect();
        assert_eq!(words[..5].join(" "), "started canceled started canceled started");
        assert!(all.rows.is_sorted_by_key(|event| event.fence));
        for limit in [1, 2, 3, 8, 9] {
            let (mut rows, mut page) = (Vec::new(), bmdb.history(machine).limit(limit).await.unwrap());
            loop {
                assert!(page.rows.len() <= limit as usize);
                rows.append(&mut page.rows);
                let Some(last) = page.next else { break };
                page = bmdb.history(machine).limit(limit).after(last).await.unwrap();
            }
            assert_eq!(rows, all.rows, "{limit} a page");
        }
        for none in [0, 10_001] {
            let refused = bmdb.history(machine).limit(none).await;
            assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
        }
        held.cancel().await.unwrap();
    }
}

/// SQLite keeps in a column whatever is written there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_number_and_no_text_stops_neither_claims_nor_heartbeats_nor_a_restore() {
    bounded(async {
        let db = TestDatabase::migrated(Backend::Sqlite).await;
        let raw = db.raw().await;
        let bmdb = Bmdb::connect(config(&db).interval(Duration::from_secs(2))).await.unwrap();
        let session = bmdb.start_session().await.unwrap();
        let machine = provide(&session, 1).await[0];
        session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is eligible").fail("a test").await.unwrap();
        tamper(&raw, "UPDATE work_backoff SET until = '2020-01-01 00:00:00.000', attempts = 'many', last_interval_seconds = x'ff'").await;
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("its backoff is over");
        work.fail("a test").await.unwrap();
        let backoff = bmdb.backoffs(Some(machine)).await.unwrap().rows.remove(0);
        assert_eq!(backoff.attempts, 1);
        let work = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is always eligible");
        tamper(&raw, "UPDATE work SET stop_requested = x'ff'").await;
        until("it is told to stop", LONG, async || work.stop().is_cancelled()).await;
        assert!(session.loss().is_none(), "{:?}", session.loss());
        tamper(&raw, "UPDATE session SET interval_ms = 'odd'").await;
        let restored = tokio::time::timeout(Duration::from_secs(3), ada(&bmdb).after_restore()).await;
        // It waits for as long as any interval may be: an hour.
        assert!(restored.is_err());
        tamper(&raw, "UPDATE session SET interval_ms = 2000").await;
        assert_eq!(ada(&bmdb).after_restore().await.unwrap().expired, [session.id()]);
    })
    .await;
}
