//! The roles of a control plane: one sequence that gives each what it needs, and not enough to rewrite history; and what is said of missing rights.

use bmdb::{Bmdb, Config, Error};
use bmdb_migration::{Error as Refusal, State};
use futures_util::future::join;
use harness::{TestDatabase, on_postgres, until};
use sea_orm::{ConnectionTrait, Database, TransactionTrait};
use tokio::sync::{Mutex, MutexGuard};

use crate::statements::sql::everything;
use crate::world::{LONG, tamper};

/// Roles belong to a server, not to a database: one test at a time makes them.
static ROLES: Mutex<()> = Mutex::const_new(());

pub(crate) async fn make_roles(db: &TestDatabase) -> MutexGuard<'static, ()> {
    let alone = ROLES.lock().await;
    for _ in 0..2 {
        let ran = bmdb_migration::make_roles(db.url())
            .await
            .expect("an administrator can, and twice");
        assert!(ran.iter().any(|statement| statement.contains("GRANT USAGE")), "{ran:?}");
    }
    alone
}

pub(crate) fn login(db: &TestDatabase, role: &str) -> String {
    db.url().replace("bmdb@", &format!("{role}@"))
}

async fn connect(url: &str) -> Result<Bmdb, Error> {
    Bmdb::connect(Config::new(url, "test", "")).await
}

on_postgres! {
    // The first `up` was an administrator's; every later one is the migrator's.
    async fn roles_made_after_the_schema_do_their_work(db: TestDatabase) {
        let _alone = make_roles(&db).await;
        let migrator = login(&db, "bmdb_migrator");
        for _ in 0..2 {
            assert_eq!(bmdb_migration::up(&migrator, None).await.expect("the tables are the migrator's now"), [""; 0]);
        }
        each_role_does_its_work_and_no_more(&db).await;
    }

    async fn roles_made_before_the_schema_do_their_work(db: TestDatabase) {
        let db = db.empty_beside().await;
        let _alone = make_roles(&db).await;
        let migrator = login(&db, "bmdb_migrator");
        bmdb_migration::up(&migrator, None).await.expect("the migrator may make tables");
        assert_eq!(bmdb_migration::up(&migrator, None).await.expect("twice"), [""; 0]);
        each_role_does_its_work_and_no_more(&db).await;
    }

    async fn a_table_of_a_later_step_comes_with_its_rights(db: TestDatabase) {
        let _alone = make_roles(&db).await;
        let migrator = login(&db, "bmdb_migrator");
        // As if the last step that makes a table, and all after it, came with a newer build.
        let steps = bmdb_migration::status(&migrator).await.expect("the migrator can look");
        let last = steps.iter().rposition(|step| step.name.contains("_create_")).expect("there is one");
        let later = u32::try_from(steps.len() - last).expect("there are few");
        bmdb_migration::down(&migrator, later, bmdb_migration::Destroy::OnlyInDevelopment).await.expect("there are no rows");
        assert_eq!(bmdb_migration::up(&migrator, None).await.expect("up").len(), later as usize);
        each_role_does_its_work_and_no_more(&db).await;
    }

    async fn rights_that_a_killed_migrator_did_not_give_are_given_by_the_next(db: TestDatabase) {
        let _alone = make_roles(&db).await;
        tamper(&db.raw().await, "REVOKE ALL ON work_hold FROM bmdb_component").await;
        let refused = connect(&login(&db, "bmdb_component")).await.expect_err("it may not look at a table");
        assert!(matches!(&refused, Error::NotAllowed { lacks, .. } if lacks == &["SELECT on work_hold"]), "{refused}");
        let refused = bmdb_migration::up(&login(&db, "bmdb_component"), None).await.expect_err("it has no right to give");
        assert!(matches!(&refused, Refusal::NotAllowed { role, .. } if role == "bmdb_component"), "{refused}");
        bmdb_migration::up(&login(&db, "bmdb_migrator"), None).await.expect("up");
        connect(&login(&db, "bmdb_component")).await.expect("it may again");
    }

    async fn missing_rights_are_told_as_such_and_not_as_missing_steps(db: TestDatabase) {
        let _alone = make_roles(&db).await;
        let admin = db.raw().await;
        let component = login(&db, "bmdb_component");

        // A console may look, and may not hold work.
        let console = connect(&login(&db, "bmdb_console")).await.expect("it may look");
        let refused = console.start_session().await.expect_err("it may not write");
        assert!(
            matches!(&refused, Error::NotAllowed { role, lacks, .. } if role == "bmdb_console" && lacks.contains(&"INSERT on session".to_owned())),
            "{refused}"
        );
        assert!(bmdb_migration::status(&component).await.expect("it may look").iter().all(|step| step.state == State::Applied));

        // With nothing to do, nobody needs a right to change anything.
        assert_eq!(bmdb_migration::up(&component, None).await.expect("nothing is to be done"), [""; 0]);
        tamper(&admin, "DELETE FROM seaql_migrations WHERE version LIKE '%create_work_retrieval'").await;
        for refused in [
            bmdb_migration::up(&component, None).await,
            bmdb_migration::down(&component, 1, bmdb_migration::Destroy::Anyway).await,
            bmdb_migration::reset(&component, bmdb_migration::Destroy::Anyway).await,
            bmdb_migration::mark_development(&component).await.map(|()| Vec::new()),
            bmdb_migration::unmark_development(&component).await.map(|()| Vec::new()),
        ] {
            let refused = refused.expect_err("it owns nothing");
            assert!(
                matches!(&refused, Refusal::NotAllowed { role, what } if role == "bmdb_component"
                    && what.contains(&"make tables in the schema public".to_owned())
                    && what.contains(&"change the table work, which belongs to bmdb_migrator".to_owned())),
                "{refused}"
            );
        }

        tamper(&admin, "REVOKE ALL ON seaql_migrations FROM bmdb_component").await;
        let refused = connect(&component).await.expect_err("it may not read the record");
        assert!(
            matches!(&refused, Error::NotAllowed { role, lacks, .. } if role == "bmdb_component" && lacks == &["SELECT on seaql_migrations"]),
            "{refused}"
        );
        for refused in [bmdb_migration::status(&component).await.map(drop), bmdb_migration::up(&component, None).await.map(drop)] {
            let refused = refused.expect_err("it may not read the record");
            assert!(
                matches!(&refused, Refusal::NotAllowed { what, .. } if what == &["read the table seaql_migrations"]),
                "{refused}"
            );
        }

        tamper(&admin, "REVOKE ALL ON SCHEMA public FROM PUBLIC, bmdb_component").await;
        let refused = connect(&component).await.expect_err("it sees no schema");
        assert!(matches!(&refused, Error::NotAllowed { lacks, .. } if lacks[0].starts_with("USAGE on a schema")), "{refused}");
        let refused = bmdb_migration::status(&component).await.expect_err("it sees no schema");
        assert!(matches!(&refused, Refusal::NotAllowed { what, .. } if what[0].starts_with("find a schema")), "{refused}");
    }

    async fn a_migrator_waits_for_its_turn_whatever_its_roles_limits_are(db: TestDatabase) {
        let _alone = make_roles(&db).await;
        let admin = db.raw().await;
        let name = db.url().rsplit('/').next().expect("a URL has a path").to_owned();
        for limit in ["lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"] {
            tamper(&admin, &format!("ALTER ROLE bmdb_migrator IN DATABASE {name} SET {limit} = '20ms'")).await;
        }
        tamper(&admin, "DELETE FROM seaql_migrations WHERE version LIKE '%create_work_retrieval'").await;
        let other = admin.begin().await.expect("a transaction");
        other.execute_unprepared("UPDATE bmdb_migration_lock SET taken = taken").await.expect("the guard's row");
        let migrator = login(&db, "bmdb_migrator");
        let waiting = bmdb_migration::up(&migrator, None);
        let other_ends = async {
            until("the migrator waits for the guard", LONG, async || {
                let waits = "SELECT pid FROM pg_stat_activity WHERE usename = 'bmdb_migrator' AND datname = current_database() \
                             AND wait_event_type = 'Lock' AND now() - query_start > interval '200 ms'";
                let waits = sea_orm::Statement::from_string(sea_orm::DatabaseBackend::Postgres, waits);
                admin.query_one_raw(waits).await.expect("a look").is_some()
            })
            .await;
            other.rollback().await.expect("roll back");
        };
        let (applied, ()) = join(waiting, other_ends).await;
        assert_eq!(applied.expect("its turn came"), ["m20261123_000020_create_work_retrieval"]);
    }
}

