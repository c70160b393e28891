//! A fleet to look at, and the command to look at it with.

use std::process::{Command, Stdio};
use std::time::Duration;

use bmdb::machine::{self, NewMachine};
use bmdb::{Backoff, Bmdb, Config, Eligible, MachineId, Process, Registered, Session, provided};
use harness::{TestDatabase, until};

/// Installs, and parks a machine at its second failure.
pub(crate) struct Install;

impl Process for Install {
    const NAME: &'static str = "install";
    const SLOT: &'static str = "os";
    const DESCRIPTION: &'static str = "installs an operating system";
    const BACKOFF: Backoff = Backoff::NONE.max_attempts(2);
    const COOL_DOWN: Duration = Duration::ZERO;
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines.when(
            "is of oak",
            sea_orm::ColumnTrait::eq(&provided::Column::Provider, "oak"),
        )
    }
}

/// A component that others see.
pub(crate) struct Component {
    pub(crate) bmdb: Bmdb,
    pub(crate) session: Session,
    pub(crate) install: Registered<Install>,
    pub(crate) machines: Vec<MachineId>,
}

/// A component that holds nothing yet, and three machines: `OAK-1`, `OAK-2`, `ELM-1`.
pub(crate) async fn component(db: &TestDatabase) -> Component {
    named(db, "shepherd-oak").await
}

pub(crate) async fn named(db: &TestDatabase, name: &str) -> Component {
    let config = Config::new(db.url(), name, "v1.2 on host-7").interval(Duration::from_secs(2));
    let bmdb = Bmdb::connect(config).await.expect("the database is good");
    let session = bmdb.start_session().await.expect("it is up");
    let new = [
        NewMachine::new("oak", "OAK-1")
            .address("192.0.2.1")
            .location("fra2/r14/u3"),
        NewMachine::new("oak", "OAK-2").address("192.0.2.2"),
        NewMachine::new("elm", "ELM-1").address("192.0.2.2"),
    ];
    session
        .transact(async |tx| machine::import(tx, &new).await)
        .await
        .expect("they can be imported");
    let install = bmdb.register(Install).await.expect("it is a good rule");
    let mut machines = Vec::new();
    for (provider, id) in [("oak", "OAK-1"), ("oak", "OAK-2"), ("elm", "ELM-1")] {
        let found = machine::find(bmdb.reads(), provider, id).await.expect("it can be read");
        machines.push(found.expect("it was imported"));
    }
    Component {
        bmdb,
        session,
        install,
        machines,
    }
}

impl Component {
    /// Claims a machine to install it, as soon as the process may.
    pub(crate) async fn claim(&self, nth: usize) -> bmdb::Work<Install> {
        let mut work = None;
        until("it is eligible", Duration::from_secs(30), async || {
            let claim = self.session.claim(&self.install).on(self.machines[nth]);
            work = claim.await.expect("the database is good");
            work.is_some()
        })
        .await;
        work.expect("it was claimed")
    }
}

/// What the command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) status: i32,
}

impl Said {
    /// The first line of the answer.
    pub(crate) fn sentence(&self) -> &str {
        self.out.lines().next().unwrap_or_default()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs the command on a database, as ada.
pub(crate) fn bmdb(url: &str, arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bmdb"));
    command.args(arguments).env("BMDB_DATABASE_URL", url).env("USER", "ada");
    run(command)
}

/// Runs it with nothing in its environment but what it is given.
pub(crate) fn bare(arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bmdb"));
    command.args(arguments).env_clear();
    run(command)
}

/// Runs it in the environment that it was given, but for what would change its words.
pub(crate) fn run(mut command: Command) -> Said {
    for name in ["BMDB_OPERATOR", "BMDB_READ_DATABASE_URL", "COLUMNS", "TERM", "RUST_LOG"] {
        command.env_remove(name);
    }
    let ended = command.stdin(Stdio::null()).output().expect("it was built");
    let text = |stream: &[u8]| String::from_utf8(stream.to_vec()).expect("it is UTF-8");
    // The guide's session is a test's: BMDB_TEST_SHOW=1 cargo test -p bmdb-operator story::.*::sqlite -- --nocapture
    if std::env::var_os("BMDB_TEST_SHOW").is_some() {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        eprintln!(
            "$ bmdb {}\n{}{}",
            words.join(" "),
            text(&ended.stdout),
            text(&ended.stderr)
        );
    }
    Said {
        out: text(&ended.stdout),
        err: text(&ended.stderr),
        status: ended.status.code().expect("no signal ended it"),
    }
}

/// Runs it and expects that it is done.
pub(crate) fn done(url: &str, arguments: &[&str]) -> Said {
    let said = bmdb(url, arguments);
    assert_eq!(said.status, 0, "{arguments:?}: {said:?}");
    said
}
