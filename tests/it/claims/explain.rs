//! What is explained of a machine: each clause of its own, and all of it at one moment.

use bmdb::{
    Eligible, Error, Hold, Process, agent_heartbeat, agent_started, machine, os_installation_request, provided,
};
use harness::{TestDatabase, of, on_each_backend};
use sea_orm::ColumnTrait;

use crate::world::{Survey, connect, provide, session, waiting_at};

on_each_backend! {
    async fn a_machine_without_the_item_is_explained_clause_by_clause(db: TestDatabase) {
        #[derive(Default)]
        struct Thorough;
        impl Process for Thorough {
            const NAME: &'static str = "thorough";
            type Item = provided::Model;
            fn eligible(&self, machines: Eligible) -> Eligible {
                machines
                    .has::<agent_started::Entity>()
                    .lacks::<agent_heartbeat::Entity>()
                    .when("stands in fra", provided::Column::Location.eq("fra"))
                    .has::<os_installation_request::Entity>()
            }
        }
        let (bmdb, session) = (connect(&db).await, session(&db).await);
        let machine = session.transact(async |tx| {
            let machine = machine::create(tx).await?;
            agent_started::set(tx, machine, *b"key").await?;
            Ok::<_, Error>(machine)
        }).await.unwrap();
        let explained = of::<Thorough>(&bmdb).await.explain(machine).await.unwrap();
        let clauses: Vec<_> = explained.clauses.iter().map(|clause| (clause.clause.as_str(), clause.met)).collect();
        assert_eq!(clauses, [
            ("has machine_provided", false),
            ("has machine_agent_started", true),
            ("lacks machine_agent_heartbeat", true),
            ("stands in fra", false),
            ("has machine_os_installation_request", false),
        ]);
        assert!(!explained.eligible && explained.earliest.is_none());
    }
}

/// A hold that is placed while it reads is in none of its answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explanation_is_of_one_moment() {
    harness::bounded(async {
        let db = TestDatabase::migrated(harness::Backend::Postgres).await;
        let machine = provide(&session(&db).await, 1).await[0];
        let (_proxy, bmdb, mut reading) = waiting_at(&db, "FROM work_hold").await;
        let survey = of::<Survey>(&bmdb).await;
        let meanwhile = async {
            let go_on = reading.recv().await.expect("it reads the holds");
            let bob = connect(&db).await.operator("bob", "moving the rack").unwrap();
            bob.place_hold(machine, Hold::new()).await.unwrap();
            go_on.send(()).expect("it waits");
        };
        let (explained, ()) = tokio::join!(survey.explain(machine), meanwhile);
        let explained = explained.unwrap();
        assert!(explained.eligible && explained.holds.is_empty(), "{explained}");
    })
    .await;
}