async fn each_role_does_its_work_and_no_more(db: &TestDatabase) {
    let admin = db.raw().await;
    everything(&login(db, "bmdb_component"), &admin).await;
    let component = Database::connect(login(db, "bmdb_component")).await.unwrap();
    let console = Database::connect(login(db, "bmdb_console")).await.unwrap();
    for forbidden in [
        "UPDATE work_history SET cause = 'forged'",
        "DELETE FROM work_history",
        "TRUNCATE work_history",
        "DROP TABLE IF EXISTS work_history",
        "CREATE TABLE IF NOT EXISTS mine (id BIGINT PRIMARY KEY)",
        "DELETE FROM seaql_migrations",
        "UPDATE bmdb_migration_lock SET taken = 0",
    ] {
        let refused = component
            .execute_unprepared(forbidden)
            .await
            .expect_err(forbidden)
            .to_string();
        assert!(
            refused.contains("permission denied") || refused.contains("must be owner"),
            "{forbidden}: {refused}"
        );
    }
    for forbidden in [
        "DELETE FROM work",
        "INSERT INTO process SELECT FROM process",
        "UPDATE machine SET fence = 0",
    ] {
        let refused = console
            .execute_unprepared(forbidden)
            .await
            .expect_err(forbidden)
            .to_string();
        assert!(
            refused.contains("permission denied") || refused.contains("read-only"),
            "{forbidden}: {refused}"
        );
    }
    for seen in ["work_history", "work", "seaql_migrations"] {
        let look = console.execute_unprepared(&format!("SELECT FROM {seen}")).await;
        look.unwrap_or_else(|error| panic!("a console can look at {seen}: {error}"));
    }
}
