//! The connections to one database: which pools there are, how they are set up, and what is checked before anything else happens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bmdb_entity::SessionId;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sea_orm::sqlx::{ConnectOptions, Connection, PgPool};
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseConnection, DbErr, ExecResult, QueryResult, SqlxPostgresConnector,
    Statement, Value,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::Address;
use crate::config::Config;
use crate::dialect::Dialect;
use crate::error::Error;
use crate::file::OpenFile;
use crate::health::{self, Health};
use crate::heartbeat_thread::HeartbeatThread;
use crate::limit::Limit;
use crate::looking::Looking;
use crate::process::Registration;
use crate::seen::Views;
use crate::singles::Singles;
use crate::sqlite;
use crate::tx::Scope;

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
    /// What is one statement is sent this way on servers.
    pub(crate) singles: Option<OneByOne>,
    /// For claims and ends that run where they are awaited: half of their connections, for who awaits may not poll. None on SQLite, whose one lock
    /// they would keep.
    pub(crate) in_place: Arc<Semaphore>,
    /// Transactions that no session owns.
    pub(crate) tasks: TaskTracker,
    /// It is being closed, and the sessions that still live with it.
    pub(crate) closing: CancellationToken,
    /// Processes that this component has registered, or just registers.
    pub(crate) registered: Mutex<HashMap<&'static str, Registration>>,
    /// How claims see machines.
    pub(crate) views: Views,
    /// When to look after hints.
    pub(crate) looking: Looking,
    /// The sessions that this process believes in, which its own collector leaves alone.
    own_sessions: Mutex<Vec<SessionId>>,
    health: Arc<Health>,
    /// How long one statement may take.
    pub(crate) limit: Limit,
    file: Option<OpenFile>,
}

impl Database {
    pub(crate) async fn open(config: Config) -> Result<Arc<Self>, Error> {
        let (config, address) = config.checked()?;
        let name = address.describe();
        let health = Arc::default();
        let thread = HeartbeatThread::start()?;
        let (dialect, pools, file) = match address {
            Address::Sqlite(url) => sqlite::open(&config, &name, &url, &thread).await?,
            Address::Postgres(options) => open_postgres(&config, &name, *options, &health, &thread).await?,
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
            singles: pools.singles,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            registered: Mutex::default(),
            views: Views::new(dialect),
            looking: Looking::default(),
            own_sessions: Mutex::default(),
            limit: Limit::beyond(config.statement_timeout, dialect),
            health,
            file,
            config,
            name,
        };
        crate::schema::check(&database).await?;
        Ok(Arc::new(database))
    }

    pub(crate) fn unreachable(&self, source: DbErr) -> Error {
        Error::Unreachable {
            database: self.name.clone(),
            source: Arc::new(source),
        }
    }

    /// Where single statements go, on servers.
    pub(crate) fn one_by_one(&self) -> &OneByOne {
        self.singles.as_ref().expect("BUG: single statements are for servers")
    }

