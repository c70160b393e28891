//! How the server carries out each statement, at any size of the fleet, and what updates leave in its pages.
//!
//! Plans are those of the library's own statements with real values, which the server writes to its log (`auto_explain`), custom and generic ones.

mod fleet;
mod lists;
mod log;
mod operations;
mod pages;
mod rules;
mod scene;

use bmdb::machine;
use fleet::Size;
use scene::{Scene, take};

use crate::world::tamper;

async fn holds_for_all(size: Size) {
    let mut scene = Scene::of(size).await;
    // A million machines take as long as they take.
    harness::bounded(operations::run(&mut scene)).await;
    let report = scene.report();
    println!("{size:?}\n{report}");
    let broken = rules::broken(&scene.seen, &scene.tables().await);
    assert!(broken.is_empty(), "{}\n{report}", broken.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_operation_grows_with_a_fleet_of_a_million_machines() {
    let size = Size {
        machines: 1_000_000,
        every: 100,
    };
    holds_for_all(size).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_of_a_thousand_machines_costs_no_more() {
    let size = Size {
        machines: 1000,
        every: 5,
    };
    holds_for_all(size).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_index_is_seen() {
    harness::bounded(async {
        let mut scene = Scene::of(Size {
            machines: 20_000,
            every: 10,
        })
        .await;
        let tables = scene.tables().await;
        assert!(tables.large.contains("work"), "{:?}", tables.large);
        let session = scene
            .component("a test", scene::HOUR)
            .await
            .start_session()
            .await
            .unwrap();
        let machine = fleet::due(&scene.raw, 1).await[0];
        let _lost = take(&session, machine).await;
        tamper(&scene.raw, r#"DROP INDEX "idx-work-session_id""#).await;
        scene
            .watch("close a session", "DELETE FROM session WHERE", session.close())
            .await
            .unwrap();
        let broken = rules::broken(&scene.seen, &tables);
        let says = |words: &str| broken.iter().any(|broken| broken.starts_with(words));
        assert!(says("close a session reads all of work"), "{broken:?}");
        assert!(says("close a session touches "), "{broken:?}");
        assert!(says("close a session ran 1 times"), "{broken:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_import_reads_no_machines_but_those_it_is_given() {
    const BATCH: usize = 500;
    harness::bounded(async {
        let mut scene = Scene::new().await;
        let importer = scene.component("a test", scene::HOUR).await;
        let session = importer.start_session().await.unwrap();
        for nth in 0..8 {
            let new = |place| machine::NewMachine::new("test", format!("m{}", nth * BATCH + place));
            let batch: Vec<_> = (0..BATCH).map(new).collect();
            let import = session.transact(async |tx| machine::import(tx, &batch).await);
            let last = r#"INSERT INTO "machine_provided""#;
            let imported = scene.watch("import", last, import).await.unwrap();
            assert_eq!(imported.created, BATCH);
        }
        let reads = scene.seen.iter().flat_map(|seen| seen.runs.iter().flatten());
        let reads: Vec<_> = reads
            .filter(|execution| execution.text.starts_with("SELECT m.machine_id"))
            .collect();
        assert_eq!(reads.len(), 8);
        for read in reads {
            assert!(read.rejected() <= BATCH as u64, "{}", read.tree());
        }
    })
    .await;
}
