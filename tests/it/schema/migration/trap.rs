//! The trap that every test database has: PostgreSQL refuses the schema changes that CockroachDB cannot do, to all who are not the test itself.

use harness::{Backend, TestDatabase};
use sea_orm::{ConnectionTrait, Database};

use super::{Destroy, execute};

/// Each statement, and what the trap says of it.
const REFUSED: &[(&str, &str)] = &[
    (
        "BEGIN; CREATE TABLE IF NOT EXISTS a (k UUID PRIMARY KEY); DROP TABLE IF EXISTS a; COMMIT",
        "after other writes",
    ),
    (
        "BEGIN; INSERT INTO machine VALUES (gen_random_uuid(), now(), 1); CREATE TABLE IF NOT EXISTS a (k UUID PRIMARY KEY); COMMIT",
        "after other writes",
    ),
    (
        "BEGIN; CREATE TABLE IF NOT EXISTS a (k UUID PRIMARY KEY); INSERT INTO seaql_migrations VALUES ('m', 0); COMMIT",
        "the record of a step",
    ),
    (
        "CREATE FUNCTION f() RETURNS BIGINT LANGUAGE sql AS 'SELECT 1'",
        "not among what migrations do: CREATE FUNCTION",
    ),
    (
        "CREATE TRIGGER t AFTER INSERT ON machine EXECUTE FUNCTION trap.apart()",
        "not among what migrations do: CREATE TRIGGER",
    ),
    (
        "CREATE TYPE mood AS ENUM ('sad')",
        "not among what migrations do: CREATE TYPE",
    ),
    ("CREATE DOMAIN d AS TEXT", "not among what migrations do: CREATE DOMAIN"),
    (
        "CREATE EXTENSION IF NOT EXISTS citext",
        "not among what migrations do: CREATE EXTENSION",
    ),
    (
        "CREATE SEQUENCE IF NOT EXISTS s",
        "not among what migrations do: CREATE SEQUENCE",
    ),
    (
        "CREATE VIEW v AS SELECT fence FROM machine",
        "not among what migrations do: CREATE VIEW",
    ),
    (
        "CREATE TABLE IF NOT EXISTS a AS SELECT fence FROM machine",
        "not among what migrations do: CREATE TABLE AS",
    ),
    ("CREATE TABLE a (k UUID PRIMARY KEY)", "cannot be repeated"),
    ("DROP INDEX \"idx-work-session_id\"", "cannot be repeated"),
    (
        "ALTER TABLE IF EXISTS machine ADD COLUMN rack TEXT",
        "cannot be repeated",
    ),
    ("ALTER TABLE IF EXISTS machine DROP COLUMN fence", "cannot be repeated"),
    ("DROP TABLE IF EXISTS machine CASCADE", "takes others along"),
    (
        "ALTER TABLE IF EXISTS machine ALTER COLUMN fence TYPE DOUBLE PRECISION",
        "an older component",
    ),
    ("ALTER TABLE IF EXISTS machine RENAME TO host", "an older component"),
    (
        "ALTER TABLE IF EXISTS machine ADD COLUMN IF NOT EXISTS a TEXT, ADD COLUMN IF NOT EXISTS b TEXT",
        "several changes at once",
    ),
    ("CREATE TABLE IF NOT EXISTS a (k UUID)", "no key"),
    ("CREATE TABLE IF NOT EXISTS a (k BIGSERIAL PRIMARY KEY)", "a sequence"),
    (
        "CREATE TABLE IF NOT EXISTS a (k BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY)",
        "a sequence",
    ),
    (
        "CREATE TABLE IF NOT EXISTS a (k UUID PRIMARY KEY, n BIGINT, m BIGINT GENERATED ALWAYS AS (n) STORED)",
        "a generated or computed column m",
    ),
    (
        "CREATE TABLE IF NOT EXISTS a (k INTEGER PRIMARY KEY)",
        "a column of type integer",
    ),
    (
        "CREATE TABLE IF NOT EXISTS a (k UUID PRIMARY KEY, n JSON)",
        "a column of type json",
    ),
    (
        "CREATE TABLE IF NOT EXISTS a (k UUID PRIMARY KEY, n TIMESTAMP)",
        "a column of type timestamp without time zone",
    ),
    (
        "CREATE TABLE IF NOT EXISTS a (k UUID PRIMARY KEY, n VARCHAR(9))",
        "a column of type character varying(9)",
    ),
    (
        "ALTER TABLE IF EXISTS machine ADD COLUMN IF NOT EXISTS price MONEY",
        "a column of type money",
    ),
    (
        "CREATE TABLE IF NOT EXISTS a (k UUID PRIMARY KEY, n TEXT UNIQUE)",
        "the constraint UNIQUE (n)",
    ),
    (
        "CREATE TABLE IF NOT EXISTS a (k UUID PRIMARY KEY, n TEXT, EXCLUDE USING hash (n WITH =))",
        "the constraint EXCLUDE",
    ),
    (
        "CREATE TABLE IF NOT EXISTS a (k UUID PRIMARY KEY REFERENCES machine (machine_id) DEFERRABLE)",
        "DEFERRABLE",
    ),
    (
        "CREATE TABLE IF NOT EXISTS a (k UUID PRIMARY KEY) PARTITION BY HASH (k)",
        "not a plain table",
    ),
    (
        "CREATE TABLE IF NOT EXISTS a (PRIMARY KEY (machine_id)) INHERITS (machine)",
        "not a plain table",
    ),
    (
        "CREATE UNLOGGED TABLE IF NOT EXISTS a (k UUID PRIMARY KEY)",
        "not a plain table",
    ),
    (
        "CREATE TEMPORARY TABLE IF NOT EXISTS a (k UUID PRIMARY KEY)",
        "not a plain table",
    ),
    (
        "CREATE INDEX IF NOT EXISTS i ON machine USING hash (fence)",
        "another kind than a B-tree",
    ),
    (
        "CREATE UNIQUE INDEX IF NOT EXISTS i ON work (stop_requested) NULLS NOT DISTINCT",
        "another kind than a B-tree",
    ),
    (
        "CREATE INDEX IF NOT EXISTS i ON session_lease (deadline)",
        "begins with the time deadline",
    ),
];

