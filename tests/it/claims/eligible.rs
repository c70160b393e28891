//! Which machines are due, and how that is explained: the rules of the original among them.

use std::time::Duration;

use bmdb::{
    Backoff, Bmdb, Eligible, Error, Hold, MachineId, MachineSelect, Process, Session, Until, agent_heartbeat,
    agent_started, machine, os_installation_report, os_installation_request, provided, tag,
};
use bmdb_entity::machine_os_installation_report::Outcome;
use harness::{TestDatabase, ada, of, on_each_backend, until};
use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait, EntityTrait, Order, PaginatorTrait};

use crate::world::{AgentRecovery, AgentStart, LONG, Survey, connect, provide, session, tamper};

/// A tag as a user writes one, in a crate of their own.
#[expect(unreachable_pub, reason = "SeaORM's macros make public types")]
mod machine_rack {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "machine_rack")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub machine_id: bmdb::MachineId,
        pub rack: String,
        pub placed_at: DateTimeUtc,
    }
    impl ActiveModelBehavior for ActiveModel {}

    bmdb::impl_tag!(PlacedAt);
}

async fn request(session: &Session, machine: MachineId, generation: i64) {
    let row = os_installation_request::ActiveModel {
        machine_id: Set(machine),
        generation: Set(generation),
        raw: Set(vec![]),
    };
    session
        .transact(async |tx| tag::set::<os_installation_request::Entity>(tx, row.clone()).await)
        .await
        .unwrap();
}

async fn report(session: &Session, machine: MachineId, generation: i64, result: Outcome) {
    let row = os_installation_report::ActiveModel {
        machine_id: Set(machine),
        generation: Set(generation),
        result: Set(result),
        raw: Set(vec![]),
    };
    session
        .transact(async |tx| tag::set::<os_installation_report::Entity>(tx, row.clone()).await)
        .await
        .unwrap();
}

/// Whether `P` is due for the machine: its claim, its count and its explanation agree, and say this.
async fn is_due<P: Process + Default>(bmdb: &Bmdb, session: &Session, machine: MachineId) -> bool {
    let explained = of::<P>(&bmdb).await.explain(machine).await.unwrap();
    let counted = of::<P>(&bmdb).await.count().await.unwrap();
    let claimed = session.claim(&of::<P>(&session).await).on(machine).await.unwrap();
    assert_eq!(explained.eligible, claimed.is_some(), "{explained}");
    assert_eq!(u64::from(explained.eligible), counted, "there is one machine");
    if let Some(work) = claimed {
        work.cancel().await.unwrap();
    }
    explained.eligible
}

/// Moves the time at which a tag was stated into the past.
async fn backdate(db: &TestDatabase, table: &str, minutes: u32) {
    let raw = db.raw().await;
    let sql = match db.backend() {
        harness::Backend::Sqlite => {
            format!("UPDATE {table} SET at = strftime('%Y-%m-%d %H:%M:%f', 'now', '-{minutes} minutes')")
        }
        harness::Backend::Postgres => format!("UPDATE {table} SET at = now() - INTERVAL '{minutes} minutes'"),
    };
    tamper(&raw, &sql).await;
}

