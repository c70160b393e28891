//! Futures and guards that are dropped: at every wait of every operation, by aborted tasks, on other runtimes. Nothing is left behind.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use bmdb::{Bmdb, Config, Error, Hold, MachineId, Process, Session, Unfinished, Work, agent_heartbeat, agent_started};
use bmdb_entity::work_history::{self, Event};
use harness::{Backend, TestDatabase, ada, check_history, of, on_each_backend, until};
use sea_orm::{ColumnTrait, DatabaseConnection, EntityTrait, PaginatorTrait, QueryFilter};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::claims::stress::idle_in_transaction;
use crate::world::{AgentStart, LONG, Survey, config, connect, events, kill_session, provide, sessions, tamper, works};

/// Polls a future so many times, each time when it asks to be, waits for `pause` and drops it; or gives its output, if it ends before.
async fn give_up<F: Future>(future: F, polls: u32, pause: Duration) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut polled = 0;
    let output = poll_fn(|context| {
        if polled == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polled == polls => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    if output.is_none() {
        // Time for what it has asked for to happen, without it.
        tokio::time::sleep(pause).await;
    }
    output
}

struct Scene {
    backend: Backend,
    bmdb: Bmdb,
    session: Session,
    machines: Vec<MachineId>,
    raw: DatabaseConnection,
}

impl Scene {
    async fn of(db: &TestDatabase) -> Self {
        // Few connections, so that one that is spoilt is used again soon.
        let bmdb = Bmdb::connect(config(db).max_connections(2)).await.expect("it is good");
        let session = bmdb.start_session().await.expect("a session can be started");
        let machines = provide(&session, 3).await;
        Self {
            backend: db.backend(),
            bmdb,
            session,
            machines,
            raw: db.raw().await,
        }
    }

    /// Claims a machine. A claim whose future was dropped may still be on its way and have it for a moment.
    async fn work<P: Process + Default>(&self) -> Work<P> {
        let mut work = None;
        until("a machine is eligible", LONG, async || {
            work = self.session.claim(&of::<P>(&self.session).await).await.unwrap();
            work.is_some()
        })
        .await;
        work.expect("it was claimed")
    }

    /// Runs an operation again and again, dropping it one poll later each time and once more with a pause, until it is not dropped any more.
    /// After each time, nothing is left behind.
    async fn at_every_poll<S, F: Future<Output = ()>>(
        &self,
        what: &str,
        arrange: impl AsyncFn() -> S,
        act: impl Fn(S) -> F,
        tidy: impl AsyncFn(),
    ) {
        let (mut polls, mut dropped) = (0, 0);
        loop {
            let mut completed = true;
            for pause in [Duration::ZERO, Duration::from_micros(500), Duration::from_millis(3)] {
                let arranged = arrange().await;
                let ended = give_up(act(arranged), polls, pause).await.is_some();
                completed &= ended;
                dropped += u32::from(!ended);
                tidy().await;
                self.is_settled(&format!("{what}, dropped after {polls} polls and {pause:?}"))
                    .await;
            }
            if completed {
                break;
            }
            polls += 1;
            assert!(polls < 500, "{what} does not end");
        }
        eprintln!("{what}: dropped {dropped} times, at up to {polls} polls");
        assert!(dropped > 0, "{what} has waited for something");
    }

    /// Nobody holds anything, no connection is left in a transaction, history is whole, and the session works as before.
    async fn is_settled(&self, when: &str) {
        // What goes on without its future may need a moment more.
        let free = async || works(&self.raw).await == 0 && self.session.held().is_empty();
        until(&format!("no work is left: {when}"), LONG, free).await;
        if self.backend == Backend::Postgres {
            let none = async || idle_in_transaction(&self.raw).await == 0;
            until(&format!("no connection is left in a transaction: {when}"), LONG, none).await;
        }
        let machine = self.machines[0];
        let marked = self
            .session
            .transact(async |tx| agent_heartbeat::set(tx, machine).await);
        marked.await.unwrap_or_else(|error| panic!("{when}: {error:?}"));
        let work = self.work::<Survey>().await;
        let (machine, fence) = (work.machine(), work.fence());
        work.cancel().await.unwrap_or_else(|error| panic!("{when}: {error:?}"));
        let history = self.bmdb.history(machine).await.unwrap().rows;
        let acknowledged = history.iter().filter(|row| row.fence == fence).count();
        assert_eq!(acknowledged, 2, "{when}: what was acknowledged is there");
        assert_eq!(check_history(&self.raw).await, Vec::<String>::new(), "{when}");
    }
}

async fn nothing() {}

on_each_backend! {
    async fn a_claim_dropped_at_any_poll_leaves_nothing(db: TestDatabase) {
        let scene = Scene::of(&db).await;
        let (session, machine) = (&scene.session, scene.machines[1]);
        scene.at_every_poll("claim", nothing, |()| async {
            while session.claim(&of::<AgentStart>(&session).await).await.unwrap().is_none() {}
        }, nothing).await;
        scene.at_every_poll("claim_many", nothing, |()| async {
            while session.claim_many(&of::<AgentStart>(&session).await, 3).await.unwrap().len() < 3 {}
        }, nothing).await;
        scene.at_every_poll("claim.on", nothing, |()| async move {
            while session.claim(&of::<AgentStart>(&session).await).on(machine).await.unwrap().is_none() {}
        }, nothing).await;
    }

    async fn a_first_claim_dropped_at_any_poll_leaves_nothing(db: TestDatabase) {
        // With the registration of its process, and with connections that are opened meanwhile.
        let scene = Scene::of(&db).await;
        let arrange = async || {
            tamper(&scene.raw, "DELETE FROM process").await;
            connect(&db).await.start_session().await.unwrap()
        };
        scene.at_every_poll("first claim", arrange, |session| async move {
            while session.claim(&of::<AgentStart>(&session).await).await.unwrap().is_none() {}
        }, nothing).await;
        until("the other sessions have closed", LONG, async || sessions(&scene.raw).await == 1).await;
    }

    async fn a_transaction_dropped_at_any_poll_leaves_nothing(db: TestDatabase) {
        let scene = Scene::of(&db).await;
        let (session, machine) = (&scene.session, scene.machines[1]);
        let held = async || scene.work::<AgentStart>().await;
        scene.at_every_poll("transact", nothing, |()| async move {
            session.transact(async |tx| agent_heartbeat::set(tx, machine).await).await.unwrap();
        }, nothing).await;
        scene.at_every_poll("work.transact", held, |work| async move {
            work.transact(async |tx| agent_heartbeat::set(tx, machine).await).await.unwrap();
        }, nothing).await;
        scene.at_every_poll("progress", held, |work| async move { work.progress(&40).await.unwrap() }, nothing).await;
    }

    async fn an_end_dropped_at_any_poll_leaves_nothing(db: TestDatabase) {
        let scene = Scene::of(&db).await;
        let held = async || scene.work::<Survey>().await;
        let forgive = async || tamper(&scene.raw, "DELETE FROM work_backoff").await;
        scene.at_every_poll("finish", held, |work| async move {
            let machine = work.machine();
            work.finish(async |tx| agent_heartbeat::set(tx, machine).await).await.unwrap();
        }, nothing).await;
        scene.at_every_poll("fail", held, |work| async move { work.fail("a test's failure").await.unwrap() }, forgive).await;
        scene.at_every_poll("cancel", held, |work| async move { work.cancel().await.unwrap() }, nothing).await;
        scene.at_every_poll("done", held, |work| async move { work.done().stating(agent_heartbeat::row()).await.unwrap() }, nothing).await;
        let then = async |work: Work<Survey>| work.done().then(scene.session.claim(&of::<Survey>(&scene.session).await)).await.unwrap().unwrap();
        scene.at_every_poll("done, then a claim", held, |work| async move { drop(then(work).await) }, nothing).await;
        let many = async |work| Work::fail_many(vec![work], "a test's failure").await.pop().unwrap().unwrap();
        scene.at_every_poll("fail_many", held, many, forgive).await;
    }

    async fn what_a_dropped_finish_wrote_goes_with_its_end(db: TestDatabase) {
        // The facts of the commit phase are there exactly if history says `finished`.
        let scene = Scene::of(&db).await;
        let (mut finished, mut canceled, mut polls) = (0, 0, 0);
        for _ in 0..500 {
            let work = scene.work::<AgentStart>().await;
            let (machine, fence) = (work.machine(), work.fence());
            let finish = work.finish(async |tx| agent_started::set(tx, machine, *b"key").await);
            let completed = give_up(finish, polls, Duration::from_millis(u64::from(polls % 3))).await.is_some();
            scene.is_settled(&format!("finish dropped after {polls} polls")).await;
            let history = scene.bmdb.history(machine).await.unwrap().rows;
            let end = history.iter().rfind(|row| row.fence == fence).expect("it has ended").event.to_string();
            let facts = agent_started::Entity::find().count(&scene.raw).await.unwrap();
            assert_eq!(facts, u64::from(end == "finished"), "facts when {end}");
            assert!(!completed || end == "finished", "acknowledged, and {end}");
            finished += u32::from(end == "finished");
            canceled += u32::from(end == "canceled");
            tamper(&scene.raw, "DELETE FROM machine_agent_started").await;
            // On a busy machine answers are there as soon as they are asked for, and few polls are enough.
            if completed && canceled >= 2 { break; }
            polls = if completed { 0 } else { polls + 1 };
        }
        assert!(finished >= 1 && canceled >= 2, "{finished} finished, {canceled} canceled");
    }

    async fn a_session_that_starts_drains_or_closes_may_be_dropped_at_any_poll(db: TestDatabase) {
        let scene = Scene::of(&db).await;
        let other = Bmdb::connect(config(&db).interval(Duration::from_millis(1500))).await.unwrap();
        scene.at_every_poll("start_session", nothing, |()| async {
            drop(other.start_session().await.unwrap());
        }, nothing).await;
        // What was left without its future has no heart.
        let mut collector = scene.bmdb.collector();
        until("half-started sessions are expired", LONG, async || {
            collector.sweep().await.unwrap();
            sessions(&scene.raw).await == 1
        }).await;

        let busy = async || {
            let session = scene.bmdb.start_session().await.unwrap();
            let works = session.claim_many(&of::<AgentStart>(&session).await, 2).await.unwrap();
            (session, works)
        };
        scene.at_every_poll("drain", busy, |(session, works)| async move {
            let dropping = async {
                tokio::time::sleep(Duration::from_millis(2)).await;
                drop(works);
            };
            let (drained, ()) = tokio::join!(session.drain(LONG), dropping);
            assert_eq!(drained.left, 0);
        }, nothing).await;
        scene.at_every_poll("close", busy, |(session, works)| async move {
            session.close().await.unwrap();
            drop(works);
        }, nothing).await;
        until("every other session is closed", LONG, async || sessions(&scene.raw).await == 1).await;
    }

    async fn a_sweep_dropped_at_any_poll_leaves_nothing(db: TestDatabase) {
        let scene = Scene::of(&db).await;
        // The living are more than the dead, so that nothing brakes.
        let _others = [scene.bmdb.start_session().await.unwrap(), scene.bmdb.start_session().await.unwrap()];
        let mortals = connect(&db).await;
        // Kept, so that they do not close themselves.
        let graves = Mutex::new(Vec::new());
        let arrange = async || {
            let dead = mortals.start_session().await.unwrap();
            let work = dead.claim(&of::<Survey>(&dead).await).await.unwrap().expect("a machine is free");
            kill_session(&scene.raw, &dead).await;
            tamper(&scene.raw, "UPDATE session SET interval_ms = 1 WHERE interval_ms = 200").await;
            graves.lock().unwrap().push((dead, work));
            let mut collector = scene.bmdb.collector();
            assert!(collector.sweep().await.unwrap().expired.is_empty(), "one look is not enough");
            tokio::time::sleep(Duration::from_millis(2)).await;
            collector
        };
        let tidy = async || {
            let mut collector = scene.bmdb.collector();
            until("the dead are expired", LONG, async || {
                collector.sweep().await.unwrap();
                works(&scene.raw).await == 0
            }).await;
        };
        scene.at_every_poll("sweep", arrange, |mut collector| async move {
            // Once is enough, unless the clocks seem to jump because we were not given any time.
            while collector.sweep().await.unwrap().expired.is_empty() {}
        }, tidy).await;
        let graves = graves.into_inner().unwrap();
        let ends: HashSet<String> = futures_util::future::join_all(scene.machines.iter().map(|machine| events(&scene.raw, *machine)))
            .await.concat().into_iter().collect();
        assert!(graves.len() > 3 && ends.contains("expired"));
    }

    async fn what_operators_do_may_be_dropped_at_any_poll(db: TestDatabase) {
        let scene = Scene::of(&db).await;
        let (bmdb, machine) = (&scene.bmdb, scene.machines[1]);
        let hold = Hold::new;
        let ada = &ada(bmdb);
        let lift = async || { ada.lift_hold(machine, None).await.unwrap(); };
        scene.at_every_poll("place_hold", nothing, |()| async { ada.place_hold(machine, hold()).await.unwrap() }, lift).await;
        let held = async || ada.place_hold(machine, hold()).await.unwrap();
        scene.at_every_poll("lift_hold", held, |()| async { assert!(ada.lift_hold(machine, None).await.unwrap()) }, lift).await;
        scene.at_every_poll("drain_machine", nothing, |()| async { ada.drain_machine(machine, hold()).await.unwrap(); }, lift).await;
        scene.at_every_poll("ask_to_stop", async || scene.work::<AgentStart>().await, |work| async move {
            assert!(ada.ask_to_stop(work.id()).await.unwrap());
        }, nothing).await;
        let victim = async || bmdb.start_session().await.unwrap();
        scene.at_every_poll("break_session", victim, |victim| async move {
            assert!(ada.break_session(victim.id()).await.unwrap().is_some());
        }, nothing).await;
        // Who had noticed has left its row to a collector; who had not has closed itself.
        tamper(&scene.raw, "UPDATE session SET interval_ms = 1 WHERE session_id IN (SELECT session_id FROM session_lease WHERE deadline < (SELECT max(deadline) FROM session_lease))").await;
        let stranger = connect(&db).await;
        let mut collector = stranger.collector();
        until("broken sessions are gone", LONG, async || {
            collector.sweep().await.unwrap();
            sessions(&scene.raw).await == 1
        }).await;
        scene.is_settled("at the end").await;
    }

    async fn tasks_aborted_at_random_points_leave_nothing(db: TestDatabase) {
        let scene = Scene::of(&db).await;
        let mut random = fastrand::Rng::new();
        let mut interrupted = 0;
        let ended = async |event: Event| {
            let of_process = work_history::Entity::find().filter(work_history::Column::Process.eq(AgentStart::NAME));
            of_process.filter(work_history::Column::Event.eq(event)).count(&scene.raw).await.unwrap()
        };
        for round in 0..100 {
            let mut tasks = JoinSet::new();
            for _ in 0..3 {
                let session = scene.session.clone();
                tasks.spawn(async move {
                    loop {
                        let Some(work) = session.claim(&of::<AgentStart>(&session).await).await.unwrap() else { continue };
                        let machine = work.machine();
                        work.transact(async |tx| agent_heartbeat::set(tx, machine).await).await.unwrap();
                        work.progress(&"half").await.unwrap();
                        work.finish(async |tx| agent_heartbeat::set(tx, machine).await).await.unwrap();
                    }
                });
            }
            // Soon at first, later more and more of them get further, and at last one to its end.
            tokio::time::sleep(Duration::from_micros(random.u64(0..=round * 500))).await;
            if round == 99 {
                until("one has finished", LONG, async || ended(Event::Finished).await > 0).await;
            }
            tasks.abort_all();
            while let Some(outcome) = tasks.join_next().await {
                let error = outcome.expect_err("it runs until it is aborted");
                assert!(error.is_cancelled(), "{error}");
                interrupted += 1;
            }
            if round % 10 == 0 {
                scene.is_settled("after an abort").await;
            }
        }
        assert_eq!(interrupted, 300);
        scene.is_settled("at the end").await;
        let counts = (ended(Event::Finished).await, ended(Event::Canceled).await, ended(Event::Expired).await);
        assert!(counts.0 > 0 && counts.1 > 0 && counts.2 == 0, "some ended themselves, some were let go of: {counts:?}");
    }

    async fn a_guard_may_end_on_another_runtime(db: TestDatabase) {
        let scene = Scene::of(&db).await;
        let (runtime, session, work) = on_another_runtime(config(&db));
        let machine = work.machine();
        drop(work);
        until("it is let go of", LONG, async || works(&scene.raw).await == 0).await;
        // Its calls work here as well, on connections that the other runtime drives.
        let work = session.claim(&of::<AgentStart>(&session).await).on(machine).await.unwrap().expect("it is free");
        work.finish(async |tx| agent_heartbeat::set(tx, machine).await).await.unwrap();
        assert_eq!(events(&scene.raw, machine).await, ["started", "canceled", "started", "finished"]);
        session.close().await.unwrap();
        runtime.shutdown_background();
        scene.is_settled("at the end").await;
    }

    async fn a_guard_that_outlives_its_runtime_is_expired(db: TestDatabase) {
        let (scene, _other) = (Scene::of(&db).await, connect(&db).await.start_session().await.unwrap());
        for without_any in [false, true] {
            let (runtime, session, work) = on_another_runtime(config(&db).interval(Duration::from_secs(1)));
            let id = work.id();
            std::thread::spawn(move || runtime.shutdown_timeout(LONG)).join().expect("it ends");
            let drop_all = move || drop((work, session));
            if without_any {
                std::thread::spawn(drop_all).join().expect("it does not panic");
            } else {
                drop_all();
            }
            assert_eq!(works(&scene.raw).await, 1, "nobody is there to let go of it");
            let mut collector = scene.bmdb.collector();
            until("expiry frees it", LONG, async || {
                collector.sweep().await.unwrap();
                works(&scene.raw).await == 0
            }).await;
            let of_it = work_history::Entity::find().filter(work_history::Column::WorkId.eq(id));
            let events: Vec<_> = of_it.all(&scene.raw).await.unwrap().into_iter().map(|row| row.event).collect();
            assert!(events.len() == 2 && events.contains(&Event::Started) && events.contains(&Event::Expired), "{events:?}");
            scene.is_settled("after the expiry").await;
        }
    }

    async fn a_close_while_claims_are_under_way_leaves_nothing(db: TestDatabase) {
        let scene = Scene::of(&db).await;
        for round in 0..10 {
            let session = scene.bmdb.start_session().await.unwrap();
            let mut tasks = JoinSet::new();
            for _ in 0..4 {
                let session = session.clone();
                tasks.spawn(async move {
                    loop {
                        let ended = match session.claim(&of::<AgentStart>(&session).await).await {
                            Ok(Some(work)) => work.cancel().await.map_err(Unfinished::into_error),
                            Ok(None) => Ok(()),
                            Err(error) => Err(error),
                        };
                        if let Err(error) = ended {
                            return error;
                        }
                    }
                });
            }
            tokio::time::sleep(Duration::from_millis(5 + 3 * round)).await;
            let began = std::time::Instant::now();
            let lost = session.lost();
            session.clone().close().await.unwrap();
            assert!(!lost.is_cancelled(), "a closed session is not a lost one");
            assert!(began.elapsed() < LONG);
            assert!(matches!(session.claim(&of::<AgentStart>(&session).await).await, Err(Error::SessionExpired { .. } | Error::Draining { .. })));
            for error in tasks.join_all().await {
                let known = matches!(error, Error::SessionExpired { .. } | Error::Draining { .. } | Error::WorkLost { .. });
                assert!(known, "{error:?}");
            }
            assert!(session.held().is_empty());
            // At once: `close` has waited for what was under way.
            assert_eq!((works(&scene.raw).await, sessions(&scene.raw).await), (0, 1));
            scene.is_settled("after the close").await;
        }
    }

    async fn a_session_dropped_while_claims_are_under_way_closes_itself(db: TestDatabase) {
        let scene = Scene::of(&db).await;
        let mut random = fastrand::Rng::new();
        for _ in 0..30 {
            let session = scene.bmdb.start_session().await.unwrap();
            let start = of::<AgentStart>(&session).await;
            let mut claims: JoinSet<_> = (0..4).map(|_| session.claim(&start).into_future()).collect();
            drop(session);
            tokio::time::sleep(Duration::from_micros(random.u64(0..6000))).await;
            claims.abort_all();
            while claims.join_next().await.is_some() {}
            until("the session is closed", LONG, async || sessions(&scene.raw).await == 1).await;
            assert_eq!(works(&scene.raw).await, 0);
            scene.is_settled("after the drop").await;
        }
    }
}

/// A runtime of its own with a session and a machine that it holds.
fn on_another_runtime(config: Config) -> (Runtime, Session, Work<AgentStart>) {
    let build = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let (session, work) = runtime.block_on(async {
            let bmdb = Bmdb::connect(config).await.unwrap();
            let session = bmdb.start_session().await.unwrap();
            let start = of::<AgentStart>(&session).await;
            let work = session.claim(&start).await.unwrap().expect("a machine is free");
            (session, work)
        });
        (runtime, session, work)
    };
    std::thread::spawn(build).join().expect("it does not panic")
}
