//! The handle to one database. What can be done with it stands beside the statements that do it, as `impl Bmdb`.

pub(crate) mod registered;

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sea_orm::ConnectionTrait;

use crate::db::config::Config;
use crate::db::database::Database;
use crate::db::dialect::Dialect;
use crate::error::Error;
use crate::store::known::Known;

/// A connection to the Bare Metal Database: what a component opens once and clones freely.
///
/// It reads, and it does what operators do. To transact and to hold work, [start a session](Self::start_session).
///
/// ```no_run
/// # async fn example() -> Result<(), bmdb::Error> {
/// use bmdb::{Bmdb, Config, provided, runtime_info};
/// use sea_orm::{EntityTrait, PaginatorTrait};
///
/// let bmdb = Bmdb::connect(Config::new("sqlite://bmdb.sqlite?mode=rwc", "console", runtime_info!())).await?;
/// let machines = provided::Entity::find().count(bmdb.reads()).await?;
/// println!("{} has {machines} machines", bmdb.name());
/// for hold in bmdb.holds(None).await?.rows {
///     println!("{} is held by {}: {}", hold.machine_id, hold.placed_by, hold.reason);
/// }
/// bmdb.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Bmdb {
    database: Arc<Database>,
    known: Arc<Known>,
}

impl Bmdb {
    /// Opens the database and checks that its schema is one this component works on. Never alters a schema.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Unreachable`], [`Error::UnsupportedServer`], [`Error::ReadOnlyServer`], [`Error::NotMigrated`],
    /// [`Error::SchemaNewer`];
    /// [`Error::NotAllowed`] for a role that may not even read the schema.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let database = Database::open(config).await?;
        let known = Arc::default();
        Ok(Self { database, known })
    }

    /// For reads outside transactions: any query of SeaORM's takes it. A read whose connection broke is made again, and none takes longer than the limits of
    /// the configuration. On SQLite it refuses writes; on PostgreSQL writing through it would skip the session's check: don't.
    #[must_use]
    pub fn reads(&self) -> &(impl ConnectionTrait + use<>) {
        &*self.database
    }

    /// The database's name for people: where it is, without user, password or parameters.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.database.name
    }

    /// What time it is by the database's clock, by which all its times are.
    ///
    /// # Errors
    /// When the database cannot be read.
    ///
    /// # Panics
    /// Never: a clock has one row.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn now(&self) -> Result<DateTime<Utc>, Error> {
        const DOING: &str = "read the database's clock";
        let rows = self.database.read(DOING, "SELECT {now} AS now", []).await?;
        let row = rows.first().expect("BUG: a clock has one row");
        row.try_get_by_index(0).map_err(Error::database(DOING))
    }

    /// Which kind of database this is.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.database.dialect
    }

    pub(crate) fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// The rules that it has registered.
    pub(crate) fn known(&self) -> &Arc<Known> {
        &self.known
    }

    /// Closes the sessions that still live, as [`Session::close`](crate::Session::close) does, and then every connection, after what is under way has ended. Close
    /// sessions first to learn whether the database was told. A session that [`Runner::run`](crate::Runner::run) has left behind for a work that blocks its
    /// thread is not closed: its heartbeats go on until that work ends or the process does.
    ///
    /// # Cancel safety
    /// Dropping the future leaves some connections to be closed when they are dropped.
    pub async fn close(self) {
        self.database.close().await;
    }
}

impl fmt::Debug for Bmdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bmdb")
            .field("database", &self.database.name)
            .field("config", &self.database.config)
            .finish()
    }
}
