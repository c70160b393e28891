//! The doctor: a healthy database has nothing, and what is broken by hand is found, with its mend.

use harness::{TestDatabase, on_each_backend, until};
use sea_orm::{ConnectionTrait, DatabaseBackend};
use std::time::Duration;

use crate::rig::{Said, bmdb, component};

/// What each check has found, by its name. Settings are left out: the tests' PostgreSQL does not wait for the disk. So are rights: roles are a server's, and
/// another test makes them.
fn found(said: &Said) -> Vec<(String, String)> {
    let mut found = all_found(said);
    found.retain(|(check, _)| check != "rights");
    found
}

fn all_found(said: &Said) -> Vec<(String, String)> {
    let json = said.json();
    let mut found = Vec::new();
    for check in json["answer"]["checks"].as_array().unwrap() {
        assert_eq!(check["failed"], false, "{said:?}");
        for finding in check["findings"].as_array().unwrap() {
            let text = format!(
                "{} / {}",
                finding["what"].as_str().unwrap(),
                finding["mend"].as_str().unwrap()
            );
            if check["check"] != "settings" {
                found.push((check["check"].as_str().unwrap().to_owned(), text));
            }
        }
    }
    found
}

/// Breaks the database by hand.
async fn break_it(db: &TestDatabase, statements: &[&str]) {
    let raw = db.raw().await;
    for statement in statements {
        raw.execute_unprepared(statement).await.unwrap();
    }
    raw.close().await.unwrap();
}

/// Expects one finding, of this check, with these words.
fn assert_found(db: &TestDatabase, check: &str, words: &[&str]) {
    let said = bmdb(db.url(), &["doctor", "-o", "json"]);
    assert_eq!(said.status, 1, "{said:?}");
    let found = found(&said);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, check, "{found:?}");
    for word in words {
        assert!(found[0].1.contains(word), "{word}: {found:?}");
    }
}

