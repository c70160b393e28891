//! What the log tells of claims and ends, and what it does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bmdb::{Bmdb, Config, Error, Work};
use harness::{Backend, Fate, Proxy, TestDatabase, of, until};
use sea_orm::ConnectionTrait;

use crate::claims::stress::idle_in_transaction;
use crate::input::hostile::log::Kept;
use crate::world::{AgentStart, LONG, Survey, provide, session, works};

// One thread runs the whole test, so that all of it is heard.
#[tokio::test]
async fn every_claim_and_every_end_is_logged_once() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let db = TestDatabase::migrated(backend).await;
        let kept = Kept::default();
        let _listening = kept.listen();
        let session = session(&db).await;
        provide(&session, 9).await;
        let claim = async || {
            session
                .claim(&of::<AgentStart>(&session).await)
                .await
                .unwrap()
                .expect("it is eligible")
        };
        claim().await.finish(async |_tx| Ok::<_, Error>(())).await.unwrap();
        claim().await.done().await.unwrap();
        claim().await.cancel().await.unwrap();
        claim().await.fail("no\nanswer").await.unwrap();
        let next = claim()
            .await
            .fail("no power")
            .then(session.claim(&of::<AgentStart>(&session).await))
            .await
            .unwrap();
        drop(next.unwrap().expect("another is eligible"));
        let many = session.claim_many(&of::<Survey>(&session).await, 3).await.unwrap();
        assert!(Work::done_many(many).await.into_iter().all(|ended| ended.is_ok()));
        until("what was dropped is let go of", LONG, async || {
            works(&db.raw().await).await == 0
        })
        .await;
        until("it is told", LONG, async || kept.text().contains("work canceled")).await;

        let text = kept.text();
        let count = |level: &str, words: &str| {
            let is_it = |line: &&str| line.contains(level) && line.contains(words);
            text.lines().filter(is_it).count()
        };
        assert_eq!(count("DEBUG", "machine claimed"), 9, "{text}");
        assert_eq!(count("DEBUG", "work finished"), 5, "{text}");
        assert_eq!(count("DEBUG", "work canceled"), 2, "{text}");
        assert_eq!(count("WARN", "work failed"), 2, "{text}");
        assert_eq!(
            (count("WARN", "no\\nanswer"), count("WARN", "no power")),
            (1, 1),
            "with its cause: {text}"
        );
    }
}

/// A BEGIN that is given up may leave its connection inside a transaction (launchbadge/sqlx#4393), so all that are given back then are looked at.
#[tokio::test]
async fn a_begin_that_is_given_up_is_rolled_back_and_nobody_is_warned() {
    let db = TestDatabase::migrated(Backend::Postgres).await;
    let proxy = Proxy::to(db.url()).await;
    let config = Config::new(proxy.url(), "test", "")
        .statement_timeout(Duration::from_millis(400))
        .acquire_timeout(Duration::from_secs(1));
    let session = Bmdb::connect(config).await.unwrap().start_session().await.unwrap();
    let late = Arc::new(AtomicU32::new(0));
    let begun = Arc::clone(&late);
    proxy.decide(move |passing| {
        let is_first = passing.sql.starts_with("BEGIN") && begun.fetch_add(1, Ordering::Relaxed) == 0;
        if is_first {
            Fate::Delay(Duration::from_secs(4))
        } else {
            Fate::Pass
        }
    });
    for _ in 0..20 {
        session.transact(async |_tx| Ok::<_, Error>(())).await.unwrap();
    }
    assert!(
        late.load(Ordering::Relaxed) > 20,
        "the first was given up, and run again"
    );
    let raw = db.raw().await;
    until("no connection is left in a transaction", LONG, async || {
        idle_in_transaction(&raw).await == 0
    })
    .await;
    raw.execute_unprepared("ROLLBACK").await.unwrap();
    until("the server writes its log", LONG, async || {
        !db.warnings().await.is_empty()
    })
    .await;
    assert_eq!(
        db.warnings().await,
        ["there is no transaction in progress"],
        "of the test's own ROLLBACK"
    );
}
