//! Facts that an end states in its own statement: as written in a body, or not at all.

use bmdb::{
    CancellationToken, Error, Facts, MachineId, Process, Session, Tx, Unfinished, Work, Worker, agent_heartbeat,
    agent_started, os_installation_report, os_installation_request, provided, tag,
};
use bmdb_entity::work_history;
use futures_util::future::join_all;
use harness::{Backend, TestDatabase, of, on_each_backend, until};
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::{DatabaseConnection, EntityTrait, PaginatorTrait};

use crate::world::{AgentStart, LONG, Survey, events, kill_session, provide, session, tamper, works};

/// A tag of a user's own, with a column of each kind, a rule and a key of its own.
#[expect(unreachable_pub, reason = "SeaORM's macros make public types")]
pub(crate) mod machine_bench {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "machine_bench")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub machine_id: bmdb::MachineId,
        pub seen_at: DateTimeUtc,
        #[sea_orm(column_type = "Text")]
        pub name: String,
        #[sea_orm(column_type = "Text", nullable)]
        pub note: Option<String>,
        pub runs: i64,
        pub burst: Option<i32>,
        pub is_idle: bool,
        pub load: f64,
        pub details: Json,
        pub next_to: Option<bmdb::MachineId>,
    }
    impl ActiveModelBehavior for ActiveModel {}

    bmdb::impl_tag!(SeenAt);
}

pub(crate) async fn make_bench(db: &TestDatabase, raw: &DatabaseConnection) {
    let (key, time, json) = match db.backend() {
        Backend::Sqlite => ("uuid_text", "timestamp_with_timezone_text", "json_text"),
        Backend::Postgres => ("UUID", "TIMESTAMPTZ", "JSONB"),
    };
    let table = format!(
        "CREATE TABLE machine_bench (machine_id {key} PRIMARY KEY REFERENCES machine (machine_id), seen_at {time} NOT NULL, name TEXT NOT NULL, \
         note TEXT, runs BIGINT NOT NULL CHECK (runs >= 0), burst INTEGER, is_idle BOOLEAN NOT NULL, load DOUBLE PRECISION NOT NULL, \
         details {json} NOT NULL, next_to {key} REFERENCES machine (machine_id))"
    );
    tamper(raw, &table).await;
}

pub(crate) fn bench(runs: i64) -> machine_bench::ActiveModel {
    machine_bench::ActiveModel {
        machine_id: NotSet,
        seen_at: NotSet,
        name: Set("'; DROP TABLE work; -- $1 ? \u{1f4a5}".to_owned()),
        note: Set(None),
        runs: Set(runs),
        burst: Set(Some(-7)),
        is_idle: Set(true),
        load: Set(0.25),
        details: Set(serde_json::json!({"$1": ["?", 2]})),
        next_to: Set(None),
    }
}

pub(crate) async fn claim(session: &Session) -> Work<Survey> {
    session
        .claim(&of::<Survey>(&session).await)
        .await
        .unwrap()
        .expect("every machine is always fit")
}

pub(crate) async fn heard(raw: &DatabaseConnection) -> u64 {
    agent_heartbeat::Entity::find().count(raw).await.unwrap()
}

/// The guard and the error of an end that was refused.
pub(crate) fn refused<P: Process>(ended: Result<(), Unfinished<P>>) -> (Work<P>, Error) {
    match ended {
        Err(Unfinished::NotCommitted { work, error }) => (work, error),
        other => panic!("it was to be refused, and is {other:?}"),
    }
}

