//! What `fleet --import-only` says and does about inventories as people have them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sea_orm::{ConnectionTrait, Database, DatabaseConnection};

/// A folder with a database of its own.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("fleet-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
        Self(folder)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// Imports this text; what was said, and whether it is a success.
    fn import(&self, name: &str, text: &[u8]) -> (String, bool) {
        std::fs::write(self.path().join(name), text).expect("a file can be written");
        let ended = Command::new(env!("CARGO_BIN_EXE_fleet"))
            .args(["--import-only", "--inventory", name])
            .env_remove("BMDB_DATABASE_URL")
            .current_dir(self.path())
            .stdin(Stdio::null())
            .output()
            .expect("it was built");
        let said = [ended.stdout, ended.stderr]
            .map(|stream| String::from_utf8_lossy(&stream).into_owned())
            .concat();
        (said, ended.status.success())
    }

    async fn database(&self) -> DatabaseConnection {
        let url = format!("sqlite://{}", self.path().join("fleet.sqlite").display());
        Database::connect(url).await.expect("fleet has made it")
    }

    async fn machines(&self) -> Vec<String> {
        let database = self.database().await;
        let rows = database
            .query_all_raw(sea_orm::Statement::from_string(
                database.get_database_backend(),
                "SELECT provider_id || ' at ' || coalesce(address, '-') FROM machine_provided ORDER BY 1",
            ))
            .await
            .expect("it can be read");
        database.close().await.expect("close");
        rows.iter().map(|row| row.try_get_by_index(0).expect("text")).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn records_that_are_wrong_are_named_and_all_others_are_imported() {
    let place = Place::new("wrong");
    let text =
        b"hwid,address,rack\na,192.0.2.1,1\n,,\nb,192.0.2.2\n1.23E+11,192.0.2.3,1\na,192.0.2.4,1\nc,192.0.2.5,1\n";
    let (said, good) = place.import("m.csv", text);
    assert!(!good, "{said}");
    for expected in [
        "m.csv, line 4: it has 2 fields; expected 3",
        "m.csv, line 5: its provider_id 1.23E+11 looks like a number that a spreadsheet has shortened",
        "m.csv, line 6: \"a\" of \"inventory\" is the machine of line 2 again",
        "imported 2 new machines; 0 were known; 1 stand twice in the inventory: the first counts; 2 records were not imported",
        "fleet: 2 records were not imported",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    assert_eq!(place.machines().await, ["a at 192.0.2.1", "c at 192.0.2.5"]);
}

#[tokio::test]
async fn a_known_machine_with_another_address_is_told_and_left() {
    let place = Place::new("changed");
    let (said, good) = place.import("m.csv", b"hwid,address,location\na,192.0.2.1,x\nb,192.0.2.2,y\n");
    assert!(
        good && said.contains("imported 2 new machines; 0 were known; "),
        "{said}"
    );
    let (said, good) = place.import("m.csv", b"hwid,address,location\na,192.0.2.9,x\nb,192.0.2.2,\n");
    assert!(good, "{said}");
    for expected in [
        "m.csv, line 2: \"a\" of \"inventory\" has in the database the address \"192.0.2.1\" and not \"192.0.2.9\"",
        "imported 0 new machines; 2 were known; 1 of them are not in the database as they stand here, and were left as they are",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    assert_eq!(place.machines().await, ["a at 192.0.2.1", "b at 192.0.2.2"]);
}

#[tokio::test]
async fn a_machine_that_bmdb_refuses_is_named_among_thousands() {
    let place = Place::new("refused");
    let mut text = "hwid,address\n".to_owned();
    for nth in 0..2500 {
        let id = if nth == 1234 {
            "x".repeat(1025)
        } else {
            format!("m{nth}")
        };
        text.push_str(&format!("{id},192.0.2.1\n"));
    }
    let (said, good) = place.import("m.csv", text.as_bytes());
    assert!(!good && said.contains("m.csv, line 1236: a provider id"), "{said}");
    assert!(
        said.contains("imported 2499 new machines; 0 were known; 1 records were not imported"),
        "{said}"
    );
    assert_eq!(place.machines().await.len(), 2499);
}

#[tokio::test]
async fn the_databases_own_words_are_told() {
    let place = Place::new("cause");
    let (said, good) = place.import("m.csv", b"hwid\na\n");
    assert!(good, "{said}");
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON machine BEGIN SELECT RAISE(ABORT, 'the shelf is full'); END";
    let database = place.database().await;
    database
        .execute_unprepared(refuse)
        .await
        .expect("a trigger can be made");
    database.close().await.expect("close");
    let (said, good) = place.import("m.csv", b"hwid\nb\n");
    assert!(
        !good && said.contains("could not create machines: ") && said.contains("the shelf is full"),
        "{said}"
    );
    assert!(said.contains("until then it imported 0 new machines"), "{said}");
}
