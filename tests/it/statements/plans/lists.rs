//! Lists of many rows: a page is found by its key, and reads as many rows as it has.

use std::time::{Duration, Instant};

use bmdb::{Bmdb, Config, Fence, MachineFilter, MachineId, MachineState, WorksOf};
use bmdb_entity::work_history::Event;
use harness::{Backend, TestDatabase, literal};
use sea_orm::{DatabaseBackend, DatabaseConnection};
use uuid::Uuid;

use super::rules;
use super::scene::{HOUR, Scene, TIMES};
use crate::world::tamper;

/// How many rows there are: machines with ten backoffs and two holds each, and claims that one of them has had.
#[derive(Clone, Copy)]
struct Many {
    machines: u32,
    claims: u32,
}

/// A million backoffs, two hundred thousand holds, half a million events of one machine, and ten thousand sessions with ten works each.
const MANY: Many = Many {
    machines: 100_000,
    claims: 250_000,
};

const BUSY: Uuid = Uuid::from_u128(7);

impl Many {
    /// Fills a migrated database, which has no other rows.
    async fn fill(self, raw: &DatabaseConnection) {
        let (id, now, later) = match raw.get_database_backend() {
            DatabaseBackend::Sqlite => (
                "randomblob(16)",
                "strftime('%Y-%m-%d %H:%M:%f', 'now')",
                "strftime('%Y-%m-%d %H:%M:%f', 'now', '+1 day')",
            ),
            _ => ("gen_random_uuid()", "now()", "now() + INTERVAL '1 day'"),
        };
        let Self { machines, claims } = self;
        let upto =
            |most: u32| format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {most})");
        let busy = literal(raw, BUSY);
        for rows in [
            format!(
                "INSERT INTO machine (machine_id, created_at, fence) {} SELECT {id}, {now}, 7 FROM n",
                upto(machines)
            ),
            "INSERT INTO machine_provided (machine_id, provider, provider_id, address, status) \
                 SELECT machine_id, 'oak', 'OAK-' || row_number() OVER (ORDER BY machine_id), \
                     '192.0.2.' || (row_number() OVER (ORDER BY machine_id)) / 4, 'running' FROM machine"
                .to_owned(),
            format!(
                "INSERT INTO work_backoff (machine_id, process, until, cause, attempts, last_interval_seconds) {} \
                 SELECT machine_id, 'process-' || i, {later}, 'no answer', 3, 600 FROM n, machine",
                upto(10)
            ),
            format!(
                "INSERT INTO work_hold (machine_id, slot, reason, placed_by, placed_at) {} \
                 SELECT machine_id, 'slot-' || i, 'no disk', 'ada', {now} FROM n, machine",
                upto(2)
            ),
            format!("INSERT INTO machine (machine_id, created_at, fence) VALUES ({busy}, {now}, {claims})"),
            format!(
                "INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at) {} \
                 SELECT {busy}, i, event, {busy}, 'survey', 'survey', {busy}, 'test', '', {now} FROM n, \
                 (SELECT 'started' AS event UNION ALL SELECT 'finished') AS events",
                upto(claims)
            ),
            format!(
                "INSERT INTO session (session_id, component_name, runtime_info, created_at, interval_ms) \
                 SELECT machine_id, 'test', '', {now}, 10000 FROM machine ORDER BY machine_id LIMIT {}",
                machines / 10
            ),
            format!("INSERT INTO session_lease (session_id, deadline) SELECT session_id, {later} FROM session"),
            format!(
                "INSERT INTO work (machine_id, slot, process, work_id, session_id, fence, claimed_at) \
                 SELECT machine_id, 'slot', 'process', machine_id, session_id, 7, {now} FROM \
                 (SELECT machine_id, row_number() OVER (ORDER BY machine_id) % {0} AS nth FROM machine) AS m \
                 JOIN (SELECT session_id, row_number() OVER (ORDER BY session_id) - 1 AS nth FROM session) AS s ON s.nth = m.nth",
                machines / 10
            ),
        ] {
            tamper(raw, &rows).await;
        }
        let analyze = match raw.get_database_backend() {
            DatabaseBackend::Sqlite => "ANALYZE",
            _ => "VACUUM (ANALYZE)",
        };
        tamper(raw, analyze).await;
    }
}

