//! Items that cannot be read: with a word that only a newer component knows, or a time that is none. The machine has failed, and others are tried.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bmdb::{Backoff, CancellationToken, Eligible, MachineId, Process, Work, Worker};
use bmdb_entity::work_backoff;
use futures_util::future::join_all;
use harness::{Backend, TestDatabase, check_history, literal, of, on_each_backend, until};
use sea_orm::{DatabaseConnection, EntityTrait};

use crate::world::{LONG, Survey, connect, events, provide, session, tamper, works};

/// A tag of a user's own, with a word of which this component knows two.
#[expect(unreachable_pub, reason = "SeaORM's macros make public types")]
mod machine_grade {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
    #[sea_orm(rs_type = "String", db_type = "Text")]
    pub enum Grade {
        #[sea_orm(string_value = "gold")]
        Gold,
        #[sea_orm(string_value = "silver")]
        Silver,
    }

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "machine_grade")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub machine_id: bmdb::MachineId,
        #[sea_orm(column_type = "Text")]
        pub note: String,
        #[sea_orm(column_type = "Text")]
        pub grade: Grade,
    }
    impl ActiveModelBehavior for ActiveModel {}

    bmdb::impl_tag!();
}

#[derive(Debug, Default)]
struct Polish;

impl Process for Polish {
    const NAME: &'static str = "polish";
    const BACKOFF: Backoff = Backoff::constant(Duration::from_secs(3600));
    type Item = machine_grade::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines.has::<machine_grade::Entity>()
    }
}

/// Gives each machine a grade, the first a word that only a newer component knows.
async fn grade(db: &TestDatabase, raw: &DatabaseConnection, machines: &[MachineId]) {
    let key = match db.backend() {
        Backend::Sqlite => "uuid_text",
        Backend::Postgres => "UUID",
    };
    let table = format!(
        "CREATE TABLE machine_grade (machine_id {key} PRIMARY KEY REFERENCES machine (machine_id), note TEXT NOT NULL, grade TEXT NOT NULL)"
    );
    tamper(raw, &table).await;
    for (nth, machine) in machines.iter().enumerate() {
        let (machine, word) = (literal(raw, machine.0), if nth == 0 { "platinum" } else { "gold" });
        tamper(
            raw,
            &format!("INSERT INTO machine_grade VALUES ({machine}, '', '{word}')"),
        )
        .await;
    }
}

/// The machine has failed once, for what cannot be read.
async fn has_failed(raw: &DatabaseConnection, machine: MachineId, words: &[&str]) {
    let failed = async || events(raw, machine).await == ["started", "failed"];
    until("it has failed, once", LONG, failed).await;
    let backoffs = work_backoff::Entity::find().all(raw).await.unwrap();
    let [backoff] = &backoffs[..] else {
        panic!("{backoffs:?}")
    };
    assert_eq!((backoff.machine_id, backoff.attempts), (machine, 1));
    for word in words {
        assert!(backoff.cause.contains(word), "{word}: {}", backoff.cause);
    }
}

const OF_GRADE: &[&str] = &["grade of machine_grade", "platinum"];

