//! Hints at eligible machines: wrong, missing, old, and fair.

use std::collections::HashSet;
use std::time::Duration;

use bmdb::{Bmdb, Error, MachineId, Session, Work, agent_started, machine};
use bmdb_entity::work_candidate;
use harness::{TestDatabase, of, on_each_backend, on_postgres, until};
use sea_orm::{ConnectionTrait, DatabaseConnection, EntityTrait, PaginatorTrait, Statement, TransactionTrait};

use crate::claims::stress::waiting_for_a_lock;
use crate::world::{AgentStart, LONG, Survey, allow, config, events, provide, refuse, session, tamper};

async fn hints(raw: &DatabaseConnection) -> u64 {
    work_candidate::Entity::find().count(raw).await.unwrap()
}

/// As if the last search had been a minute ago.
async fn age_the_search(raw: &DatabaseConnection) {
    let minute_ago = match raw.get_database_backend() {
        sea_orm::DatabaseBackend::Sqlite => "strftime('%Y-%m-%d %H:%M:%f', 'now', '-60 seconds')",
        _ => "now() - INTERVAL '1 minute'",
    };
    tamper(raw, &format!("UPDATE work_retrieval SET began_at = {minute_ago}")).await;
}

/// Three machines that are free and eligible, a search that has ended, and no hint: whoever claims must search.
async fn searched_without_hints(db: &TestDatabase) -> (Session, DatabaseConnection) {
    let session = session(db).await;
    provide(&session, 3).await;
    let raw = db.raw().await;
    assert_eq!(
        session
            .claim_many(&of::<AgentStart>(&session).await, 3)
            .await
            .unwrap()
            .len(),
        3
    );
    until("the guards are let go of", LONG, async || session.held().is_empty()).await;
    tamper(&raw, "DELETE FROM work").await;
    tamper(&raw, "DELETE FROM work_candidate").await;
    (session, raw)
}

