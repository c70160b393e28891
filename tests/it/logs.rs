//! What the log tells of claims and ends.

use bmdb::{Error, Work};
use harness::{Backend, TestDatabase, until};

use crate::hostile::log::Kept;
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
        let claim = async || session.claim::<AgentStart>().await.unwrap().expect("it is eligible");
        claim().await.finish(async |_tx| Ok::<_, Error>(())).await.unwrap();
        claim().await.done().await.unwrap();
        claim().await.cancel().await.unwrap();
        claim().await.fail("no\nanswer").await.unwrap();
        let next = claim()
            .await
            .fail("no power")
            .then(session.claim::<AgentStart>())
            .await
            .unwrap();
        drop(next.unwrap().expect("another is eligible"));
        let many = session.claim_many::<Survey>(3).await.unwrap();
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
