//! A password is never said: not by an error, its causes or its debug form, not in a log, not by a process. Every password here holds a bird that no target and
//! no name of a test holds.

use std::error::Error as StdError;
use std::fmt::Write;
use std::process::{Output, Stdio};
use std::time::Duration;

use bmdb::{Bmdb, Config, Hold, MachineId};
use harness::{Backend, TestDatabase, TlsServer, of, until};
use tokio::process::Command;

use crate::input::hostile::log::Kept;
use crate::world::{LONG, Survey, provide};

const BIRD: &str = "nightingale";

/// The error, its causes, and how they look to a programmer.
fn said(error: &(dyn StdError + 'static)) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(error) = source {
        write!(text, " {error} {error:?}").expect("a string can be written");
        source = error.source();
    }
    text
}

/// A component that does not wait long.
fn hasty(url: &str) -> Config {
    let second = Duration::from_secs(1);
    Config::new(url, "test", "")
        .acquire_timeout(second)
        .statement_timeout(second)
        .retry_budget(second)
}

/// What a component and a migrator say of a URL with which nobody gets in.
async fn refusals(url: &str) -> String {
    let shown = url.replace(BIRD, "*");
    let connected = Bmdb::connect(hasty(url)).await.map(drop);
    let connected = connected.expect_err(&shown);
    tracing::error!(error = &connected as &dyn StdError, shown = %connected, debug = ?connected, "refused");
    let looked = bmdb_migration::status(url).await.expect_err(&shown);
    let moved = bmdb_migration::up(url, None).await.expect_err(&shown);
    tracing::error!(error = &moved as &dyn StdError, shown = %moved, debug = ?moved, "refused");
    [
        said(&connected),
        said(&looked),
        said(&moved),
        format!("{:?}", hasty(url)),
    ]
    .join("\n")
}

/// URLs that are wrong, whatever runs where.
const WRONG: &[&str] = &[
    "nightingale",
    "nightingale:nightingale",
    "nightingale:nightingale@localhost/bmdb",
    "u:nightingale@localhost/bmdb",
    "//u:nightingale@localhost/bmdb",
    "mysql://u:nightingale@localhost/bmdb",
    "postgres:/u:nightingale@localhost/bmdb",
    "postgres:u:nightingale@localhost/bmdb",
    "postgres://u:nightingale@",
    "postgres://u:nightingale@/bmdb",
    "postgres://u:nightingale@localhost",
    "postgres://u:nightingale@localhost:port/bmdb",
    "postgres://u:nightingale@localhost:99999/bmdb",
    "postgres://u:nightingale@[::1/bmdb",
    "postgres://u:nightingale@local host/bmdb",
    "postgres://u:%nightingale@127.0.0.1:1/bmdb",
    "postgres://u:nightingale%@127.0.0.1:1/bmdb",
    "postgres://u:nightingale%ff@127.0.0.1:1/bmdb",
    "postgres://u:nightingale%00@127.0.0.1:1/bmdb",
    "postgres://u:can%61ry-nightingale@127.0.0.1:1/bmdb",
    "postgres://u:nightingale/x@localhost/bmdb",
    "postgres://u:nightingale?x@localhost/bmdb",
    "postgres://u:nightingale#x@localhost/bmdb",
    "postgres://localhost:1/nightingale@localhost/bmdb",
    "postgres://localhost:1?nightingale@localhost/bmdb",
    "postgres://u:nightingale@127.0.0.1:1/bmdb",
    "postgres://u@127.0.0.1:1/bmdb?password=nightingale",
    "postgres://u@127.0.0.1:1/bmdb?pasword=nightingale",
    "postgres://u@127.0.0.1:1/bmdb?sslpassword=nightingale",
    "postgres://u:nightingale@127.0.0.1:1/bmdb?sslmode=nightingale",
    "postgres://u:nightingale@127.0.0.1:1/bmdb?port=nightingale",
    "postgres://u:nightingale@127.0.0.1:1/bmdb?hostaddr=nightingale",
    "postgres://u:nightingale@127.0.0.1:1/bmdb?statement-cache-capacity=nightingale",
    "postgres://u:nightingale@127.0.0.1:1/bmdb?host=/no/such/folder",
    "postgres://u:nightingale@db.example/bmdb",
    "postgres://u:nightingale@db.example/bmdb?sslmode=prefer",
    "postgres://u:nightingale@no-such-host.invalid/bmdb?sslmode=verify-full",
    "postgres://u:nightingale@localhost:1/bmdb?sslmode=verify-full&sslrootcert=/no/such/file",
    "sqlite://no-such-file?password=nightingale",
];

