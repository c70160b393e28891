//! Facts about machines that are stated by those who hold no work on them.

use std::time::Duration;

use bmdb::{
    Bmdb, Error, Facts, MachineId, Observation, Session, agent_heartbeat, agent_started, os_installation_report, tag,
};
use futures_util::future::{join, join_all};
use harness::{on_each_backend, on_postgres, until};
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::{ConnectionTrait, DatabaseConnection, EntityTrait, PaginatorTrait, TransactionTrait};

use crate::claims::stress::waiting_for_a_lock;
use crate::world::{LONG, config, connect, kill_session, provide, session, tamper};

fn heard(machine: MachineId, key: &[u8]) -> Observation {
    Observation::new(machine, agent_heartbeat::row()).only_if(agent_started::row(key))
}

fn installed(machine: MachineId, key: &[u8]) -> Observation {
    let report = os_installation_report::ActiveModel {
        machine_id: NotSet,
        generation: Set(1),
        result: Set(os_installation_report::Outcome::Success),
        raw: Set(Vec::new()),
    };
    Observation::new(machine, Facts::from(agent_heartbeat::row()).and(report)).only_if(agent_started::row(key))
}

async fn start(session: &Session, machine: MachineId, key: &'static [u8]) {
    session
        .transact(async |tx| agent_started::set(tx, machine, key).await)
        .await
        .expect("a fact can be stated");
}

async fn heartbeats(raw: &DatabaseConnection) -> u64 {
    agent_heartbeat::Entity::find()
        .count(raw)
        .await
        .expect("they can be counted")
}

on_each_backend! {
    async fn what_is_heard_is_stated_only_of_the_agent_that_was_started(db: TestDatabase) {
        let session = session(&db).await;
        let raw = db.raw().await;
        let machines = provide(&session, 4).await;
        start(&session, machines[0], b"key").await;
        start(&session, machines[1], b"new").await;
        let answers = session
            .state([
                installed(machines[0], b"key"),
                heard(machines[1], b"old"),
                heard(machines[1], b"new"),
                heard(machines[2], b"key"),
                Observation::new(machines[3], agent_heartbeat::row()),
                Observation::new(MachineId::random(), agent_heartbeat::row()),
            ])
            .await
            .expect("facts can be stated");
        assert_eq!(answers, [true, false, true, false, true, false]);
        assert_eq!(heartbeats(&raw).await, 3);
        let report = tag::get::<os_installation_report::Entity>(&raw, machines[0]).await.unwrap().expect("it was stated");
        assert_eq!(report.generation, 1);

        // Again, and later: the last counts.
        let before = tag::get::<agent_heartbeat::Entity>(&raw, machines[0]).await.unwrap().expect("it was heard").at;
        until("the database's clock goes on", LONG, async || {
            assert_eq!(session.state([installed(machines[0], b"key"), heard(machines[0], b"key")]).await.expect("again"), [true, true]);
            tag::get::<agent_heartbeat::Entity>(&raw, machines[0]).await.unwrap().expect("it was heard").at > before
        })
        .await;
        assert_eq!(session.state([]).await.expect("nothing"), [true; 0]);
    }

    async fn any_number_of_machines_is_heard_at_once(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide(&session, 1500).await;
        let answers = session.state(machines.iter().map(|machine| Observation::new(*machine, agent_heartbeat::row()))).await;
        assert_eq!(answers.expect("facts can be stated"), vec![true; 1500]);
        let answers = session.state(machines.iter().map(|machine| heard(*machine, b"none"))).await;
        assert_eq!(answers.expect("nothing fits"), vec![false; 1500]);
        assert_eq!(heartbeats(&db.raw().await).await, 1500);
    }

    async fn what_is_wrong_is_refused_before_anything_is_stated(db: TestDatabase) {
        let session = session(&db).await;
        let raw = db.raw().await;
        let machines = provide(&session, 2).await;
        let good = || Observation::new(machines[0], agent_heartbeat::row());
        let other = agent_heartbeat::ActiveModel { machine_id: Set(machines[0]), at: NotSet };
        for wrong in [
            Observation::new(machines[1], other.clone()),
            Observation::new(machines[1], Facts::from(agent_heartbeat::row()).and(agent_heartbeat::row())),
            Observation::new(machines[1], agent_heartbeat::row()).only_if(other),
        ] {
            let refused = session.state([good(), wrong]).await.expect_err("one of them is wrong");
            assert!(matches!(refused, Error::Invalid { .. }), "{refused}");
        }
        let over = connect(&db).await.start_session().await.expect("a session can be started");
        kill_session(&raw, &over).await;
        let id = harness::literal(&raw, over.id().0);
        tamper(&raw, &format!("DELETE FROM session WHERE session_id = {id}")).await;
        let refused = over.state([good()]).await.expect_err("its session is over");
        assert!(matches!(refused, Error::SessionExpired { .. }), "{refused}");
        assert_eq!(heartbeats(&raw).await, 0);
    }

    async fn many_hear_the_same_agents_and_nobody_loses(db: TestDatabase) {
        let first = session(&db).await;
        let machines = provide(&first, 100).await;
        for machine in &machines {
            start(&first, *machine, b"key").await;
        }
        let many = join_all((0..4).map(async |_| session(&db).await)).await;
        let rounds = many.iter().map(async |session| {
            for _ in 0..10 {
                let answers = session.state(machines.iter().map(|machine| heard(*machine, b"key"))).await;
                assert_eq!(answers.expect("nobody loses"), vec![true; 100]);
            }
        });
        join_all(rounds).await;
        assert_eq!(heartbeats(&db.raw().await).await, 100);
    }
}

on_postgres! {
    async fn who_hears_the_same_agents_at_once_need_not_even_try_again(db: TestDatabase) {
        let first = session(&db).await;
        let machines = provide(&first, 100).await;
        for machine in &machines {
            start(&first, *machine, b"key").await;
        }
        // Who lost a race would not have the time for another.
        let config = config(&db).retry_budget(Duration::from_millis(10));
        let many = join_all((0..4).map(async |_| Bmdb::connect(config.clone()).await.unwrap().start_session().await.unwrap())).await;
        let rounds = many.iter().map(async |session| {
            for _ in 0..10 {
                let answers = session.state(machines.iter().map(|machine| heard(*machine, b"key"))).await;
                assert_eq!(answers.expect("nobody loses"), vec![true; 100]);
            }
        });
        join_all(rounds).await;
    }

    // Recovery forgets the agent while it is being heard: nothing is heard of an agent that is forgotten.
    async fn an_agent_that_is_being_forgotten_is_not_heard(db: TestDatabase) {
        let session = session(&db).await;
        let raw = db.raw().await;
        let machine = provide(&session, 1).await[0];
        start(&session, machine, b"key").await;
        let recovery = raw.begin().await.expect("a transaction");
        recovery.execute_unprepared("DELETE FROM machine_agent_started").await.expect("the agent is forgotten");
        let forgotten = async {
            until("it waits for the row", LONG, async || waiting_for_a_lock(&raw).await > 0)
            .await;
            recovery.commit().await.expect("commit");
        };
        let (answers, ()) = join(session.state([heard(machine, b"key")]), forgotten).await;
        assert_eq!(answers.expect("facts can be stated"), [false]);
        assert_eq!(heartbeats(&raw).await, 0);
    }
}
