//! What others wrote forges nothing, and programs get what they can read.

use harness::{Backend, TestDatabase};
use sea_orm::ConnectionTrait;

use crate::rig::{bmdb, component, done, named};

const READS: [&[&str]; 13] = [
    &["status"],
    &["attention"],
    &["whatis", "OAK-1"],
    &["machine", "ls"],
    &["machine", "show", "OAK-1"],
    &["machine", "why", "OAK-1", "install"],
    &["machine", "history", "OAK-1"],
    &["work", "ls"],
    &["session", "ls"],
    &["process", "ls"],
    &["process", "show", "install"],
    &["backoff", "ls"],
    &["operation", "ls"],
];

#[tokio::test]
async fn what_others_wrote_stays_in_its_place() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let evil = "fine\u{1b}[2J\r\nbmdb: all is well\u{202e}";
    let holder = component(&db).await;
    let work = holder.claim(0).await;
    work.fail(evil).await.unwrap();
    let work = holder.claim(1).await;
    work.progress(&evil).await.unwrap();
    let operator = holder.bmdb.operator(evil, evil).unwrap().ticket(evil).unwrap();
    operator
        .place_hold(holder.machines[0], bmdb::Hold::new())
        .await
        .unwrap();
    operator.ask_to_stop(work.id()).await.unwrap();
    // What cannot be read is quoted in a note.
    let odd = "UPDATE machine SET created_at = 'zz' || char(27) || '[31mX' WHERE machine_id = (SELECT machine_id FROM machine_provided WHERE provider_id = 'ELM-1')";
    db.raw()
        .await
        .execute_unprepared(odd)
        .await
        .expect("anybody may edit a file");
    let missing = bmdb(db.url(), &["machine", "show", "ELM-1"]);
    assert!(
        missing.status == 6 && missing.err.contains("is there and cannot be read"),
        "{missing:?}"
    );
    for arguments in READS {
        for format in ["table", "json"] {
            let said = bmdb(db.url(), &[arguments, &["-o", format]].concat());
            assert!(matches!(said.status, 0 | 1), "{arguments:?}: {said:?}");
            for text in [&said.out, &said.err] {
                assert!(!text.contains(['\u{1b}', '\r', '\u{202e}']), "{arguments:?}: {text:?}");
                assert!(
                    !text.lines().any(|line| line.starts_with("bmdb: all is well")),
                    "{arguments:?}: {text}"
                );
            }
        }
    }
}

#[tokio::test]
async fn each_answer_names_its_source_and_its_time() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let holder = component(&db).await;
    let _work = holder
        .session
        .claim(&holder.install)
        .await
        .unwrap()
        .expect("it is eligible");
    for arguments in READS {
        let said = done(db.url(), arguments);
        let source = said.err.lines().last().unwrap_or_default();
        assert!(
            source.starts_with("sqlite:") && source.ends_with(" UTC"),
            "{arguments:?}: {said:?}"
        );
        assert!(
            !said.sentence().is_empty() && said.sentence().ends_with(['.', ':']),
            "{arguments:?}: {}",
            said.out
        );
        let json = done(db.url(), &[arguments, &["-o", "json"]].concat()).json();
        let at = json["at"].as_str().and_then(|at| chrono_like(at));
        assert!(
            json["source"].is_string() && at.is_some() && json["answer"].is_object(),
            "{arguments:?}: {json}"
        );
        let ascii = done(db.url(), &[arguments, &["--ascii"]].concat());
        assert!(ascii.out.is_ascii(), "{arguments:?}: {}", ascii.out);
    }
    let works = done(db.url(), &["work", "ls", "-o", "json"]).json();
    assert!(
        works["answer"]["works"][0]["fence"].is_string(),
        "64 bits are a string: {works}"
    );
}

/// As much of RFC 3339 as tells a time from something else.
fn chrono_like(text: &str) -> Option<&str> {
    (text.len() > 18 && text.as_bytes()[10] == b'T').then_some(text)
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named_and_the_others_are_shown() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let holder = named(&db, "shepherd").await;
    let works = holder.session.claim_many(&holder.install, 2).await.unwrap();
    assert_eq!(works.len(), 2);
    let raw = db.raw().await;
    let odd = "UPDATE work SET claimed_at = 'no time' WHERE machine_id = (SELECT machine_id FROM machine_provided WHERE provider_id = 'OAK-1')";
    raw.execute_unprepared(odd).await.expect("anybody may edit a file");
    let said = done(db.url(), &["work", "ls"]);
    assert!(said.out.contains("OAK-2") && !said.out.contains("OAK-1"), "{said:?}");
    assert!(
        said.err.contains(&format!(
            "note: row {} os cannot be read and is left out",
            holder.machines[0]
        )),
        "{said:?}"
    );
}

#[tokio::test]
async fn an_answer_that_cannot_be_written_is_no_success() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let _holder = component(&db).await;
    let run = |out: &str, err: &str| {
        let line = format!("exec {} machine ls >{out} 2>{err}", env!("CARGO_BIN_EXE_bmdb"));
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &line]).env("BMDB_DATABASE_URL", db.url());
        shell.status().expect("there is a shell").code()
    };
    assert_eq!(run("/dev/full", "/dev/null"), Some(6));
    assert_eq!(run("/dev/null", "/dev/full"), Some(0), "what was asked is answered");
}
