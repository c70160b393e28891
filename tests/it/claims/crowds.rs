//! Claims and ends that come at once share statements; each is answered on its own.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bmdb::{Bmdb, Config, Error, MachineId, Session, Unfinished, Work, agent_heartbeat, agent_started};
use bmdb_entity::{work_backoff, work_history};
use futures_util::future::join_all;
use harness::{Backend, Fate, Fault, Proxy, TestDatabase, bounded, literal, of, on_each_backend, until};
use sea_orm::{ConnectionTrait, EntityTrait, QueryOrder};
use tokio::task::JoinSet;

use crate::world::{AgentStart, LONG, Survey, connect_to, events, provide, session, tamper, waiting_at, works};

/// Claims at once, as the tasks of a busy component do.
async fn claim_all(session: &Session, count: usize) -> Vec<Work<Survey>> {
    let claims = join_all((0..count).map(|_| {
        let session = session.clone();
        async move { session.claim(&of::<Survey>(&session).await).await }
    }));
    let claimed = claims
        .await
        .into_iter()
        .map(|claim| claim.unwrap().expect("all are fit"));
    claimed.collect()
}

/// From here on hints are plenty.
async fn warm_up(session: &Session) {
    for _ in 0..2 {
        claim_all(session, 1)
            .await
            .pop()
            .expect("one was claimed")
            .cancel()
            .await
            .unwrap();
    }
}