on_each_backend! {
    async fn a_search_leaves_hints_and_claims_use_them_up(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 20).await;
        let raw = db.raw().await;
        let first = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("twenty are eligible");
        assert_eq!(hints(&raw).await, 19, "what the first claim has found and not taken");
        let more = session.claim_many(&of::<AgentStart>(&session).await, 18).await.unwrap();
        assert_eq!((more.len(), hints(&raw).await), (18, 1));
        let last = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one is left");
        // A search behind the claims' backs may have found the last one before it was taken, and left a hint after: a claim disproves it.
        until("no hint is left", LONG, async || {
            session.claim(&of::<AgentStart>(&session).await).await.unwrap().is_none() && hints(&raw).await == 0
        })
        .await;
        // What is let go of can be claimed again at once.
        last.cancel().await.unwrap();
        assert_eq!(hints(&raw).await, 1);
        drop((session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one is free"), first));
    }

    async fn wrong_hints_cost_a_look_and_are_gone(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide(&session, 30).await;
        let raw = db.raw().await;
        drop(session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("thirty are eligible"));
        // None is eligible any more, and some have never been: more than one attempt looks at.
        session.transact(async |tx| {
            for machine in &machines[1..] {
                agent_started::set(tx, *machine, *b"key").await?;
            }
            for _ in 0..30 {
                machine::hint(tx, "agent-start", MachineId::random()).await?;
            }
            machine::hint(tx, "agent-start", machines[0]).await
        }).await.unwrap();
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one is eligible");
        assert_eq!(work.machine(), machines[0]);
        assert!(session.claim(&of::<AgentStart>(&session).await).await.unwrap().is_none());
        assert_eq!(hints(&raw).await, 0, "every hint was disproved");
    }

    async fn what_is_hinted_at_is_claimed_first(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 20).await;
        let raw = db.raw().await;
        let all = session.claim_many(&of::<AgentStart>(&session).await, 20).await.unwrap();
        let hinted = all.last().expect("twenty are eligible").machine();
        for ended in Work::done_many(all).await {
            ended.unwrap();
        }
        assert_eq!(hints(&raw).await, 0, "who has finished hints at nothing");
        session.transact(async |tx| machine::hint(tx, "agent-start", hinted).await).await.unwrap();
        assert_eq!(hints(&raw).await, 1);
        assert_eq!(session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("all are eligible").machine(), hinted);
    }

    async fn a_search_that_failed_releases_its_lease(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 3).await;
        let raw = db.raw().await;
        refuse(&raw, "work_candidate", "P0001").await;
        let refused = session.claim(&of::<AgentStart>(&session).await).await;
        assert!(matches!(refused, Err(Error::Database { .. })), "{refused:?}");
        allow(&raw, "work_candidate").await;
        // A search lease that nobody releases lasts ten seconds.
        let claim = tokio::time::timeout(Duration::from_secs(6), session.claim(&of::<AgentStart>(&session).await));
        assert!(claim.await.expect("it takes the lease at once").unwrap().is_some());
    }

    async fn deleted_hints_lose_nothing(db: TestDatabase) {
        let session = session(&db).await;
        let machines: HashSet<MachineId> = provide(&session, 40).await.into_iter().collect();
        let raw = db.raw().await;
        let mut claimed = HashSet::new();
        let mut guards = Vec::new();
        for nth in 0..40 {
            match nth % 4 {
                1 => tamper(&raw, "DELETE FROM work_candidate").await,
                3 => tamper(&raw, "DELETE FROM work_retrieval").await,
                _ => {}
            }
            let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("not all are claimed yet");
            assert!(claimed.insert(work.machine()), "nobody is claimed twice");
            guards.push(work);
        }
        assert_eq!(claimed, machines);
        assert!(session.claim(&of::<AgentStart>(&session).await).await.unwrap().is_none());
    }

    async fn what_becomes_eligible_without_a_hint_is_found_while_others_are_claimed(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide(&session, 12).await;
        let raw = db.raw().await;
        let cold = machines[0];
        session.transact(async |tx| agent_started::set(tx, cold, *b"key").await).await.unwrap();
        drop(session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("eleven are eligible"));
        tamper(&raw, "DELETE FROM machine_agent_started").await;
        age_the_search(&raw).await;
        // Nobody says so; the search that is due finds it, though there are hints all the time.
        until("the cold machine is claimed", LONG, async || {
            let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("others are eligible");
            let machine = work.machine();
            work.cancel().await.unwrap();
            machine == cold
        }).await;
    }

    async fn no_eligible_machine_waits_for_ever(db: TestDatabase) {
        // The adversary hints at the same few machines again and again; on PostgreSQL a reader also keeps every dead row of the hints.
        let session = session(&db).await;
        let mut machines = provide(&session, 24).await;
        machines.sort();
        let raw = db.raw().await;
        let mut snapshot = None;
        if raw.get_database_backend() == sea_orm::DatabaseBackend::Postgres {
            let config = Some(sea_orm::IsolationLevel::RepeatableRead);
            let reader = raw.begin_with_config(config, None).await.unwrap();
            let look = Statement::from_string(raw.get_database_backend(), "SELECT process FROM work_candidate");
            reader.query_all_raw(look).await.unwrap();
            snapshot = Some(reader);
        }
        let mut waiting: HashSet<MachineId> = machines.iter().copied().collect();
        let mut claims = 0;
        while !waiting.is_empty() {
            let work = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("all are always eligible");
            waiting.remove(&work.machine());
            let favourites = &machines[..4];
            work.finish(async |tx| {
                for machine in favourites {
                    machine::hint(tx, "survey", *machine).await?;
                }
                Ok::<_, Error>(())
            }).await.unwrap();
            claims += 1;
            if claims % 20 == 0 {
                age_the_search(&raw).await;
            }
            assert!(claims < 800, "{} machines were never claimed", waiting.len());
        }
        drop(snapshot);
    }

    async fn one_component_searches_and_all_claim(db: TestDatabase) {
        // Twelve that find nothing at the same moment: one search finds for all of them, and so much that nobody searches ahead of time.
        let session = session(&db).await;
        provide(&session, 300).await;
        let raw = db.raw().await;
        let start = of::<AgentStart>(&session).await;
        let begun = async || -> i64 {
            let ask = Statement::from_string(raw.get_database_backend(), "SELECT begun FROM work_retrieval");
            raw.query_one_raw(ask).await.unwrap().expect("the process is registered").try_get_by_index(0).unwrap()
        };
        let before = begun().await;
        let claims = (0..12).map(|_| {
            let claim = session.claim(&start);
            async move { claim.await.unwrap().expect("there are enough for all") }
        });
        let works = futures_util::future::join_all(claims).await;
        let different: HashSet<MachineId> = works.iter().map(bmdb::Work::machine).collect();
        assert_eq!(different.len(), 12);
        let searches = begun().await - before;
        assert!(searches <= 2, "{searches} searches for twelve claims");
    }

    async fn a_search_whose_component_died_is_taken_over(db: TestDatabase) {
        let (session, raw) = searched_without_hints(&db).await;
        let end_in = |seconds: i32| match raw.get_database_backend() {
            sea_orm::DatabaseBackend::Sqlite => format!("strftime('%Y-%m-%d %H:%M:%f', 'now', '{seconds} seconds')"),
            _ => format!("now() + INTERVAL '{seconds} seconds'"),
        };
        tamper(&raw, &format!("UPDATE work_retrieval SET begun = begun + 1, until = {}", end_in(9))).await;
        let early = tokio::time::timeout(Duration::from_secs(1), session.claim(&of::<AgentStart>(&session).await)).await;
        assert!(early.is_err(), "somebody else is searching: {early:?}");
        tamper(&raw, &format!("UPDATE work_retrieval SET until = {}", end_in(1))).await;
        let claim = tokio::time::timeout(LONG, session.claim(&of::<AgentStart>(&session).await));
        assert!(claim.await.expect("nobody waits for the dead").unwrap().is_some());
    }
}

