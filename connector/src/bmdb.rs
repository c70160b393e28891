//! The handle to one database.

use std::fmt;
use std::sync::Arc;

use bmdb_entity::{MachineId, SessionId, WorkId, work_backoff, work_history, work_hold};
use sea_orm::ConnectionTrait;

use crate::backoffs;
use crate::collector::Collector;
use crate::config::Config;
use crate::database::Database;
use crate::dialect::Dialect;
use crate::error::{Error, Fault};
use crate::explain::{self, Explanation};
use crate::hold::{self, Hold};
use crate::operator::{self, HeldBySession};
use crate::page::List;
use crate::process::Process;
use crate::restore::{self, Restored};
use crate::session::Session;

/// A connection to the Bare Metal Database: what a component opens once and clones freely.
///
/// It reads, and it does what operators do. To transact and to hold work, [start a session](Self::start_session).
#[derive(Clone)]
pub struct Bmdb(Arc<Database>);

impl Bmdb {
    /// Opens the database and checks that its schema is one this component works on. Never alters a schema.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Unreachable`], [`Error::UnsupportedServer`], [`Error::ReadOnlyServer`], [`Error::NotMigrated`],
    /// [`Error::SchemaNewer`];
    /// [`Error::NotAllowed`] for a role that may not even look.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        Database::open(config).await.map(Self)
    }

    /// Starts a session: the liveness of this component, kept by heartbeats until it is closed or lost.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] for a role that may look only, or when the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future may leave a session row that a collector expires.
    pub async fn start_session(&self) -> Result<Session, Error> {
        match Session::start(&self.0).await {
            Err(Error::Database { source, .. }) if Fault::of(&source) == Fault::NotAllowed => {
                crate::schema::check_component(&self.0).await?;
                Err(Error::database("start a session")(source))
            }
            started => started,
        }
    }

    /// For reads outside transactions: any query of SeaORM's takes it. A read whose connection broke is made again, and none takes longer than the limits of
    /// the configuration. On SQLite it refuses writes; on PostgreSQL writing through it would skip the session's check: don't.
    #[must_use]
    pub fn reads(&self) -> &(impl ConnectionTrait + use<>) {
        &*self.0
    }

    /// The database's name for people: where it is, without user, password or parameters.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Which kind of database this is.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.0.dialect
    }

    /// A collector for this database. [`Runner`](crate::Runner) runs one by default.
    #[must_use]
    pub fn collector(&self) -> Collector {
        Collector::new(Arc::clone(&self.0))
    }

    /// How many machines are eligible for `P` now.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::InvalidTime`] and [`Error::InvalidBackoff`] for a process that could not claim; or when the database cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn count<P: Process>(&self) -> Result<u64, Error> {
        explain::count::<P>(&self.0).await
    }

    /// Whether `P` could claim `machine` now, and if not, why: each clause, the holder, the backoff, the holds, and the earliest time.
    ///
    /// # Errors
    /// [`Error::UnknownMachine`]; for a process that could not claim, as [`count`](Self::count); or when the database cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn explain<P: Process>(&self, machine: MachineId) -> Result<Explanation, Error> {
        explain::explain::<P>(&self.0, machine).await
    }

    /// What happened on a machine, in the order of its claims and in [pages](List). A machine that is gone keeps its history.
    ///
    /// Fences order it, not the times: those are of when a transaction began, so that a claim which waited for the end before it may have the earlier
    /// one.
    pub fn history(&self, machine: MachineId) -> List<work_history::Model> {
        List::new(&self.0, Some(machine))
    }

    /// Holds a machine, or one slot of it: nobody claims it until the hold ends. It replaces a hold on the same slot. Work that is going on goes
    /// on; see [`ask_to_stop`](Self::ask_to_stop).
    ///
    /// # Errors
    /// [`Error::Invalid`] without a reason or an author and for an end that lies too far away, [`Error::UnknownSlot`], [`Error::UnknownMachine`]: nothing was written.
    ///
    /// # Cancel safety
    /// Dropping the future places the hold or does not.
    pub async fn place_hold(&self, machine: MachineId, hold: Hold) -> Result<(), Error> {
        hold::place(&self.0, machine, hold).await
    }

    /// Lifts the hold on a slot, or with `None` the one on the whole machine. `false`: there was none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what names no slot, or when the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future lifts the hold or does not.
    pub async fn lift_hold(&self, machine: MachineId, slot: Option<&str>) -> Result<bool, Error> {
        hold::lift(&self.0, machine, slot).await
    }

    /// The holds on a machine, or on all, in [pages](List); also those whose time is over. An end that is not one, `infinity` or a year beyond 9999,
    /// is none.
    pub fn holds(&self, machine: Option<MachineId>) -> List<work_hold::Model> {
        List::new(&self.0, machine)
    }

    /// The backoffs from a machine, or from all, in [pages](List); also those whose time is over. An end that is not one, `infinity` or a year
    /// beyond 9999, is none.
    pub fn backoffs(&self, machine: Option<MachineId>) -> List<work_backoff::Model> {
        List::new(&self.0, machine)
    }

    /// Forgets how a process failed on a machine: it may be claimed at once, also when it was parked. `false`: there was nothing to forget.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what names no process, [`Error::UnknownProcess`], or when the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future forgets the backoff or does not.
    pub async fn clear_backoff(&self, machine: MachineId, process: &str) -> Result<bool, Error> {
        backoffs::clear(&self.0, machine, process).await
    }

    /// Asks the holder of a work to stop: its stop token fires at its next heartbeat. What it does then is its own decision. `false`: there is no
    /// such work.
    ///
    /// # Errors
    /// [`Error::Invalid`] without a reason, or when the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future asks or does not.
    pub async fn ask_to_stop(&self, work: WorkId, reason: &str) -> Result<bool, Error> {
        operator::ask_to_stop(&self.0, work, reason).await
    }

    /// Breaks a session: it cannot be renewed any more, its holder learns that at its next heartbeat or when its trust ends, and a collector
    /// expires it an interval later, when nobody can believe in it any longer. There is no way to take a single work from a live holder: for a
    /// while both would believe.
    ///
    /// Answers what the session holds, all of which is lost with it; `None`: there is no such session.
    ///
    /// # Errors
    /// When the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future breaks the session or does not.
    pub async fn break_session(&self, session: SessionId) -> Result<Option<HeldBySession>, Error> {
        operator::break_session(&self.0, session).await
    }

    /// What a database needs that was put back from a backup: run it once, after every component has been stopped and the old database is out of reach,
    /// and before any component starts. It breaks every session of the backup, waits for the longest of their intervals, or this component's if that is
    /// longer, so that nobody believes in one any more, and expires them: history gets its ends, machines their cool-downs. Work that was claimed after
    /// the backup is not in it, and free; new fences are above those that were given out for it, as long as the database's clock did not go back.
    ///
    /// On a database in use it ends all work.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), bmdb::Error> {
    /// use bmdb::{Bmdb, Config, runtime_info};
    ///
    /// let bmdb = Bmdb::connect(Config::from_env("after-restore", runtime_info!())?).await?;
    /// let restored = bmdb.after_restore().await?;
    /// assert_eq!(restored.ahead, 0, "the database's clock stands too early");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the database cannot be written. Run it again: what has been done is not done twice.
    ///
    /// # Cancel safety
    /// Dropping the future leaves sessions that are broken, which a collector expires, or which this does when it is run again.
    pub async fn after_restore(&self) -> Result<Restored, Error> {
        restore::after_restore(&self.0).await
    }

    /// Closes the sessions that still live, as [`Session::close`] does, and then every connection, after what is under way has ended. Close
    /// sessions first to learn whether the database was told. A session that [`Runner::run`](crate::Runner::run) has left behind for a work that blocks its
    /// thread is not closed: its heartbeats go on until that work ends or the process does.
    ///
    /// # Cancel safety
    /// Dropping the future leaves some connections to be closed when they are dropped.
    pub async fn close(self) {
        self.0.close().await;
    }
}

impl fmt::Debug for Bmdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bmdb")
            .field("database", &self.0.name)
            .field("config", &self.0.config)
            .finish()
    }
}
