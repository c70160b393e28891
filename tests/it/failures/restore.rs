//! What a lost history leaves: backups that are put back, and clocks that stand elsewhere than they did.

use std::time::Duration;

use bmdb::{Bmdb, Config, Error, Fence, Session, Unfinished, machine};
use harness::{Backend, TestDatabase, ada, bounded, check_history, literal, of, on_each_backend};
use sea_orm::EntityTrait;

use crate::world::{AgentStart, Survey, connect, events, provide, session, sessions, tamper, works};

on_each_backend! {
    async fn a_history_that_is_lost_gives_no_fence_out_again(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is fit").cancel().await.unwrap();
        let backup = machine::Entity::find_by_id(machine).one(&raw).await.unwrap().expect("it is there").fence;
        let lost = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is fit");
        let fence = lost.fence();
        lost.cancel().await.unwrap();
        tamper(&raw, &format!("UPDATE machine SET fence = {backup}")).await;
        tamper(&raw, &format!("DELETE FROM work_history WHERE fence > {backup}")).await;
        let again = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is fit");
        assert!(again.fence() > fence, "{} was given out in the lost history, {} now", fence, again.fence());
        again.cancel().await.unwrap();
        // A fence that lies above the clock rises all the same, by whatever raises it.
        let ahead = Fence(i64::MAX - 2);
        tamper(&raw, &format!("UPDATE machine SET fence = {ahead}")).await;
        let work = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is fit");
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
        assert!(session.claim(&of::<Survey>(&session).await).await.unwrap().is_none());
        assert!(session.claim(&of::<Survey>(&session).await).on(machines[0]).await.unwrap().is_none());
        let raw = db.raw().await;
        tamper(&raw, &format!("UPDATE machine SET fence = 0 WHERE machine_id <> {}", literal(&raw, machines[0].0))).await;
        let held = session.claim_many(&of::<Survey>(&session).await, 3).await.unwrap();
        assert_eq!(held.len(), 2);
        assert!(held.iter().all(|work| work.machine() != machines[0]));
        assert_eq!(of::<Survey>(&bmdb).await.count().await.unwrap(), 0);
        let explained = of::<Survey>(&bmdb).await.explain(machines[0]).await.unwrap();
        assert!(!explained.eligible && explained.to_string().contains("[ ] its fence can rise"), "{explained}");
        assert!(!of::<Survey>(&bmdb).await.explain(machines[1]).await.unwrap().to_string().contains("fence can rise"));
        // Nobody can claim it, so it is excluded already.
        session.transact(async |tx| machine::exclude_claims(tx, machines[0]).await).await.unwrap();
        let row = machine::Entity::find_by_id(machines[0]).one(&db.raw().await).await.unwrap().expect("it is there");
        assert_eq!(row.fence, Fence(i64::MAX));
        let stranger = bmdb::MachineId::random();
        let unknown = session.transact(async |tx| machine::exclude_claims(tx, stranger).await).await;
        assert!(matches!(unknown, Err(Error::UnknownMachine { machine }) if machine == stranger), "{unknown:?}");
    }

    async fn the_sessions_of_a_backup_are_over_before_components_start(db: TestDatabase) {
        let quick = async || {
            let config = Config::new(db.url(), "test", "").interval(Duration::from_secs(2));
            Bmdb::connect(config).await.unwrap()
        };
        let operator = quick().await;
        assert_eq!(ada(&operator).after_restore().await.unwrap(), bmdb::Restored::default(), "there is nothing to do");
        // A component that nobody has stopped: its session is in the backup, and it beats.
        let dead = quick().await.start_session().await.unwrap();
        let machine = provide(&dead, 1).await[0];
        let work = dead.claim(&of::<AgentStart>(&dead).await).await.unwrap().expect("it is eligible");
        let restored = ada(&operator).after_restore().await.unwrap();
        assert_eq!((restored.expired.as_slice(), restored.freed, restored.ahead), (&[dead.id()][..], 1, 0));
        assert!(dead.lost().is_cancelled(), "it stopped believing before the machine was free");
        let raw = db.raw().await;
        assert_eq!((events(&raw, machine).await, works(&raw).await), (["started", "expired"].map(String::from).to_vec(), 0));
        let hold = operator.holds(Some(machine)).await.unwrap().rows.remove(0);
        assert!(hold.reason.starts_with("cool-down"), "a command may be on its way: {hold:?}");
        let refused = work.done().await;
        assert!(matches!(refused, Err(Unfinished::Over(Error::SessionExpired { .. }))), "{refused:?}");
        assert_eq!(check_history(&raw).await, Vec::<String>::new());
        // Of what it has ended, nothing is left to be ended again; and it says when the clock stands too early for fences to be new.
        tamper(&raw, &format!("UPDATE machine SET fence = {}", i64::MAX - 9)).await;
        let again = ada(&operator).after_restore().await.unwrap();
        assert_eq!((again.expired.len(), again.freed, again.ahead), (0, 0, 1));
        assert_eq!(sessions(&raw).await, 0);
    }
}