on_each_backend! {
    async fn a_healthy_database_has_nothing(db: TestDatabase) {
        let holder = component(&db).await;
        let _work = holder.claim(0).await;
        let said = bmdb(db.url(), &["doctor", "-o", "json"]);
        assert_eq!(found(&said), []);
        let says = bmdb(db.url(), &["doctor"]);
        if db.raw().await.get_database_backend() == DatabaseBackend::Sqlite {
            assert_eq!((said.status, says.sentence()), (0, "Nothing is wrong, as far as can be read."), "{says:?}");
            assert!(says.err.contains("rights: not looked at"), "{says:?}");
        }
    }

    async fn an_index_that_is_gone_is_found_with_the_statement_that_makes_it(db: TestDatabase) {
        break_it(&db, &[r#"DROP INDEX "idx-work-session_id""#]).await;
        let made = r#"CREATE INDEX "idx-work-session_id" ON "work" ("session_id")"#;
        assert_found(&db, "schema", &["table work has no index idx-work-session_id (session_id)", made]);
        break_it(&db, &[made]).await;
        assert_eq!(found(&bmdb(db.url(), &["doctor", "-o", "json"])), []);
    }

    async fn a_step_of_another_build_is_found(db: TestDatabase) {
        break_it(&db, &["INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20991231_000099_create_moon', 0)"]).await;
        assert_found(&db, "steps", &["m20991231_000099_create_moon was applied by a newer build"]);
    }

    async fn a_step_that_is_pending_is_found_though_no_component_may_connect(db: TestDatabase) {
        break_it(&db, &["DELETE FROM seaql_migrations WHERE version = 'm20261130_000027_index_machine_provided_address'"]).await;
        let said = bmdb(db.url(), &["doctor"]);
        assert_eq!(said.status, 1, "{said:?}");
        assert!(said.out.contains("m20261130_000027_index_machine_provided_address is pending") && said.out.contains("mend: bmdb migrate up"), "{said:?}");
        assert!(said.err.contains("sessions: could not be looked at"), "{said:?}");
    }

    async fn fences_ahead_of_the_clock_are_found(db: TestDatabase) {
        component(&db).await;
        break_it(&db, &["UPDATE machine SET fence = fence + 9000000000000"]).await;
        assert_found(&db, "fences", &["ahead of the database's clock", "after-restore"]);
    }

    async fn a_machine_that_is_behind_its_history_is_found(db: TestDatabase) {
        let holder = component(&db).await;
        holder.claim(0).await.fail("no image").await.unwrap();
        holder.bmdb.close().await;
        break_it(&db, &["UPDATE machine SET fence = fence - 1 WHERE fence > 1"]).await;
        assert_found(&db, "fences", &["1 machine is behind in its fence", "put one backup back whole"]);
    }

    async fn a_session_that_no_collector_expires_is_found(db: TestDatabase) {
        let holder = component(&db).await;
        let _work = holder.claim(0).await;
        let long_ago = match db.raw().await.get_database_backend() {
            DatabaseBackend::Sqlite => "UPDATE session_lease SET deadline = datetime('now', '-1 hour')",
            _ => "UPDATE session_lease SET deadline = now() - INTERVAL '1 hour'",
        };
        // Its holder beats on until it learns of it.
        until("it is overdue", Duration::from_secs(30), async || {
            break_it(&db, &[long_ago]).await;
            let said = bmdb(db.url(), &["doctor", "-o", "json"]);
            found(&said).iter().any(|(check, text)| check == "sessions" && text.contains("1 work waits with them") && text.contains("bmdb collect --once"))
        })
        .await;
    }

    async fn a_rule_that_nobody_uses_and_nobody_forgets_is_found(db: TestDatabase) {
        component(&db).await.bmdb.close().await;
        let two_days = match db.raw().await.get_database_backend() {
            DatabaseBackend::Sqlite => "UPDATE process_rule SET used_at = datetime('now', '-2 days')",
            _ => "UPDATE process_rule SET used_at = now() - INTERVAL '2 days'",
        };
        break_it(&db, &[two_days]).await;
        let said = bmdb(db.url(), &["doctor", "-o", "json"]);
        let found = found(&said);
        assert!(found.iter().any(|(check, text)| check == "rules" && text.contains("1 rule of process install") && text.contains("bmdb collect")), "{found:?}");
    }

    async fn rows_without_what_they_refer_to_are_found(db: TestDatabase) {
        let holder = component(&db).await;
        holder.claim(0).await.fail("no image").await.unwrap();
        holder.bmdb.close().await;
        let orphan = match db.raw().await.get_database_backend() {
            DatabaseBackend::Sqlite => vec!["PRAGMA foreign_keys = OFF", "DELETE FROM machine WHERE machine_id IN (SELECT machine_id FROM work_backoff)"],
            _ => vec![
                "ALTER TABLE work_backoff DROP CONSTRAINT \"fk-work_backoff-machine_id\"",
                "DELETE FROM machine_provided WHERE machine_id IN (SELECT machine_id FROM work_backoff)",
                "DELETE FROM machine WHERE machine_id IN (SELECT machine_id FROM work_backoff)",
            ],
        };
        let raw = db.raw().await;
        // On one connection: the pragma is its own.
        raw.execute_unprepared(&orphan.join(";")).await.unwrap();
        let found = found(&bmdb(db.url(), &["doctor", "-o", "json"]));
        let delete = "SELECT * FROM work_backoff WHERE machine_id NOT IN (SELECT machine_id FROM machine). If rows of machine were lost, put a backup back";
        assert!(found.iter().any(|(check, text)| check == "orphans" && text.contains("1 row of work_backoff without its machine") && text.contains(delete)), "{found:?}");
    }
}

#[tokio::test]
async fn how_history_stands_is_said_and_no_snapshot_is_old() {
    let db = TestDatabase::migrated(harness::Backend::Postgres).await;
    let holder = component(&db).await;
    holder.claim(0).await.fail("no image").await.unwrap();
    break_it(&db, &["UPDATE work_history SET at = at - INTERVAL '100 days'"]).await;
    let said = bmdb(db.url(), &["doctor"]);
    assert!(
        said.out.contains("✓ history: 2 events; 2 of claims older than 90 days"),
        "{said:?}"
    );
    assert!(said.out.contains("snapshots  ✓ nothing"), "{said:?}");
}

#[tokio::test]
async fn a_read_database_that_is_another_is_refused() {
    let db = TestDatabase::migrated(harness::Backend::Sqlite).await;
    let other = TestDatabase::migrated(harness::Backend::Sqlite).await;
    let same = bmdb(db.url(), &["process", "ls", "--read-database", db.url()]);
    assert_eq!(same.status, 0, "{same:?}");
    break_it(&other, &["UPDATE seaql_migrations SET applied_at = applied_at + 1"]).await;
    let refused = bmdb(db.url(), &["process", "ls", "--read-database", other.url()]);
    assert!(
        refused.status == 2 && refused.err.contains("--read-database is another database"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_a_server_or_its_roles_lack_is_found() {
    let db = TestDatabase::migrated(harness::Backend::Postgres).await;
    bmdb_migration::make_roles(db.url()).await.unwrap();
    break_it(&db, &["REVOKE INSERT ON work FROM bmdb_component"]).await;
    let found = all_found(&bmdb(db.url(), &["doctor", "-o", "json"]));
    assert_eq!(found.len(), 1, "{found:?}");
    let grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE \"work\" TO bmdb_component";
    let (check, text) = &found[0];
    assert!(
        check == "rights" && text.contains(grant) && text.contains("bmdb migrate up"),
        "{found:?}"
    );
    let said = bmdb(db.url(), &["doctor"]);
    assert!(
        said.out.contains("settings: fsync is off") && said.out.contains("ALTER SYSTEM SET fsync = on"),
        "{said:?}"
    );
    // What a login may not do is the last class of mistakes.
    break_it(&db, &["GRANT INSERT ON work TO bmdb_component"]).await;
    let component = db.url().replace("bmdb@", "bmdb_component@");
    let before = "2026-01-01T00:00:00Z";
    let refused = bmdb(
        &component,
        &["prune", "--before", before, "--yes", "0", "--reason", "x"],
    );
    assert!(
        refused.status == 5 && refused.err.contains("DELETE on work_history"),
        "{refused:?}"
    );
}
