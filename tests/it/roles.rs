//! The least-privilege roles: enough for every operation, and not enough to rewrite history.

use harness::on_postgres;
use sea_orm::{ConnectionTrait, Database};

use crate::sql::everything;
use crate::world::tamper;

const GRANTS: &str = include_str!("../../migration/grants.sql");

on_postgres! {
    async fn a_component_does_its_work_and_cannot_rewrite_history(db: TestDatabase) {
        let admin = db.raw().await;
        let statements = GRANTS.lines().filter(|line| !line.starts_with("--")).collect::<String>();
        let statements: Vec<_> = statements.split(';').map(str::trim).filter(|statement| !statement.is_empty()).collect();
        assert!(statements.len() > 10);
        for statement in statements {
            tamper(&admin, statement).await;
        }
        let component = db.url().replace("bmdb@", "bmdb_component@");
        everything(&component, &admin).await;

        let component = Database::connect(&component).await.unwrap();
        let console = Database::connect(db.url().replace("bmdb@", "bmdb_console@")).await.unwrap();
        for forbidden in [
            "UPDATE work_history SET cause = 'forged'",
            "DELETE FROM work_history",
            "TRUNCATE work_history",
            "DROP TABLE IF EXISTS work_history",
            "CREATE TABLE IF NOT EXISTS mine (id BIGINT PRIMARY KEY)",
            "DELETE FROM seaql_migrations",
        ] {
            let refused = component.execute_unprepared(forbidden).await.expect_err(forbidden).to_string();
            assert!(refused.contains("permission denied") || refused.contains("must be owner"), "{forbidden}: {refused}");
        }
        for forbidden in ["DELETE FROM work", "INSERT INTO process SELECT FROM process", "UPDATE machine SET fence = 0"] {
            let refused = console.execute_unprepared(forbidden).await.expect_err(forbidden).to_string();
            assert!(refused.contains("permission denied") || refused.contains("read-only"), "{forbidden}: {refused}");
        }
        console.execute_unprepared("SELECT machine_id FROM work_history").await.expect("a console can look");
    }
}
