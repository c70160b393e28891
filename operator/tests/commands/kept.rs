//! What each command says of one small fleet, and each class of mistake, against files that are kept: `BMDB_TEST_UPDATE=1` keeps them anew.

use std::collections::HashMap;
use std::time::Duration;

use bmdb::machine::{self, NewMachine};
use bmdb::{Bmdb, Config};
use harness::{Backend, TestDatabase};
use sea_orm::ConnectionTrait;

use crate::rig::{Install, Said, bare, bmdb};

/// Ages that stay what they are for a minute, whatever the test takes.
const AGES: [&str; 9] = [
    "UPDATE work SET claimed_at = datetime('now', '-47 minutes')",
    "UPDATE session SET created_at = datetime('now', '-3 hours')",
    "UPDATE process SET registered_at = datetime('now', '-2 days')",
    "UPDATE process_rule SET used_at = datetime('now', '-20 minutes')",
    "UPDATE machine SET created_at = datetime('now', '-3 days')",
    "UPDATE work_hold SET placed_at = datetime('now', '-26 hours')",
    "UPDATE work_history SET at = datetime('now', '-50 minutes') WHERE event = 'started'",
    "UPDATE work_history SET at = datetime('now', '-40 minutes') WHERE event <> 'started'",
    "UPDATE session_lease SET deadline = datetime('now', '+30 minutes', '+30 seconds')",
];

/// One work that was asked to stop, one parked machine, one that is held.
struct Fleet {
    db: TestDatabase,
    work: String,
    fence: String,
    session: String,
    _held: bmdb::Work<Install>,
    _session: bmdb::Session,
}

async fn fleet() -> Fleet {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let hour = Duration::from_secs(3600);
    let config = Config::new(db.url(), "shepherd-oak", "v1.2 on host-7").interval(hour);
    let bmdb = Bmdb::connect(config).await.unwrap();
    let session = bmdb.start_session().await.unwrap();
    let new = [
        NewMachine::new("oak", "OAK-1")
            .address("192.0.2.1")
            .location("fra2/r14/u3"),
        NewMachine::new("oak", "OAK-2").address("192.0.2.2"),
        NewMachine::new("elm", "ELM-1"),
    ];
    session
        .transact(async |tx| machine::import(tx, &new).await)
        .await
        .unwrap();
    let install = bmdb.register(Install).await.unwrap();
    let named = async |id| machine::find(bmdb.reads(), "oak", id).await.unwrap().unwrap();
    let (one, two) = (named("OAK-1").await, named("OAK-2").await);
    for _ in 0..2 {
        // Its wait is over at once: the second failure parks it.
        let ada = bmdb.operator("ada", "one more try").unwrap();
        ada.run_now(two, "install").await.unwrap();
        session
            .claim(&install)
            .on(two)
            .await
            .unwrap()
            .unwrap()
            .fail("no image")
            .await
            .unwrap();
    }
    let held = session.claim(&install).on(one).await.unwrap().unwrap();
    held.progress(&"3/5 waiting for power").await.unwrap();
    let ada = bmdb
        .operator("ada", "the rack moves")
        .unwrap()
        .ticket("OPS-4471")
        .unwrap();
    ada.ask_to_stop(held.id()).await.unwrap();
    let elm = machine::find(bmdb.reads(), "elm", "ELM-1").await.unwrap().unwrap();
    ada.place_hold(elm, bmdb::Hold::new()).await.unwrap();
    let raw = db.raw().await;
    for age in AGES {
        raw.execute_unprepared(age).await.unwrap();
    }
    raw.close().await.unwrap();
    Fleet {
        work: held.id().to_string(),
        fence: held.fence().to_string(),
        session: session.id().to_string(),
        _held: held,
        _session: session,
        db,
    }
}

/// Ids, fences and times, by numbers in the order in which they come, as long as they were.
fn steady(text: &str, known: &mut HashMap<String, usize>) -> String {
    let mut steady = String::new();
    let mut word = String::new();
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == ':';
    for letter in text.chars().chain(['\0']) {
        if is_part(letter) {
            word.push(letter);
            continue;
        }
        steady.push_str(&steady_word(&word, known));
        word.clear();
        if letter != '\0' {
            steady.push(letter);
        }
    }
    steady
}

fn steady_word(word: &str, known: &mut HashMap<String, usize>) -> String {
    if let Some(before) = word.strip_suffix(':') {
        return format!("{}:", steady_word(before, known));
    }
    let bytes = word.as_bytes();
    let is_id = bytes.len() == 36 && bytes[8] == b'-' && bytes[13] == b'-';
    let is_fence = bytes.len() == 13 && bytes.iter().all(u8::is_ascii_digit);
    let is_time = bytes.len() == 8 && bytes[2] == b':' && bytes[5] == b':';
    let next = known.len() + 1;
    match (is_id, is_fence, is_time) {
        (true, ..) => format!(
            "00000000-0000-4000-8000-{:012}",
            known.entry(word.to_owned()).or_insert(next)
        ),
        (_, true, _) => format!("1{:012}", known.entry(word.to_owned()).or_insert(next)),
        (.., true) => "12:00:00".to_owned(),
        _ => word.to_owned(),
    }
}