/// A key in the middle of the machines'.
const MIDDLE: MachineId = MachineId(Uuid::from_u128(1 << 127));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_million_rows_costs_as_many_pages_as_it_has_rows() {
    let mut scene = Scene::new().await;
    MANY.fill(&scene.raw).await;
    harness::bounded(async {
        let bmdb = scene.component("operator", HOUR).await;
        let middle = || (MIDDLE, String::new());
        for _ in 0..3 * TIMES {
            let holds = scene
                .watch("list holds", "FROM work_hold", bmdb.holds(None))
                .await
                .unwrap();
            assert_eq!((holds.rows.len(), holds.next.is_some()), (1000, true));
            let holds = bmdb.holds(None).after(middle());
            let holds = scene
                .watch("list holds from the middle", "FROM work_hold", holds)
                .await
                .unwrap();
            assert!(holds.rows.len() == 1000 && holds.rows[0].machine_id >= MIDDLE);
            let backoffs = scene
                .watch("list backoffs", "FROM work_backoff", bmdb.backoffs(None))
                .await
                .unwrap();
            assert_eq!((backoffs.rows.len(), backoffs.next.is_some()), (1000, true));
            let backoffs = bmdb.backoffs(None).after(middle());
            let backoffs = scene
                .watch("list backoffs from the middle", "FROM work_backoff", backoffs)
                .await
                .unwrap();
            assert!(backoffs.rows.len() == 1000 && backoffs.rows[0].machine_id >= MIDDLE);
            let sessions = scene
                .watch("list sessions", "FROM session s", bmdb.sessions())
                .await
                .unwrap();
            assert_eq!((sessions.rows.len(), sessions.rows[7].works), (1000, 10));
            let works = scene
                .watch("list works", "FROM work w", bmdb.works(WorksOf::All))
                .await
                .unwrap();
            assert_eq!((works.rows.len(), works.next.is_some()), (1000, true));
            let works = bmdb.works(WorksOf::All).after(middle());
            let works = scene
                .watch("list works from the middle", "FROM work w", works)
                .await
                .unwrap();
            assert!(works.rows.len() == 1000 && works.rows[0].machine >= MIDDLE);
            let machines = |filter: MachineFilter| bmdb.machines(filter);
            let all = scene
                .watch("list machines", "FROM machine m", machines(MachineFilter::new()))
                .await
                .unwrap();
            assert_eq!((all.rows.len(), all.next.is_some()), (1000, true));
            let later = machines(MachineFilter::new()).after(MIDDLE);
            let later = scene
                .watch("list machines from the middle", "FROM machine m", later)
                .await
                .unwrap();
            assert!(later.rows.len() == 1000 && later.rows[0].machine >= MIDDLE);
            let held = machines(MachineFilter::new().state(MachineState::Held)).after(MIDDLE);
            let held = scene.watch("list held machines", "FROM machine m", held).await.unwrap();
            assert_eq!(held.rows.len(), 1000);
            let named = machines(MachineFilter::new().name("OAK-777"));
            let named = scene
                .watch("find a machine by its name", "FROM machine m", named)
                .await
                .unwrap();
            assert_eq!(named.rows[0].provider_id.as_deref(), Some("OAK-777"));
            let answers = machines(MachineFilter::new().name("192.0.2.77"));
            let answers = scene
                .watch("find a machine by its address", "FROM machine m", answers)
                .await
                .unwrap();
            assert_eq!(answers.rows.len(), 4);
            let history = bmdb.history(MachineId(BUSY));
            let history = scene.watch("long history", "FROM work_history", history).await.unwrap();
            assert_eq!((history.rows.len(), history.rows[0].fence), (1000, Fence(1)));
            let last = (Fence(200_000), Event::Finished);
            let history = bmdb.history(MachineId(BUSY)).after(last);
            let history = scene
                .watch("long history from its middle", "FROM work_history", history)
                .await
                .unwrap();
            assert_eq!((history.rows.len(), history.rows[0].fence), (1000, Fence(200_001)));
        }
    })
    .await;
    let report = scene.report();
    println!("{report}");
    let broken = rules::broken(&scene.seen, &scene.tables().await);
    assert!(broken.is_empty(), "{}\n{report}", broken.join("\n"));
}

/// SQLite says of no statement what it has read, so pages of many rows are read beside pages of few.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_takes_no_longer_for_the_rows_that_are_not_in_it() {
    /// A page that is read by its key takes as long in both; where all rows are read, it takes at least a hundred times as long.
    const TIMES_AS_LONG: u32 = 20;
    const FEW: Many = Many {
        machines: 2000,
        claims: 1000,
    };
    let times = async |many: Many| {
        let db = TestDatabase::migrated(Backend::Sqlite).await;
        many.fill(&db.raw().await).await;
        let bmdb = Bmdb::connect(Config::new(db.url(), "test", "")).await.unwrap();
        let mut best = [Duration::MAX; 5];
        for _ in 0..7 {
            let mut began = Instant::now();
            let mut took = |nth: usize| {
                best[nth] = best[nth].min(began.elapsed());
                began = Instant::now();
            };
            assert_eq!(
                bmdb.holds(None)
                    .after((MIDDLE, String::new()))
                    .await
                    .unwrap()
                    .rows
                    .len(),
                1000
            );
            took(0);
            assert_eq!(
                bmdb.backoffs(None)
                    .after((MIDDLE, String::new()))
                    .await
                    .unwrap()
                    .rows
                    .len(),
                1000
            );
            took(1);
            assert_eq!(bmdb.history(MachineId(BUSY)).await.unwrap().rows.len(), 1000);
            took(2);
            let last = (Fence(i64::from(many.claims) - 600), Event::Finished);
            assert_eq!(
                bmdb.history(MachineId(BUSY)).after(last).await.unwrap().rows.len(),
                1000
            );
            took(3);
            let sessions = bmdb.sessions().limit(200).await.unwrap();
            assert_eq!((sessions.rows.len(), sessions.rows[7].works), (200, 10));
            took(4);
        }
        best
    };
    let (few, many) = (times(FEW).await, times(MANY).await);
    println!("few rows {few:?}, many {many:?}");
    for (few, many) in std::iter::zip(few, many) {
        assert!(many < few * TIMES_AS_LONG, "few rows {few:?}, many {many:?}");
    }
}
