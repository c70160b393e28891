//! The connections to one database: which pools there are, how they are set up, and what is checked before anything else happens.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bmdb_entity::SessionId;
use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseConnection, DbErr, ExecResult, QueryResult, Statement, Value};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::db::address::Address;
use crate::db::config::Config;
use crate::db::dialect::Dialect;
use crate::db::file::OpenFile;
use crate::db::health::Health;
use crate::db::heartbeat_thread::HeartbeatThread;
use crate::db::pools::AutocommitPools;
use crate::db::schema::{self, Catalogue};
use crate::db::server;
use crate::db::sqlite;
use crate::db::timeout::Timeout;
use crate::error::Error;
use crate::metrics::{self, StatementKind};
use crate::runtime::lock::locked;

/// One database, as all parts of this library share it.
pub(crate) struct Database {
    pub(crate) config: Config,
    pub(crate) dialect: Dialect,
    /// The database's name for people, without credentials.
    pub(crate) name: String,
    /// Bodies of transactions: SERIALIZABLE on PostgreSQL, the one writer on SQLite.
    pub(crate) bodies: DatabaseConnection,
    /// The library's own statements: READ COMMITTED on PostgreSQL, where the fence makes them correct; the one writer on SQLite.
    pub(crate) library: DatabaseConnection,
    /// Reads outside transactions: the library's connections on PostgreSQL, readers that do not wait for the writer on SQLite.
    pub(crate) reads: DatabaseConnection,
    /// Heartbeats only, so that no work can starve them. They are of the thread for heartbeats.
    pub(crate) heartbeats: DatabaseConnection,
    pub(crate) heartbeat_thread: HeartbeatThread,
    /// For statements that are transactions of their own, on servers.
    pub(crate) autocommit: Option<AutocommitPools>,
    /// For claims and ends that run where they are awaited: half of their connections, for who awaits may not poll. None on SQLite, whose one lock
    /// they would keep.
    pub(crate) in_place: Arc<Semaphore>,
    /// Transactions that no session owns.
    pub(crate) tasks: TaskTracker,
    /// It is being closed, and the sessions that still live with it.
    pub(crate) closing: CancellationToken,
    /// The sessions that this process believes in, which its own collector leaves alone.
    own_sessions: Mutex<Vec<SessionId>>,
    pub(crate) health: Arc<Health>,
    /// How long one statement may take.
    pub(crate) limit: Timeout,
    file: Option<OpenFile>,
}

impl Database {
    pub(crate) async fn open(config: Config) -> Result<Arc<Self>, Error> {
        let (mut config, address) = config.checked()?;
        let name = address.describe();
        let thread = HeartbeatThread::start()?;
        let (dialect, pools, health, file) = match address {
            Address::Sqlite(url) => {
                let (pools, file) = sqlite::open(&config, &name, &url, &thread).await?;
                (Dialect::Sqlite, pools, Arc::default(), file)
            }
            Address::Postgres(server) => {
                let (dialect, pools, health) = server::open(&mut config, &name, *server, &thread).await?;
                (dialect, pools, health, None)
            }
        };
        let database = Self {
            dialect,
            bodies: pools.bodies,
            library: pools.library,
            reads: pools.reads,
            heartbeats: pools.heartbeats,
            heartbeat_thread: thread,
            in_place: Arc::new(Semaphore::new(match dialect {
                Dialect::Sqlite => 0,
                Dialect::Postgres | Dialect::Cockroach => config.max_connections as usize / 2,
            })),
            autocommit: pools.autocommit,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            own_sessions: Mutex::default(),
            limit: Timeout::beyond(config.statement_timeout, dialect),
            health,
            file,
            config,
            name,
        };
        schema::check(&database.catalogue()).await?;
        Ok(Arc::new(database))
    }