/// What was typed and said, in one text.
struct Log {
    text: String,
    known: HashMap<String, usize>,
    hidden: Vec<(String, &'static str)>,
}

impl Log {
    fn new(hidden: Vec<(String, &'static str)>) -> Self {
        Self {
            text: String::new(),
            known: HashMap::new(),
            hidden,
        }
    }

    fn add(&mut self, arguments: &[&str], said: &Said) {
        let mut text = format!(
            "$ bmdb {}\n{}{}= {}\n\n",
            arguments.join(" "),
            said.out,
            said.err,
            said.status
        );
        for (hidden, shown) in &self.hidden {
            text = text.replace(hidden, shown);
        }
        self.text.push_str(&steady(&text, &mut self.known));
    }

    fn assert_kept(&self, name: &str) {
        let file = format!("{}/tests/commands/kept/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("BMDB_TEST_UPDATE").is_some() {
            std::fs::write(&file, &self.text).unwrap();
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        let differs = kept.lines().zip(self.text.lines()).find(|(kept, said)| kept != said);
        assert!(
            kept == self.text,
            "{name}.txt: {differs:?}. BMDB_TEST_UPDATE=1 keeps it anew"
        );
    }
}

/// Where the database is, as the source line and mistakes tell it.
fn hidden(db: &TestDatabase) -> Vec<(String, &'static str)> {
    let path = db
        .url()
        .split('?')
        .next()
        .unwrap()
        .trim_start_matches("sqlite:")
        .trim_start_matches("//")
        .to_owned();
    vec![(path, "/fleet.sqlite")]
}

#[tokio::test]
async fn each_table_is_as_it_was() {
    let fleet = fleet().await;
    let mut log = Log::new(hidden(&fleet.db));
    for arguments in [
        &["status"][..],
        &["attention"],
        &["whatis", "OAK-1"],
        // Lists of machines are in the order of ids, which are random: one row each.
        &["machine", "ls", "--state", "held"],
        &["machine", "ls", "--state", "parked", "--process", "install"],
        &["machine", "show", "OAK-1"],
        &["machine", "show", "OAK-2"],
        &["machine", "show", "ELM-1"],
        &["machine", "why", "OAK-1", "install"],
        &["machine", "why", "OAK-2", "install"],
        &["machine", "why", "ELM-1", "install"],
        &["machine", "history", "OAK-2"],
        &["work", "ls"],
        &["work", "show", &fleet.work],
        &["session", "ls"],
        &["session", "show", &fleet.session],
        &["process", "ls"],
        &["process", "show", "install"],
        &["backoff", "ls"],
        &["operation", "ls"],
        &["collect", "--dry-run"],
        &["doctor"],
        &["work", "ls", "--ascii"],
    ] {
        log.add(arguments, &bmdb(fleet.db.url(), arguments));
    }
    log.assert_kept("tables");
}

#[tokio::test]
async fn each_class_of_mistakes_is_told_as_it_was() {
    let fleet = fleet().await;
    let url = fleet.db.url();
    let mut log = Log::new(hidden(&fleet.db));
    for arguments in [
        // Wrong use, of clap's finding and of ours.
        &["machine", "hold", "OAK-1"][..],
        &["machine", "hold", "OAK-1", "-o", "json"],
        &["machine", "ls", "--limit", "0", "--output=json"],
        &["machine", "hold", "OAK-1", "--reason", "…"],
        &["machine", "hold", "OAK-1", "--reason", "…", "-o", "json"],
        &["top"],
        // Not found.
        &["machine", "show", "OAK-9"],
        &["machine", "why", "OAK-1", "instal"],
        &["machine", "why", "OAK-1", "instal", "-o", "json"],
        // Refused, for it is not as it was seen.
        &["work", "break", &fleet.work, "--expect-fence", "7", "--reason", "x"],
        &["session", "expire", &fleet.session, "--yes", "5", "--reason", "x"],
        &[
            "session",
            "expire",
            &fleet.session,
            "--yes",
            "5",
            "--reason",
            "x",
            "-o",
            "json",
        ],
        &["machine", "hold", "ELM-1", "--reason", "x"],
    ] {
        log.add(arguments, &bmdb(url, arguments));
    }
    // A database that is not there, and none at all.
    for arguments in [
        &["status"][..],
        &["status", "-o", "json"],
        &["status", "--database", "sqlite:///nowhere/bmdb.sqlite"],
        &["status", "--database", "sqlite:///nowhere/bmdb.sqlite", "-o", "json"],
        &["status", "--database", "postgres://ada:hunter2@127.0.0.1:1/bmdb"],
        &["nothing"],
        &["nothing", "-ojson"],
    ] {
        log.add(arguments, &bare(arguments));
    }
    assert!(!log.text.contains(&fleet.fence), "fences are by number");
    log.assert_kept("mistakes");
}
