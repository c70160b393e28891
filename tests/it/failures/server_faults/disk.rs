//! A server whose disk is full.

use std::time::Duration;

use bmdb::{Error, Unfinished, machine};
use bmdb_entity::machine as row;
use harness::{OwnServer, bounded, of};
use sea_orm::{ConnectionTrait, DatabaseConnection, EntityTrait, RuntimeErr};

use super::{NOISE, Scene, claim, within};
use crate::world::{AgentStart, INTERVAL, events, row_counts, tamper};

/// Each statement is answered at once.
const AT_ONCE: Duration = Duration::from_secs(1).saturating_add(NOISE);

/// Fills the disk to its last page.
async fn fill(raw: &DatabaseConnection) {
    tamper(raw, "CREATE TABLE filler (filled TEXT)").await;
    let fill = "INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 500)";
    let fill_a_page = "INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 8)";
    for statement in [fill, fill_a_page] {
        let full = loop {
            if let Err(error) = raw.execute_unprepared(statement).await {
                break error;
            }
        };
        assert!(is_disk_full(&full), "{full:?}");
    }
}

/// Whether the server says `disk_full`.
fn is_disk_full(error: &sea_orm::DbErr) -> bool {
    let (sea_orm::DbErr::Exec(RuntimeErr::SqlxError(error)) | sea_orm::DbErr::Query(RuntimeErr::SqlxError(error))) =
        error
    else {
        return false;
    };
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some("53100")
}

fn is_full(error: &Error) -> bool {
    matches!(error, Error::Database { source, .. } if is_disk_full(source))
}

/// Text that does not compress, so that it needs pages of its own.
fn noise() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(4000).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_at_once_and_what_it_refused_is_not_half_done() {
    bounded(async {
        let server = OwnServer::on_small_disk().await;
        let scene = Scene::on(&server.database(), INTERVAL, 5).await;
        let mut works = scene
            .session
            .claim_many(&of::<AgentStart>(&scene.session).await, 2)
            .await
            .unwrap();
        let (one, two) = (works.pop().unwrap(), works.pop().unwrap());
        let held = [one.machine(), two.machine()];
        fill(&scene.raw).await;
        let before = (
            row_counts(&scene.raw).await,
            row::Entity::find().all(&scene.raw).await.unwrap(),
        );

        let many = async |tx: &bmdb::Tx| {
            for _ in 0..1000 {
                machine::create(tx).await?;
            }
            Ok::<_, Error>(())
        };
        let (refused, took) = within(AT_ONCE, scene.session.transact(many)).await;
        assert!(refused.as_ref().is_err_and(is_full), "{refused:?}");
        eprintln!("a body was refused after {took:?}");
        let (refused, _) = within(AT_ONCE, one.transact(many)).await;
        assert!(refused.as_ref().is_err_and(is_full), "{refused:?}");
        // A history row of this size needs a page, and there is none.
        let (refused, took) = within(AT_ONCE, one.fail(noise())).await;
        eprintln!("an end was refused after {took:?}");
        let Err(Unfinished::NotCommitted { work: one, error }) = refused else {
            panic!("{refused:?}");
        };
        assert!(is_full(&error), "{error:?}");
        let (refused, _) = within(AT_ONCE, two.finish(many)).await;
        let Err(Unfinished::NotCommitted { work: two, error }) = refused else {
            panic!("{refused:?}");
        };
        assert!(is_full(&error), "{error:?}");
        let after = (
            row_counts(&scene.raw).await,
            row::Entity::find().all(&scene.raw).await.unwrap(),
        );
        assert_eq!(after, before, "nothing is half done");
        // A heartbeat finds room on its own page.
        for _ in 0..4 {
            scene.sees_a_heartbeat().await;
        }
        assert!(!scene.session.lost().is_cancelled());
        assert!(!one.stop().is_cancelled());

        tamper(&scene.raw, "DROP TABLE filler").await;
        one.fail(noise()).await.unwrap();
        two.finish(async |tx| many(tx).await).await.unwrap();
        assert_eq!(events(&scene.raw, held[0]).await, ["started", "failed"]);
        assert_eq!(events(&scene.raw, held[1]).await, ["started", "finished"]);
        assert_eq!(scene.machines().await, 1005);
        claim(&scene.session).await.cancel().await.unwrap();
        scene.ends_well().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_on_a_full_disk_leaves_nothing() {
    bounded(async {
        let server = OwnServer::on_small_disk().await;
        let scene = Scene::on(&server.database(), INTERVAL, 2).await;
        let start = of::<AgentStart>(&scene.session).await;
        // No work was ever claimed, so the first needs the first page of its tables.
        fill(&scene.raw).await;
        let before = (
            row_counts(&scene.raw).await,
            row::Entity::find().all(&scene.raw).await.unwrap(),
        );
        for _ in 0..3 {
            let (refused, took) = within(AT_ONCE, scene.session.claim(&start)).await;
            eprintln!("a claim was refused after {took:?}");
            assert!(refused.as_ref().is_err_and(is_full), "{refused:?}");
        }
        let after = (
            row_counts(&scene.raw).await,
            row::Entity::find().all(&scene.raw).await.unwrap(),
        );
        assert_eq!(after, before, "no fence was raised and nothing is held");
        scene.sees_a_heartbeat().await;
        tamper(&scene.raw, "DROP TABLE filler").await;
        let work = claim(&scene.session).await;
        work.cancel().await.unwrap();
        scene.ends_well().await;
    })
    .await;
}
