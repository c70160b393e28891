//! The schema's history: what each step makes, undoes and keeps.

mod mine;
mod process;
mod refusal;
mod schema;
mod trap;

use bmdb_entity as _;
use bmdb_migration::{Destroy, Error, Migrator, MigratorTrait, State};
use harness::{Backend, TestDatabase, on_each_backend};
use sea_orm::{ConnectionTrait, Database, DatabaseConnection};
use sea_orm_migration::SchemaManager;

use schema::{dump, is_bookkeeping, shape, texts};

/// Rows of every table that work touches, as an old component left them.
const ROWS: &[&str] = &[
    "INSERT INTO machine VALUES ('6d5f4a86-0e5b-4a4e-9a39-5f0a8c7a0001', '2026-11-01 00:00:00Z', 7)",
    "INSERT INTO session VALUES ('6d5f4a86-0e5b-4a4e-9a39-5f0a8c7a0002', 'shepherd', 'v1', '2026-11-01 00:00:00Z', 10000)",
    "INSERT INTO session_lease (session_id, deadline) VALUES ('6d5f4a86-0e5b-4a4e-9a39-5f0a8c7a0002', '2026-11-01 00:00:10Z')",
    "INSERT INTO work VALUES ('6d5f4a86-0e5b-4a4e-9a39-5f0a8c7a0001', 'agent', 'agent-start',
         '6d5f4a86-0e5b-4a4e-9a39-5f0a8c7a0003', '6d5f4a86-0e5b-4a4e-9a39-5f0a8c7a0002', 7, '2026-11-01 00:00:00Z', NULL, NULL)",
];

