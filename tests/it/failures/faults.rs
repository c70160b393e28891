//! Every fault of the network and of COMMIT, and a caller that is gone, at every statement of every public operation, beside rows that nobody can read.
//!
//! Each operation runs once undisturbed, to count its statements. Then it runs again for each of them and each [`Trouble`], through a
//! [`Proxy`](harness::Proxy) that makes just that one fail, on a machine and in a session of its own. Whatever it reports must be true, what it
//! does must have happened at most once, and nothing may be left behind.

mod effect;
mod odd;
mod operation;
mod scene;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmdb::CancellationToken;
use harness::{Fault, TestDatabase, check_history, of, until};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::claims::stress::idle_in_transaction;
use crate::world::{LONG, connect};
use operation::Operation;
use scene::{Said, Scene, Strike, Trouble};

/// At any statement.
const ANYWHERE: [Trouble; 7] = [
    Trouble::Fault(Fault::Refused("40001")),
    Trouble::Fault(Fault::Refused("40P01")),
    Trouble::Fault(Fault::DropBefore),
    Trouble::Fault(Fault::DropAfter),
    Trouble::Fault(Fault::HalfOpen),
    Trouble::Fault(Fault::Terminated),
    Trouble::CallerGone,
];
/// At COMMIT.
const AT_COMMIT: [Trouble; 3] = [
    Trouble::Fault(Fault::Refused("40003")),
    Trouble::Fault(Fault::Disowned("40003")),
    Trouble::Fault(Fault::Late(Duration::from_millis(200))),
];
/// How many run at once.
const AT_ONCE: usize = 12;
/// What an operation may take with one fault in it: a statement limit to notice, a budget to try again, and a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// What became of one run.
struct Outcome {
    operation: Operation,
    strike: Option<Strike>,
    /// The statements that it sent, and which of them are COMMIT.
    statements: Vec<bool>,
    struck: bool,
    said: Said,
    took: Duration,
    wrong: Vec<String>,
}

async fn run(db: &TestDatabase, nth: usize, operation: Operation, strike: Option<Strike>) -> Outcome {
    let own;
    let db = if operation.is_alone() {
        own = db.another().await;
        scene::make_counters(&own.raw().await).await;
        odd::write_rows(&own).await;
        &own
    } else {
        db
    };
    let scene = Scene::new(db, nth, operation.needs()).await;
    scene.arm(operation, strike);
    let began = Instant::now();
    let said = tokio::time::timeout(LIMIT, async {
        tokio::select! {
            biased;
            () = scene.caller_gone() => Said::Unknown("its caller is gone".to_owned()),
            said = operation.perform(&scene) => said,
        }
    })
    .await;
    let took = began.elapsed();
    let (statements, struck) = scene.disarm();
    let mut wrong = Vec::new();
    let said = said.unwrap_or_else(|_elapsed| {
        wrong.push(format!("it did not end within {LIMIT:?}"));
        Said::Unknown("nothing".to_owned())
    });
    // What is left to tasks has this long.
    let found = scene.settled(&operation, &said).await;
    let (least, most) = match said {
        Said::Done => (1, 1),
        Said::NotDone(_) => (0, 0),
        Said::Unknown(_) => (0, 1),
    };
    if !(least..=most).contains(&found) {
        wrong.push(format!("it took effect {found} times"));
    }
    let raw = scene.raw.clone();
    match tokio::time::timeout(2 * LONG, scene.end(operation)).await {
        Ok(more) if operation.is_alone() => wrong.extend(more.into_iter().chain(check_history(&raw).await)),
        Ok(more) => wrong.extend(more),
        Err(_elapsed) => wrong.push(format!("it could not be cleared up within {LONG:?}")),
    }
    Outcome {
        operation,
        strike,
        statements,
        struck,
        said,
        took,
        wrong,
    }
}

