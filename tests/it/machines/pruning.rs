//! Old history goes on demand, and nothing else of it.

use std::time::Duration;

use bmdb::{Error, Fence};
use bmdb_entity::work_history;
use harness::{Backend, ada, of, on_each_backend, on_postgres};
use sea_orm::{ColumnTrait, DatabaseConnection, EntityTrait, QueryFilter, QueryOrder};

use crate::schema::roles::{login, make_roles};
use crate::world::{AgentStart, Survey, connect, connect_to, provide, tamper};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// As if what is there had happened so many days ago.
async fn age(raw: &DatabaseConnection, days: u32, condition: &str) {
    let ago = match raw.get_database_backend() {
        sea_orm::DatabaseBackend::Sqlite => format!("strftime('%Y-%m-%d %H:%M:%f', 'now', '-{days} days')"),
        _ => format!("now() - INTERVAL '{days} days'"),
    };
    tamper(raw, &format!("UPDATE work_history SET at = {ago} WHERE {condition}")).await;
}

async fn fences(raw: &DatabaseConnection) -> Vec<(Fence, String)> {
    use work_history::Column;
    let rows = work_history::Entity::find()
        .order_by_asc(Column::Fence)
        .order_by_desc(Column::Event)
        .filter(Column::Process.eq("survey"))
        .all(raw)
        .await
        .unwrap();
    rows.into_iter().map(|row| (row.fence, row.event.to_string())).collect()
}

on_each_backend! {
    async fn what_ended_long_ago_goes_and_what_is_young_or_goes_on_stays(db: TestDatabase) {
        let (bmdb, raw) = (connect(&db).await, db.raw().await);
        let session = bmdb.start_session().await.unwrap();
        provide(&session, 1).await;
        let survey = of::<Survey>(&session).await;
        for _ in 0..3 {
            session.claim(&survey).await.unwrap().expect("it is free").cancel().await.unwrap();
        }
        let going_on = session.claim(&survey).await.unwrap().expect("it is free");
        let all = fences(&raw).await;
        assert_eq!(all.len(), 7);
        // The first began and ended long ago; the second began then and ended lately; the last began then and goes on.
        age(&raw, 40, &format!("fence = {}", all[0].0)).await;
        age(&raw, 40, &format!("fence IN ({}, {}) AND event = 'started'", all[2].0, all[6].0)).await;

        let month_ago = bmdb.now().await.unwrap() - 30 * DAY;
        assert_eq!(bmdb.prunable_history(month_ago).await.unwrap(), 2);
        assert_eq!(fences(&raw).await, all, "to count deletes nothing");
        let ada = ada(&bmdb);
        assert_eq!(ada.prune_history(month_ago).await.unwrap(), 2);
        assert_eq!(fences(&raw).await, all[2..]);
        assert_eq!(ada.prune_history(month_ago).await.unwrap(), 0);
        let acts = bmdb.operations(None).await.unwrap().rows;
        assert_eq!(acts.len(), 1, "what deleted nothing is not written down");
        assert_eq!(acts[0].verb, "prune-history");
        assert_eq!(acts[0].detail, Some(format!("of claims that ended before {}", month_ago.format("%Y-%m-%d %H:%M:%S UTC"))));
        going_on.cancel().await.unwrap();
    }

    async fn what_happened_in_the_last_day_cannot_be_pruned(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let almost = bmdb.now().await.unwrap() - DAY + Duration::from_secs(60);
        for refused in [bmdb.prunable_history(almost).await, ada(&bmdb).prune_history(almost).await] {
            assert!(matches!(&refused, Err(Error::Invalid { .. })), "{refused:?}");
        }
        assert!(bmdb.operations(None).await.unwrap().rows.is_empty());
    }

    async fn more_than_one_window_of_history_is_pruned_to_its_end(db: TestDatabase) {
        let (bmdb, raw) = (connect(&db).await, db.raw().await);
        let session = bmdb.start_session().await.unwrap();
        let machine = provide(&session, 1).await[0];
        session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is free").cancel().await.unwrap();
        session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is free").cancel().await.unwrap();
        // Six thousand claims more, each with a start and an end: two windows and a bit.
        let numbers = if db.backend() == Backend::Sqlite {
            "(WITH RECURSIVE up (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < 6000) SELECT n FROM up) AS numbers"
        } else {
            "generate_series(1, 6000) AS numbers (n)"
        };
        let many = format!(
            "INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at) \
             SELECT h.machine_id, n, h.event, h.work_id, 'survey', h.slot, h.session_id, h.component_name, h.runtime_info, h.at \
             FROM work_history h, {numbers} WHERE h.process = 'survey'"
        );
        tamper(&raw, &many).await;
        age(&raw, 3, "process = 'survey'").await;
        let two_days_ago = bmdb.now().await.unwrap() - 2 * DAY;
        assert_eq!(bmdb.prunable_history(two_days_ago).await.unwrap(), 12_002);
        assert_eq!(ada(&bmdb).prune_history(two_days_ago).await.unwrap(), 12_002);
        assert_eq!(fences(&raw).await, []);
        assert_eq!(bmdb.history(machine).await.unwrap().rows.len(), 2, "of the other process");
    }
}

on_postgres! {
    async fn a_component_is_told_that_it_may_not_prune_and_the_migrator_may(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let session = bmdb.start_session().await.unwrap();
        provide(&session, 1).await;
        session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is free").cancel().await.unwrap();
        age(&db.raw().await, 3, "true").await;
        let two_days_ago = bmdb.now().await.unwrap() - 2 * DAY;
        let _alone = make_roles(&db).await;
        let component = connect_to(&login(&db, "bmdb_component")).await;
        let error = ada(&component).prune_history(two_days_ago).await.expect_err("it may not");
        assert!(matches!(&error, Error::NotAllowed { role, lacks, .. } if role == "bmdb_component" && lacks == &["DELETE on work_history"]), "{error:?}");
        assert!(bmdb.operations(None).await.unwrap().rows.is_empty(), "nothing went");
        let migrator = connect_to(&login(&db, "bmdb_migrator")).await;
        assert_eq!(ada(&migrator).prune_history(two_days_ago).await.unwrap(), 2);
    }
}