async fn execute(connection: &DatabaseConnection, statements: &[&str]) {
    for statement in statements {
        connection
            .execute_unprepared(statement)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

fn names() -> Vec<String> {
    Migrator::migrations()
        .iter()
        .map(|step| step.name().to_owned())
        .collect()
}

on_each_backend! {
    async fn the_steps_make_what_the_entities_say(db: TestDatabase) {
        let from_entities = db.empty_beside().await;
        let connection = from_entities.raw().await;
        let registry = connection.get_schema_registry("bmdb_entity::*");
        registry.sync(&connection).await.expect("the entities describe a schema");
        let expected = shape(&from_entities).await;
        assert!(expected.len() > 80, "the registry knows the entities: {expected:#?}");
        assert_eq!(shape(&db).await, expected);
    }

    async fn the_entities_find_nothing_to_add_to_the_steps(db: TestDatabase) {
        let before = dump(&db).await;
        let connection = db.raw().await;
        connection.get_schema_registry("bmdb_entity::*").sync(&connection).await.expect("the schema can be compared");
        assert_eq!(dump(&db).await, before);
    }

    async fn each_step_can_be_undone_without_a_trace(db: TestDatabase) {
        let complete = dump(&db).await;
        let db = db.empty_beside().await;
        // The record of steps and the guard's row appear with the first step and stay.
        assert_eq!(bmdb_migration::up(db.url(), Some(0)).await.expect("up"), [""; 0]);
        bmdb_migration::up(db.url(), Some(1)).await.expect("up");
        bmdb_migration::down(db.url(), 1, Destroy::OnlyInDevelopment).await.expect("down");
        let mut heights = vec![dump(&db).await];
        for name in names() {
            assert_eq!(bmdb_migration::up(db.url(), Some(1)).await.expect("up"), [name]);
            heights.push(dump(&db).await);
        }
        assert_eq!(heights.last(), Some(&complete));
        for (name, height) in names().iter().zip(&heights).rev() {
            let undone = bmdb_migration::down(db.url(), 1, Destroy::OnlyInDevelopment).await.expect("down");
            assert_eq!(undone, [name.as_str()]);
            assert_eq!(&dump(&db).await, height, "{name} left something behind");
        }
        bmdb_migration::up(db.url(), None).await.expect("up");
        assert_eq!(dump(&db).await, complete);
    }

    async fn reset_leaves_nothing_of_ours_and_all_that_is_others(db: TestDatabase) {
        let connection = db.raw().await;
        execute(&connection, &["CREATE TABLE not_ours (id BIGINT PRIMARY KEY)"]).await;
        connection.close().await.expect("close");
        let undone = bmdb_migration::reset(db.url(), Destroy::OnlyInDevelopment).await.expect("nothing is lost");
        assert_eq!(undone.len(), names().len());
        let left = dump(&db).await;
        let ours: Vec<_> = left.iter().filter(|line| !line.contains("not_ours") && !is_bookkeeping(line)).collect();
        assert_eq!(ours, [""; 0]);
        assert!(left.iter().any(|line| line.contains("not_ours")));
        assert!(!left.iter().any(|line| line.contains("seaql_migrations")));
    }

    async fn a_step_can_run_twice(db: TestDatabase) {
        let complete = dump(&db).await;
        let connection = Database::connect(db.url().split("?bmdb.").next().expect("there is a first part")).await.expect("connect");
        let manager = SchemaManager::new(&connection);
        for step in Migrator::migrations() {
            step.up(&manager).await.unwrap_or_else(|error| panic!("{} ran twice: {error}", step.name()));
        }
        assert_eq!(dump(&db).await, complete);
        for step in Migrator::migrations().iter().rev() {
            for _ in 0..2 {
                step.down(&manager).await.unwrap_or_else(|error| panic!("{} was undone twice: {error}", step.name()));
            }
        }
        execute(&connection, &["DELETE FROM seaql_migrations"]).await;
        assert_eq!(bmdb_migration::up(db.url(), None).await.expect("up"), names());
        assert_eq!(dump(&db).await, complete);
    }

    async fn an_old_database_with_rows_moves_on(db: TestDatabase) {
        let complete = dump(&db).await;
        let db = db.empty_beside().await;
        bmdb_migration::up(db.url(), Some(4)).await.expect("up");
        let connection = db.raw().await;
        execute(&connection, ROWS).await;
        let applied = bmdb_migration::up(db.url(), None).await.expect("rows do not hinder a step");
        assert_eq!(applied, names()[4..]);
        assert_eq!(dump(&db).await, complete);
        for table in ["machine", "session", "session_lease", "work"] {
            let rows = texts(&connection, &format!("SELECT CAST(count(*) AS TEXT) FROM {table}")).await;
            assert_eq!(rows, ["1"], "{table}");
        }
    }

    async fn a_step_of_a_newer_build_is_left_alone(db: TestDatabase) {
        let connection = db.raw().await;
        execute(&connection, &["INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20990101_000001_create_moon', 1)"]).await;
        // All of ours are applied: an older deployment's migrator has nothing to do, and that is no failure.
        assert_eq!(bmdb_migration::up(db.url(), None).await.expect("up"), [""; 0]);
        let status = bmdb_migration::status(db.url()).await.expect("status");
        let unknown: Vec<_> = status.iter().filter(|step| step.state == State::Unknown).map(|step| &step.name).collect();
        assert_eq!(unknown, ["m20990101_000001_create_moon"]);
        let before = dump(&db).await;
        // What the unknown step needs we cannot know, so nothing beneath it moves.
        let error = bmdb_migration::down(db.url(), 1, Destroy::Anyway).await.expect_err("down");
        assert!(matches!(&error, Error::UnknownSteps { steps } if steps == &["m20990101_000001_create_moon"]), "{error}");
        execute(&connection, &["DELETE FROM seaql_migrations WHERE version LIKE '%tune_fillfactor'"]).await;
        let error = bmdb_migration::up(db.url(), None).await.expect_err("up");
        assert!(matches!(error, Error::UnknownSteps { .. }), "{error}");
        assert_eq!(dump(&db).await, before);
    }

    async fn a_failed_run_can_be_repeated_once_its_cause_is_gone(db: TestDatabase) {
        let complete = dump(&db).await;
        let db = db.empty_beside().await;
        let connection = db.raw().await;
        // A unique index of `work` cannot be made on this.
        execute(&connection, &["CREATE TABLE work (work_id TEXT)", "INSERT INTO work VALUES ('twice'), ('twice')"]).await;
        let error = bmdb_migration::up(db.url(), None).await.expect_err("the index is not unique");
        assert!(matches!(error, Error::Database { .. }), "{error}");
        execute(&connection, &["DROP TABLE work"]).await;
        match db.backend() {
            Backend::Sqlite => assert_eq!(dump(&db).await, [""; 0], "on SQLite a failed run leaves nothing"),
            Backend::Postgres => execute(&connection, &["DELETE FROM seaql_migrations WHERE version LIKE '%create_work'"]).await,
        }
        connection.close().await.expect("close");
        bmdb_migration::up(db.url(), None).await.expect("up");
        assert_eq!(dump(&db).await, complete);
    }

    async fn a_machine_with_rows_stays_and_a_session_takes_its_works_along(db: TestDatabase) {
        let connection = db.raw().await;
        execute(&connection, ROWS).await;
        let refused = connection.execute_unprepared("DELETE FROM machine").await.expect_err("work refers to it");
        assert!(matches!(refused.sql_err(), Some(sea_orm::SqlErr::ForeignKeyConstraintViolation(_))), "{refused}");
        execute(&connection, &["DELETE FROM session", "DELETE FROM machine"]).await;
        assert_eq!(texts(&connection, "SELECT slot FROM work").await, [""; 0]);
    }

    async fn the_schema_refuses_what_the_protocol_never_writes(db: TestDatabase) {
        let connection = db.raw().await;
        execute(&connection, ROWS).await;
        for wrong in [
            "UPDATE machine SET fence = -1",
            "UPDATE session SET interval_ms = 0",
            "UPDATE work SET fence = 0",
            "INSERT INTO process VALUES ('p', 's', '', -1, '2026-11-01 00:00:00Z', 'c')",
            "INSERT INTO work_backoff VALUES ('6d5f4a86-0e5b-4a4e-9a39-5f0a8c7a0001', 'p', NULL, 'c', 0, 1)",
            "INSERT INTO work_backoff VALUES ('6d5f4a86-0e5b-4a4e-9a39-5f0a8c7a0001', 'p', NULL, 'c', 1, 0)",
            "INSERT INTO machine_os_installation_request VALUES ('6d5f4a86-0e5b-4a4e-9a39-5f0a8c7a0001', -1, '')",
            "INSERT INTO machine_os_installation_report VALUES ('6d5f4a86-0e5b-4a4e-9a39-5f0a8c7a0001', -1, 'error', '')",
            "INSERT INTO work_history VALUES ('6d5f4a86-0e5b-4a4e-9a39-5f0a8c7a0001', 0, 'started',
                 '6d5f4a86-0e5b-4a4e-9a39-5f0a8c7a0003', 'p', 's', '6d5f4a86-0e5b-4a4e-9a39-5f0a8c7a0002', '', '', '2026-11-01 00:00:00Z', NULL)",
            "INSERT INTO work_history VALUES ('6d5f4a86-0e5b-4a4e-9a39-5f0a8c7a0001', 1, 'paused',
                 '6d5f4a86-0e5b-4a4e-9a39-5f0a8c7a0003', 'p', 's', '6d5f4a86-0e5b-4a4e-9a39-5f0a8c7a0002', '', '', '2026-11-01 00:00:00Z', NULL)",
        ] {
            let refused = connection.execute_unprepared(wrong).await.expect_err(wrong).to_string();
            assert!(refused.to_lowercase().contains("check constraint"), "{wrong}: {refused}");
        }
    }
}

