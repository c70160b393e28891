//! How a machine leaves, and what stays of it.

use bmdb::{Error, Hold, agent_started, machine};
use harness::{ada, of, on_each_backend, until};
use sea_orm::ConnectionTrait;

use crate::world::{AgentStart, LONG, Survey, connect, events, park, provide, row_counts, tamper};

on_each_backend! {
    async fn a_removed_machine_is_gone_with_all_that_stood_on_it_and_keeps_its_history(db: TestDatabase) {
        let (bmdb, raw) = (connect(&db).await, db.raw().await);
        let session = bmdb.start_session().await.unwrap();
        let machines = provide(&session, 2).await;
        let before_any = row_counts(&raw).await;
        let survey = of::<Survey>(&session).await;
        session.claim(&survey).on(machines[0]).await.unwrap().expect("it is free").cancel().await.unwrap();
        session.transact(async |tx| agent_started::set(tx, machines[0], *b"key").await).await.unwrap();
        park(&raw, machines[0], "survey").await;
        ada(&bmdb).place_hold(machines[0], Hold::new()).await.unwrap();
        let ada = ada(&bmdb);
        ada.remove_machine(machines[0]).await.unwrap();

        let left: Vec<_> = bmdb.machines(bmdb::MachineFilter::new()).await.unwrap().rows.iter().map(|row| row.machine).collect();
        assert_eq!(left, [machines[1]]);
        assert_eq!(bmdb.holds(None).await.unwrap().rows.len() + bmdb.backoffs(None).await.unwrap().rows.len(), 0);
        assert_eq!(events(&raw, machines[0]).await, ["started", "canceled"]);
        let act = bmdb.operations(Some(machines[0])).await.unwrap().rows.remove(0);
        assert_eq!((act.verb.as_str(), act.reason.as_str(), act.detail.as_deref()), ("remove-machine", "a test", Some("test m0")));
        assert!(matches!(ada.remove_machine(machines[0]).await, Err(Error::UnknownMachine { machine }) if machine == machines[0]));
        // The hint that its end left is disproved by who meets it.
        assert!(session.claim(&survey).on(machines[0]).await.unwrap().is_none());
        let last = session.claim_many(&survey, 2).await.unwrap();
        assert_eq!(last.iter().map(|work| work.machine()).collect::<Vec<_>>(), [machines[1]]);
        drop(last);
        until("the guard is let go of", LONG, async || session.held().is_empty()).await;
        // The provider may offer it again: as another.
        let again = session.transact(async |tx| machine::provide(tx, machine::NewMachine::new("test", "m0")).await).await.unwrap();
        assert_ne!(again, machines[0]);
        let after = row_counts(&raw).await;
        assert_eq!((after[0], after[8], after[9]), (before_any[0], before_any[8], before_any[9]), "machines and their tags");
    }

    async fn a_machine_that_somebody_works_on_or_refers_to_stays(db: TestDatabase) {
        let (bmdb, raw) = (connect(&db).await, db.raw().await);
        let session = bmdb.start_session().await.unwrap();
        let machine = provide(&session, 1).await[0];
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is free");
        let error = ada(&bmdb).remove_machine(machine).await.expect_err("somebody works on it");
        assert_eq!(error.to_string(), format!("machine {machine} cannot be removed: test works on it for agent-start; drain it first"));
        work.cancel().await.unwrap();

        let key = if db.backend() == harness::Backend::Sqlite { "uuid_text" } else { "uuid" };
        for table in ["rack", "\"Odd \"\"name\""] {
            tamper(&raw, &format!("CREATE TABLE {table} (\"where\" {key} PRIMARY KEY REFERENCES machine (machine_id))")).await;
            tamper(&raw, &format!("INSERT INTO {table} SELECT machine_id FROM machine")).await;
        }
        tamper(&raw, &format!("CREATE TABLE gone_with_it (m {key} PRIMARY KEY REFERENCES machine (machine_id) ON DELETE CASCADE)")).await;
        tamper(&raw, "INSERT INTO gone_with_it SELECT machine_id FROM machine").await;
        let before = row_counts(&raw).await;
        let error = ada(&bmdb).remove_machine(machine).await.expect_err("others refer to it");
        let Error::MachineReferred { tables, .. } = &error else { panic!("{error:?}") };
        assert_eq!(tables.len(), 2, "{error}");
        assert!(tables.iter().any(|table| table == "rack") && tables.iter().any(|table| table == "Odd \"name"), "{error}");
        assert_eq!(row_counts(&raw).await, before);
        // Who keeps them deletes them in the same transaction.
        session.transact(async |tx| {
            tx.execute_unprepared("DELETE FROM rack").await?;
            tx.execute_unprepared("DELETE FROM \"Odd \"\"name\"").await?;
            machine::remove(tx, machine).await
        }).await.unwrap();
        assert!(bmdb.machines(bmdb::MachineFilter::new()).await.unwrap().rows.is_empty());
    }

    async fn of_a_removal_and_claims_one_wins(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let session = bmdb.start_session().await.unwrap();
        let survey = of::<Survey>(&session).await;
        for _ in 0..10 {
            let machine = provide(&session, 1).await[0];
            let claims = futures_util::future::join_all((0..3).map(|_| async { session.claim(&survey).on(machine).await.unwrap() }));
            let ada = ada(&bmdb);
            let (removed, claimed) = tokio::join!(ada.remove_machine(machine), claims);
            let taken: Vec<_> = claimed.into_iter().flatten().collect();
            match removed {
                Ok(()) => assert_eq!(taken.len(), 0, "who claimed it would work on what is not there"),
                Err(Error::MachineInWork { .. }) => {
                    assert_eq!(taken.len(), 1);
                    for work in taken {
                        work.cancel().await.unwrap();
                    }
                    ada.remove_machine(machine).await.unwrap();
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}
