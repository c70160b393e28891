//! A server of a test's own, for what cannot be done to one that others use: stop it, crash it, fill its disk, move its clock, lose it.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sea_orm::sqlx::{self, AssertSqlSafe, Connection, PgConnection};

use super::{Clock, Server, Setup, TEMPLATE, done, make_cluster, start};
use crate::{PATIENCE, TestDatabase, until};

/// A new database takes 9 MB of it.
const SMALL_DISK: u32 = 24;

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Connections are ended, everything is written out.
    Fast,
    /// Everything is dropped; the next start recovers.
    Immediate,
    /// SIGKILL of the process that the others belong to; the next start recovers.
    Kill,
}

/// A PostgreSQL server of a test's own, with a migrated database; it ends with the test process, or when it is dropped.
#[derive(Debug)]
pub struct OwnServer {
    server: Server,
    database: &'static str,
}

impl OwnServer {
    /// Starts one.
    ///
    /// # Panics
    /// Panics if there are no programs for it (`tests/run` installs them).
    pub async fn start() -> Self {
        Self::migrated(start(Setup::of_own()).await).await
    }

    /// Starts one that is set up as an operator would for a machine of this size, with `durable` commits or with commits that do not wait for the
    /// disk (`fsync`).
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn for_measurements(durable: bool) -> Self {
        let server = start(Setup {
            cluster: Box::new(move |binaries, folder| {
                make_cluster(binaries, folder);
                // Components raise `synchronous_commit`, so it would be theirs alone to wait.
                let fsync = format!("fsync={}", if durable { "on" } else { "off" });
                let settings = [
                    "synchronous_commit=on",
                    "full_page_writes=on",
                    "autovacuum=on",
                    "shared_buffers=2GB",
                    "max_wal_size=8GB",
                    "checkpoint_timeout=1h",
                    &fsync,
                ];
                settings.map(str::to_owned).into()
            }),
            ..Setup::default()
        });
        Self::migrated(server.await).await
    }