    /// What the schema is asked by.
    pub(crate) fn catalogue(&self) -> Catalogue<'_> {
        Catalogue {
            name: &self.name,
            dialect: self.dialect,
            heartbeats: &self.heartbeats,
            thread: &self.heartbeat_thread,
            limit: self.limit.plus(self.config.acquire_timeout),
            health: &self.health,
        }
    }

    /// One read outside transactions.
    pub(crate) async fn read(
        &self,
        doing: &'static str,
        text: &str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<QueryResult>, Error> {
        self.read_statement(doing, self.dialect.statement(text, values)).await
    }

    /// One read outside transactions, asked again when its connection broke.
    pub(crate) async fn read_statement(
        &self,
        doing: &'static str,
        statement: Statement,
    ) -> Result<Vec<QueryResult>, Error> {
        self.read_as(StatementKind::Read, doing, statement).await
    }

    /// The same, of another kind.
    pub(crate) async fn read_as(
        &self,
        kind: StatementKind,
        doing: &'static str,
        statement: Statement,
    ) -> Result<Vec<QueryResult>, Error> {
        self.check_file()?;
        let sent = metrics::now();
        let answer = self.query_all_raw(statement).await;
        metrics::statement_ended(kind, sent);
        answer.map_err(Error::database(doing))
    }

    /// A count that is read outside transactions.
    pub(crate) async fn read_count(&self, doing: &'static str, statement: Statement) -> Result<u64, Error> {
        let rows = self.read_statement(doing, statement).await?;
        let count = rows
            .first()
            .expect("BUG: a count has one row")
            .try_get_by_index::<i64>(0);
        Ok(count.map_err(Error::database(doing))?.unsigned_abs())
    }

    /// Runs a statement outside transactions until it gets an answer, within the budget. It must not matter how often it takes effect.
    pub(crate) async fn retry<T, F>(&self, doing: &'static str, statement: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, DbErr>>,
    {
        self.check_file()?;
        self.again(statement).await.map_err(Error::database(doing))
    }

    async fn again<T, F>(&self, statement: impl Fn() -> F) -> Result<T, DbErr>
    where
        F: Future<Output = Result<T, DbErr>>,
    {
        let started = Instant::now();
        let limit = self.limit.plus(self.config.acquire_timeout);
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.health.told(limit.within(statement()).await).await {
                Err(error)
                    if self.health.learn(&error).is_transient() && started.elapsed() < self.config.retry_budget =>
                {
                    metrics::retried();
                    tokio::time::sleep(crate::runtime::retry::pause_after(attempts)).await;
                }
                Err(error) => {
                    // Told as it is; whoever writes next is told what it means.
                    drop(self.check_answer(&error));
                    return Err(error);
                }
                answer => return answer,
            }
        }
    }

    /// Looks at an error for what it says of SQLite's file.
    ///
    /// # Errors
    /// [`Error::FileDamaged`] if it is damaged.
    pub(crate) fn check_answer(&self, error: &DbErr) -> Result<(), Error> {
        self.file.as_ref().map_or(Ok(()), |file| file.check_answer(error))
    }

    /// The sessions that this process believes in.
    pub(crate) fn own_sessions(&self) -> MutexGuard<'_, Vec<SessionId>> {
        locked(&self.own_sessions)
    }

    /// Checks that SQLite's file still is the one that was opened.
    ///
    /// # Errors
    /// [`Error::FileReplaced`] or [`Error::FileDamaged`] if it is not.
    pub(crate) fn check_file(&self) -> Result<(), Error> {
        self.file.as_ref().map_or(Ok(()), OpenFile::check)
    }

    /// Waits until something is found to be wrong with SQLite's file, and says what.
    pub(crate) async fn file_is_wrong(&self) -> Error {
        match &self.file {
            Some(file) => file.is_wrong().await,
            None => std::future::pending().await,
        }
    }

    /// Closes the sessions that still live, then every connection; but for sessions that stay, and their heartbeats.
    pub(crate) async fn close(self: &Arc<Self>) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(AutocommitPools { by_keys, searches, .. }) = &self.autocommit {
            for pool in [by_keys, searches] {
                pool.close(self.limit).await;
            }
        }
        for pool in [&self.reads, &self.library, &self.bodies] {
            close_pool(pool).await;
        }
        if !self.own_sessions().is_empty() {
            return;
        }
        let own = Arc::clone(self);
        let closed = self.heartbeat_thread.run(async move {
            if let Some(AutocommitPools { heartbeats, .. }) = &own.autocommit {
                heartbeats.close(own.limit).await;
            }
            close_pool(&own.heartbeats).await;
        });
        if closed.await.is_some() {
            self.heartbeat_thread.join().await;
        }
    }
}

async fn close_pool(pool: &DatabaseConnection) {
    if let Err(error) = pool.close_by_ref().await {
        tracing::debug!(%error, "a pool did not close cleanly");
    }
}

/// Reads outside transactions, as SeaORM's queries want them: asked again when their connection broke.
#[async_trait::async_trait]
impl ConnectionTrait for Database {
    fn get_database_backend(&self) -> DatabaseBackend {
        self.dialect.backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let statement = self.dialect.fit(statement);
        self.again(async || self.reads.execute_raw(statement.clone()).await)
            .await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.again(async || self.reads.execute_unprepared(sql).await).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let statement = self.dialect.fit(statement);
        self.again(async || self.reads.query_one_raw(statement.clone()).await)
            .await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let statement = self.dialect.fit(statement);
        self.again(async || self.reads.query_all_raw(statement.clone()).await)
            .await
    }
}