#[tokio::test]
async fn the_trap_springs_on_what_cockroachdb_does_not_do() {
    let db = TestDatabase::migrated(Backend::Postgres).await;
    for (statement, why) in REFUSED {
        // A refused transaction stays open, so each statement has a connection of its own.
        let trapped = Database::connect(db.url()).await.expect("connect");
        let refused = trapped
            .execute_unprepared(statement)
            .await
            .expect_err(statement)
            .to_string();
        assert!(
            refused.contains("trap: ") && refused.contains(why),
            "{statement}: {refused}"
        );
    }
    let trapped = Database::connect(db.url()).await.expect("connect");
    execute(
        &trapped,
        &[
            "CREATE TABLE IF NOT EXISTS a (k UUID PRIMARY KEY REFERENCES machine (machine_id), n TEXT NOT NULL DEFAULT 'no', CHECK (n <> ''))",
            "CREATE UNIQUE INDEX IF NOT EXISTS i ON a (n, k) WHERE n <> 'no'",
            "ALTER TABLE IF EXISTS a ADD COLUMN IF NOT EXISTS note TEXT",
            "DROP INDEX IF EXISTS i",
            "DROP TABLE IF EXISTS a",
        ],
    )
    .await;
    // Tests themselves go free.
    execute(
        &db.raw().await,
        &[
            "CREATE TYPE mood AS ENUM ('sad')",
            "BEGIN; CREATE TABLE a (); CREATE TABLE b (); COMMIT",
        ],
    )
    .await;
}

#[tokio::test]
async fn every_verb_of_the_migrator_passes_the_trap() {
    let db = TestDatabase::empty(Backend::Postgres).await;
    bmdb_migration::up(db.url(), None).await.expect("up");
    bmdb_migration::down(db.url(), u32::MAX, Destroy::OnlyInDevelopment)
        .await
        .expect("down");
    bmdb_migration::mark_development(db.url()).await.expect("mark");
    bmdb_migration::fresh(db.url(), Destroy::OnlyInDevelopment)
        .await
        .expect("fresh");
    bmdb_migration::unmark_development(db.url()).await.expect("unmark");
    bmdb_migration::reset(db.url(), Destroy::OnlyInDevelopment)
        .await
        .expect("reset");
}
