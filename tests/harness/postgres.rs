//! A PostgreSQL server that belongs to this test process and ends with it, however that ends.

mod binaries;
mod certificates;
mod clock;
mod dump;
mod keeper;
mod own;
mod tls;
mod trap;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use sea_orm::sqlx::{self, AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::sync::{Mutex, OnceCell};

use binaries::Binaries;
pub(crate) use binaries::we_are_root;
pub use certificates::Certificates;
pub use clock::Clock;
pub(crate) use dump::dump_and_restore;
use keeper::Keeper;
pub use own::{OwnServer, Stop, cpu_time, kill};
pub use tls::TlsServer;

use crate::folder;

const TEMPLATE: &str = "bmdb_template";
/// Has no schema of ours, only the trap.
const EMPTY: &str = "bmdb_empty";
/// What the URLs of those say who look and tamper: the trap does not hold them, and whatever isolation the components' databases have by default, what
/// they write waits for a heartbeat that is under way instead of failing with it.
pub(crate) const FREELY: &str = "?options[bmdb.trap]=off&options[default_transaction_isolation]=read%20committed";

static SERVER: OnceCell<Server> = OnceCell::const_new();

/// The running server.
#[derive(Debug)]
pub(crate) struct Server {
    keeper: Keeper,
    /// A template can be copied only while nobody is connected to it, so databases are made one after the other.
    making: Mutex<()>,
    made: AtomicU32,
}

/// Makes the cluster in the folder `data` of a folder, and answers the settings that it needs.
type MakesCluster<'a> = Box<dyn Fn(&Binaries, &Path) -> Vec<String> + Send + Sync + 'a>;

/// How a server differs from others.
struct Setup<'a> {
    cluster: MakesCluster<'a>,
    environment: Vec<(&'static str, String)>,
    /// The size of a disk of its own at `disk` in its folder, in megabytes.
    disk: Option<u32>,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            cluster: Box::new(|binaries, folder| {
                make_cluster(binaries, folder);
                Vec::new()
            }),
            environment: Vec::new(),
            disk: None,
        }
    }
}

/// The server of this process; the first call starts it.
pub(crate) async fn server() -> &'static Server {
    SERVER
        .get_or_init(|| async {
            let server = start(Setup::default()).await;
            server.make_templates().await;
            server
        })
        .await
}

impl Server {
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://bmdb@127.0.0.1:{}/{database}", self.keeper.port())
    }

    /// Makes the databases that others are copies of: an empty and a migrated one.
    async fn make_templates(&self) {
        self.statement(&format!("CREATE DATABASE {EMPTY} TEMPLATE template0"))
            .await;
        trap::set(&self.url(EMPTY)).await;
        self.statement(&format!("CREATE DATABASE {TEMPLATE} TEMPLATE {EMPTY}"))
            .await;
        let migrated = bmdb_migration::up(&self.url(TEMPLATE), None).await;
        migrated.expect("the schema can be made in a new database");
    }

    pub(crate) async fn migrated_database(&self) -> String {
        self.new_database(TEMPLATE).await
    }

    pub(crate) async fn empty_database(&self) -> String {
        self.new_database(EMPTY).await
    }

    async fn new_database(&self, template: &str) -> String {
        let _one_at_a_time = self.making.lock().await;
        let name = format!("test_{}", self.made.fetch_add(1, Ordering::Relaxed));
        self.statement(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await;
        if let Some(isolation) = isolation() {
            self.statement(&format!(
                "ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'"
            ))
            .await;
        }
        name
    }

    fn log(&self) -> String {
        let log = fs::read(self.keeper.folder().join("log")).expect("the server writes a log");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// What the server has warned of in this database.
    pub(crate) fn warnings(&self, database: &str) -> Vec<String> {
        let start = format!("{database}|WARNING:  ");
        let log = self.log();
        let warnings = log.lines().filter_map(|line| line.strip_prefix(&start));
        warnings.map(str::to_owned).collect()
    }

    /// Every statement that this database's clients have sent since it was told to log them, as the server wrote it down.
    pub(crate) fn statements(&self, database: &str) -> Vec<String> {
        let log = self.log();
        let mut statements: Vec<String> = Vec::new();
        let mut is_ours = false;
        for line in log.lines() {
            // The lines of one statement after its first begin with a tab.
            if let (true, Some(more), Some(last)) = (is_ours, line.strip_prefix('\t'), statements.last_mut()) {
                last.push('\n');
                last.push_str(more);
                continue;
            }
            let entry = line
                .strip_prefix(database)
                .and_then(|rest| rest.strip_prefix("|LOG:  "));
            let text = entry.and_then(|entry| match entry.split_once(": ") {
                Some((kind, text)) if kind == "statement" || kind.starts_with("execute ") => Some(text),
                _ => None,
            });
            is_ours = text.is_some();
            statements.extend(text.map(str::to_owned));
        }
        statements
    }

    async fn statement(&self, text: &str) {
        let done = run(&self.url("postgres"), text).await;
        done.unwrap_or_else(|error| panic!("the test server refuses `{text}`: {error}"));
    }
}

/// What `BMDB_TEST_ISOLATION` wants transactions to run at that do not ask for any isolation.
fn isolation() -> Option<String> {
    std::env::var("BMDB_TEST_ISOLATION")
        .ok()
        .filter(|level| !level.is_empty())
}

/// Removes a database in a thread of its own: the test's runtime may be ending.
pub(crate) fn drop_database(name: String) {
    let Some(server) = SERVER.get() else { return };
    let url = server.url("postgres");
    std::thread::spawn(move || {
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
            let dropped = runtime.block_on(run(&url, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
            // The whole server goes when the process ends; a database that stays until then does no harm.
            drop(dropped);
        }
    });
}

/// Runs one statement on a connection of its own.
pub(crate) async fn run(url: &str, text: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(AssertSqlSafe(text.to_owned())).await?;
    connection.close().await
}

async fn start(setup: Setup<'_>) -> Server {
    let binaries = Binaries::find();
    let mut log = String::new();
    // Somebody else may take the port between our finding it free and the server's binding it.
    for _attempt in 0..3 {
        let folder = folder::new("postgres");
        binaries.hand_over(folder.path());
        let settings = (setup.cluster)(&binaries, folder.path());
        // From here on the keeper removes it.
        let keeper = Keeper::start(&binaries, folder.keep(), free_port(), settings, &setup);
        match keeper.answers().await {
            Ok(()) => {
                return Server {
                    keeper,
                    making: Mutex::new(()),
                    made: AtomicU32::new(0),
                };
            }
            Err(text) => log = text,
        }
    }
    panic!("PostgreSQL does not start; its log:\n{log}");
}

fn make_cluster(binaries: &Binaries, folder: &Path) {
    let mut initdb = binaries.command("initdb");
    initdb.arg("-D").arg(folder.join("data"));
    initdb.args([
        "--username=bmdb",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
    ]);
    done("initdb", initdb);
}

/// Runs one of PostgreSQL's programs to its end.
fn done(name: &str, mut command: Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
    assert!(
        output.status.success(),
        "{name} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("this machine has a loopback address");
    listener.local_addr().expect("a bound socket has an address").port()
}