on_each_backend! {
    async fn what_comes_at_once_is_answered_each_on_its_own(db: TestDatabase) {
        let session = session(&db).await;
        let machines: HashSet<MachineId> = provide(&session, 24).await.into_iter().collect();
        let raw = db.raw().await;
        warm_up(&session).await;
        let claimed = claim_all(&session, 24).await;
        assert_eq!(claimed.iter().map(Work::machine).collect::<HashSet<_>>(), machines);
        assert!(session.claim(&of::<Survey>(&session).await).await.unwrap().is_none());
        // Each fails for a reason of its own, and history and backoffs keep it.
        let fails = join_all(claimed.into_iter().map(|work| async move {
            let machine = work.machine();
            work.fail(format!("{machine} did not answer")).await.unwrap();
        }));
        fails.await;
        let backoffs = work_backoff::Entity::find().all(&raw).await.unwrap();
        assert_eq!(backoffs.len(), 24);
        for backoff in backoffs {
            assert_eq!(backoff.cause, format!("{} did not answer", backoff.machine_id));
            assert_eq!(backoff.attempts, 1);
        }
        let ends = work_history::Entity::find().order_by_desc(work_history::Column::At).all(&raw).await.unwrap();
        for end in ends.iter().filter(|end| end.cause.is_some()) {
            assert_eq!(end.cause, Some(format!("{} did not answer", end.machine_id)));
        }
        assert_eq!(ends.iter().filter(|end| end.cause.is_some()).count(), 24);
        assert_eq!((works(&raw).await, session.held().len()), (0, 0));
    }

    async fn what_differs_does_not_share_a_statement(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 60).await;
        let raw = db.raw().await;
        warm_up(&session).await;
        let held = claim_all(&session, 40).await;
        let calls = held.into_iter().enumerate().map(|(nth, work)| {
            let (session, key) = (session.clone(), (work.machine(), work.fence()));
            async move {
                let (event, next) = match nth % 5 {
                    0 => ("finished", work.done().await.map(|()| None)),
                    1 => ("failed", work.fail("no answer").await.map(|()| None)),
                    2 => ("canceled", work.cancel().await.map(|()| None)),
                    3 => ("failed", work.fail("no answer").then(session.claim(&of::<Survey>(&session).await)).await.map(Result::unwrap)),
                    _ => ("finished", work.done().then(session.claim(&of::<Survey>(&session).await)).await.map(Result::unwrap)),
                };
                (key, event, next.unwrap())
            }
        });
        let survey = of::<Survey>(&session).await;
        let alone = join_all((0..4).map(|_| session.claim(&survey).into_future()));
        let many = join_all((0..2).map(|_| session.claim_many(&survey, 3).into_future()));
        let (ended, alone, many) = tokio::join!(join_all(calls), alone, many);
        let history = work_history::Entity::find().all(&raw).await.unwrap();
        let mut held = Vec::new();
        for ((machine, fence), event, next) in ended {
            let ends: Vec<String> = history.iter().filter(|row| (row.machine_id, row.fence) == (machine, fence)).map(|row| row.event.to_string()).collect();
            assert!(ends.len() == 2 && ends.contains(&event.to_owned()), "{event}: {ends:?}");
            held.extend(next);
        }
        held.extend(alone.into_iter().map(|claimed| claimed.unwrap().expect("one is free for each")));
        for claimed in many {
            let claimed = claimed.unwrap();
            assert!(claimed.len() <= 3);
            held.extend(claimed);
        }
        assert!(held.len() > 20);
        assert_eq!(works(&raw).await, held.len() as u64);
    }

    async fn who_has_lost_its_work_claims_nothing_among_others_who_end_and_claim(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 40).await;
        let raw = db.raw().await;
        warm_up(&session).await;
        // One alone, two, and more at once: whoever has lost its work is served at the head, in the middle or at the end.
        for lost in 0..10 {
            let held = claim_all(&session, 10).await;
            let lost = held[lost].id();
            tamper(&raw, &format!("DELETE FROM work WHERE work_id = {}", literal(&raw, lost.0))).await;
            let cycles = join_all(held.into_iter().map(|work| {
                let (session, id) = (session.clone(), work.id());
                async move { (id, work.done().then(session.claim(&of::<Survey>(&session).await)).await) }
            }));
            let mut next = Vec::new();
            for cycle in cycles.await {
                match cycle {
                    (id, Err(Unfinished::Over(error))) => {
                        assert!(matches!(error, Error::WorkLost { .. }), "{error:?}");
                        assert_eq!(id, lost);
                    }
                    (id, claimed) => {
                        assert_ne!(id, lost);
                        next.push(claimed.unwrap().unwrap().expect("thirty more are fit"));
                    }
                }
            }
            assert_eq!((next.len(), works(&raw).await), (9, 9), "one for each that has ended");
            for ended in Work::cancel_many(next).await {
                ended.unwrap();
            }
        }
    }

    async fn nobody_waits_for_calls_that_are_not_polled(db: TestDatabase) {
        let config = Config::new(db.url(), "test", "").max_connections(4).statement_timeout(Duration::from_secs(1));
        let bmdb = Bmdb::connect(config).await.unwrap();
        let session = bmdb.start_session().await.unwrap();
        provide(&session, 40).await;
        let raw = db.raw().await;
        warm_up(&session).await;
        // Each is begun, and then left alone: claims, ends, ends with the next claim.
        let mut held = claim_all(&session, 8).await;
        let mut unpolled: Vec<Pin<Box<dyn Future<Output = ()> + Send>>> = Vec::new();
        for _ in 0..4 {
            let (ends, goes) = (held.pop().expect("eight"), held.pop().expect("eight"));
            let (claiming, going) = (session.clone(), session.clone());
            unpolled.push(Box::pin(async move { drop(claiming.claim(&of::<Survey>(&claiming).await).await.unwrap()) }));
            unpolled.push(Box::pin(async move { ends.done().await.unwrap() }));
            unpolled.push(Box::pin(async move { drop(goes.done().then(going.claim(&of::<Survey>(&going).await)).await.unwrap().unwrap()) }));
        }
        let mut left = Vec::new();
        for mut call in unpolled {
            // Most of them; what another thread has served meanwhile may be ready.
            if futures_util::poll!(&mut call).is_pending() {
                left.push(call);
            }
        }
        assert!(left.len() > 4, "{}", left.len());
        for _ in 0..5 {
            let works = claim_all(&session, 4).await;
            let survey = of::<Survey>(&session).await;
            let next = join_all(works.into_iter().map(|work| work.done().then(session.claim(&survey)))).await;
            let next: Vec<_> = next.into_iter().map(|next| next.unwrap().unwrap().expect("enough are fit")).collect();
            for ended in Work::cancel_many(next).await {
                ended.unwrap();
            }
        }
        // Half of them are polled again, the others dropped: either way nothing is left.
        for (place, call) in left.into_iter().enumerate() {
            if place % 2 == 0 {
                call.await;
            }
        }
        until("nothing is held", LONG, async || works(&raw).await == 0 && session.held().is_empty()).await;

        // Closing does not wait for them either.
        let mut claim = Box::pin(session.claim(&of::<Survey>(&session).await).into_future());
        let is_under_way = futures_util::poll!(&mut claim).is_pending();
        session.clone().close().await.unwrap();
        bmdb.close().await;
        if is_under_way {
            let answer = claim.await;
            assert!(matches!(answer, Err(Error::SessionExpired { .. })), "{answer:?}");
        }
    }

    async fn the_claim_after_an_end_sees_what_the_end_has_stated(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 1).await;
        let raw = db.raw().await;
        // The machine is fit for the next process, and hinted at, until the end says otherwise.
        let hint = async || {
            let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is fit");
            work.cancel().await.unwrap();
        };
        hint().await;
        let survey = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is fit");
        // What does not make it unfit: it is found, if not at once.
        let next = survey.done().stating(agent_heartbeat::row()).then(session.claim(&of::<AgentStart>(&session).await)).await.unwrap().unwrap();
        next.expect("it is fit still").cancel().await.unwrap();
        hint().await;
        let survey = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is fit");
        let next = survey.done().stating(agent_started::row(*b"key")).then(session.claim(&of::<AgentStart>(&session).await)).await.unwrap().unwrap();
        assert!(next.is_none(), "its agent has started: {next:?}");
        assert_eq!((works(&raw).await, session.held().len()), (0, 0));
    }

    async fn few_machines_for_many_at_once(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide(&session, 5).await;
        let raw = db.raw().await;
        for _ in 0..3 {
            warm_up(&session).await;
            let claims = join_all((0..16).map(|_| {
                let session = session.clone();
                async move { session.claim(&of::<AgentStart>(&session).await).await.unwrap() }
            }));
            let claimed: Vec<_> = claims.await.into_iter().flatten().collect();
            let different: HashSet<MachineId> = claimed.iter().map(Work::machine).collect();
            assert_eq!((claimed.len(), different.len()), (5, 5), "of {machines:?}");
            for ended in Work::cancel_many(claimed).await {
                ended.unwrap();
            }
            assert_eq!(works(&raw).await, 0);
        }
    }
}