    /// A scope for the library's own transactions that no session owns.
    pub(crate) fn scope(&self, doing: &'static str) -> Scope<'_> {
        Scope {
            doing,
            pool: &self.library,
            dialect: self.dialect,
            tasks: &self.tasks,
            budget: self.config.retry_budget,
            is_patient: true,
            limit: self.limit,
            acquire_timeout: self.config.acquire_timeout,
            // A commit that is not answered is settled, for which there must be trust left.
            commit_limit: self.limit.at_most(self.config.interval / 2),
            health: &self.health,
            file: self.file.as_ref(),
            trust: None,
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
        self.query_all_raw(statement).await.map_err(Error::database(doing))
    }

    /// Runs a statement outside transactions until it gets an answer, within the budget. It must not matter how often it takes effect.
    pub(crate) async fn persist<T, F>(&self, doing: &'static str, statement: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, DbErr>>,
    {
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
            match limit.within(statement()).await {
                Err(error) if self.health.is_transient(&error) && started.elapsed() < self.config.retry_budget => {
                    tokio::time::sleep(crate::pause::pause_after(attempts)).await;
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
        self.own_sessions
            .lock()
            .expect("BUG: nothing panics while it holds this lock")
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

    /// Closes the sessions that still live, then every connection.
    pub(crate) async fn close(self: &Arc<Self>) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(OneByOne { by_keys, searches, .. }) = &self.singles {
            for singles in [by_keys, searches] {
                singles.close(self.limit).await;
            }
        }
        for pool in [&self.reads, &self.library, &self.bodies] {
            close_pool(pool).await;
        }
        let own = Arc::clone(self);
        let closed = self.heartbeat_thread.run(async move {
            if let Some(OneByOne { heartbeats, .. }) = &own.singles {
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

pub(crate) struct Pools {
    pub(crate) bodies: DatabaseConnection,
    pub(crate) library: DatabaseConnection,
    pub(crate) reads: DatabaseConnection,
    pub(crate) heartbeats: DatabaseConnection,
    pub(crate) singles: Option<OneByOne>,
}

/// Statements that are transactions of their own.
pub(crate) struct OneByOne {
    /// Claims by hints, and ends.
    pub(crate) by_keys: Singles,
    /// Claims that search the fleet.
    pub(crate) searches: Singles,
    /// On the connections for heartbeats.
    pub(crate) heartbeats: Singles,
}

const LIBRARY_CONNECTIONS: u32 = 4;
/// One would do, were it not for a heartbeat whose connection hangs: the next must not wait for it.
const HEARTBEAT_CONNECTIONS: u32 = 2;
/// A connection that was idle for longer is asked whether it lives before it is used. (Asking every time is a round trip per transaction.)
const TRUSTED_IDLE: Duration = Duration::from_secs(30);

async fn open_postgres(
    config: &Config,
    name: &str,
    options: PgConnectOptions,
    health: &Arc<Health>,
    thread: &HeartbeatThread,
) -> Result<(Dialect, Pools, Option<OpenFile>), Error> {
    // One connection by hand: the pool would try a refused connection again until its time is up, and lose the reason.
    let quiet = options
        .application_name(&format!("bmdb {}", config.component))
        .log_statements(log::LevelFilter::Debug)
        .log_slow_statements(log::LevelFilter::Warn, Duration::from_secs(1));
    let unreachable = |source: sea_orm::sqlx::Error| Error::Unreachable {
        database: name.to_owned(),
        source: Arc::new(source),
    };
    let opened = tokio::time::timeout(config.acquire_timeout, quiet.clone().connect()).await;
    let mut first = opened
        .map_err(|_elapsed| unreachable(sea_orm::sqlx::Error::PoolTimedOut))?
        .map_err(unreachable)?;
    let asked = sea_orm::sqlx::query_scalar("SELECT version()").fetch_one(&mut first);
    let version: String = tokio::time::timeout(config.acquire_timeout, asked)
        .await
        .map_err(|_elapsed| unreachable(sea_orm::sqlx::Error::PoolTimedOut))?
        .map_err(unreachable)?;
    if let Err(error) = first.close().await {
        tracing::debug!(%error, "the first connection did not close cleanly");
    }
    let found = crate::schema::dialect_of(name, &version)?;
    let dialect = config.dialect.unwrap_or(found);

    // Isolation is the library's own: what the URL says comes first in the start-up options and what we say comes last, and the last counts.
    let with = |isolation: &str, limit: Duration, idle: Duration| {
        quiet.clone().options([
            ("default_transaction_isolation", isolation.to_owned()),
            ("statement_timeout", limit.as_millis().to_string()),
            // Below the statement's own limit, which would be reported as something that cannot be tried again.
            ("lock_timeout", (limit / 2).as_millis().to_string()),
            ("idle_in_transaction_session_timeout", idle.as_millis().to_string()),
        ])
    };
    let own = if dialect == Dialect::Cockroach {
        "serializable"
    } else {
        "read committed"
    };
    let pool = |options: PgConnectOptions, connections: u32| {
        let (health, releasing) = (Arc::clone(health), Arc::clone(health));
        PgPoolOptions::new()
            .max_connections(connections)
            .min_connections(0)
            .acquire_timeout(config.acquire_timeout)
            .max_lifetime(jittered(Duration::from_secs(300)))
            .test_before_acquire(false)
            .before_acquire(move |connection, metadata| {
                let is_stale = health.is_stale(metadata.age);
                Box::pin(async move {
                    if is_stale {
                        return Ok(false);
                    }
                    if metadata.idle_for > TRUSTED_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_release(move |connection, _metadata| {
                let may_be_inside = releasing.begin_was_given_up();
                Box::pin(async move {
                    // Either carries a queued ROLLBACK with it. A connection that does not answer is dropped, not kept.
                    let look = async {
                        if may_be_inside {
                            sea_orm::sqlx::Executor::execute(&mut *connection, "ROLLBACK")
                                .await
                                .map(drop)
                        } else {
                            connection.ping().await
                        }
                    };
                    Ok(tokio::time::timeout(health::LOOK, look)
                        .await
                        .is_ok_and(|look| look.is_ok()))
                })
            })
            .connect_lazy_with(options)
    };
    // A transaction whose client is gone keeps its rows until then. Ours pause for no longer than a round trip, and may have locked what a
    // heartbeat needs; a body may think for longer, and locks nothing of that.
    let beat = config.interval / 3;
    let of_library = || with(own, config.statement_timeout, beat);
    // Claims by hints and ends look rows up by their keys, whatever the parameters are: there is one good plan, and to make one for each execution
    // costs more than to carry it out. It is made once, when PostgreSQL may take a table for small that will not be (work, hints and backoffs come
    // and go), so what else it might choose then is forbidden.
    let by_keys = || match dialect {
        Dialect::Postgres => of_library().options([
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("enable_bitmapscan", "off"),
            ("enable_mergejoin", "off"),
            ("jit", "off"),
        ]),
        Dialect::Cockroach | Dialect::Sqlite => of_library(),
    };
    let of_bodies = with("serializable", config.statement_timeout, config.interval);
    let library = SqlxPostgresConnector::from_sqlx_postgres_pool(pool(of_library(), LIBRARY_CONNECTIONS));
    let heartbeats = thread.make(|| pool(with(own, beat, beat), HEARTBEAT_CONNECTIONS));
    let singles = |pool: PgPool| Singles::new(pool, config.acquire_timeout, Arc::clone(health));
    let pools = Pools {
        bodies: SqlxPostgresConnector::from_sqlx_postgres_pool(pool(of_bodies, config.max_connections)),
        reads: library.clone(),
        library,
        singles: Some(OneByOne {
            by_keys: singles(pool(by_keys(), config.max_connections)),
            searches: singles(pool(of_library(), LIBRARY_CONNECTIONS)),
            heartbeats: singles(heartbeats.clone()),
        }),
        heartbeats: SqlxPostgresConnector::from_sqlx_postgres_pool(heartbeats),
    };
    let limit = Limit::beyond(config.statement_timeout, dialect).plus(config.acquire_timeout);
    let isolation = limit
        .within(
            pools
                .bodies
                .query_one_raw(dialect.statement("SHOW transaction_isolation", [])),
        )
        .await
        .and_then(|row| row.map(|row| row.try_get_by_index::<String>(0)).transpose())
        .map_err(|source| Error::Unreachable {
            database: name.to_owned(),
            source: Arc::new(source),
        })?;
    if isolation.as_deref() != Some("serializable") {
        return Err(Error::UnsupportedServer {
            database: name.to_owned(),
            found: format!("at isolation {}", isolation.unwrap_or_default()),
            expected: "a server or pooler that passes on default_transaction_isolation",
        });
    }
    Ok((dialect, pools, None))
}

/// A component's connections must not all be renewed at once.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.9 + 0.2 * fastrand::f64())
}
