//! What a session stands while the process that holds it runs nothing, and what ends it: heartbeats have a thread of their own.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bmdb::{Bmdb, CancellationToken, Config, Error, Session, StopReason};
use harness::{of, on_each_backend, on_postgres, until};
use sea_orm::{ConnectionTrait, DatabaseBackend, TransactionTrait};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, spawn_blocking};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

use crate::world::{LONG, Survey, config, deadline, provide, session, sessions, tamper};

const INTERVAL: Duration = Duration::from_millis(2000);

/// A runtime with one thread, on which a test can block everything; on a thread of its own.
fn one_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can be built")
}

async fn started(config: Config) -> Session {
    let bmdb = Bmdb::connect(config).await.expect("the test's database is good");
    bmdb.start_session().await.expect("a session can be started")
}

/// Runs `use_it` on a thread of its own with a runtime of this one thread, which the test does not share.
async fn elsewhere<T: Send + 'static, F: Future<Output = T>>(use_it: impl FnOnce() -> F + Send + 'static) -> T {
    let alone = move || {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be built");
        runtime.block_on(use_it())
    };
    spawn_blocking(alone).await.expect("it does not panic")
}

on_each_backend! {
    async fn code_that_blocks_every_thread_for_three_intervals_costs_no_session(db: TestDatabase) {
        let settings = config(&db).interval(INTERVAL);
        elsewhere(|| async move {
            let session = started(settings).await;
            provide(&session, 1).await;
            let work = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is always eligible");
            #[expect(clippy::disallowed_methods, reason = "it blocks its thread: that is the fault")]
            std::thread::sleep(3 * INTERVAL);
            assert!(!session.trust_left().is_zero() && session.loss().is_none(), "{:?}", session.loss());
            assert!(!work.stop().is_cancelled());
            work.transact(async |_tx| Ok::<_, Error>(())).await.unwrap();
            work.cancel().await.unwrap();
            session.close().await.unwrap();
        }).await;
    }

    async fn a_process_that_hangs_for_longer_than_its_limit_loses_its_machine(db: TestDatabase) {
        let settings = config(&db).interval(INTERVAL).stall_limit(INTERVAL);
        let (claimed, has_claimed) = tokio::sync::oneshot::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let hangs = elsewhere(|| async move {
            let session = started(settings).await;
            provide(&session, 1).await;
            let work = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is always eligible");
            claimed.send(()).expect("the test waits");
            // As a deadlock would, it blocks the only thread.
            may_go_on.recv().expect("the test says when");
            assert_eq!(session.trust_left(), Duration::ZERO);
            let loss = session.loss().expect("it is lost").to_owned();
            assert!(loss.contains("the process was blocked"), "{loss}");
            assert_eq!(work.stop_reason(), Some(StopReason::SessionLost));
            assert!(work.guarded(Duration::ZERO, async {}).await.is_err());
        });
        let takes_over = async {
            has_claimed.await.expect("it claims");
            let began = Instant::now();
            let other = session(&db).await;
            let bmdb = Bmdb::connect(config(&db).interval(INTERVAL)).await.unwrap();
            let _collector = JoinSet::from_iter([bmdb.collector().run(CancellationToken::new())]);
            let mut taken = None;
            until("the machine is taken over", LONG, async || {
                taken = other.claim(&of::<Survey>(&other).await).await.unwrap();
                taken.is_some()
            }).await;
            eprintln!("taken over after {:?}", began.elapsed());
            assert!(began.elapsed() > INTERVAL, "not before its limit");
            go_on.send(()).expect("it waits");
        };
        tokio::join!(hangs, takes_over);
    }

    async fn a_session_is_lost_with_the_runtime_that_it_was_started_in(db: TestDatabase) {
        let settings = config(&db);
        let session = spawn_blocking(|| {
            let runtime = one_thread();
            let session = runtime.block_on(started(settings));
            drop(runtime);
            session
        });
        let session = session.await.unwrap();
        assert!(session.lost().is_cancelled() && session.trust_left().is_zero());
        assert!(session.loss().expect("it is lost").contains("runtime"), "{:?}", session.loss());
        let refused = session.transact(async |_tx| Ok::<_, Error>(())).await;
        assert!(matches!(refused, Err(Error::SessionExpired { .. })), "{refused:?}");
    }

    async fn a_component_that_is_dropped_leaves_no_thread(db: TestDatabase) {
        for closes in [true, false] {
            let log = Arc::new(Log::default());
            let (settings, own) = (config(&db), Arc::clone(&log));
            elsewhere(move || async move {
                let log = tracing::dispatcher::set_default(&tracing::Dispatch::new(Logs(own)));
                let bmdb = Bmdb::connect(settings).await.unwrap();
                drop(log);
                let session = bmdb.start_session().await.unwrap();
                if closes {
                    session.close().await.unwrap();
                    bmdb.close().await;
                }
            }).await;
            // The thread holds on to the log of who connected.
            until("the thread has ended", LONG, async || Arc::strong_count(&log) == 1).await;
        }
    }

    async fn a_task_that_panics_is_named_and_begins_anew(db: TestDatabase) {
        let log = Arc::new(Log::default());
        let (settings, own) = (config(&db).interval(INTERVAL), Arc::clone(&log));
        let raw = db.raw().await;
        let logs = tracing::dispatcher::set_default(&tracing::Dispatch::new(Logs(own)));
        let bmdb = Bmdb::connect(settings).await.unwrap();
        drop(logs);
        let session = bmdb.start_session().await.unwrap();
        log.panics.store(true, Ordering::Relaxed);
        // What a heartbeat does not get done it logs, and the log panics.
        tamper(&raw, match raw.get_database_backend() {
            DatabaseBackend::Sqlite => "CREATE TRIGGER refuse BEFORE UPDATE ON session_lease BEGIN SELECT RAISE(ABORT, 'a test'); END",
            _ => "ALTER TABLE session_lease RENAME TO away",
        }).await;
        until("the panic is told", LONG, async || log.panicked.load(Ordering::Relaxed) > 0).await;
        tamper(&raw, match raw.get_database_backend() {
            DatabaseBackend::Sqlite => "DROP TRIGGER refuse",
            _ => "ALTER TABLE away RENAME TO session_lease",
        }).await;
        let before = deadline(&raw).await;
        until("its heart beats again", LONG, async || deadline(&raw).await > before).await;
        assert_eq!(session.loss(), None);
    }
}