/// Ends that share a statement with their next claims: none of these takes a machine that another of them has just made unfit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_claims_after_many_ends_see_what_all_of_these_have_stated() {
    bounded(async {
        let db = TestDatabase::migrated(Backend::Postgres).await;
        let session = session(&db).await;
        provide(&session, 24).await;
        let raw = db.raw().await;
        for _ in 0..2 {
            let hinted = session.claim_many(&of::<AgentStart>(&session).await, 24).await.unwrap();
            for ended in Work::cancel_many(hinted).await {
                ended.unwrap();
            }
        }
        let surveys = claim_all(&session, 24).await;
        let start = of::<AgentStart>(&session).await;
        let cycles = surveys.into_iter().map(|survey| {
            let end = survey.done().stating(agent_started::row(*b"key"));
            end.then(session.claim(&start))
        });
        let _held: Vec<_> = join_all(cycles)
            .await
            .into_iter()
            .map(|next| next.unwrap().unwrap())
            .collect();
        // Who claimed a machine before its survey ended has it by right. A statement has one time.
        let both = "SELECT CAST(count(*) AS BIGINT) FROM work JOIN machine_agent_started AS stated USING (machine_id) \
                    WHERE stated.at = work.claimed_at";
        let both = sea_orm::Statement::from_string(raw.get_database_backend(), both);
        let both = raw.query_one_raw(both).await.unwrap().expect("a count has a row");
        assert_eq!(both.try_get_by_index::<i64>(0).unwrap(), 0);
    })
    .await;
}

/// Who finds nothing hinted at looks together with others; one of them searches, and all are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_no_hints_looks_with_others() {
    bounded(async {
        let db = TestDatabase::migrated(Backend::Postgres).await;
        let (_proxy, bmdb, mut looks) = waiting_at(&db, "UPDATE work_retrieval SET begun").await;
        let session = bmdb.start_session().await.unwrap();
        provide(&session, 5).await;
        let mut claims = JoinSet::new();
        for _ in 0..20 {
            let session = session.clone();
            claims.spawn(async move { session.claim(&of::<Survey>(&session).await).await.unwrap() });
        }
        // Two as they came, and sixteen of the others.
        let mut first = Vec::new();
        for _ in 0..3 {
            first.push(looks.recv().await.expect("they look"));
        }
        let another = tokio::time::timeout(Duration::from_millis(300), looks.recv()).await;
        assert!(another.is_err(), "the others wait for those");
        for go_on in first {
            go_on.send(()).expect("it waits");
        }
        let mut claimed = Vec::new();
        while !claims.is_empty() {
            tokio::select! {
                Some(go_on) = looks.recv() => go_on.send(()).expect("it waits"),
                Some(answer) = claims.join_next() => claimed.extend(answer.unwrap()),
                else => unreachable!("the component is there"),
            }
        }
        let different: HashSet<MachineId> = claimed.iter().map(Work::machine).collect();
        assert_eq!((claimed.len(), different.len()), (5, 5));
    })
    .await;
}

