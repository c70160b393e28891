//! What the database keeps of rules: it finds what the code finds, and is run where it can do no harm.

use std::time::Duration;

use bmdb::{Bmdb, Eligible, Error, MachineId, Process, machine, tag};
use harness::{Backend, TestDatabase, on_each_backend, on_postgres};
use sea_orm::ActiveValue::Set;
use sea_orm::ColumnTrait;
use tokio::sync::MutexGuard;

use super::{Start, of_provider, provide_of};
use crate::schema::roles::{login, make_roles};
use crate::world::{connect, connect_to, provide, row_counts, session, tamper};

/// A table with a column of each kind that values have.
#[expect(unreachable_pub, reason = "SeaORM's macros make public types")]
mod machine_kind {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "machine_kind")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub machine_id: bmdb::MachineId,
        pub is: bool,
        pub short: i16,
        pub int: i32,
        pub long: i64,
        pub single: f32,
        pub double: f64,
        #[sea_orm(column_type = "Text")]
        pub text: String,
        pub bytes: Vec<u8>,
        pub id: Uuid,
        pub json: Json,
        pub date: Date,
        pub time: Time,
        pub moment: DateTime,
        pub at: DateTimeUtc,
    }
    impl ActiveModelBehavior for ActiveModel {}

    bmdb::impl_tag!();
}

/// Every value that the row has, by its column.
#[derive(Clone)]
struct Kind {
    column: machine_kind::Column,
    value: sea_orm::Value,
}

impl Process for Kind {
    const NAME: &'static str = "kind";
    type Item = machine::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines.has_where::<machine_kind::Entity>("is the same", self.column.eq(self.value.clone()))
    }
}

on_each_backend! {
    /// The claim binds the value, the count and the explanations have it in their text.
    async fn a_value_of_each_kind_is_the_same_bound_and_written(db: TestDatabase) {
        let (session, raw) = (session(&db).await, db.raw().await);
        let (id, json, time, bytes) = match db.backend() {
            Backend::Sqlite => ("uuid_text", "json_text", "timestamp_with_timezone_text", "BLOB"),
            Backend::Postgres => ("UUID", "JSONB", "TIMESTAMPTZ", "BYTEA"),
        };
        let table = format!(
            "CREATE TABLE machine_kind (machine_id {id} PRIMARY KEY REFERENCES machine (machine_id), \"is\" BOOLEAN NOT NULL, short SMALLINT NOT NULL, \
             int INTEGER NOT NULL, long BIGINT NOT NULL, single REAL NOT NULL, double DOUBLE PRECISION NOT NULL, text TEXT NOT NULL, \
             bytes {bytes} NOT NULL, id {id} NOT NULL, json {json} NOT NULL, date DATE NOT NULL, time TIME NOT NULL, moment TIMESTAMP NOT NULL, at {time} NOT NULL)"
        );
        tamper(&raw, &table).await;
        let machine = provide(&session, 1).await[0];
        let texts = [
            "", "plain", "it's", "a\\'b\\\\", "$1 ? {now} %s", "x'; DROP TABLE work; --", "/* \u{1f4a5} */", "\n\t\r", "\"quoted\"",
        ];
        let times = ["2026-11-30T12:00:00Z", "2026-11-30T12:00:00.005Z", "1969-12-31T23:59:59.999999Z"];
        for (nth, text) in texts.into_iter().enumerate() {
            let at: sea_orm::prelude::DateTimeUtc = times[nth % 3].parse().unwrap();
            let row = machine_kind::ActiveModel {
                machine_id: Set(machine),
                is: Set(nth % 2 == 0),
                short: Set([i16::MIN, -1, i16::MAX][nth % 3]),
                int: Set([i32::MIN, 0, i32::MAX][nth % 3]),
                long: Set([i64::MIN, 7, i64::MAX][nth % 3]),
                single: Set([0.1_f32, -1.5e-30, f32::MAX][nth % 3]),
                double: Set([0.1_f64, -1.5e-300, f64::MAX][nth % 3]),
                text: Set(text.to_owned()),
                bytes: Set([text.as_bytes(), b"\0\xff'\\"].concat()),
                id: Set(machine.0),
                json: Set(serde_json::json!({ text: [nth, text] })),
                date: Set(at.date_naive()),
                time: Set(at.time()),
                moment: Set(at.naive_utc()),
                at: Set(at),
            };
            session.transact(async |tx| tag::set::<machine_kind::Entity>(tx, row.clone()).await).await.unwrap();
            for column in <machine_kind::Column as sea_orm::Iterable>::iter() {
                let value = sea_orm::ActiveModelTrait::get(&row, column).into_value().expect("it is set");
                let what = format!("{column:?} {value:?}");
                let kind = session.bmdb().register(Kind { column, value }).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                let claimed = session.claim(&kind).on(machine).await.unwrap();
                claimed.unwrap_or_else(|| panic!("{what}: bound it is not found")).cancel().await.unwrap();
                let explained = kind.explain(machine).await.unwrap();
                assert_eq!((explained.eligible, kind.count().await.unwrap()), (true, 1), "{what}: written it is not found");
            }
        }
    }
}

