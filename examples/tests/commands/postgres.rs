//! `fleet` on a server, which says more than a file does of what it does not take.

use std::process::{Command, Stdio};

use harness::{Backend, TestDatabase};
use sea_orm::ConnectionTrait;

/// Runs `fleet` on the database at this URL; what was said, and whether it is a success.
fn fleet(url: &str, arguments: &[&str], inventory: Option<&str>) -> (String, bool) {
    let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
    let mut fleet = Command::new(env!("CARGO_BIN_EXE_fleet"));
    fleet.args(arguments).env("BMDB_DATABASE_URL", url);
    if let Some(text) = inventory {
        std::fs::write(folder.path().join("m.csv"), text).expect("a file can be written");
        fleet.args(["--import-only", "--inventory", "m.csv"]);
    }
    let ended = fleet.current_dir(folder.path()).stdin(Stdio::null()).output();
    let ended = ended.expect("it was built");
    let said = [ended.stdout, ended.stderr]
        .map(|stream| String::from_utf8_lossy(&stream).into_owned())
        .concat();
    (said, ended.status.success())
}

#[tokio::test]
async fn a_fleet_of_a_thousand_comes_to_its_end_on_a_server() {
    let db = TestDatabase::empty(Backend::Postgres).await;
    let (said, good) = fleet(db.url(), &["--generate", "1000"], None);
    let all = "1000 machines: 1000 agents started, 1000 heard, 1000 have installed their system; 0 left to do";
    assert!(good && said.contains(all), "{said}");
    let (said, good) = fleet(db.url(), &["--generate", "1000"], None);
    assert!(good && said.contains("nothing is left to do"), "{said}");
}

#[tokio::test]
async fn a_character_that_the_database_does_not_have_costs_its_own_record_only() {
    let db = TestDatabase::empty(Backend::Postgres).await;
    let name = format!("latin_{}", uuid());
    let make = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'");
    db.raw()
        .await
        .execute_unprepared(&make)
        .await
        .expect("the server makes one");
    let (server, _) = db.url().rsplit_once('/').expect("a URL ends with the database");
    let (said, good) = fleet(
        &format!("{server}/{name}"),
        &[],
        Some("hwid,location\na,Zürich\nb,rack 🚀\nc,Genève\n"),
    );
    assert!(!good, "{said}");
    for expected in [
        "m.csv, line 3: ",
        "has no equivalent in encoding \"LATIN1\"",
        "imported 2 new machines; 0 were known; 1 records were not imported",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
}

#[tokio::test]
async fn a_right_that_is_missing_is_told_in_the_servers_words() {
    let db = TestDatabase::migrated(Backend::Postgres).await;
    let (raw, role) = (db.raw().await, format!("importer_{}", uuid()));
    for statement in [
        format!("CREATE ROLE {role} LOGIN"),
        format!("GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"),
        format!("REVOKE INSERT ON machine FROM {role}"),
    ] {
        raw.execute_unprepared(&statement).await.expect("we may");
    }
    let url = db.url().replace("bmdb@", &format!("{role}@"));
    let (said, good) = fleet(&url, &[], Some("hwid\na\nb\n"));
    assert!(!good && said.contains("permission denied for table machine"), "{said}");
    assert!(
        !said.contains("records were not imported"),
        "no record is to blame: {said}"
    );
    let raised = format!("GRANT INSERT ON machine TO {role}");
    raw.execute_unprepared(&raised).await.expect("we may");
    let (said, good) = fleet(&url, &[], Some("hwid\na\nb\n"));
    assert!(good && said.contains("imported 2 new machines"), "{said}");
}

/// What makes a name nobody else's.
fn uuid() -> String {
    bmdb::MachineId::random().0.simple().to_string()
}
