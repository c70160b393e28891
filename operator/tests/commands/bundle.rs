//! The archive for a bug report: everything that can be read, and no secret.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use harness::{Backend, TestDatabase};
use serde_json::Value;

use crate::rig::{bare, bmdb, component, done};

/// The files of an archive, by their names.
fn unpacked(file: &Path) -> BTreeMap<String, String> {
    let packed = std::fs::File::open(file).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name, text)
    });
    entries.collect()
}

fn json(files: &BTreeMap<String, String>, name: &str) -> Value {
    let text = files.get(&format!("bmdb-bundle/{name}")).unwrap_or_else(|| panic!("{name}: {:?}", files.keys()));
    serde_json::from_str(text).unwrap()
}

/// A fleet of which everything has a tag in its answers: a work that was asked to stop, a parked machine, one that was removed.
async fn fleet(db: &TestDatabase) -> crate::rig::Component {
    let holder = component(db).await;
    for _ in 0..2 {
        holder.claim(1).await.fail("no image").await.unwrap();
        let ada = holder.bmdb.operator("ada", "one more try").unwrap();
        ada.run_now(holder.machines[1], "install").await.unwrap();
    }
    let ada = holder.bmdb.operator("ada", "sent back").unwrap();
    ada.remove_machine(holder.machines[2]).await.unwrap();
    holder
}

async fn has_all_and_no_secret(backend: Backend) {
    let db = TestDatabase::migrated(backend).await;
    let holder = fleet(&db).await;
    let work = holder.claim(0).await;
    let ada = holder.bmdb.operator("ada", "the rack moves").unwrap();
    ada.ask_to_stop(work.id()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    // A server of the tests takes any password.
    let url = db.url().replace("bmdb@", "bmdb:hunter2-of-ada@");
    let file = folder.path().join("plain.tar.gz");
    let said = done(&url, &["bundle", file.to_str().unwrap()]);
    assert!(said.sentence().ends_with("Look through it before you send it."), "{said:?}");
    let files = unpacked(&file);
    let manifest = json(&files, "MANIFEST.json");
    let parts = manifest["parts"].as_array().unwrap();
    assert_eq!(parts.len() + 1, files.len(), "{manifest}");
    assert!(parts.iter().all(|part| part["not_read"].is_null()), "{manifest}");
    for (name, text) in &files {
        for secret in ["hunter2-of-ada", "OAK-", "ELM-", "192.0.2.", "fra2"] {
            assert!(!text.contains(secret), "{secret} is in {name}: {text}");
        }
    }
    // As the commands say it.
    let works = bmdb(db.url(), &["work", "ls", "-o", "json"]).json();
    let bundled = json(&files, "works.json");
    assert_eq!(bundled["answer"]["works"][0]["fence"], works["answer"]["works"][0]["fence"]);
    assert_eq!(json(&files, "processes.json")["answer"]["processes"][0]["parked"], "1");
    assert_eq!(json(&files, "attention.json")["answer"]["attention"].as_array().unwrap().len(), 2);
    assert!(json(&files, "operations.json")["answer"]["operations"].as_array().unwrap().len() >= 4);
    assert!(json(&files, "history.json")["events"].as_array().unwrap().len() >= 5);
    assert!(json(&files, "schema.json")["answer"]["steps"].as_array().unwrap().len() > 20);

    // One that is there is kept.
    let again = bmdb(&url, &["bundle", file.to_str().unwrap()]);
    assert!(again.status == 2 && again.err.contains("is there already"), "{again:?}");
    let tagged = folder.path().join("tagged.tar.gz");
    done(&url, &["bundle", "--with-tags", tagged.to_str().unwrap()]);
    let tagged = unpacked(&tagged);
    assert!(tagged["bmdb-bundle/works.json"].contains("OAK-1") && tagged["bmdb-bundle/operations.json"].contains("ELM-1"));
    assert!(tagged.values().all(|text| !text.contains("hunter2-of-ada")));
}

#[tokio::test]
async fn a_bundle_has_all_that_can_be_read_and_no_secret_sqlite() {
    has_all_and_no_secret(Backend::Sqlite).await;
}

#[tokio::test]
async fn a_bundle_has_all_that_can_be_read_and_no_secret_postgres() {
    has_all_and_no_secret(Backend::Postgres).await;
}

#[test]
fn what_cannot_be_read_is_said_and_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bundle.tar.gz");
    let url = "postgres://ada:hunter2-of-ada@127.0.0.1:1/bmdb";
    let said = bare(&["bundle", file.to_str().unwrap(), "--database", url]);
    assert_eq!(said.status, 1, "{said:?}");
    let files = unpacked(&file);
    assert_eq!(files.len(), 1, "{:?}", files.keys());
    let manifest = json(&files, "MANIFEST.json");
    for part in manifest["parts"].as_array().unwrap() {
        assert!(part["not_read"].as_str().unwrap().contains("127.0.0.1:1"), "{part}");
    }
    assert!(!files.values().any(|text| text.contains("hunter2-of-ada")));
    let nameless = bare(&["bundle", "elsewhere.tar.gz"]);
    assert!(nameless.status == 2 && nameless.err.contains("no database was named"), "{nameless:?}");
}
