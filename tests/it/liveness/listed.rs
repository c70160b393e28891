//! Sessions as operators see them: how they stand by the database's clock, and what they hold.

use bmdb_entity::SessionId;
use chrono::TimeDelta;
use harness::{literal, of, on_each_backend};

use crate::world::{AgentStart, INTERVAL, Survey, connect, kill_session, provide, session, tamper};

on_each_backend! {
    async fn a_session_is_listed_with_what_is_left_of_it_and_what_it_holds(db: TestDatabase) {
        let (busy, idle, dead) = (session(&db).await, session(&db).await, session(&db).await);
        let raw = db.raw().await;
        provide(&busy, 3).await;
        let _works = busy.claim_many(&of::<AgentStart>(&busy).await, 2).await.unwrap();
        let _other = busy.claim(&of::<Survey>(&busy).await).await.unwrap().expect("it has a slot of its own");
        kill_session(&raw, &dead).await;
        let listed = connect(&db).await.sessions().await.unwrap();
        assert_eq!((listed.rows.len(), listed.unreadable.len(), listed.next), (3, 0, None));
        let of = |id: SessionId| listed.rows.iter().find(|row| row.session == id).expect("it is listed");
        assert_eq!([busy.id(), idle.id(), dead.id()].map(|id| of(id).works), [3, 0, 0]);
        for row in listed.rows.iter().filter(|row| row.session != dead.id()) {
            assert_eq!((row.component.as_str(), row.interval), ("test", INTERVAL));
            assert!(row.started_at <= row.as_of, "{row:?}");
        }
        let interval = TimeDelta::from_std(INTERVAL).unwrap();
        assert!((TimeDelta::zero()..=interval).contains(&of(idle.id()).left().expect("it has a lease")), "{:?}", of(idle.id()));
        assert!(of(dead.id()).left().is_some_and(|left| left < TimeDelta::zero()), "{:?}", of(dead.id()));
    }

    async fn sessions_are_listed_in_pages_by_their_ids(db: TestDatabase) {
        let mut all = Vec::new();
        for _ in 0..5 {
            all.push(session(&db).await);
        }
        let bmdb = connect(&db).await;
        let (mut seen, mut after) = (Vec::new(), None);
        for rows in [2, 2, 1] {
            let list = bmdb.sessions().limit(2);
            let page = match after {
                Some(last) => list.after(last),
                None => list,
            };
            let page = page.await.unwrap();
            assert_eq!(page.rows.len(), rows);
            seen.extend(page.rows.iter().map(|row| row.session));
            after = page.next;
        }
        assert_eq!(after, None);
        let mut ids: Vec<SessionId> = all.iter().map(bmdb::Session::id).collect();
        ids.sort();
        assert_eq!(seen, ids);
    }

    async fn a_session_that_somebody_has_written_odd_things_into_hides_no_other(db: TestDatabase) {
        let (odd, bare, well) = (session(&db).await, session(&db).await, session(&db).await);
        let raw = db.raw().await;
        let of_session = |session: &bmdb::Session| format!("WHERE session_id = {}", literal(&raw, session.id().0));
        tamper(&raw, &format!("UPDATE session_lease SET deadline = 'infinity' {}", of_session(&odd))).await;
        tamper(&raw, &format!("DELETE FROM session_lease {}", of_session(&bare))).await;
        let listed = connect(&db).await.sessions().await.unwrap();
        let of = |id: SessionId| listed.rows.iter().find(|row| row.session == id);
        let bare = of(bare.id()).expect("it is listed");
        assert_eq!((bare.deadline, bare.left()), (None, None));
        assert!(of(well.id()).is_some_and(|row| row.left().is_some()));
        // To SQLite it is a text, which is no time.
        match listed.unreadable.as_slice() {
            [] => assert!(of(odd.id()).is_some_and(|row| row.left() > Some(TimeDelta::days(365)))),
            [unreadable] => assert_eq!(unreadable.row, odd.id().to_string()),
            more => panic!("{more:?}"),
        }
    }

    async fn a_machine_is_found_by_what_its_provider_calls_it(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 2).await[1];
        let bmdb = connect(&db).await;
        let find = async |provider, id| bmdb::machine::find(bmdb.reads(), provider, id).await.unwrap();
        assert_eq!(find("test", "m1").await, Some(machine));
        assert_eq!(find("test", "m7").await, None);
        assert_eq!(find("other", "m1").await, None);
        let inside = session.transact(async |tx| bmdb::machine::find(tx, "test", "m1").await).await;
        assert_eq!(inside.unwrap(), Some(machine));
    }
}
