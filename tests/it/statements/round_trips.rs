//! How often a call waits for the server: counted on the wire, so that it cannot creep up.

use std::time::Duration;

use bmdb::{Bmdb, Config, Session, Work, agent_started};
use harness::{Backend, Proxy, TestDatabase, bounded, of, until};

use crate::world::{AgentStart, LONG, Survey, deadline, provide, works};

/// So long that no heartbeat comes in between.
const INTERVAL: Duration = Duration::from_secs(600);

struct Wire {
    proxy: Proxy,
    session: Session,
}

impl Wire {
    async fn new(db: &TestDatabase, interval: Duration) -> Self {
        let proxy = Proxy::to(db.url()).await;
        let bmdb = Bmdb::connect(Config::new(proxy.url(), "counted", "").interval(interval))
            .await
            .unwrap();
        let session = bmdb.start_session().await.unwrap();
        Self { proxy, session }
    }

    /// What is called, how often it should wait, and the least that it did in some runs: a run may have to prepare a statement or to open a connection,
    /// and the pool asks a connection that a body gives back whether it lives while nobody waits for it, on a busy machine before this has counted.
    async fn counts<S, T>(
        &self,
        what: &'static str,
        wanted: u64,
        prepare: impl AsyncFn() -> S,
        call: impl AsyncFn(S) -> T,
    ) -> (&'static str, u64, u64) {
        let mut least = u64::MAX;
        for run in 0..64 {
            if run >= 8 && least <= wanted {
                break;
            }
            let prepared = prepare().await;
            self.quiet().await;
            let before = self.proxy.round_trips();
            let kept = call(prepared).await;
            least = least.min(self.proxy.round_trips() - before);
            drop(kept);
        }
        (what, wanted, least)
    }

    async fn quiet(&self) {
        let mut before = self.proxy.round_trips();
        loop {
            tokio::time::sleep(Duration::from_millis(30)).await;
            let now = self.proxy.round_trips();
            if now == before {
                return;
            }
            before = now;
        }
    }

    async fn work(&self) -> Work<Survey> {
        self.session
            .claim(&of::<Survey>(&self.session).await)
            .await
            .unwrap()
            .expect("every machine is always fit")
    }

    async fn works(&self) -> Vec<Work<Survey>> {
        self.session
            .claim_many(&of::<Survey>(&self.session).await, 10)
            .await
            .unwrap()
    }
}