    /// Starts one that can write to its log how it carried out each statement: `auto_explain`, for the connections that set its
    /// `log_min_duration`. Lines of the log begin with the application's name and the process.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn that_explains() -> Self {
        Self::with_settings(&[
            "shared_preload_libraries=auto_explain",
            "auto_explain.log_analyze=on",
            "auto_explain.log_buffers=on",
            "auto_explain.log_timing=off",
            "auto_explain.log_nested_statements=on",
            "auto_explain.log_format=json",
            "log_line_prefix=%a|%p|",
            // VACUUM marks no page as visible to all whose commit is still on its way to the log.
            "synchronous_commit=on",
            // A fleet of a million machines is made in one go.
            "shared_buffers=512MB",
            "maintenance_work_mem=128MB",
            "max_wal_size=8GB",
            "checkpoint_timeout=1h",
        ])
        .await
    }

    /// Starts one that vacuums as soon as there is something to vacuum.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn that_vacuums() -> Self {
        Self::with_settings(&["autovacuum=on", "autovacuum_naptime=1s"]).await
    }

    /// Starts one with settings of its own.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn with_settings(settings: &[&str]) -> Self {
        let server = start(Setup {
            cluster: Box::new(|binaries, folder| {
                make_cluster(binaries, folder);
                settings.iter().map(|setting| (*setting).to_owned()).collect()
            }),
            ..Setup::default()
        });
        Self::migrated(server.await).await
    }

    /// The folder of its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.server.keeper.folder()
    }

    /// How long its log is.
    ///
    /// # Panics
    /// Panics if there is none.
    #[must_use]
    pub fn log_length(&self) -> u64 {
        let log = fs::metadata(self.server.keeper.folder().join("log"));
        log.expect("the server writes a log").len()
    }

    /// What it has written to its log since that was so long.
    ///
    /// # Panics
    /// Panics if there is none.
    #[must_use]
    pub fn log_since(&self, length: u64) -> String {
        let read = || {
            let mut log = fs::File::open(self.server.keeper.folder().join("log"))?;
            log.seek(SeekFrom::Start(length))?;
            let mut text = Vec::new();
            log.read_to_end(&mut text)?;
            Ok::<_, std::io::Error>(text)
        };
        String::from_utf8_lossy(&read().expect("the server writes a log")).into_owned()
    }

    /// The time that its processes have computed for, those that have ended included.
    ///
    /// # Panics
    /// Panics if it does not run.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let postmaster = self.server.keeper.postmaster().expect("it runs");
        let all = children_of(postmaster).into_iter().chain([postmaster]);
        all.filter_map(cpu_time).sum()
    }

    /// Starts one that reads its wall clock from `clock`.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn with_clock(clock: &Clock) -> Self {
        let server = start(Setup {
            environment: clock.environment(),
            ..Setup::of_own()
        });
        Self::migrated(server.await).await
    }

    /// Starts one whose database, but not its log of writes, is on a disk of its own with some 14 MB to spare.
    ///
    /// # Panics
    /// As [`start`](Self::start); and if this system lets us mount nothing, not even in a namespace of our own.
    pub async fn on_small_disk() -> Self {
        let own = start(Setup {
            disk: Some(SMALL_DISK),
            ..Setup::of_own()
        });
        let mut own = Self::migrated(own.await).await;
        let disk = own.server.keeper.folder().join("disk");
        own.database = "small";
        for statement in [
            format!("CREATE TABLESPACE small LOCATION '{}'", disk.display()),
            format!("CREATE DATABASE small TEMPLATE {TEMPLATE} TABLESPACE small"),
        ] {
            own.server.statement(&statement).await;
        }
        own
    }

    async fn migrated(server: Server) -> Self {
        server.make_templates().await;
        let database = TEMPLATE;
        Self { server, database }
    }

    /// Starts a server that follows this one, asynchronously, and can be read.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn standby(&self) -> Self {
        let port = self.server.keeper.port().to_string();
        let server = start(Setup {
            cluster: Box::new(move |binaries, folder| {
                let mut copy = binaries.command("pg_basebackup");
                copy.arg("-D").arg(folder.join("data"));
                copy.args(["-h", "127.0.0.1", "-p", &port, "-U", "bmdb"]);
                copy.args(["-R", "-X", "stream", "-c", "fast", "--no-sync"]);
                done("pg_basebackup", copy);
                let mut settings = own_settings();
                // A server that is gone is asked for more every five seconds by default.
                settings.push("wal_retrieve_retry_interval=100ms".to_owned());
                settings
            }),
            ..Setup::default()
        });
        Self {
            server: server.await,
            database: self.database,
        }
    }

    /// Its migrated database.
    #[must_use]
    pub fn database(&self) -> TestDatabase {
        TestDatabase::of_own_server(self.server.url(self.database))
    }

    /// Stops it and waits until its last process has ended.
    ///
    /// # Panics
    /// Panics if it does not end.
    pub async fn stop(&self, how: Stop) {
        let postmaster = self.server.keeper.postmaster().expect("it runs");
        let all: Vec<u32> = children_of(postmaster).into_iter().chain([postmaster]).collect();
        let signal = match how {
            Stop::Fast => "INT",
            Stop::Immediate => "QUIT",
            Stop::Kill => "KILL",
        };
        kill(signal, postmaster);
        let ended = async || {
            all.iter()
                .all(|process| state_of(*process).is_none_or(|(state, _)| state == 'Z'))
        };
        until("the server has ended", PATIENCE, ended).await;
    }

    /// Starts it again on the same port and waits until it answers.
    ///
    /// # Panics
    /// Panics with its log if it does not.
    pub async fn start_again(&self) {
        self.server.keeper.again();
        let answers = self.server.keeper.answers().await;
        answers.unwrap_or_else(|log| panic!("PostgreSQL does not start again; its log:\n{log}"));
    }

    /// Has it answer no commit that none of its standbys has got, of which there are so many.
    ///
    /// # Panics
    /// Panics if not so many follow it.
    pub async fn wait_for_a_standby(&self, of: usize) {
        self.server.statement(QUORUM).await;
        self.server.statement("SELECT pg_reload_conf()").await;
        let follow = format!("SELECT count(*) = {of} FROM pg_stat_replication WHERE sync_state = 'quorum'");
        until("its standbys follow", PATIENCE, async || self.says(&follow).await).await;
    }

    /// Has a standby receive nothing more of what its server writes.
    ///
    /// # Panics
    /// Panics if it goes on all the same.
    pub async fn cut_replication(&self) {
        self.server.statement("ALTER SYSTEM SET primary_conninfo = ''").await;
        self.server.statement("SELECT pg_reload_conf()").await;
        let receives = "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver)";
        until("it receives nothing", PATIENCE, async || !self.says(receives).await).await;
    }

    /// Has it take no more writes, and stay up: as a primary that was told to step back.
    ///
    /// # Panics
    /// Panics if it goes on all the same.
    pub async fn make_read_only(&self) {
        self.server
            .statement("ALTER SYSTEM SET default_transaction_read_only = on")
            .await;
        self.server.statement("SELECT pg_reload_conf()").await;
        let is_read_only = "SELECT current_setting('transaction_read_only') = 'on'";
        until("it takes no writes", PATIENCE, async || self.says(is_read_only).await).await;
    }

    /// Makes a standby a server of its own, which answers no commit that none of its own standbys has got, if it `waits` for them.
    ///
    /// # Panics
    /// Panics if it stays what it is.
    pub async fn promote(&self, waits: bool) {
        if waits {
            self.server.statement(QUORUM).await;
            self.server.statement("SELECT pg_reload_conf()").await;
        }
        self.server.statement("SELECT pg_promote(false)").await;
        until("it takes writes", PATIENCE, async || {
            !self.says("SELECT pg_is_in_recovery()").await
        })
        .await;
    }

    /// Has a standby, whose replication is [cut](Self::cut_replication), follow another server.
    pub async fn follow(&self, other: &Self) {
        let port = other.server.keeper.port();
        let follow = format!("ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port={port} user=bmdb'");
        self.server.statement(&follow).await;
        self.server.statement("SELECT pg_reload_conf()").await;
    }

    /// How much a standby has received of what is written.
    pub async fn received(&self) -> u64 {
        let received: i64 = self
            .asks("SELECT CAST(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0') AS BIGINT)")
            .await;
        received.cast_unsigned()
    }

    async fn says(&self, question: &str) -> bool {
        self.asks(question).await
    }

    async fn asks<T>(&self, question: &str) -> T
    where
        T: Send + Unpin + sqlx::Type<sqlx::Postgres> + for<'r> sqlx::Decode<'r, sqlx::Postgres>,
    {
        let asked = async {
            let mut connection = PgConnection::connect(&self.server.url("postgres")).await?;
            let answer = sqlx::query_scalar(AssertSqlSafe(question.to_owned()));
            let answer: T = answer.fetch_one(&mut connection).await?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(answer)
        };
        asked.await.unwrap_or_else(|error| panic!("`{question}`: {error}"))
    }
}

