//! Times in tags of users' own: on every database they compare with its clock, whoever wrote them and however.

use bmdb::{Eligible, Error, MachineId, Process, tag};
use harness::{Backend, TestDatabase, of, on_each_backend};
use sea_orm::prelude::DateTimeUtc;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ActiveModelTrait, ColumnTrait, ConnectionTrait, DatabaseConnection, EntityTrait, Set, Statement};

use crate::world::{connect, provide, session, tamper};

/// A tag with a time that its users know, not the database.
#[expect(unreachable_pub, reason = "SeaORM's macros make public types")]
mod machine_warranty {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "machine_warranty")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub machine_id: bmdb::MachineId,
        pub ends_at: DateTimeUtc,
    }
    impl ActiveModelBehavior for ActiveModel {}

    bmdb::impl_tag!();
}

use machine_warranty::Column::EndsAt;

async fn make(db: &TestDatabase, raw: &DatabaseConnection) {
    let (key, time) = match db.backend() {
        Backend::Sqlite => ("uuid_text", "timestamp_with_timezone_text"),
        Backend::Postgres => ("UUID", "TIMESTAMPTZ"),
    };
    let table = format!(
        "CREATE TABLE machine_warranty (machine_id {key} PRIMARY KEY REFERENCES machine (machine_id), ends_at {time} NOT NULL)"
    );
    tamper(raw, &table).await;
}

/// Its warranty has ended, as the database sees it.
#[derive(Default)]
struct Expired;

impl Process for Expired {
    const NAME: &'static str = "expired-warranty";
    type Item = machine_warranty::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines.has_where::<machine_warranty::Entity>(
            "its warranty has ended",
            EndsAt.into_expr().lt(Expr::cust("CURRENT_TIMESTAMP")),
        )
    }
}

/// So many microseconds from now; databases keep no less.
fn in_micros(micros: i64) -> DateTimeUtc {
    let now = DateTimeUtc::from(std::time::SystemTime::now()).timestamp_micros();
    DateTimeUtc::from_timestamp_micros(now + micros).unwrap()
}

async fn how_many(raw: &DatabaseConnection, condition: &str) -> i64 {
    let ask = format!("SELECT count(*) FROM machine_warranty WHERE {condition}");
    let ask = Statement::from_string(raw.get_database_backend(), ask);
    raw.query_one_raw(ask)
        .await
        .unwrap()
        .unwrap()
        .try_get_by_index(0)
        .unwrap()
}

on_each_backend! {
    async fn a_time_in_a_tag_compares_with_the_databases_clock_however_it_was_written(db: TestDatabase) {
        let raw = db.raw().await;
        make(&db, &raw).await;
        let session = session(&db).await;
        let machines = provide(&session, 6).await;
        let row = |machine: MachineId, ends_at| machine_warranty::ActiveModel { machine_id: Set(machine), ends_at: Set(ends_at) };
        // Two seconds: for CURRENT_TIMESTAMP, which has whole ones on SQLite.
        let (past, future) = (in_micros(-2_000_001), in_micros(3_600_000_000));
        for (nth, time) in [past, future].into_iter().enumerate() {
            let of = |place: usize| row(machines[2 * place + nth], time);
            session.transact(async |tx| tag::set::<machine_warranty::Entity>(tx, of(0)).await).await.unwrap();
            session.transact(async |tx| of(1).insert(tx).await.map(drop).map_err(Error::from)).await.unwrap();
            let whole: DateTimeUtc = DateTimeUtc::from_timestamp_secs(time.timestamp()).unwrap();
            session.transact(async |tx| row(machines[4 + nth], whole).insert(tx).await.map(drop).map_err(Error::from)).await.unwrap();
        }
        assert_eq!(how_many(&raw, "ends_at < CURRENT_TIMESTAMP").await, 3);
        assert_eq!(how_many(&raw, "ends_at > CURRENT_TIMESTAMP").await, 3);
        let claimed = session.claim_many(&of::<Expired>(&session).await, 6).await.unwrap();
        assert_eq!(claimed.len(), 3);
        // What is bound is compared as what is stored, and comes back as it was.
        let bound = session.claim(&of::<Expired>(&session).await).filter(EndsAt.gt(past));
        assert!(bound.await.unwrap().is_none(), "all that have ended are held");
        let all = machine_warranty::Entity::find().all(&raw).await.unwrap();
        let is = |time: DateTimeUtc| all.iter().filter(|row| row.ends_at == time).count();
        assert_eq!((is(past), is(future)), (2, 2));
        let since = session.transact(async |tx| {
            use sea_orm::{QueryFilter, PaginatorTrait};
            machine_warranty::Entity::find().filter(EndsAt.gte(past)).count(tx).await.map_err(Error::from)
        });
        assert_eq!(since.await.unwrap(), 5);
        // Also by those who read outside of transactions, and write in savepoints.
        use sea_orm::{QueryFilter, PaginatorTrait, TransactionTrait};
        let bmdb = connect(&db).await;
        let since = async || machine_warranty::Entity::find().filter(EndsAt.gte(past)).count(bmdb.reads()).await.unwrap();
        assert_eq!(since().await, 5);
        tamper(&raw, "DELETE FROM machine_warranty").await;
        session.transact(async |tx| {
            let savepoint = tx.begin().await?;
            row(machines[0], past).insert(&savepoint).await?;
            let within = savepoint.begin().await?;
            row(machines[1], future).insert(&within).await?;
            within.commit().await?;
            savepoint.commit().await?;
            let of_a_savepoint = tx.transaction::<_, _, sea_orm::DbErr>(|savepoint| Box::pin(async move {
                row(machines[2], future).insert(savepoint).await.map(drop)
            }));
            of_a_savepoint.await.map_err(|error| Error::from(sea_orm::DbErr::Custom(error.to_string())))
        }).await.unwrap();
        assert_eq!(how_many(&raw, "ends_at > CURRENT_TIMESTAMP").await, 2);
        assert_eq!((how_many(&raw, "ends_at < CURRENT_TIMESTAMP").await, since().await), (1, 3));
    }
}
