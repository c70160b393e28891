//! A PostgreSQL server that belongs to this test process and ends with it, however that ends.

mod binaries;
mod certificates;
mod sweep;
mod tls;
mod trap;

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sea_orm::sqlx::{self, AssertSqlSafe, Connection, Executor, PgConnection};
use tempfile::TempDir;
use tokio::sync::{Mutex, OnceCell};

use binaries::Binaries;
pub use certificates::Certificates;
pub use tls::TlsServer;
pub(crate) use trap::OFF;

/// The folders of servers begin so; the number of the test process follows.
const PREFIX: &str = "bmdb-tests-postgres-";
const TEMPLATE: &str = "bmdb_template";
/// Has no schema of ours, only the trap.
const EMPTY: &str = "bmdb_empty";

/// Starts the server `$2..` in the folder `$1` and waits until standard input ends: that is when the test process has, be it by SIGKILL.
const KEEPER: &str = r#"
folder=$1; shift
"$@" >"$folder/log" 2>&1 &
server=$!
cat >/dev/null
kill -QUIT "$server"
wait
rm -rf "$folder"
"#;

static SERVER: OnceCell<Server> = OnceCell::const_new();

/// The running server.
#[derive(Debug)]
pub(crate) struct Server {
    port: u16,
    folder: PathBuf,
    /// A template can be copied only while nobody is connected to it, so databases are made one after the other.
    making: Mutex<()>,
    made: AtomicU32,
    /// Held for its standard input: the server ends when that closes, which the system does when we end.
    _keeper: Child,
}

/// The server of this process; the first call starts it.
pub(crate) async fn server() -> &'static Server {
    SERVER
        .get_or_init(|| async {
            sweep::dead_servers(PREFIX);
            let server = start(None).await;
            server
                .statement(&format!("CREATE DATABASE {EMPTY} TEMPLATE template0"))
                .await;
            trap::set(&server.url(EMPTY)).await;
            server
                .statement(&format!("CREATE DATABASE {TEMPLATE} TEMPLATE {EMPTY}"))
                .await;
            let migrated = bmdb_migration::up(&server.url(TEMPLATE), None).await;
            migrated.expect("the schema can be made in a new database");
            server
        })
        .await
}

impl Server {
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://bmdb@127.0.0.1:{}/{database}", self.port)
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

    /// Every statement that this database's clients have sent since it was told to log them, as the server wrote it down.
    pub(crate) fn statements(&self, database: &str) -> Vec<String> {
        let log = fs::read(self.folder.join("log")).expect("the server writes a log");
        let log = String::from_utf8_lossy(&log);
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

async fn start(tls: Option<&Certificates>) -> Server {
    let binaries = Binaries::find();
    let mut log = String::new();
    // Somebody else may take the port between our finding it free and the server's binding it.
    for _attempt in 0..3 {
        let folder = TempDir::with_prefix(format!("{PREFIX}{}-", std::process::id()));
        let folder = folder.expect("a temporary folder can be made");
        binaries.hand_over(folder.path());
        make_cluster(&binaries, folder.path());
        let settings = tls
            .map(|tls| tls.install(&folder.path().join("data")))
            .unwrap_or_default();
        // From here on the keeper removes it.
        let folder = folder.keep();
        let port = free_port();
        let mut keeper = keep(&binaries, &folder, port, settings);
        match started(&folder, port).await {
            Ok(()) => {
                return Server {
                    port,
                    folder,
                    making: Mutex::new(()),
                    made: AtomicU32::new(0),
                    _keeper: keeper,
                };
            }
            Err(text) => log = text,
        }
        drop(keeper.stdin.take());
        keeper.wait().expect("our own child can be waited for");
    }
    panic!("PostgreSQL does not start; its log:\n{log}");
}

/// Waits until the server in `folder` answers; the error is its log.
async fn started(folder: &Path, port: u16) -> Result<(), String> {
    let url = format!("postgres://bmdb@127.0.0.1:{port}/postgres");
    let asked = Instant::now();
    loop {
        if owns(folder, port) && run(&url, "SELECT").await.is_ok() {
            return Ok(());
        }
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        if log.contains("database system is shut down") || asked.elapsed() > Duration::from_secs(60) {
            return Err(log);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether the server that answers on `port` is the one in `folder`: the fourth line of its pid file is its port.
fn owns(folder: &Path, port: u16) -> bool {
    let file = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
    file.lines().nth(3) == Some(port.to_string().as_str())
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
    let made = initdb.output().expect("initdb can be started");
    assert!(
        made.status.success(),
        "initdb failed: {}",
        String::from_utf8_lossy(&made.stderr)
    );
}

fn keep(binaries: &Binaries, folder: &Path, port: u16, more: Vec<String>) -> Child {
    let mut settings = vec![
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        format!("unix_socket_directories={}", folder.display()),
    ];
    // Nothing here outlives the process, so nothing need reach the disk; plans must not depend on when a vacuum came by.
    settings.extend(
        [
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "autovacuum=off",
        ]
        .map(str::to_owned),
    );
    // `TestDatabase::statements` reads this form.
    settings.push("log_line_prefix=%d|".to_owned());
    settings.extend(["max_connections=400", "shared_buffers=64MB", "timezone=UTC"].map(str::to_owned));
    settings.extend(more);
    let postgres = binaries.command("postgres");
    let mut keeper = Command::new("sh");
    keeper.args(["-c", KEEPER, "keeper"]).arg(folder);
    keeper.arg(postgres.get_program()).args(postgres.get_args());
    for (name, value) in postgres.get_envs() {
        if let Some(value) = value {
            keeper.env(name, value);
        }
    }
    keeper.arg("-D").arg(folder.join("data"));
    for setting in settings {
        keeper.arg("-c").arg(setting);
    }
    // A group of its own, so that Ctrl-C at the terminal ends the tests and lets the keeper clean up.
    keeper
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    keeper.spawn().expect("sh can be started")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("this machine has a loopback address");
    listener.local_addr().expect("a bound socket has an address").port()
}