/// Whoever commits waits for one standby, whichever.
const QUORUM: &str = "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'";

impl Setup<'_> {
    fn of_own() -> Self {
        Self {
            cluster: Box::new(|binaries, folder| {
                make_cluster(binaries, folder);
                own_settings()
            }),
            ..Self::default()
        }
    }
}

/// A crash must keep what was committed. (It need not reach the disk: the system lives on.)
fn own_settings() -> Vec<String> {
    vec!["synchronous_commit=on".to_owned()]
}

/// Sends a signal to one process of a server.
///
/// # Panics
/// Panics if there is no such process, or we may not.
pub fn kill(signal: &str, process: u32) {
    let sent = Command::new("sh")
        .args(["-c", "kill -\"$0\" \"$1\"", signal, &process.to_string()])
        .status();
    assert!(sent.expect("sh can be started").success(), "{signal} was not sent");
}

/// A process's state and parent; none if there is no such process.
fn state_of(process: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name comes before, in parentheses, and may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The time that a process has computed for, and those of its children that have ended; none if there is no such process.
#[must_use]
pub fn cpu_time(process: u32) -> Option<Duration> {
    /// USER_HZ, which every architecture that Rust's standard library runs on has at 100.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    // utime, stime, cutime, cstime are fields 14 to 17 (proc_pid_stat(5)); the state after the name is the third.
    let ticks = rest
        .split(' ')
        .skip(11)
        .take(4)
        .map(|field| field.parse::<u32>().unwrap_or(0));
    Some(TICK * ticks.sum())
}

fn children_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("this is Linux").flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter(|process| state_of(*process).is_some_and(|(_, of)| of == parent))
        .collect()
}