#[test]
fn every_step_runs_outside_a_transaction_and_says_what_it_is() {
    let names = names();
    for step in Migrator::migrations() {
        assert_eq!(step.use_transaction(), Some(false), "{}", step.name());
    }
    for name in &names {
        let kind = name.split('_').nth(2);
        assert!(
            matches!(kind, Some("create" | "add" | "index" | "tune")),
            "destroy.rs must know what undoing {name} destroys"
        );
    }
    assert!(names.is_sorted(), "steps stand in the order of their names: {names:#?}");
}

#[tokio::test]
async fn only_types_that_every_database_has_are_used() {
    let db = TestDatabase::migrated(Backend::Postgres).await;
    let connection = db.raw().await;
    // The record of steps is SeaORM's own.
    let columns = texts(
        &connection,
        "SELECT table_name || '.' || column_name || ' ' || data_type FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name <> 'seaql_migrations'",
    );
    for column in columns.await {
        let (_, kind) = column.split_once(' ').expect("the query puts a space there");
        let allowed = ["uuid", "text", "bigint", "timestamp with time zone", "bytea", "jsonb"];
        assert!(allowed.contains(&kind), "{column}");
    }
    let defaults = "SELECT column_name::text FROM information_schema.columns
         WHERE table_schema = 'public' AND column_default IS NOT NULL";
    assert_eq!(texts(&connection, defaults).await, [""; 0]);
    let types =
        "SELECT typname::text FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')";
    assert_eq!(texts(&connection, types).await, [""; 0]);
}

#[tokio::test]
async fn every_table_has_a_key_and_every_reference_an_index() {
    let db = TestDatabase::migrated(Backend::Postgres).await;
    let connection = db.raw().await;
    let keyless = "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
           AND NOT EXISTS (SELECT 1 FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary)";
    assert_eq!(texts(&connection, keyless).await, [""; 0]);
    let unindexed = "SELECT conrelid::regclass || ' ' || conname FROM pg_constraint
         WHERE contype = 'f' AND NOT EXISTS
             (SELECT 1 FROM pg_index WHERE indrelid = conrelid AND indkey[0] = conkey[1])";
    assert_eq!(texts(&connection, unindexed).await, [""; 0]);
}