/// All runs of all operations; everything wrong with any of them.
async fn every_fault_everywhere(db: TestDatabase) {
    let raw = db.raw().await;
    scene::make_counters(&raw).await;
    // So that not every scene writes the same row.
    let first = crate::world::session(&db).await;
    assert!(
        first
            .claim(&of::<harness::Survey>(&first).await)
            .await
            .unwrap()
            .is_none(),
        "there are no machines yet"
    );
    first.close().await.unwrap();
    odd::write_rows(&db).await;
    // One that is never disturbed.
    let collector = connect(&db).await.collector();
    let _collecting = JoinSet::from_iter([collector.run(CancellationToken::new())]);
    let db = Arc::new(db);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut nth = 0;
    let mut runs = JoinSet::new();
    let mut wrong = Vec::new();
    let mut start = |runs: &mut JoinSet<Outcome>, operation, strike| {
        let (db, places) = (Arc::clone(&db), Arc::clone(&places));
        nth += 1;
        runs.spawn(async move {
            let _place = places.acquire_owned().await.expect("it is never closed");
            run(&db, nth, operation, strike).await
        });
    };
    // Some operations only, to look at them.
    let only = std::env::var("BMDB_TEST_ONLY").ok();
    let only: Option<Vec<&str>> = only.as_deref().map(|only| only.split(',').collect());
    for name in only.iter().flatten() {
        let is_one = Operation::ALL.iter().any(|operation| *name == format!("{operation:?}"));
        assert!(is_one, "BMDB_TEST_ONLY: there is no operation {name:?}");
    }
    let chosen = |operation: &Operation| {
        only.as_ref()
            .is_none_or(|only| only.contains(&format!("{operation:?}").as_str()))
    };
    let mut calm = Vec::new();
    // One after the other, so that none meets a conflict and sends more statements than it needs.
    for operation in Operation::ALL.into_iter().filter(chosen) {
        start(&mut runs, operation, None);
        calm.extend(std::mem::take(&mut runs).join_all().await);
    }
    for outcome in calm {
        assert!(
            outcome.wrong.is_empty(),
            "{:?} undisturbed: {:?}",
            outcome.operation,
            outcome.wrong
        );
        assert!(
            matches!(outcome.said, Said::Done),
            "{:?} undisturbed: {:?}",
            outcome.operation,
            outcome.said
        );
        for (place, commits) in outcome.statements.iter().enumerate() {
            let at_commit = AT_COMMIT.iter().filter(|_| *commits);
            for trouble in ANYWHERE.iter().chain(at_commit) {
                let trouble = *trouble;
                start(&mut runs, outcome.operation, Some(Strike { place, trouble }));
            }
        }
    }
    let mut tally: BTreeMap<String, (usize, usize, usize, Duration)> = BTreeMap::new();
    let (mut all, mut struck) = (0, 0);
    while let Some(outcome) = runs.join_next().await {
        let outcome = outcome.expect("no run panics");
        let Strike { place, trouble } = outcome.strike.expect("these are struck");
        all += 1;
        struck += usize::from(outcome.struck);
        let row = tally.entry(format!("{:?}", outcome.operation)).or_default();
        match outcome.said {
            Said::Done => row.0 += 1,
            Said::NotDone(_) => row.1 += 1,
            Said::Unknown(_) => row.2 += 1,
        }
        row.3 = row.3.max(outcome.took);
        let Outcome {
            operation, said, took, ..
        } = &outcome;
        for what in &outcome.wrong {
            wrong.push(format!(
                "{operation:?}, statement {place}, {trouble:?}: {what}; it said {said} after {took:?}"
            ));
        }
    }
    for (operation, (done, not_done, unknown, longest)) in tally {
        eprintln!("{operation}: {done} done, {not_done} not done, {unknown} unknown; longest {longest:?}");
    }
    eprintln!("{all} runs, {struck} struck");
    assert!(
        wrong.is_empty(),
        "{} of {all} runs went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    // Which statement comes how late is not always the same (a connection may have been made already), so a few strikes find nothing.
    assert!(struck * 100 >= all * 95, "only {struck} of {all} faults struck");
    assert_eq!(check_history(&raw).await, Vec::<String>::new());
    until("no transaction is left open", LONG, async || {
        idle_in_transaction(&raw).await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_at_every_statement_on_postgres() {
    every_fault_everywhere(TestDatabase::migrated(harness::Backend::Postgres).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_at_every_statement_with_cockroach_text() {
    every_fault_everywhere(TestDatabase::with_cockroach_text().await).await;
}