/// The answer to a statement that served many is lost: each finds what it has claimed, and nobody else has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_for_many_is_settled_for_each() {
    bounded(async {
        let db = TestDatabase::migrated(Backend::Postgres).await;
        let proxy = Proxy::to(db.url()).await;
        let session = connect_to(proxy.url()).await.start_session().await.unwrap();
        let raw = db.raw().await;
        let machines = provide(&session, 24).await;
        warm_up(&session).await;
        let lost = Arc::new(AtomicU32::new(0));
        let lose_one = |shared: &'static str| {
            let lost = Arc::clone(&lost);
            lost.store(0, Ordering::Relaxed);
            proxy.decide(move |passing| {
                if passing.sql.contains(shared) && lost.fetch_add(1, Ordering::Relaxed) == 0 {
                    Fate::Fail(Fault::DropAfter)
                } else {
                    Fate::Pass
                }
            });
        };
        // Each of several has an id of its own.
        lose_one("ids (nth");
        let claimed = claim_all(&session, 20).await;
        assert!(lost.load(Ordering::Relaxed) > 0, "several were claimed at once");
        let different: HashSet<MachineId> = claimed.iter().map(Work::machine).collect();
        assert_eq!((claimed.len(), different.len(), works(&raw).await), (20, 20, 20));
        lose_one("ANY (ARRAY(SELECT work_id FROM to_end");
        let ends = claimed
            .into_iter()
            .map(|work| async move { work.done().await.unwrap() });
        join_all(ends).await;
        assert!(lost.load(Ordering::Relaxed) > 0, "several were ended at once");
        assert_eq!((works(&raw).await, session.held().len()), (0, 0));
        for machine in machines {
            let events = events(&raw, machine).await;
            assert_eq!(
                events.iter().filter(|event| *event == "started").count() * 2,
                events.len(),
                "{events:?}"
            );
        }
    })
    .await;
}

/// An end with the next claim is refused because another claim was faster: the work ends all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_whose_next_claim_lost_a_race_ends() {
    bounded(async {
        let db = TestDatabase::migrated(Backend::Postgres).await;
        let proxy = Proxy::to(db.url()).await;
        let session = connect_to(proxy.url()).await.start_session().await.unwrap();
        let raw = db.raw().await;
        provide(&session, 3).await;
        warm_up(&session).await;
        let work = claim_all(&session, 1).await.pop().expect("one was claimed");
        let machine = work.machine();
        let mut refused = false;
        proxy.decide(move |passing| {
            let is_both = passing.sql.contains("to_end (") && passing.sql.contains("INSERT INTO work (");
            if is_both && !std::mem::replace(&mut refused, true) {
                Fate::Fail(Fault::Refused("23505"))
            } else {
                Fate::Pass
            }
        });
        let next = work
            .done()
            .then(session.claim(&of::<Survey>(&session).await))
            .await
            .unwrap()
            .unwrap();
        assert!(next.is_some());
        assert_eq!((works(&raw).await, session.held().len()), (1, 1));
        assert!(events(&raw, machine).await.contains(&"finished".to_owned()));
    })
    .await;
}

/// An end with the next claim arrives after its session's trust is over, or its answer is lost: nobody says that it did not end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_with_a_claim_of_unknown_outcome_is_not_called_lost() {
    bounded(async {
        let db = TestDatabase::migrated(Backend::Postgres).await;
        let raw = db.raw().await;
        provide(&session(&db).await, 6).await;
        for is_late in [false, true] {
            let proxy = Proxy::to(db.url()).await;
            let config = Config::new(proxy.url(), "test", "").interval(Duration::from_secs(2));
            let session = Bmdb::connect(config).await.unwrap().start_session().await.unwrap();
            warm_up(&session).await;
            let work = claim_all(&session, 1).await.pop().expect("one was claimed");
            let (machine, before) = (work.machine(), events(&raw, work.machine()).await.len());
            let mut was_sent = false;
            proxy.decide(move |passing| {
                let is_both = passing.sql.contains("to_end (") && passing.sql.contains("INSERT INTO work (");
                if is_both && !std::mem::replace(&mut was_sent, true) {
                    if is_late {
                        return Fate::Delay(Duration::from_millis(2500));
                    }
                    return Fate::Fail(Fault::DropAfter);
                }
                if is_late && was_sent {
                    return Fate::Fail(Fault::DropBefore);
                }
                Fate::Pass
            });
            let answer = work.done().then(session.claim(&of::<Survey>(&session).await)).await;
            let has_ended = async || {
                events(&raw, machine)
                    .await
                    .get(before)
                    .is_some_and(|event| event == "finished")
            };
            until("it has ended", LONG, has_ended).await;
            if is_late {
                assert!(matches!(answer, Err(Unfinished::Unknown { .. })), "{answer:?}");
            } else {
                assert!(
                    answer.unwrap().unwrap().is_some(),
                    "it is settled, and the next is claimed"
                );
            }
        }
    })
    .await;
}