async fn nothing() {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_waits_for_the_server_more_often_than_it_must() {
    bounded(async {
        let db = TestDatabase::migrated(Backend::Postgres).await;
        let wire = Wire::new(&db, INTERVAL).await;
        let session = &wire.session;
        provide(session, 400).await;
        drop(wire.work().await);
        until("it is let go of", LONG, async || session.held().is_empty()).await;

        let work = async || wire.work().await;
        let works = async || wire.works().await;
        let stating = async |work: Work<Survey>| work.done().stating(agent_started::row(*b"key")).await.unwrap();
        let then = async |work: Work<Survey>| {
            work.done()
                .stating(agent_started::row(*b"key"))
                .then(session.claim(&of::<Survey>(&session).await))
                .await
                .unwrap()
                .unwrap()
        };
        let many = async |works: Vec<Work<Survey>>| {
            assert_eq!(works.len(), 10);
            Work::done_many(works)
                .await
                .into_iter()
                .for_each(|ended| ended.unwrap());
        };
        // BEGIN, the end, COMMIT, and what the body sends.
        let finish = async |work: Work<Survey>| {
            let machine = work.machine();
            work.finish(async |tx| agent_started::set(tx, machine, *b"key").await)
                .await
                .unwrap();
        };
        // BEGIN, the session's row, COMMIT.
        let transact = async |()| session.transact(async |_tx| Ok::<_, bmdb::Error>(())).await.unwrap();
        let seen = [
            wire.counts("claim", 1, nothing, async |()| work().await).await,
            wire.counts("claim_many", 1, nothing, async |()| works().await).await,
            wire.counts("done", 1, work, async |work| work.done().await.unwrap())
                .await,
            wire.counts("done with a fact", 1, work, stating).await,
            wire.counts("fail", 1, work, async |work| work.fail("a test").await.unwrap())
                .await,
            wire.counts("cancel", 1, work, async |work| work.cancel().await.unwrap())
                .await,
            wire.counts("an end with a fact and the next claim", 1, work, then)
                .await,
            wire.counts("done_many", 1, works, many).await,
            wire.counts("finish with one statement", 4, work, finish).await,
            wire.counts("transact with nothing", 3, nothing, transact).await,
        ];
        let wrong: Vec<_> = seen.iter().filter(|(_, wanted, found)| wanted != found).collect();
        assert!(wrong.is_empty(), "(what, wanted, found): {wrong:?} of {seen:?}");
    })
    .await;
}

/// What a call leaves to be done after it counts as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_leaves_nothing_to_be_done() {
    bounded(async {
        let db = TestDatabase::migrated(Backend::Postgres).await;
        let wire = Wire::new(&db, INTERVAL).await;
        provide(&wire.session, 400).await;
        let work = async || wire.work().await;
        let end = async |work: Work<Survey>| {
            work.done().await.unwrap();
            wire.quiet().await;
        };
        let then = async |work: Work<Survey>| {
            let next = work
                .done()
                .then(wire.session.claim(&of::<Survey>(&wire.session).await))
                .await
                .unwrap()
                .unwrap();
            wire.quiet().await;
            next
        };
        let seen = [
            wire.counts("done", 1, work, end).await,
            wire.counts("an end with the next claim", 1, work, then).await,
        ];
        assert!(
            seen.iter().all(|(_, wanted, found)| wanted == found),
            "(what, wanted, found): {seen:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_is_one_round_trip_whatever_the_session_holds() {
    bounded(async {
        let db = TestDatabase::migrated(Backend::Postgres).await;
        // A heartbeat a second.
        let wire = Wire::new(&db, Duration::from_secs(3)).await;
        provide(&wire.session, 100).await;
        let works = wire
            .session
            .claim_many(&of::<Survey>(&wire.session).await, 100)
            .await
            .unwrap();
        assert_eq!(works.len(), 100);
        let raw = db.raw().await;
        let heartbeat = async |()| {
            let before = deadline(&raw).await;
            until("a heartbeat comes", LONG, async || deadline(&raw).await > before).await;
            // Its row may be seen before its answer has been counted.
            wire.quiet().await;
        };
        let (_, wanted, found) = wire.counts("heartbeat", 1, nothing, heartbeat).await;
        assert_eq!(found, wanted);
        drop(works);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_claim_of_a_small_fleet_takes_one_round_trip_more() {
    bounded(async {
        let db = TestDatabase::migrated(Backend::Postgres).await;
        let wire = Wire::new(&db, INTERVAL).await;
        provide(&wire.session, 100).await;
        // Registered, and connections that know both statements. In the end it has just found nothing, as a component that has only been started.
        let raw = db.raw().await;
        for _ in 0..2 {
            let mut works = Vec::new();
            while let Some(work) = wire
                .session
                .claim(&of::<AgentStart>(&wire.session).await)
                .await
                .unwrap()
            {
                works.push(work);
            }
            assert_eq!(works.len(), 100);
            for ended in Work::cancel_many(works).await {
                ended.unwrap();
            }
            wire.quiet().await;
            crate::world::tamper(&raw, "DELETE FROM work_candidate").await;
        }
        let before = wire.proxy.round_trips();
        let first = wire
            .session
            .claim(&of::<AgentStart>(&wire.session).await)
            .await
            .unwrap();
        let found = wire.proxy.round_trips() - before;
        assert!(first.is_some());
        assert_eq!(found, 2, "a look for hints, and the search that takes one");
    })
    .await;
}

/// Thirty-two tasks claim and end at once: two statements are under way, and who comes meanwhile shares the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_at_once_shares_round_trips() {
    bounded(async {
        let db = TestDatabase::migrated(Backend::Postgres).await;
        let wire = Wire::new(&db, INTERVAL).await;
        provide(&wire.session, 100).await;
        for _ in 0..2 {
            wire.work().await.cancel().await.unwrap();
        }
        let claims = async || futures_util::future::join_all((0..32).map(|_| wire.work())).await;
        let end_all = async |works: Vec<Work<Survey>>| {
            let ends = works
                .into_iter()
                .map(|work| async move { work.cancel().await.unwrap() });
            futures_util::future::join_all(ends).await
        };
        let all = async |()| {
            let works = claims().await;
            assert_eq!(works.len(), 32);
            works
        };
        // The guards of the run before are let go of one by one.
        let raw = db.raw().await;
        let let_go = async || until("all are let go of", LONG, async || works(&raw).await == 0).await;
        // Two alone, and then sixteen, eight, four and two; more, where some come later than others.
        let (_, _, claimed) = wire.counts("claims", 12, let_go, all).await;
        let (_, _, ended) = wire.counts("ends", 12, &claims, end_all).await;
        assert!(
            claimed <= 12 && ended <= 12,
            "{claimed} for the claims, {ended} for the ends"
        );
    })
    .await;
}
