//! What a person did wrong, and what to do: never the database's own words, and nothing written.

use harness::{Backend, TestDatabase, on_each_backend};

use crate::rig::{bare, bmdb, component, done};

on_each_backend! {
    async fn a_mistake_is_told_and_changes_nothing(db: TestDatabase) {
        let url = db.url().to_owned();
        let holder = component(&db).await;
        let nobody = "0b6e51f2-8f3a-4c8e-9a57-0c2f6d1e7b11";
        for (arguments, status, expected) in [
            (&["machine", "show", "OAK-41777"][..], 4, "no machine is called \"OAK-41777\". Searched: id, provider's id, address"),
            (&["machine", "show", "192.0.2.2"], 2, "2 machines are called \"192.0.2.2\". Name one by its id:"),
            (&["machine", "show", nobody], 4, "no machine is called"),
            (&["machine", "why", "OAK-1", "instal"], 4, "no process \"instal\" is registered"),
            (&["machine", "hold", "OAK-1", "--slot", "so", "--reason", "x"], 4, "no registered process has the slot \"so\"; known are: os"),
            (&["machine", "hold", "OAK-1", "--reason", " "], 2, "--reason says nothing"),
            (&["machine", "hold", "OAK-1"], 2, "--reason <TEXT>"),
            (&["machine", "hold", "OAK-1", "--for", "soon", "--reason", "x"], 2, "expected a number with s, m, h or d after it"),
            (&["machine", "release-hold", "OAK-1", "--reason", "x"], 4, "OAK-1 has no hold on the whole machine. There is none on it"),
            (&["machine", "ls", "--process", "install"], 2, "--state <STATE>"),
            (&["machine", "ls", "--limit", "0"], 2, "0 is not in 1..=10000"),
            (&["machine", "add", "--provider", "oak", "--provider-id", "OAK-1"], 3, "provider oak has a machine OAK-1 already"),
            (&["work", "ls", "--process", "instal"], 4, "no process \"instal\" is registered. There are: install"),
            (&["backoff", "ls", "--process", "instal"], 4, "There are: install"),
            (&["machine", "ls", "--state", "held", "--process", "instal"], 4, "There are: install"),
            (&["machine", "hold", "OAK-1", "--reason", "…"], 2, "--reason says nothing"),
            (&["machine", "hold", "OAK-1", "--until", "2020-01-01T00:00:00Z", "--reason", "x"], 2, "expected a time to come"),
            (&["work", "show", nobody], 4, "no work 0b6e51f2-8f3a-4c8e-9a57-0c2f6d1e7b11 goes on"),
            (&["work", "show", "0b6e51f2"], 2, "expected a whole id, as lists show it"),
            (&["work", "ask-to-stop", nobody, "--reason", "x"], 4, "no work"),
            (&["work", "break", nobody, "--reason", "x"], 2, "--expect-fence <N>"),
            (&["work", "break", nobody, "--expect-fence", "1", "--reason", "x"], 4, "no work"),
            (&["session", "show", nobody], 4, "there is no session"),
            (&["session", "expire", nobody, "--reason", "x"], 2, "--yes <COUNT>"),
            (&["process", "show", "instal"], 4, "no process \"instal\" is registered. There are: install"),
            (&["backoff", "clear", "OAK-1", "install", "--reason", "x"], 4, "install does not leave OAK-1 alone"),
            (&["whatis", "nothing"], 4, "nothing is called \"nothing\""),
        ] {
            let said = bmdb(&url, arguments);
            assert_eq!(said.status, status, "{arguments:?}: {said:?}");
            assert!(said.err.contains(expected) && said.out.is_empty(), "{arguments:?}: {said:?}");
        }
        assert!(holder.bmdb.operations(None).await.unwrap().rows.is_empty());
        assert!(holder.bmdb.holds(None).await.unwrap().rows.is_empty());
    }
}

#[test]
fn a_database_that_is_not_there_is_named() {
    let said = bare(&["status"]);
    assert_eq!(said.status, 2, "{said:?}");
    assert!(
        said.err
            .contains("no database was named. Give --database URL or set BMDB_DATABASE_URL"),
        "{said:?}"
    );
    let said = bare(&["status", "--database", "sqlite:///nowhere/bmdb.sqlite"]);
    assert!(
        said.status == 6 && said.err.contains("/nowhere/bmdb.sqlite"),
        "{said:?}"
    );
    let said = bare(&["status", "--database", "postgres://ada:secret@127.0.0.1:1/bmdb"]);
    assert!(
        said.status == 6 && said.err.contains("127.0.0.1:1") && !said.err.contains("secret"),
        "{said:?}"
    );
    let said = bare(&["status", "--database", "mysql://ada:secret@h/bmdb"]);
    assert!(
        said.status == 2 && said.err.contains("the scheme \"mysql\"") && !said.err.contains("secret"),
        "{said:?}"
    );
    let said = bare(&["status", "-o", "json", "--database", "mysql://h/bmdb"]);
    assert_eq!(
        (said.status, said.json()["error"]["kind"].as_str()),
        (2, Some("usage")),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_database_without_a_schema_is_told_how_to_get_one() {
    let db = TestDatabase::empty(Backend::Sqlite).await;
    let url = format!(
        "{}?mode=rwc",
        db.url().split('?').next().expect("there is a first part")
    );
    let pending = bmdb(&url, &["migrate", "status"]);
    assert!(matches!(pending.status, 1 | 2), "{pending:?}");
    done(&url, &["migrate", "up"]);
    assert!(done(&url, &["migrate", "status"]).sentence().starts_with("All "));
    assert_eq!(
        done(&url, &["migrate", "up"]).sentence(),
        "Nothing to do: every step is applied."
    );
    done(&url, &["machine", "add", "--provider", "oak", "--provider-id", "OAK-1"]);
    let kept = bmdb(&url, &["migrate", "down", "--steps", "99"]);
    assert!(kept.status == 2 && kept.err.contains("machine"), "{kept:?}");
    done(&url, &["migrate", "down", "--steps", "99", "--yes-destroy-data"]);
    let gone = bmdb(&url, &["status"]);
    assert!(gone.status == 6 && gone.err.contains("is not migrated"), "{gone:?}");
}