on_postgres! {
    async fn a_search_lease_that_another_took_while_a_claim_waited_for_the_row_is_respected(db: TestDatabase) {
        let (session, raw) = searched_without_hints(&db).await;
        let another = raw.begin().await.unwrap();
        let tell = async |text: &str| another.execute_unprepared(text).await.map(drop).unwrap();
        tell("SELECT process FROM work_retrieval FOR UPDATE").await;
        let claim = session.claim(&of::<AgentStart>(&session).await).into_future();
        let mut claim = std::pin::pin!(claim);
        let waiting = until("the claim waits for the row", LONG, async || waiting_for_a_lock(&raw).await == 1);
        tokio::select! {
            early = &mut claim => panic!("another holds the row: {early:?}"),
            () = waiting => {}
        }
        // The claim's statement began before this one: its ten seconds from now are over sooner.
        tell("UPDATE work_retrieval SET begun = begun + 1, began_at = clock_timestamp(), until = clock_timestamp() + INTERVAL '10 seconds'").await;
        another.commit().await.unwrap();
        let early = tokio::time::timeout(Duration::from_secs(1), &mut claim).await;
        assert!(early.is_err(), "somebody else is searching: {early:?}");
        tamper(&raw, "UPDATE work_retrieval SET until = now()").await;
        let claim = tokio::time::timeout(LONG, claim).await;
        assert!(claim.expect("the other's lease is over").unwrap().is_some());
    }

    async fn a_claim_that_loses_every_race_gives_up_when_its_time_is_up(db: TestDatabase) {
        let budget = Duration::from_millis(700);
        let bmdb = Bmdb::connect(config(&db).retry_budget(budget)).await.unwrap();
        let session = bmdb.start_session().await.unwrap();
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        // As if others took the slot each time.
        refuse(&raw, "work", "23505").await;
        let claim = tokio::time::timeout(LONG, session.claim(&of::<AgentStart>(&session).await)).await.expect("it gives up");
        match claim {
            Err(Error::Contended { attempts, elapsed, .. }) => assert!(attempts > 2 && elapsed > budget, "{attempts} attempts in {elapsed:?}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(events(&raw, machine).await, [""; 0]);
        allow(&raw, "work").await;
        assert!(session.claim(&of::<AgentStart>(&session).await).await.unwrap().is_some());
    }
}