/// A backup as docs/backups.md has it: `copy` makes it while components work, and answers the URL of what is put back, and what must live as long.
async fn is_put_back<Kept>(backend: Backend, copy: impl AsyncFnOnce(&TestDatabase) -> (String, Kept)) {
    let db = TestDatabase::migrated(backend).await;
    let before = session(&db).await;
    let machine = provide(&before, 1).await[0];
    let claim = async |session: &Session| {
        session
            .claim(&of::<Survey>(&session).await)
            .await
            .unwrap()
            .expect("it is fit")
    };
    claim(&before).await.done().await.unwrap();
    let _held = claim(&before).await;
    let (url, _kept) = copy(&db).await;
    let dead = before.id();
    before.close().await.unwrap();
    // What is done now is not in the backup.
    let after = session(&db).await;
    let lost = claim(&after).await;
    let fence = lost.fence();
    lost.done().await.unwrap();
    after.close().await.unwrap();

    let config = Config::new(&url, "test", "").interval(Duration::from_secs(1));
    let bmdb = Bmdb::connect(config).await.unwrap();
    let restored = ada(&bmdb).after_restore().await.unwrap();
    assert_eq!(
        (restored.expired.as_slice(), restored.freed, restored.ahead),
        (&[dead][..], 1, 0)
    );
    let raw = sea_orm::Database::connect(&url).await.unwrap();
    assert_eq!(
        events(&raw, machine).await,
        ["started", "finished", "started", "expired"]
    );
    ada(&bmdb).lift_hold(machine, Some("survey")).await.unwrap();
    let session = bmdb.start_session().await.unwrap();
    let work = claim(&session).await;
    assert!(
        work.fence() > fence,
        "{} was given out after the backup, {} now",
        fence,
        work.fence()
    );
    work.done().await.unwrap();
    session.close().await.unwrap();
    assert_eq!(check_history(&raw).await, Vec::<String>::new());
    // What a migrator has done is in it too.
    assert_eq!(bmdb_migration::up(&url, None).await.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_backed_up_while_in_use_is_put_back() {
    let copy = async |db: &TestDatabase| {
        let folder = tempfile::TempDir::new().unwrap();
        let copy = folder.path().join("bmdb.sqlite");
        tamper(&db.raw().await, &format!("VACUUM INTO '{}'", copy.display())).await;
        (format!("sqlite://{}?mode=rw", copy.display()), folder)
    };
    bounded(is_put_back(Backend::Sqlite, copy)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_dumped_while_in_use_is_put_back() {
    let copy = async |db: &TestDatabase| {
        let restored = db.dumped_and_restored().await;
        (restored.url().to_owned(), restored)
    };
    bounded(is_put_back(Backend::Postgres, copy)).await;
}