on_each_backend! {
    async fn an_end_states_what_a_body_would_write(db: TestDatabase) {
        let session = session(&db).await;
        let raw = db.raw().await;
        make_bench(&db, &raw).await;
        let machine = provide(&session, 1).await[0];
        claim(&session).await.done().stating(bench(1)).await.unwrap();
        let stated = machine_bench::Entity::find_by_id(machine).one(&raw).await.unwrap().expect("it was stated");
        session.transact(async |tx| {
            let row = machine_bench::ActiveModel { machine_id: Set(machine), ..bench(1) };
            tag::set::<machine_bench::Entity>(tx, row).await
        }).await.unwrap();
        let written = machine_bench::Entity::find_by_id(machine).one(&raw).await.unwrap().expect("it is there");
        assert!(written.seen_at >= stated.seen_at && (written.seen_at - stated.seen_at).num_seconds() < 30);
        assert_eq!(machine_bench::Model { seen_at: written.seen_at, ..stated }, written);

        // What an update does not set stays, and all else is new.
        let more = machine_bench::ActiveModel { note: Set(Some("busy".to_owned())), is_idle: Set(false), runs: Set(2), ..Default::default() };
        claim(&session).await.fail("it is busy").stating(Facts::updating(more).and(agent_heartbeat::row())).await.unwrap();
        let now = machine_bench::Entity::find_by_id(machine).one(&raw).await.unwrap().expect("it is there");
        assert_eq!((now.note.as_deref(), now.burst, now.is_idle, now.runs), (Some("busy"), Some(-7), false, 2));
        assert!(now.seen_at >= written.seen_at);
        assert_eq!((heard(&raw).await, events(&raw, machine).await), (1, ["started", "finished", "started", "failed"].map(String::from).to_vec()));
    }

    async fn every_tag_of_ours_can_be_stated(db: TestDatabase) {
        let session = session(&db).await;
        let raw = db.raw().await;
        let machine = provide(&session, 1).await[0];
        let request = os_installation_request::ActiveModel { machine_id: NotSet, generation: Set(3), raw: Set(vec![0, 255]) };
        let result = Set(os_installation_report::Outcome::Error);
        let report = os_installation_report::ActiveModel { machine_id: Set(machine), generation: Set(3), result, raw: Set(Vec::new()) };
        let status = provided::ActiveModel {
            location: Set(Some("b7".to_owned())),
            status: Set(provided::Status::Stopped),
            ..Default::default()
        };
        let facts = Facts::from(request).and(report).and(Facts::updating(status)).and(agent_started::row(*b"key")).and(Facts::none());
        claim(&session).await.cancel().stating(facts).stating(agent_heartbeat::row()).await.unwrap();
        let report = os_installation_report::Entity::find_by_id(machine).one(&raw).await.unwrap().expect("it was stated");
        assert_eq!((report.generation, report.result), (3, os_installation_report::Outcome::Error));
        let request = os_installation_request::Entity::find_by_id(machine).one(&raw).await.unwrap().expect("it was stated");
        assert_eq!(request.raw, [0, 255]);
        let provided = provided::Entity::find_by_id(machine).one(&raw).await.unwrap().expect("it was there");
        assert_eq!((provided.status, provided.location.as_deref()), (provided::Status::Stopped, Some("b7")));
        assert_eq!(provided.address.as_deref(), Some("192.0.2.0"), "which was not set, and stays");
        let started = agent_started::Entity::find_by_id(machine).one(&raw).await.unwrap().expect("it was stated");
        assert_eq!((started.public_key.as_slice(), heard(&raw).await), (&b"key"[..], 1));
    }

    async fn a_lost_work_states_nothing(db: TestDatabase) {
        let session = session(&db).await;
        let raw = db.raw().await;
        provide(&session, 3).await;
        let [alone, first, second] = [claim(&session).await, claim(&session).await, claim(&session).await];
        tamper(&raw, "DELETE FROM work").await;
        let lost = alone.done().stating(agent_heartbeat::row()).await;
        assert!(matches!(lost, Err(Unfinished::Over(Error::WorkLost { .. }))), "{lost:?}");
        let lost = first.fail("too late").stating(agent_heartbeat::row()).then(session.claim(&of::<Survey>(&session).await)).await;
        assert!(matches!(lost, Err(Unfinished::Over(Error::WorkLost { .. }))), "{lost:?}");
        kill_session(&raw, &session).await;
        let lost = second.done().stating(agent_heartbeat::row()).await;
        assert!(matches!(lost, Err(Unfinished::Over(_))), "{lost:?}");
        assert_eq!(heard(&raw).await, 0);
    }

    async fn what_cannot_be_stated_is_refused_and_the_guard_comes_back(db: TestDatabase) {
        let session = session(&db).await;
        let raw = db.raw().await;
        make_bench(&db, &raw).await;
        let machines = provide(&session, 2).await;
        let mut work = session.claim(&of::<Survey>(&session).await).on(machines[0]).await.unwrap().expect("it is fit");
        let elsewhere = agent_heartbeat::ActiveModel { machine_id: Set(machines[1]), ..agent_heartbeat::row() };
        let nul = machine_bench::ActiveModel { name: Set("a\0b".to_owned()), ..bench(1) };
        let taken = provided::ActiveModel { provider: Set("test".to_owned()), provider_id: Set("m1".to_owned()), status: Set(provided::Status::Running), ..Default::default() };
        let nowhere = machine_bench::ActiveModel { next_to: Set(Some(MachineId::random())), ..bench(1) };
        for (what, is_invalid, facts) in [
            ("about another machine", true, Facts::from(elsewhere)),
            ("NUL", true, Facts::from(nul)),
            ("two of one tag", true, Facts::from(agent_heartbeat::row()).and(bench(1)).and(agent_heartbeat::row())),
            ("against a rule", false, Facts::from(agent_heartbeat::row()).and(bench(-1))),
            ("a key that another has", false, Facts::from(agent_heartbeat::row()).and(taken)),
            ("a key that is not there", false, Facts::from(nowhere)),
        ] {
            let then = session.claim(&of::<Survey>(&session).await);
            let both = work.done().stating(facts.clone()).then(then).await.map(drop);
            let (back, error) = refused(both);
            assert_eq!(matches!(error, Error::Invalid { .. }), is_invalid, "{what}: {error:?}");
            let (back, error) = refused(back.fail("a test").stating(facts.clone()).await);
            assert_eq!(matches!(error, Error::Invalid { .. }), is_invalid, "{what}: {error:?}");
            assert!(
                is_invalid || matches!(error, Error::Database { .. } | Error::DuplicateProviderId { .. }),
                "{what}: {error:?}"
            );
            let many = Work::done_many(vec![back]).stating(|_| facts.clone()).await.pop().expect("one answer");
            work = refused(many).0;
            assert_eq!((events(&raw, machines[0]).await.len(), heard(&raw).await, works(&raw).await), (1, 0, 1), "{what}");
        }
        assert!(!session.lost().is_cancelled(), "a key of a tag's own is not the session's");
        work.done().stating(agent_heartbeat::row()).await.unwrap();
        assert_eq!((heard(&raw).await, works(&raw).await), (1, 0));
    }

    async fn one_refused_fact_spoils_no_other_end(db: TestDatabase) {
        let session = session(&db).await;
        let raw = db.raw().await;
        make_bench(&db, &raw).await;
        provide(&session, 24).await;
        for _ in 0..2 {
            claim(&session).await.cancel().await.unwrap();
        }
        // Alone, with the next claim, and in one call.
        for way in 0..3 {
            let mut held = Vec::new();
            while held.len() < 12 {
                held.push(claim(&session).await);
            }
            let row = |nth: usize, work: &Work<Survey>| machine_bench::ActiveModel {
                name: Set(work.machine().to_string()),
                ..bench(if nth == 7 { -1 } else { 1 })
            };
            let ends: Vec<Result<Option<Work<Survey>>, Unfinished<Survey>>> = if way == 2 {
                let seventh = held[7].id();
                let facts = |work: &Work<Survey>| row(if work.id() == seventh { 7 } else { 0 }, work);
                Work::done_many(held).stating(facts).await.into_iter().map(|ended| ended.map(|()| None)).collect()
            } else {
                join_all(held.into_iter().enumerate().map(|(nth, work)| {
                    let (end, session) = (row(nth, &work), session.clone());
                    async move {
                        let end = work.done().stating(end);
                        if way == 0 { end.await.map(|()| None) } else { end.then(session.claim(&of::<Survey>(&session).await)).await.map(|next| next.unwrap()) }
                    }
                })).await
            };
            let refused: Vec<usize> = ends.iter().enumerate().filter(|(_, end)| end.is_err()).map(|(nth, _)| nth).collect();
            assert_eq!(refused, [7]);
            let stated = machine_bench::Entity::find().all(&raw).await.unwrap();
            assert_eq!(stated.len(), 11);
            for row in stated {
                assert_eq!(row.name, row.machine_id.to_string(), "each about its own");
            }
            let refused = ends.into_iter().filter_map(Result::err);
            assert!(refused.into_iter().all(|end| matches!(end, Unfinished::NotCommitted { .. })), "and the guard comes back");
            tamper(&raw, "DELETE FROM machine_bench").await;
            until("all are let go of", LONG, async || works(&raw).await == 0).await;
        }
    }

    async fn many_state_each_its_own(db: TestDatabase) {
        let session = session(&db).await;
        let raw = db.raw().await;
        provide(&session, 20).await;
        let held = session.claim_many(&of::<Survey>(&session).await, 20).await.unwrap();
        let machines: Vec<MachineId> = held.iter().map(Work::machine).collect();
        assert_eq!(machines.len(), 20);
        // Of different shapes: every third states something else as well.
        let facts = |work: &Work<Survey>| {
            let started = Facts::from(agent_started::row(work.machine().to_string()));
            if machines.iter().position(|machine| *machine == work.machine()).unwrap() % 3 == 0 {
                started.and(agent_heartbeat::row())
            } else {
                started
            }
        };
        for ended in Work::fail_many(held, "a test").stating(facts).await {
            ended.unwrap();
        }
        let started = agent_started::Entity::find().all(&raw).await.unwrap();
        assert_eq!((started.len(), heard(&raw).await, works(&raw).await), (20, 7, 0));
        for row in started {
            assert_eq!(row.public_key, row.machine_id.to_string().into_bytes());
        }
    }

    async fn ends_at_once_of_different_sessions_and_facts_keep_their_own(db: TestDatabase) {
        let (one, two) = (session(&db).await, session(&db).await);
        provide(&one, 6).await;
        let raw = db.raw().await;
        let mut held = Vec::new();
        for session in [&one, &two] {
            held.extend(session.claim_many(&of::<AgentStart>(&session).await, 3).await.unwrap());
        }
        let machines: Vec<MachineId> = held.iter().map(Work::machine).collect();
        let stated = |work: &Work<AgentStart>| match machines.iter().position(|machine| *machine == work.machine()) {
            Some(1 | 4) => Facts::from(agent_started::row(*b"key")),
            Some(2) => Facts::from(agent_heartbeat::row()),
            _ => Facts::none(),
        };
        for ended in Work::done_many(held).stating(stated).await {
            ended.unwrap();
        }
        let started = agent_started::Entity::find().all(&raw).await.unwrap();
        assert!(started.len() == 2 && started.iter().all(|row| [machines[1], machines[4]].contains(&row.machine_id)), "{started:?}");
        assert_eq!((heard(&raw).await, works(&raw).await), (1, 0));
        for row in work_history::Entity::find().all(&raw).await.unwrap() {
            let place = machines.iter().position(|machine| *machine == row.machine_id).expect("it was claimed");
            assert_eq!(row.session_id, if place < 3 { one.id() } else { two.id() }, "{row:?}");
        }
    }

    async fn a_worker_may_state_facts_instead_of_committing(db: TestDatabase) {
        struct Starter;
        impl Worker for Starter {
            type Process = AgentStart;
            type Outcome = String;
            async fn run(&self, work: &Work<AgentStart>) -> Result<String, String> { Ok(work.provider_id.clone()) }
            fn facts(&self, key: &String) -> Option<Facts> {
                (key != "m2").then(|| agent_started::row(key.as_str()).into())
            }
            async fn commit(&self, tx: &Tx, machine: MachineId, key: &String) -> Result<(), Error> {
                agent_started::set(tx, machine, key.as_bytes()).await?;
                agent_heartbeat::set(tx, machine).await
            }
        }
        let raw = db.raw().await;
        provide(&session(&db).await, 5).await;
        let shutdown = CancellationToken::new();
        let runner = crate::runner::of(crate::world::connect(&db).await, Starter, 2).await;
        let work = runner.run(shutdown.clone());
        let watch = async {
            until("all are worked on", LONG, async || agent_started::Entity::find().count(&raw).await.unwrap() == 5).await;
            shutdown.cancel();
        };
        let (counts, ()) = tokio::join!(work, watch);
        let counts = counts.unwrap()["agent-start"];
        assert_eq!((counts.claimed, counts.finished, counts.failed), (5, 5, 0));
        assert_eq!(heard(&raw).await, 1, "one had more to commit than facts");
    }

    async fn a_worker_whose_fact_is_refused_has_failed(db: TestDatabase) {
        struct Breaker;
        impl Worker for Breaker {
            type Process = AgentStart;
            type Outcome = ();
            async fn run(&self, _work: &Work<AgentStart>) -> Result<(), String> { Ok(()) }
            fn facts(&self, (): &()) -> Option<Facts> { Some(bench(-1).into()) }
        }
        let raw = db.raw().await;
        make_bench(&db, &raw).await;
        let machine = provide(&session(&db).await, 1).await[0];
        let shutdown = CancellationToken::new();
        let work = crate::runner::of(crate::world::connect(&db).await, Breaker, 1).await.run(shutdown.clone());
        let watch = async {
            until("it has failed", LONG, async || events(&raw, machine).await == ["started", "failed"]).await;
            shutdown.cancel();
        };
        let (counts, ()) = tokio::join!(work, watch);
        let counts = counts.unwrap()["agent-start"];
        assert_eq!((counts.finished, counts.failed, counts.lost), (0, 1, 0));
    }
}
