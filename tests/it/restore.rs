//! What a lost history leaves: backups that are put back, and clocks that stand elsewhere than they did.

use bmdb::{Error, Fence, machine};
use harness::on_each_backend;
use sea_orm::EntityTrait;

use crate::world::{Survey, connect, provide, session, tamper};

on_each_backend! {
    async fn a_history_that_is_lost_gives_no_fence_out_again(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        session.claim::<Survey>().await.unwrap().expect("it is fit").cancel().await.unwrap();
        let backup = machine::Entity::find_by_id(machine).one(&raw).await.unwrap().expect("it is there").fence;
        let lost = session.claim::<Survey>().await.unwrap().expect("it is fit");
        let fence = lost.fence();
        lost.cancel().await.unwrap();
        tamper(&raw, &format!("UPDATE machine SET fence = {backup}")).await;
        tamper(&raw, &format!("DELETE FROM work_history WHERE fence > {backup}")).await;
        let again = session.claim::<Survey>().await.unwrap().expect("it is fit");
        assert!(again.fence() > fence, "{} was given out in the lost history, {} now", fence, again.fence());
        again.cancel().await.unwrap();
        // A fence that lies above the clock rises all the same, by whatever raises it.
        let ahead = Fence(i64::MAX - 2);
        tamper(&raw, &format!("UPDATE machine SET fence = {ahead}")).await;
        let work = session.claim::<Survey>().await.unwrap().expect("it is fit");
        assert_eq!(work.fence(), Fence(ahead.0 + 1));
        work.cancel().await.unwrap();
        session.transact(async |tx| machine::exclude_claims(tx, machine).await).await.unwrap();
        let row = machine::Entity::find_by_id(machine).one(&raw).await.unwrap().expect("it is there");
        assert_eq!(row.fence, Fence(i64::MAX));
    }

    async fn a_machine_whose_fence_cannot_rise_stops_nobody_else(db: TestDatabase) {
        let (bmdb, session) = (connect(&db).await, session(&db).await);
        let machines = provide(&session, 3).await;
        tamper(&db.raw().await, &format!("UPDATE machine SET fence = {}", i64::MAX)).await;
        assert!(session.claim::<Survey>().await.unwrap().is_none());
        assert!(session.claim::<Survey>().on(machines[0]).await.unwrap().is_none());
        tamper(&db.raw().await, &format!("UPDATE machine SET fence = 0 WHERE machine_id <> {}", crate::world::literal(&db.raw().await, machines[0].0))).await;
        let held = session.claim_many::<Survey>(3).await.unwrap();
        assert_eq!(held.len(), 2);
        assert!(held.iter().all(|work| work.machine() != machines[0]));
        assert_eq!(bmdb.count::<Survey>().await.unwrap(), 0);
        let explained = bmdb.explain::<Survey>(machines[0]).await.unwrap();
        assert!(!explained.eligible && explained.to_string().contains("[ ] its fence can rise"), "{explained}");
        assert!(!bmdb.explain::<Survey>(machines[1]).await.unwrap().to_string().contains("fence can rise"));
        // Nobody can claim it, so it is excluded already.
        session.transact(async |tx| machine::exclude_claims(tx, machines[0]).await).await.unwrap();
        let row = machine::Entity::find_by_id(machines[0]).one(&db.raw().await).await.unwrap().expect("it is there");
        assert_eq!(row.fence, Fence(i64::MAX));
        let stranger = bmdb::MachineId::random();
        let unknown = session.transact(async |tx| machine::exclude_claims(tx, stranger).await).await;
        assert!(matches!(unknown, Err(Error::UnknownMachine { machine }) if machine == stranger), "{unknown:?}");
    }
}
