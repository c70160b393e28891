//! The migrator as a process: many at once, killed in the middle, and its command line.

use std::process::{Output, Stdio};
use std::time::Duration;

use harness::{Backend, TestDatabase, on_each_backend, until};
use sea_orm::{ConnectionTrait, DatabaseBackend, Statement};
use tokio::process::Command;

use super::schema::{dump, texts};
use super::{ROWS, execute, names};

const MIGRATORS: usize = 6;
const ROUNDS: usize = 5;

pub(super) fn migrator(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migration-process"));
    for inherited in ["DATABASE_URL", "DATABASE_SCHEMA", "BMDB_DATABASE_URL"] {
        command.env_remove(inherited);
    }
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

pub(super) async fn run(mut command: Command) -> Output {
    command.output().await.expect("the binary was built with this test")
}

pub(super) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(super) fn talk(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

on_each_backend! {
    async fn any_number_of_migrators_may_start_at_once(db: TestDatabase) {
        let complete = dump(&db).await;
        for _ in 0..ROUNDS {
            let db = db.empty_beside().await;
            let started = (0..MIGRATORS).map(|_| run(migrator(&["up", "-u", db.url()])));
            let ended = futures_util::future::join_all(started).await;
            let mut applied = Vec::new();
            for output in &ended {
                assert!(output.status.success(), "{}", talk(output));
                applied.extend(out(output).lines().map(str::to_owned));
            }
            assert_eq!(applied, names(), "each step is applied by one of them");
            assert_eq!(dump(&db).await, complete);
        }
    }

    async fn a_killed_migrator_leaves_what_the_next_can_finish(db: TestDatabase) {
        let complete = dump(&db).await;
        for moment in 0..9 {
            let db = db.empty_beside().await;
            let mut first = migrator(&["up", "-u", db.url()]).stdout(Stdio::null()).spawn().expect("the binary was built");
            match db.backend() {
                // All steps are one transaction, which nobody else sees: the process is cut wherever it happens to be.
                Backend::Sqlite => tokio::time::sleep(Duration::from_millis(moment * 3)).await,
                Backend::Postgres => {
                    let connection = db.raw().await;
                    let steps = format!("SELECT version::text FROM seaql_migrations OFFSET {}", moment * 2);
                    until("some steps are applied", harness::PATIENCE, async || {
                        connection.query_all_raw(Statement::from_string(DatabaseBackend::Postgres, &steps)).await.is_ok_and(|rows| !rows.is_empty())
                    })
                    .await;
                    connection.close().await.expect("close");
                }
            }
            first.kill().await.expect("our own child can be killed");
            let second = run(migrator(&["up", "-u", db.url()])).await;
            assert!(second.status.success(), "{}", talk(&second));
            assert_eq!(dump(&db).await, complete);
        }
    }

    async fn the_command_line_speaks_as_sea_orm_cli_does(db: TestDatabase) {
        let db = db.empty_beside().await;
        // `sea-orm-cli migrate up -n 2 -v -u URL` runs this.
        let mut up = migrator(&["up", "-n", "2", "-v"]);
        up.env("DATABASE_URL", db.url()).env("DATABASE_SCHEMA", "public").env("BMDB_DATABASE_URL", "sqlite:///asked/last");
        let up = run(up).await;
        assert!(up.status.success(), "{}", talk(&up));
        assert_eq!(out(&up).lines().collect::<Vec<_>>(), names()[..2]);
        let mut down = migrator(&["down", "-n", "1"]);
        down.env("BMDB_DATABASE_URL", db.url());
        let down = run(down).await;
        assert_eq!((out(&down), down.status.code()), (format!("{}\n", names()[1]), Some(0)), "{}", talk(&down));
        for verb in ["fresh", "refresh", "reset"] {
            let done = run(migrator(&[verb, "--database-url", db.url()])).await;
            assert!(done.status.success(), "{verb}: {}", talk(&done));
        }
        let up = run(migrator(&["-u", db.url(), "up"])).await;
        assert_eq!(out(&up).lines().collect::<Vec<_>>(), names());
        let status = run(migrator(&["status", "-u", db.url()])).await;
        let expected: String = names().iter().map(|name| format!("applied {name}\n")).collect();
        assert_eq!((out(&status), talk(&status)), (expected, String::new()));
    }

    async fn the_command_line_refuses_to_destroy_rows_unless_told(db: TestDatabase) {
        let connection = db.raw().await;
        execute(&connection, ROWS).await;
        connection.close().await.expect("close");
        for verb in ["fresh", "refresh", "reset"] {
            let refused = run(migrator(&[verb, "-u", db.url()])).await;
            assert_eq!((refused.status.code(), out(&refused)), (Some(1), String::new()));
            assert!(talk(&refused).contains("session_lease (1 row)"), "{}", talk(&refused));
        }
        let told = run(migrator(&["fresh", "--yes-destroy-data", "-u", db.url()])).await;
        assert!(told.status.success(), "{}", talk(&told));
        let connection = db.raw().await;
        assert_eq!(texts(&connection, "SELECT slot FROM work").await, [""; 0]);
        execute(&connection, ROWS).await;
        for (verb, code) in [("mark-development", 0), ("refresh", 0), ("unmark-development", 0)] {
            let done = run(migrator(&[verb, "-u", db.url()])).await;
            assert_eq!(done.status.code(), Some(code), "{verb}: {}", talk(&done));
        }
    }
}

#[tokio::test]
async fn a_schemas_name_is_taken_as_it_is_written() {
    let db = TestDatabase::empty(Backend::Postgres).await;
    let connection = db.raw().await;
    execute(&connection, &["CREATE SCHEMA \"MyFleet\"", "CREATE SCHEMA myfleet"]).await;
    let up = run(migrator(&["up", "-s", "MyFleet", "-u", db.url()])).await;
    assert_eq!(out(&up).lines().collect::<Vec<_>>(), names(), "{}", talk(&up));
    let held = "SELECT nspname::text FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE relname = 'machine' ORDER BY 1";
    assert_eq!(texts(&connection, held).await, ["MyFleet"]);
    let status = run(migrator(&["status", "-s", "MyFleet", "-u", db.url()])).await;
    assert!(
        out(&status).lines().all(|line| line.starts_with("applied ")),
        "{}",
        out(&status)
    );
    // A schema is not passed over, whatever forms the URL has that a browser would not take.
    execute(&connection, &["CREATE SCHEMA \"My & +fleet\""]).await;
    let (place, path) = db.url().rsplit_once('/').expect("it names a database");
    let (user, host) = place.rsplit_once('@').expect("it names a user");
    let (host, port) = host.rsplit_once(':').expect("it names a port");
    let hostless = format!("{user}@/{path}?host={host}&port={port}");
    let up = run(migrator(&["up", "-s", "My & +fleet", "-u", &hostless])).await;
    assert_eq!(out(&up).lines().collect::<Vec<_>>(), names(), "{}", talk(&up));
    assert_eq!(texts(&connection, held).await, ["My & +fleet", "MyFleet"]);
    let nowhere = run(migrator(&["up", "-s", "Elsewhere", "-u", db.url()])).await;
    assert!(
        talk(&nowhere).contains("may not find a schema of its search path, \"Elsewhere\""),
        "{}",
        talk(&nowhere)
    );
}

#[tokio::test]
async fn the_command_line_tells_a_mistake_from_a_failure() {
    for (arguments, code) in [
        (&["sideways"][..], 2),
        (&["up"], 2),
        (&["up", "-n", "many", "-u", "sqlite://x"], 2),
        (&["up", "-u", "postgres://u:canary@127.0.0.1:1/bmdb"], 1),
        (
            &["up", "-v", "-u", "postgres://u:canary@127.0.0.1:99999/bmdb?pwd=canary"],
            1,
        ),
        (&["status", "-u", "sqlite:///no/such/file"], 1),
    ] {
        let output = run(migrator(arguments)).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", talk(&output));
        assert!(output.stdout.is_empty() && !talk(&output).is_empty(), "{arguments:?}");
        assert!(!talk(&output).contains("canary"), "{}", talk(&output));
    }
    let mut help = migrator(&["up", "--help"]);
    help.env("DATABASE_URL", "postgres://u:canary@localhost/bmdb");
    let help = run(help).await;
    assert!(
        help.status.success() && !out(&help).contains("canary"),
        "{}",
        out(&help)
    );
}