/// A connection that can only read; on a server, of a role that other tests leave alone meanwhile.
async fn console(db: &TestDatabase) -> (Bmdb, Option<MutexGuard<'static, ()>>) {
    match db.backend() {
        Backend::Sqlite => (connect(db).await, None),
        Backend::Postgres => {
            let alone = make_roles(db).await;
            (connect_to(&login(db, "bmdb_console")).await, Some(alone))
        }
    }
}

on_each_backend! {
    async fn a_rule_is_counted_and_explained_by_name_as_by_its_code(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide_of(&session, "north", 5).await;
        provide_of(&session, "south", 2).await;
        let start = session.bmdb().register(of_provider("north")).await.unwrap();
        session.bmdb().register(of_provider("south")).await.unwrap();
        let held = session.claim(&start).on(machines[0]).await.unwrap().expect("it is eligible");
        session.claim(&start).on(machines[1]).await.unwrap().expect("it is eligible").fail("no answer").await.unwrap();

        let (console, _alone) = console(&db).await;
        let rules = console.rules("start").await.unwrap();
        assert_eq!(rules.len(), 2);
        let rule = rules.iter().find(|rule| rule.digest == start.digest()).expect("it is kept");
        assert_eq!((rule.process.as_str(), rule.slot.as_str(), rule.component.as_str()), ("start", "start", "test"));
        assert_eq!(rule.clauses().collect::<Vec<_>>(), ["is of our provider", "lacks machine_agent_started"]);
        assert_eq!((rule.count().await.unwrap(), start.count().await.unwrap()), (3, 3));
        let mut free = machines[2..].to_vec();
        free.sort_by_key(|machine| machine.0);
        assert_eq!(rule.eligible(10).await.unwrap(), free);
        assert_eq!(rule.eligible(2).await.unwrap(), free[..2]);
        for machine in &machines {
            let mut by_name = rule.explain(*machine).await.unwrap();
            let by_code = start.explain(*machine).await.unwrap();
            by_name.at = by_code.at;
            assert_eq!(by_name, by_code);
        }
        let many = rule.explain_many(&machines).await.unwrap();
        assert_eq!(many.iter().filter(|it| it.as_ref().unwrap().eligible).count(), 3);
        assert!(matches!(rule.explain(MachineId::random()).await, Err(Error::UnknownMachine { .. })));
        assert_eq!(console.rules("no-such").await.unwrap().len(), 0);
        // Who may write is told of what BMDB itself asks.
        for bmdb in [&console, session.bmdb()] {
            let obstacles = bmdb.obstacles("start", machines[0]).await.unwrap();
            assert_eq!(obstacles.holder.as_ref().expect("it is held").fence, held.fence());
            assert!(obstacles.to_string().starts_with("  [ ] start works in slot start since "), "{obstacles}");
            let obstacles = bmdb.obstacles("start", machines[1]).await.unwrap();
            assert_eq!(obstacles.backoff.as_ref().expect("it has failed").cause, "no answer");
            let stranger = MachineId::random();
            assert!(matches!(bmdb.obstacles("start", stranger).await, Err(Error::UnknownMachine { machine }) if machine == stranger));
            assert!(matches!(bmdb.obstacles("stop", machines[0]).await, Err(Error::UnknownProcess { known, .. }) if known == ["start"]));
        }
        held.cancel().await.unwrap();
    }

    async fn what_somebody_wrote_for_a_rule_writes_nothing(db: TestDatabase) {
        let (session, raw) = (session(&db).await, db.raw().await);
        let machine = provide_of(&session, "north", 1).await[0];
        session.bmdb().register(of_provider("north")).await.unwrap();
        let (console, _alone) = console(&db).await;
        let before = row_counts(&raw).await;
        for evil in [
            "true; DELETE FROM machine_provided",
            "true) THEN 1 ELSE 0 END AS BIGINT); DELETE FROM machine_provided; SELECT (((1",
            "true); DELETE FROM machine_provided; --",
            "true; PRAGMA query_only = OFF; DELETE FROM machine_provided",
            "true; VACUUM INTO 'stolen'",
            "no such thing",
            "",
        ] {
            let clauses = serde_json::json!([{ "why": "is evil", "sql": evil }]).to_string().replace('\'', "''");
            tamper(&raw, &format!("UPDATE process_rule SET clauses = '{clauses}'")).await;
            let rule = console.rules("start").await.unwrap().remove(0);
            let (count, explained) = (rule.count().await, rule.explain(machine).await);
            assert!(count.is_err() && explained.is_err(), "{evil}: {count:?} {explained:?}");
            assert_eq!(row_counts(&raw).await, before, "{evil}");
        }
        tamper(&raw, r#"UPDATE process_rule SET clauses = '[{"why": 1}]'"#).await;
        assert!(matches!(console.rules("start").await, Err(Error::Database { .. })));
    }
}

on_postgres! {
    async fn a_rule_by_name_is_run_by_nobody_who_can_do_more_than_read(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide_of(&session, "north", 1).await[0];
        session.bmdb().register(of_provider("north")).await.unwrap();
        let raw = db.raw().await;
        let (console, _alone) = console(&db).await;
        let refused = async |bmdb: &Bmdb| {
            let rule = bmdb.rules("start").await.unwrap().remove(0);
            let (count, explained) = (rule.count().await, rule.explain(machine).await);
            match (count, explained) {
                (Err(Error::MayWrite { may, .. }), Err(Error::MayWrite { .. })) => may.join(", "),
                (Ok(_), Ok(_)) => "nothing".to_owned(),
                other => panic!("{other:?}"),
            }
        };
        assert!(refused(session.bmdb()).await.contains("everything, as the superuser"));
        assert_eq!(refused(&console).await, "nothing");
        let component = connect_to(&login(&db, "bmdb_component")).await;
        assert!(refused(&component).await.contains("write machine"));
        for (grant, revoke, may) in [
            ("GRANT UPDATE (fence) ON machine TO bmdb_console", "REVOKE UPDATE (fence) ON machine FROM bmdb_console", "write machine"),
            ("GRANT TRUNCATE ON work TO PUBLIC", "REVOKE TRUNCATE ON work FROM PUBLIC", "write work"),
            ("GRANT bmdb_component TO bmdb_console", "REVOKE bmdb_component FROM bmdb_console", "write machine"),
            ("GRANT pg_signal_backend TO bmdb_console", "REVOKE pg_signal_backend FROM bmdb_console", "what the role pg_signal_backend can"),
            ("CREATE TABLE own (a BIGINT); ALTER TABLE own OWNER TO bmdb_console", "DROP TABLE own", "what an owner can with own"),
        ] {
            for statement in grant.split("; ") {
                tamper(&raw, statement).await;
            }
            assert!(refused(&console).await.contains(may), "{grant}");
            tamper(&raw, revoke).await;
            assert_eq!(refused(&console).await, "nothing", "{revoke}");
        }
        // What the database lets it do it does, and not for ever.
        tamper(&raw, r#"UPDATE process_rule SET clauses = '[{"why": "takes long", "sql": "pg_sleep(60) IS NOT NULL"}]'"#).await;
        let began = std::time::Instant::now();
        console.rules("start").await.unwrap().remove(0).count().await.expect_err("it takes too long");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        tamper(&raw, r#"UPDATE process_rule SET clauses = '[{"why": "writes", "sql": "set_config(''transaction_read_only'', ''off'', false) = ''off''"}]'"#).await;
        console.rules("start").await.unwrap().remove(0).count().await.expect_err("it only reads");
    }

    async fn a_right_that_a_rule_lacks_is_told_when_it_is_registered(db: TestDatabase) {
        let _alone = make_roles(&db).await;
        let raw = db.raw().await;
        let component = connect_to(&login(&db, "bmdb_component")).await;
        crate::works::facts::make_bench(&db, &raw).await;
        struct OfBench;
        impl Process for OfBench {
            const NAME: &'static str = "of-bench";
            type Item = machine::Model;
            fn eligible(&self, machines: Eligible) -> Eligible { machines.has::<crate::works::facts::machine_bench::Entity>() }
        }
        let refused = component.register(OfBench).await.expect_err("it may not read the table");
        assert!(matches!(&refused, Error::NotAllowed { role, lacks, .. } if role == "bmdb_component" && lacks == &["SELECT on machine_bench"]), "{refused}");
        tamper(&raw, "GRANT SELECT ON machine_bench TO bmdb_component").await;
        component.register(OfBench).await.unwrap();
        tamper(&raw, "REVOKE INSERT ON work_history FROM bmdb_component").await;
        let refused = component.register(Start::default()).await.expect_err("it could not claim");
        assert!(matches!(&refused, Error::NotAllowed { lacks, .. } if lacks == &["INSERT on work_history"]), "{refused}");
    }
}