/// What a test reads of a log.
#[derive(Default)]
struct Log {
    /// The next warning panics.
    panics: AtomicBool,
    /// How many panics of tasks were told.
    panicked: AtomicUsize,
}

struct Logs(Arc<Log>);

impl Subscriber for Logs {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("bmdb")
    }

    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}

    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut is_heartbeats = TaskIs("heartbeats", false);
        event.record(&mut is_heartbeats);
        if is_heartbeats.1 {
            self.0.panicked.fetch_add(1, Ordering::Relaxed);
        }
        let warns = *event.metadata().level() == tracing::Level::WARN;
        assert!(
            !(warns && self.0.panics.swap(false, Ordering::Relaxed)),
            "a test's panic"
        );
    }

    fn enter(&self, _span: &span::Id) {}

    fn exit(&self, _span: &span::Id) {}
}

/// Whether an event names this task.
struct TaskIs(&'static str, bool);

impl Visit for TaskIs {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.1 |= field.name() == "task" && value == self.0;
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn std::fmt::Debug) {}
}

on_postgres! {
    async fn a_session_whose_runtime_ends_while_it_is_closed_is_expired_by_its_own_component(db: TestDatabase) {
        let bmdb = Bmdb::connect(config(&db).interval(INTERVAL)).await.unwrap();
        let raw = db.raw().await;
        let locked = raw.begin().await.unwrap();
        let (own, locks) = (bmdb.clone(), tokio::runtime::Handle::current());
        let (session, locked) = spawn_blocking(move || {
            let runtime = one_thread();
            let session = runtime.block_on(own.start_session()).expect("it can be started");
            locks.block_on(locked.execute_unprepared("UPDATE session SET interval_ms = interval_ms")).expect("it is there");
            let closing = session.clone();
            runtime.spawn(closing.close());
            while !session.trust_left().is_zero() {
                std::thread::yield_now();
            }
            drop(runtime);
            (session, locked)
        }).await.unwrap();
        locked.rollback().await.unwrap();
        let mut collector = bmdb.collector();
        until("it is expired", LONG, async || {
            collector.sweep().await.unwrap().expired.contains(&session.id()) || sessions(&raw).await == 0
        }).await;
        drop(session);
        tokio::time::timeout(LONG, bmdb.close()).await.expect("nothing of it is left to wait for");
    }
}
