//! What a migrator refuses, and that it says why without saying too much.

use std::path::Path;

use bmdb_migration::{Destroy, Error};
use harness::{Backend, TestDatabase, on_each_backend};

use super::schema::{dump, texts};
use super::{ROWS, execute, names};

on_each_backend! {
    async fn rows_are_destroyed_only_where_somebody_said_so(db: TestDatabase) {
        let url = db.url();
        let connection = db.raw().await;
        execute(&connection, ROWS).await;
        let before = dump(&db).await;
        let expected = [("work", 1), ("session_lease", 1), ("session", 1), ("machine", 1)].map(|(table, rows)| (table.to_owned(), rows));
        for refused in [
            bmdb_migration::reset(url, Destroy::OnlyInDevelopment).await,
            bmdb_migration::fresh(url, Destroy::OnlyInDevelopment).await,
            bmdb_migration::down(url, u32::MAX, Destroy::OnlyInDevelopment).await,
        ] {
            let error = refused.expect_err("rows would be lost");
            assert!(error.to_string().contains("machine (1 row)") && error.to_string().contains("--yes-destroy-data"), "{error}");
            assert!(matches!(&error, Error::WouldDestroy { tables } if tables[..] == expected), "{error}");
        }
        assert_eq!(dump(&db).await, before);
        // The last step has no rows to lose.
        bmdb_migration::down(url, 1, Destroy::OnlyInDevelopment).await.expect("no row is lost");

        bmdb_migration::mark_development(url).await.expect("mark");
        bmdb_migration::mark_development(url).await.expect("a mark can be repeated");
        bmdb_migration::fresh(url, Destroy::OnlyInDevelopment).await.expect("the mark allows it");
        assert_eq!(texts(&connection, "SELECT slot FROM work").await, [""; 0]);

        execute(&connection, ROWS).await;
        bmdb_migration::unmark_development(url).await.expect("unmark");
        assert!(bmdb_migration::reset(url, Destroy::OnlyInDevelopment).await.is_err(), "the mark is gone");
        connection.close().await.expect("close");
        bmdb_migration::reset(url, Destroy::Anyway).await.expect("we were told");
    }

    async fn what_others_refer_to_is_not_dropped_and_nothing_before_it_is_undone(db: TestDatabase) {
        let connection = db.raw().await;
        let key = if db.backend() == Backend::Sqlite { "uuid_text" } else { "uuid" };
        let rack = format!("CREATE TABLE rack (machine_id {key} PRIMARY KEY REFERENCES machine (machine_id))");
        execute(&connection, &[&rack]).await;
        let mut referring = vec!["rack"];
        if db.backend() == Backend::Postgres {
            execute(&connection, &["CREATE VIEW busy AS SELECT machine_id FROM work", "CREATE VIEW busier AS SELECT machine_id FROM busy"]).await;
            referring.insert(0, "busy");
        }
        // With a row and without: what the steps drop before they come to `machine` would be gone either way.
        for rows in [0, 1] {
            if rows == 1 {
                execute(&connection, ROWS).await;
                execute(&connection, &["INSERT INTO rack SELECT machine_id FROM machine"]).await;
            }
            let before = dump(&db).await;
            for refused in [
                bmdb_migration::fresh(db.url(), Destroy::Anyway).await,
                bmdb_migration::reset(db.url(), Destroy::Anyway).await,
                bmdb_migration::down(db.url(), u32::MAX, Destroy::Anyway).await,
            ] {
                let error = refused.expect_err("rack needs machine");
                assert!(
                    matches!(&error, Error::Referenced { references } if references.iter().map(|(who, _)| who).eq(&referring)),
                    "{error}"
                );
                assert!(error.to_string().contains("rack refers to machine"), "{error}");
                assert_eq!(dump(&db).await, before);
            }
        }
        // What nobody refers to can go.
        bmdb_migration::down(db.url(), 1, Destroy::Anyway).await.expect("rack does not need it");
        connection.close().await.expect("close");
    }

    async fn status_writes_nothing(db: TestDatabase) {
        let empty = db.empty_beside().await;
        if db.backend() == Backend::Sqlite {
            let error = bmdb_migration::status(empty.url()).await.expect_err("there is no file");
            assert!(matches!(error, Error::Missing { what: "file", .. }), "{error}");
            assert!(!Path::new(file(&empty)).exists());
            std::fs::write(file(&empty), "").expect("an empty file is an empty database");
        }
        let pending = bmdb_migration::status(empty.url()).await.expect("status");
        assert!(pending.iter().all(|step| step.state == bmdb_migration::State::Pending));
        assert_eq!(pending.len(), names().len());
        assert_eq!(dump(&empty).await, [""; 0]);

        let before = (dump(&db).await, bytes(&db));
        let applied = bmdb_migration::status(db.url()).await.expect("status");
        assert!(applied.iter().all(|step| step.state == bmdb_migration::State::Applied));
        assert_eq!((dump(&db).await, bytes(&db)), before);
    }
}