on_each_backend! {
    async fn a_machine_whose_item_cannot_be_read_has_failed_and_others_are_claimed(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide(&session, 4).await;
        let raw = db.raw().await;
        grade(&db, &raw, &machines).await;
        let mut held = Vec::new();
        while let Some(work) = session.claim(&of::<Polish>(&session).await).await.unwrap() {
            assert_eq!(work.grade, machine_grade::Grade::Gold);
            held.push(work);
        }
        let claimed: HashSet<MachineId> = held.iter().map(Work::machine).collect();
        assert_eq!(claimed, machines[1..].iter().copied().collect());
        has_failed(&raw, machines[0], OF_GRADE).await;
        // As an end's next claim, and by its id, it is backed off from like any other.
        for work in held {
            work.done().then(session.claim(&of::<Polish>(&session).await)).await.unwrap().unwrap();
        }
        assert!(session.claim(&of::<Polish>(&session).await).on(machines[0]).await.unwrap().is_none());
        has_failed(&raw, machines[0], OF_GRADE).await;
        until("nothing is held", LONG, async || works(&raw).await == 0).await;
        assert_eq!(check_history(&raw).await, Vec::<String>::new());
    }

    async fn an_odd_item_takes_nothing_from_others_who_claim_at_once(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide(&session, 40).await;
        let raw = db.raw().await;
        grade(&db, &raw, &machines).await;
        let many = session.claim_many(&of::<Polish>(&session).await, 8).await.unwrap();
        assert!(many.len() >= 7, "{}", many.len());
        let claims = join_all((0..50).map(|_| {
            let session = session.clone();
            async move { session.claim(&of::<Polish>(&session).await).await.unwrap() }
        }));
        let mut held: Vec<Work<Polish>> = claims.await.into_iter().flatten().collect();
        held.extend(many);
        let claimed: HashSet<MachineId> = held.iter().map(Work::machine).collect();
        assert_eq!((held.len(), claimed.len()), (39, 39));
        has_failed(&raw, machines[0], OF_GRADE).await;
    }

    async fn a_time_that_is_none_has_failed_too(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide(&session, 3).await;
        let raw = db.raw().await;
        // sqlx panics on the first, and refuses the second.
        let none = match db.backend() {
            Backend::Postgres => "infinity",
            Backend::Sqlite => "not a time",
        };
        let odd = literal(&raw, machines[0].0);
        tamper(&raw, &format!("UPDATE machine SET created_at = '{none}' WHERE machine_id = {odd}")).await;
        let mut held = HashSet::new();
        let mut guards = Vec::new();
        while let Some(work) = session.claim(&of::<Survey>(&session).await).await.unwrap() {
            assert!(held.insert(work.machine()));
            guards.push(work);
        }
        assert_eq!(held, machines[1..].iter().copied().collect());
        has_failed(&raw, machines[0], &["created_at of machine"]).await;
    }

    async fn a_failure_follows_those_before_it_though_nobody_can_read_their_backoff(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        // A person wants it tried at once.
        let none = match db.backend() {
            Backend::Postgres => "-infinity",
            Backend::Sqlite => "",
        };
        let fail = async || {
            let work = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is fit");
            work.fail("no answer").await.unwrap();
        };
        let again = format!("UPDATE work_backoff SET until = '{none}'");
        fail().await;
        tamper(&raw, &again).await;
        fail().await;
        tamper(&raw, &again).await;
        let work = session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is fit");
        // It is not what it was when the machine was claimed.
        tamper(&raw, "UPDATE work_backoff SET attempts = 6").await;
        tamper(&raw, &again).await;
        work.fail("no answer").await.unwrap();
        let backoffs = work_backoff::Entity::find().all(&raw).await.unwrap();
        assert_eq!(backoffs.iter().map(|backoff| (backoff.machine_id, backoff.attempts)).collect::<Vec<_>>(), [(machine, 7)]);
    }

    async fn a_runner_goes_on_past_odd_items(db: TestDatabase) {
        struct Polisher(Arc<AtomicU64>);

        impl Worker for Polisher {
            type Process = Polish;
            type Outcome = ();
            async fn run(&self, _work: &Work<Polish>) -> Result<(), String> {
                self.0.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }

        let session = session(&db).await;
        let machines = provide(&session, 4).await;
        let raw = db.raw().await;
        grade(&db, &raw, &machines).await;
        let (done, shutdown) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let runner = crate::runner::of(connect(&db).await, Polisher(Arc::clone(&done)), 3).await;
        let watch = async {
            until("the others are done", LONG, async || done.load(Ordering::Relaxed) > 30).await;
            shutdown.cancel();
        };
        let (counts, ()) = tokio::join!(runner.run(shutdown.clone()), watch);
        counts.unwrap();
        has_failed(&raw, machines[0], OF_GRADE).await;
    }
}
