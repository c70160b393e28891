//! Rows that nobody can read, beside everything that runs.

use bmdb::{Hold, Process};
use harness::{Survey, TestDatabase};

use crate::world::{connect, kill_session, provide, session, tamper};

/// Writes them (but for works and history, which the checker must read): of a dead session and what it holds, of a hold and a backoff, and of a machine that everybody may claim.
pub(super) async fn write_rows(db: &TestDatabase) {
    let (bmdb, dead, raw) = (connect(db).await, session(db).await, db.raw().await);
    let machines = provide(&dead, 3).await;
    let [held, parked, undecodable] = machines[..] else {
        unreachable!("there are three")
    };
    let work = dead.claim::<Survey>().on(held).await.unwrap().expect("it is new");
    bmdb.place_hold(parked, Hold::new("a test", "a test")).await.unwrap();
    kill_session(&raw, &dead).await;
    let session = dead.id();
    for odd in [
        format!("UPDATE session SET interval_ms = 9223372036854775807 WHERE session_id = '{session}'"),
        format!("UPDATE session_lease SET deadline = '-infinity' WHERE session_id = '{session}'"),
        format!("UPDATE work_hold SET placed_at = '-infinity', until = 'infinity' WHERE machine_id = '{parked}'"),
        format!(
            "INSERT INTO work_backoff (machine_id, process, until, cause, attempts, last_interval_seconds) \
             VALUES ('{parked}', '{}', 'infinity', 'a test', 1, 1)",
            Survey::NAME
        ),
        format!("UPDATE machine SET created_at = 'infinity' WHERE machine_id = '{undecodable}'"),
    ] {
        tamper(&raw, &odd).await;
    }
    // What is left is what a killed process leaves.
    std::mem::forget((work, dead));
}