fn file(db: &TestDatabase) -> &str {
    db.url().trim_start_matches("sqlite://").trim_end_matches("?mode=rwc")
}

fn bytes(db: &TestDatabase) -> Option<Vec<u8>> {
    (db.backend() == Backend::Sqlite).then(|| std::fs::read(file(db)).expect("the file is there"))
}

/// The error, its causes, and how they look to a programmer.
fn everything(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text} {next} {next:?}");
        cause = next.source();
    }
    text
}

#[tokio::test]
async fn a_wrong_url_is_explained_without_its_password() {
    for wrong in [
        "canary",
        "",
        "canary:canary",
        "mysql://u:canary@localhost/bmdb",
        "cockroachdb://u:canary@localhost/bmdb",
        "postgres://u:canary@localhost:99999/bmdb",
        "postgres://u:canary@localhost",
        "postgres://u:canary@/bmdb",
        "postgres://u:canary@db.example/bmdb",
        "postgres://u:canary@db.example/bmdb?sslmode=require",
        "postgres://u:canary@db.example/bmdb?sslmode=verify-full&sslmode=disable",
        "postgres://u:canary@localhost/bmdb?sslmode=canary",
        "postgres://u:canary@localhost/bmdb?sslpassword=canary",
        "postgres://localhost:12/canary@localhost/bmdb",
        "postgres://u:canary@localhost/bm%0d%0adb",
        "sqlite://%3Amemory%3A",
        "sqlite://bmdb.sqlite?mode=%6Demory",
        "sqlite::memory:",
        "sqlite://",
        "sqlite://bmdb.sqlite?password=canary",
        "sqlite://bmdb.sqlite?mode=canary",
    ] {
        // Spawned, because the verbs must be of use in any task.
        let mut task = tokio::task::JoinSet::from_iter([bmdb_migration::up(wrong, None)]);
        let refused = task.join_next().await.expect("there is one").expect("no panic");
        let error = refused.expect_err(wrong);
        assert!(
            matches!(error, Error::Url { .. } | Error::Parameter { .. }),
            "{wrong}: {error}"
        );
        assert!(
            !everything(&error).contains("canary"),
            "{wrong}: {}",
            everything(&error)
        );
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_named_without_its_password() {
    let nobody_listens = "postgres://u:canary@127.0.0.1:1/bmdb";
    let error = bmdb_migration::up(nobody_listens, None)
        .await
        .expect_err("nobody listens");
    assert!(
        matches!(&error, Error::Open { database, .. } if database == "postgres://127.0.0.1:1/bmdb"),
        "{error}"
    );
    assert!(
        everything(&error).contains("refused") && !everything(&error).contains("canary"),
        "{}",
        everything(&error)
    );

    let db = TestDatabase::empty(Backend::Postgres).await;
    let (server, _) = db.url().rsplit_once('/').expect("a URL has slashes");
    let elsewhere = format!("{}/no_such_database", server.replace("bmdb@", "bmdb:canary@"));
    let error = bmdb_migration::status(&elsewhere)
        .await
        .expect_err("there is no such database");
    assert!(matches!(error, Error::Open { .. }), "{error}");
    assert!(!everything(&error).contains("canary"), "{}", everything(&error));

    let error = bmdb_migration::up("sqlite:///no/such/folder/bmdb.sqlite", None)
        .await
        .expect_err("no folder");
    assert!(matches!(error, Error::Missing { what: "folder", .. }), "{error}");

    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let text = folder.path().join("text");
    std::fs::write(
        &text,
        "This is no database, although it is long enough to be the head of one. ".repeat(9),
    )
    .expect("write");
    let error = bmdb_migration::up(&format!("sqlite://{}", text.display()), None)
        .await
        .expect_err("text");
    assert!(everything(&error).contains("not a database"), "{}", everything(&error));
}

#[tokio::test]
async fn rows_that_refer_to_nothing_are_not_kept() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    bmdb_migration::down(db.url(), 1, Destroy::Anyway).await.expect("down");
    let connection = db.raw().await;
    let rack = "PRAGMA foreign_keys = OFF; CREATE TABLE rack (machine_id uuid_text PRIMARY KEY REFERENCES machine (machine_id)); \
                INSERT INTO rack VALUES ('gone'); PRAGMA foreign_keys = ON";
    execute(&connection, &[rack]).await;
    let before = dump(&db).await;
    let error = bmdb_migration::up(db.url(), None)
        .await
        .expect_err("a machine is missing");
    assert!(
        matches!(&error, Error::Dangling { table, parent } if table == "rack" && parent == "machine"),
        "{error}"
    );
    assert_eq!(dump(&db).await, before);
}