on_each_backend! {
    async fn agent_start_is_due_by_the_originals_rule(db: TestDatabase) {
        let (bmdb, session) = (connect(&db).await, session(&db).await);
        let machine = session.transact(machine::create).await.unwrap();
        let due = async || is_due::<AgentStart>(&bmdb, &session, machine).await;
        assert!(!due().await, "it is not provided");
        let raw = db.raw().await;
        let row = provided::ActiveModel {
            machine_id: Set(machine), provider: Set("test".into()), provider_id: Set("m0".into()), status: Set(provided::Status::Running),
            ..Default::default()
        };
        session.transact(async |tx| tag::set::<provided::Entity>(tx, row.clone()).await).await.unwrap();
        assert!(due().await, "it is provided and has no agent");
        request(&session, machine, 10).await;
        assert!(due().await, "the request has no report");
        report(&session, machine, 9, Outcome::Success).await;
        assert!(due().await, "the report answers another request");
        report(&session, machine, 10, Outcome::Error).await;
        assert!(!due().await, "the request is fulfilled");
        request(&session, machine, 11).await;
        assert!(due().await, "a new request is not");
        session.transact(async |tx| agent_started::set(tx, machine, *b"key").await).await.unwrap();
        assert!(!due().await, "an agent was started");
        tamper(&raw, "DELETE FROM machine_agent_started").await;
        assert!(due().await);
    }

    async fn agent_recovery_is_due_by_the_originals_rule(db: TestDatabase) {
        let (bmdb, session) = (connect(&db).await, session(&db).await);
        let machine = provide(&session, 1).await[0];
        let due = async || is_due::<AgentRecovery>(&bmdb, &session, machine).await;
        assert!(!due().await, "no agent was started");
        session.transact(async |tx| agent_started::set(tx, machine, *b"key").await).await.unwrap();
        assert!(!due().await, "it was started just now");
        backdate(&db, "machine_agent_started", 29).await;
        assert!(!due().await, "it has half an hour");
        backdate(&db, "machine_agent_started", 31).await;
        assert!(due().await, "it was never heard in half an hour");
        session.transact(async |tx| agent_heartbeat::set(tx, machine).await).await.unwrap();
        assert!(!due().await, "it was heard just now");
        backdate(&db, "machine_agent_heartbeat", 9).await;
        assert!(!due().await, "it has ten minutes");
        backdate(&db, "machine_agent_heartbeat", 11).await;
        assert!(due().await, "it was not heard for ten minutes");
        request(&session, machine, 1).await;
        report(&session, machine, 1, Outcome::Error).await;
        assert!(due().await, "the installation failed");
        report(&session, machine, 1, Outcome::Success).await;
        assert!(!due().await, "the installation succeeded");
        request(&session, machine, 2).await;
        assert!(due().await, "another is asked for, and the report is of the one before");
        report(&session, machine, 2, Outcome::Success).await;
        assert!(!due().await, "that succeeded, too");
        session.transact(async |tx| tag::delete::<os_installation_request::Entity>(tx, machine).await).await.unwrap();
        assert!(due().await, "none is asked for: an agent is wanted, whatever was installed once");
    }

    async fn an_explanation_names_everything_that_stands_in_the_way(db: TestDatabase) {
        let (bmdb, session) = (connect(&db).await, session(&db).await);
        let machine = provide(&session, 1).await[0];
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("one machine is eligible");
        work.progress(&"half-way").await.unwrap();
        let explained = of::<AgentStart>(&bmdb).await.explain(machine).await.unwrap();
        let holder = explained.holder.as_ref().expect("it is held");
        assert_eq!((holder.session, holder.fence, holder.component_name.as_str()), (session.id(), work.fence(), "test"));
        assert_eq!(holder.progress, Some("half-way".into()));
        assert!(explained.clauses.iter().all(|clause| clause.met));
        assert!(!explained.eligible && explained.earliest.is_none());
        work.fail("no answer").await.unwrap();
        bmdb.operator("ada", "replacing a disk").unwrap().place_hold(machine, Hold::new().until(Until::For(Duration::from_secs(86_400)))).await.unwrap();
        let explained = of::<AgentStart>(&bmdb).await.explain(machine).await.unwrap();
        let backoff = explained.backoff.as_ref().expect("it backs off");
        assert_eq!((backoff.attempts, backoff.cause.as_str()), (1, "no answer"));
        assert_eq!(explained.holds.len(), 1);
        assert_eq!(explained.earliest, explained.holds[0].until, "the hold ends last");
        let text = explained.to_string();
        for part in ["not eligible for agent-start", "no answer", "replacing a disk", "ada", "[x] has machine_provided", "earliest"] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        let stranger = MachineId::random();
        assert!(matches!(of::<AgentStart>(&bmdb).await.explain(stranger).await, Err(Error::UnknownMachine { machine }) if machine == stranger));
    }

    async fn the_last_attempt_parks_the_machine_for_a_person(db: TestDatabase) {
        #[derive(Default)]
        struct Stubborn;
        impl Process for Stubborn {
            const NAME: &'static str = "stubborn";
            const BACKOFF: Backoff = Backoff::NONE.max_attempts(2);
            type Item = machine::Model;
            fn eligible(&self, machines: Eligible) -> Eligible { machines }
        }
        let (bmdb, session) = (connect(&db).await, session(&db).await);
        let machine = provide(&session, 1).await[0];
        for _ in 0..2 {
            let mut work = None;
            until("the backoff is over", LONG, async || {
                work = session.claim(&of::<Stubborn>(&session).await).await.unwrap();
                work.is_some()
            }).await;
            work.expect("it was claimed").fail("broken").await.unwrap();
        }
        let parked = bmdb.backoffs(Some(machine)).await.unwrap().rows;
        assert_eq!((parked[0].until, parked[0].attempts), (None, 2));
        assert!(of::<Stubborn>(&bmdb).await.explain(machine).await.unwrap().to_string().contains("parked"));
        assert!(session.claim(&of::<Stubborn>(&session).await).await.unwrap().is_none());
        assert!(matches!(ada(&bmdb).clear_backoff(machine, "stuborn").await, Err(Error::UnknownProcess { .. })));
        assert!(ada(&bmdb).clear_backoff(machine, "stubborn").await.unwrap());
        assert!(!ada(&bmdb).clear_backoff(machine, "stubborn").await.unwrap());
        assert!(session.claim(&of::<Stubborn>(&session).await).await.unwrap().is_some());
    }

    async fn holds_keep_machines_and_slots_from_claims(db: TestDatabase) {
        let (bmdb, session) = (connect(&db).await, session(&db).await);
        let machine = provide(&session, 1).await[0];
        session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("the slot is registered").cancel().await.unwrap();
        bmdb.operator("ada", "the agent's network is down").unwrap().place_hold(machine, Hold::new().slot("agent")).await.unwrap();
        assert!(session.claim(&of::<AgentStart>(&session).await).await.unwrap().is_none());
        session.claim(&of::<Survey>(&session).await).await.unwrap().expect("another slot is free").cancel().await.unwrap();
        bmdb.operator("bob", "moving the rack").unwrap().place_hold(machine, Hold::new()).await.unwrap();
        assert!(session.claim(&of::<Survey>(&session).await).await.unwrap().is_none(), "the whole machine is held");
        assert_eq!(bmdb.holds(Some(machine)).await.unwrap().rows.len(), 2);
        assert_eq!(bmdb.holds(None).await.unwrap().rows.len(), 2);
        assert!(ada(&bmdb).lift_hold(machine, Some("agent")).await.unwrap());
        assert!(!ada(&bmdb).lift_hold(machine, Some("agent")).await.unwrap());
        assert!(session.claim(&of::<AgentStart>(&session).await).await.unwrap().is_none());
        assert!(ada(&bmdb).lift_hold(machine, None).await.unwrap());
        session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("nothing holds it").cancel().await.unwrap();
        // A hold ends by itself, whether its end is a span or a time.
        let past: sea_orm::prelude::DateTimeUtc = std::time::SystemTime::UNIX_EPOCH.into();
        let over = ada(&bmdb).place_hold(machine, Hold::new().until(Until::Time(past))).await.expect_err("it would hold nothing");
        assert!(matches!(over, Error::Invalid { what: "the end of a hold", .. }), "{over:?}");
        let future: sea_orm::prelude::DateTimeUtc = (std::time::SystemTime::now() + Duration::from_secs(3600)).into();
        bmdb.operator("ada", "later").unwrap().place_hold(machine, Hold::new().until(Until::Time(future))).await.unwrap();
        assert!(session.claim(&of::<AgentStart>(&session).await).await.unwrap().is_none());
        assert!(ada(&bmdb).lift_hold(machine, None).await.unwrap());
        bmdb.operator("ada", "short").unwrap().place_hold(machine, Hold::new().until(Until::For(Duration::from_millis(300)))).await.unwrap();
        until("the hold has ended", LONG, async || session.claim(&of::<AgentStart>(&session).await).await.unwrap().is_some()).await;
    }

    async fn a_hold_beats_a_claim_that_looked_before_it(db: TestDatabase) {
        let (bmdb, session) = (connect(&db).await, session(&db).await);
        let machine = provide(&session, 1).await[0];
        let fence = async || machine::Entity::find().one(&db.raw().await).await.unwrap().unwrap().fence;
        let before = fence().await;
        bmdb.operator("bob", "moving the rack").unwrap().place_hold(machine, Hold::new()).await.unwrap();
        assert!(fence().await > before, "a compare with what was seen before fails");
    }

    async fn any_select_of_machines_can_leave_out_what_is_taken(db: TestDatabase) {
        let (bmdb, session) = (connect(&db).await, session(&db).await);
        let machines = provide(&session, 4).await;
        let _held = session.claim(&of::<AgentStart>(&session).await).on(machines[0]).await.unwrap().expect("it is eligible");
        session.claim(&of::<AgentStart>(&session).await).on(machines[1]).await.unwrap().expect("it is eligible").fail("no answer").await.unwrap();
        bmdb.operator("bob", "moving the rack").unwrap().place_hold(machines[2], Hold::new()).await.unwrap();
        let raw = db.raw().await;
        let ids = |rows: Vec<provided::Model>| rows.into_iter().map(|row| row.machine_id).collect::<std::collections::HashSet<_>>();
        let without = |gone: usize| machines.iter().enumerate().filter(|(nth, _)| *nth != gone).map(|(_, id)| *id).collect();
        let all = provided::Entity::find;
        assert_eq!(ids(all().without_work("agent").all(&raw).await.unwrap()), without(0));
        assert_eq!(ids(all().without_backoff("agent-start").all(&raw).await.unwrap()), without(1));
        assert_eq!(ids(all().without_hold("agent").all(&raw).await.unwrap()), without(2));
        let free = machine::Entity::find().without_work("agent").without_backoff("agent-start").without_hold("agent");
        let free = free.all(bmdb.reads()).await.unwrap();
        assert_eq!(free.iter().map(|row| row.machine_id).collect::<Vec<_>>(), [machines[3]]);
        tamper(&raw, "UPDATE work_hold SET until = '2020-01-01 00:00:00.000'").await;
        assert_eq!(all().without_hold("agent").count(&raw).await.unwrap(), 4);
    }

    async fn an_order_is_followed_and_without_one_claims_begin_anywhere(db: TestDatabase) {
        #[derive(Default)]
        struct Ordered;
        impl Process for Ordered {
            const NAME: &'static str = "ordered";
            type Item = provided::Model;
            fn eligible(&self, machines: Eligible) -> Eligible {
                machines.order(provided::Column::ProviderId.into_expr(), Order::Desc)
            }
        }
        let session = session(&db).await;
        provide(&session, 9).await;
        let mut names = Vec::new();
        let mut held = Vec::new();
        while let Some(work) = session.claim(&of::<Ordered>(&session).await).await.unwrap() {
            names.push(work.provider_id.clone());
            held.push(work);
        }
        assert_eq!(names, ["m8", "m7", "m6", "m5", "m4", "m3", "m2", "m1", "m0"]);
        let mut firsts = std::collections::HashSet::new();
        for _ in 0..40 {
            let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("all are eligible");
            firsts.insert(work.machine());
            work.cancel().await.unwrap();
        }
        // Forty draws that all hit one of nine: less likely than one in 10^20.
        assert!(firsts.len() > 1);
    }

    async fn clauses_have_the_meaning_of_their_names(db: TestDatabase) {
        #[derive(Default)]
        struct Fussy;
        impl Process for Fussy {
            const NAME: &'static str = "fussy";
            type Item = provided::Model;
            fn eligible(&self, machines: Eligible) -> Eligible {
                machines
                    .when("stands in fra", provided::Column::Location.eq("fra"))
                    .met::<os_installation_request::Entity, os_installation_report::Entity>()
                    .has_where::<os_installation_report::Entity>("installed", os_installation_report::Column::Result.eq(Outcome::Success))
            }
        }
        let (bmdb, session) = (connect(&db).await, session(&db).await);
        let machine = provide(&session, 1).await[0];
        let unmet = async || {
            let explained = of::<Fussy>(&bmdb).await.explain(machine).await.unwrap();
            explained.clauses.iter().filter(|clause| !clause.met).map(|clause| clause.clause.clone()).collect::<Vec<_>>()
        };
        let met = "machine_os_installation_request is met by machine_os_installation_report";
        assert_eq!(unmet().await, ["stands in fra", met, "installed"]);
        tamper(&db.raw().await, "UPDATE machine_provided SET location = 'fra'").await;
        assert_eq!(unmet().await, [met, "installed"]);
        request(&session, machine, 1).await;
        report(&session, machine, 1, Outcome::Error).await;
        assert_eq!(unmet().await, ["installed"]);
        report(&session, machine, 1, Outcome::Success).await;
        assert!(is_due::<Fussy>(&bmdb, &session, machine).await);
    }

    async fn claims_in_one_order_at_once_each_get_a_machine(db: TestDatabase) {
        #[derive(Default)]
        struct Ranked;
        impl Process for Ranked {
            const NAME: &'static str = "ranked";
            type Item = provided::Model;
            fn eligible(&self, machines: Eligible) -> Eligible {
                machines.order(provided::Column::ProviderId.into_expr(), Order::Desc)
            }
        }
        const MANY: usize = 128;
        // Of two components, which wait for each other only at the database.
        let (session, other) = (session(&db).await, session(&db).await);
        provide(&session, MANY).await;
        let began = std::time::Instant::now();
        let ranked = [of::<Ranked>(&session).await, of::<Ranked>(&other).await];
        let claims = (0..MANY).map(|nth| [&session, &other][nth % 2].claim(&ranked[nth % 2]).into_future());
        let works: Vec<_> = futures_util::future::join_all(claims).await.into_iter().map(Result::unwrap).collect();
        eprintln!("{MANY} claims took {:?}", began.elapsed());
        assert_eq!(works.iter().flatten().count(), MANY);
        // There is no other.
        assert!(session.claim(&of::<Ranked>(&session).await).await.unwrap().is_none());
        let machines: std::collections::HashSet<_> = works.iter().flatten().map(bmdb::Work::machine).collect();
        assert_eq!(machines.len(), MANY);
    }

    async fn the_largest_import_is_taken(db: TestDatabase) {
        let session = session(&db).await;
        let new = |nth: usize| machine::NewMachine::new("test", format!("m{nth}")).reservation("r").address("192.0.2.1").location("l").hardware_report(vec![1]);
        let batch: Vec<_> = (0..machine::LARGEST_IMPORT).map(new).collect();
        let import = async || {
            let imported = session.transact(async |tx| machine::import(tx, &batch).await).await.unwrap();
            (imported.created, imported.known)
        };
        let all = machine::LARGEST_IMPORT;
        assert_eq!(import().await, (all, 0));
        assert_eq!(import().await, (0, all));
        let raw = db.raw().await;
        let all = all as u64;
        assert_eq!(machine::Entity::find().count(&raw).await.unwrap(), all);
        assert_eq!(provided::Entity::find().count(&raw).await.unwrap(), all);
    }

    async fn machines_are_imported_once(db: TestDatabase) {
        let session = session(&db).await;
        let new = |id: &str| machine::NewMachine::new("test", id);
        let batch = vec![new("a"), new("b"), new("a")];
        let import = async || {
            let imported = session.transact(async |tx| machine::import(tx, &batch).await).await.unwrap();
            (imported.created, imported.known)
        };
        assert_eq!(import().await, (2, 1));
        assert_eq!(import().await, (0, 3));
        let twice = session.transact(async |tx| machine::provide(tx, new("a")).await).await;
        assert!(matches!(twice, Err(Error::DuplicateProviderId { ref provider_id, .. }) if provider_id == "a"), "{twice:?}");
        assert_eq!(machine::Entity::find().count(&db.raw().await).await.unwrap(), 2);
    }

    async fn a_tag_of_a_users_own_joins_in(db: TestDatabase) {
        #[derive(Default)]
        struct Racked;
        impl Process for Racked {
            const NAME: &'static str = "racked";
            type Item = machine_rack::Model;
            fn eligible(&self, machines: Eligible) -> Eligible {
                machines.has::<machine_rack::Entity>().stale::<machine_rack::Entity>(machine_rack::Column::PlacedAt, Duration::ZERO)
            }
        }
        let raw = db.raw().await;
        let (key, time) = match db.backend() {
            harness::Backend::Sqlite => ("uuid_text", "timestamp_with_timezone_text"),
            harness::Backend::Postgres => ("UUID", "TIMESTAMPTZ"),
        };
        tamper(&raw, &format!(
            "CREATE TABLE machine_rack (machine_id {key} PRIMARY KEY REFERENCES machine (machine_id), rack TEXT NOT NULL, placed_at {time} NOT NULL)"
        )).await;
        let session = session(&db).await;
        let machine = provide(&session, 2).await[1];
        assert!(session.claim(&of::<Racked>(&session).await).await.unwrap().is_none());
        let row = machine_rack::ActiveModel { machine_id: Set(machine), rack: Set("b7".to_owned()), ..Default::default() };
        session.transact(async |tx| tag::set::<machine_rack::Entity>(tx, row.clone()).await).await.unwrap();
        let mut work = None;
        until("the clock has moved on", LONG, async || {
            work = session.claim(&of::<Racked>(&session).await).await.unwrap();
            work.is_some()
        }).await;
        assert_eq!(work.expect("it was claimed").rack, "b7");
    }
}