// One thread runs the whole test, so that all of its log is heard.
#[tokio::test]
async fn no_error_and_no_log_says_the_password_of_a_url() {
    let server = TlsServer::start().await;
    let open = TestDatabase::migrated(Backend::Postgres).await;
    let right = server.locked_url(TlsServer::LOGIN);
    assert!(right.contains(BIRD));
    let kept = Kept::default();
    let _listening = kept.listen();
    let mut all: Vec<String> = Vec::new();
    for wrong in WRONG {
        all.push(refusals(wrong).await);
    }
    for wrong in [
        server.locked_url("locked:another-nightingale"),
        server.locked_url("locked"),
        server
            .locked_url("nobody:nightingale")
            .replace("bmdb_template", "no_such_database"),
        format!("{right}?sslmode=verify-full"),
        format!("{right}?sslmode=require&sslcert=/no/such/file&sslkey=/no/such/file"),
        format!("{right}?options=-c%20no_such_setting%3Dnightingale"),
        format!("{right}?options[no_such_setting]=1"),
        format!("{}?sslmode=require", open.url().replace("bmdb@", "bmdb:nightingale@")),
    ] {
        all.push(refusals(&wrong).await);
    }

    let bmdb = Bmdb::connect(hasty(&right)).await.expect("the password is right");
    let session = bmdb.start_session().await.unwrap();
    provide(&session, 1).await;
    let work = session
        .claim(&of::<Survey>(&session).await)
        .await
        .unwrap()
        .expect("it is eligible");
    all.push(format!("{bmdb:?} {session:?} {work:?} {}", bmdb.name()));
    drop(server);
    until("the server is gone", LONG, async || {
        Bmdb::connect(hasty(&right)).await.is_err()
    })
    .await;
    all.push(refusals(&right).await);
    all.push(said(
        &of::<Survey>(&bmdb).await.count().await.expect_err("the server is gone"),
    ));
    all.push(said(&bmdb.holds(None).await.expect_err("the server is gone")));
    let hold = bmdb
        .operator("ada", "moving")
        .unwrap()
        .place_hold(MachineId::random(), Hold::new())
        .await;
    all.push(said(&hold.expect_err("the server is gone")));
    let transacted = session.transact(async |tx| bmdb::machine::create(tx).await).await;
    all.push(said(&transacted.expect_err("the server is gone")));
    all.push(said(
        &work.fail("the server is gone").await.expect_err("the server is gone"),
    ));
    all.push(format!("{:?}", session.close().await));
    bmdb.close().await;

    let log = kept.text();
    assert!(
        log.contains("refused") && log.contains("sqlx") && log.contains(" bmdb"),
        "it was heard: {log}"
    );
    all.extend(log.lines().map(str::to_owned));
    let sung: Vec<_> = all.iter().filter(|text| text.contains(BIRD)).collect();
    assert!(sung.is_empty(), "{sung:#?}");
}

fn talk(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr];
    streams
        .map(|stream| String::from_utf8_lossy(stream).into_owned())
        .join("\n")
}

/// Says to this very test, started again as a process, that it is the component.
const COMPONENT_AT: &str = "BMDB_TEST_CANARY_AT";

#[tokio::test]
async fn no_process_says_the_password_of_its_environment() {
    if let Ok(url) = std::env::var(COMPONENT_AT) {
        let kept = Kept::default();
        let listening = kept.listen();
        let said = refusals(&url).await;
        drop(listening);
        println!("{said}\n{}", kept.text());
        return;
    }
    let server = TlsServer::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("pgpass");
    std::fs::write(&file, "*:*:*:locked:another-nightingale\n").expect("our own folder can be written");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("it is ours");
    let url = server.locked_url("locked");
    let this = std::env::current_exe().expect("a process knows its program");
    for (name, value) in [
        ("PGPASSWORD", "another-nightingale".as_ref()),
        ("PGPASSFILE", file.as_os_str()),
    ] {
        let again = [
            "--exact",
            "input::canary::no_process_says_the_password_of_its_environment",
            "--nocapture",
        ];
        let processes: [(&str, &[&str]); 3] = [
            (this.to_str().expect("paths of tests are text"), &again),
            (env!("CARGO_BIN_EXE_component"), &[&url, "1000", "hold"]),
            (env!("CARGO_BIN_EXE_migration-process"), &["up", "-v", "-u", &url]),
        ];
        for (program, arguments) in processes {
            let mut process = Command::new(program);
            process
                .args(arguments)
                .env(name, value)
                .env(COMPONENT_AT, &url)
                .stdin(Stdio::null());
            let talk = talk(&process.output().await.expect("it was built"));
            // It was the password that was wrong, so there was one.
            assert!(talk.contains("password authentication failed"), "{program}: {talk}");
            assert!(!talk.contains("another-nightingale"), "{program} with {name}: {talk}");
        }
    }
}
