//! Effects outside the database: started with enough trust, and over when trust is.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bmdb::{Bmdb, Error};
use futures_util::future::join_all;
use harness::{Backend, Fate, Proxy, TestDatabase, bounded, of, on_each_backend, on_postgres, until};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::failures::crash::Component;
use crate::world::{INTERVAL, LONG, Survey, config, connect_to, provide, session};

/// What the holder of a work believes for at most: the interval less the margin.
const LONGEST: Duration = Duration::from_millis(4800);

on_each_backend! {
    async fn a_need_that_a_heartbeat_can_meet_is_never_refused(db: TestDatabase) {
        let interval = Duration::from_secs(3);
        let bmdb = Bmdb::connect(config(&db).interval(interval)).await.unwrap();
        let session = bmdb.start_session().await.unwrap();
        provide(&session, 1).await;
        let work = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is always eligible");
        for nth in 0..40 {
            let need = Duration::from_secs(2);
            let left = work.guarded(need, async { session.trust_left() }).await;
            // What passes between the look and the effect is no more than a busy machine takes.
            let left = left.unwrap_or_else(|error| panic!("need {nth} of 40: {error}"));
            assert!(left > need / 2, "{left:?}");
            tokio::time::sleep(Duration::from_millis(75)).await;
        }
    }

    async fn a_need_that_no_heartbeat_can_meet_is_refused_at_once(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 1).await;
        let work = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is always eligible");
        let mut is_started = false;
        let need = LONGEST + Duration::from_millis(1);
        let refused = work.guarded(need, async { is_started = true }).await;
        let Err(Error::NeedImpossible { need: asked, longest }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((asked, longest, is_started), (need, LONGEST, false));
    }

    async fn no_step_of_an_effect_runs_after_a_stop_that_outlasts_trust(db: TestDatabase) {
        let interval = Duration::from_millis(1500);
        let here = session(&db).await;
        provide(&here, 6).await;
        let tasks = ["effect", "effect-alone"].repeat(3);
        let mut components: Vec<Component> = tasks.iter().map(|task| Component::start(&db, interval, &[task])).collect();
        for component in &mut components {
            component.says("claimed").await;
        }
        for component in &components {
            component.signal("STOP");
        }
        tokio::time::sleep(interval * 2).await;
        for component in &components {
            component.signal("CONT");
        }
        for component in &mut components {
            // The others that it says are that its session is lost, and what must not be.
            let mut said = component.says("").await;
            while said == "lost" {
                said = component.says("").await;
            }
            assert!(said.starts_with("refused effect SessionExpired"), "{said}");
        }
    }
}

on_postgres! {
    async fn those_who_need_more_trust_at_once_share_heartbeats(db: TestDatabase) {
        let proxy = Proxy::to(db.url()).await;
        let beats = Arc::new(AtomicUsize::new(0));
        proxy.decide({
            let beats = Arc::clone(&beats);
            move |passing| {
                if passing.sql.contains("UPDATE session_lease") {
                    beats.fetch_add(1, Ordering::Relaxed);
                }
                Fate::Pass
            }
        });
        let session = connect_to(proxy.url()).await.start_session().await.unwrap();
        provide(&session, 1).await;
        let work = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is always eligible");
        let (began, before) = (Instant::now(), beats.load(Ordering::Relaxed));
        // All but always less is left than this.
        let need = LONGEST - Duration::from_millis(300);
        let needs = (0..40).map(|_| async {
            let mut met = 0;
            while began.elapsed() < INTERVAL / 2 {
                met += usize::from(work.guarded(need, async {}).await.is_ok());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            met
        });
        let met: usize = join_all(needs).await.into_iter().sum();
        let sent = beats.load(Ordering::Relaxed) - before;
        let most = began.elapsed().div_duration_f64(INTERVAL / 10).ceil();
        assert!(met >= 40 && sent >= 2 && sent as f64 <= most + 1.0, "{sent} heartbeats, at most {most}; {met} needs met");
    }

    async fn a_need_that_no_heartbeat_meets_is_refused_after_a_third_of_the_interval(db: TestDatabase) {
        let proxy = Proxy::to(db.url()).await;
        let session = connect_to(proxy.url()).await.start_session().await.unwrap();
        provide(&session, 1).await;
        let work = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is always eligible");
        proxy.decide(|passing| match passing.sql.contains("UPDATE session_lease") {
            true => Fate::Delay(LONG),
            false => Fate::Pass,
        });
        let need = LONGEST / 2;
        until("trust is short", LONG, async || session.trust_left() < need).await;
        let (began, mut is_started) = (Instant::now(), false);
        let refused = work.guarded(need, async { is_started = true }).await;
        assert!(matches!(refused, Err(Error::TrustTooShort { .. })) && !is_started, "{refused:?}");
        assert!(began.elapsed() >= INTERVAL / 3 && began.elapsed() < LONGEST / 2, "{:?}", began.elapsed());
        // The session is as it was: what needs less goes on.
        work.guarded(Duration::ZERO, async {}).await.unwrap();
    }
}

/// An effect whose first step blocks the only thread of its runtime until the process counts as hung, and which asks for its next step at once.
async fn blocks_for_longer_than_it_is_trusted() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let interval = Duration::from_secs(1);
    let bmdb = Bmdb::connect(config(&db).interval(interval).stall_limit(interval))
        .await
        .unwrap();
    let session = bmdb.start_session().await.unwrap();
    provide(&session, 1).await;
    let work = session
        .claim(&of::<Survey>(&session).await)
        .await
        .unwrap()
        .expect("it is always eligible");
    let mut steps = 0;
    let effect = poll_fn(|context| {
        steps += 1;
        if steps > 1 {
            return Poll::Ready(());
        }
        #[expect(clippy::disallowed_methods, reason = "it blocks its thread: that is the fault")]
        std::thread::sleep(4 * interval);
        context.waker().wake_by_ref();
        Poll::Pending
    });
    let ended = work.guarded(Duration::ZERO, effect).await;
    assert!(
        matches!(ended, Err(Error::SessionExpired { .. })) && steps == 1,
        "{ended:?} after {steps} steps"
    );
}

#[test]
fn no_step_of_an_effect_runs_after_one_that_blocked_a_current_thread_runtime() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(bounded(blocks_for_longer_than_it_is_trusted()));
}

#[test]
fn no_step_of_an_effect_runs_after_one_that_blocked_a_multi_thread_runtime() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    // On its worker.
    let mut tasks = JoinSet::new();
    tasks.spawn_on(bounded(blocks_for_longer_than_it_is_trusted()), runtime.handle());
    runtime.block_on(tasks.join_all());
}
