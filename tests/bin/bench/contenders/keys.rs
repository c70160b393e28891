//! A manager of locks as many libraries have it: a row for each key, and for each lock held a keep-alive of its own, all on one connection.
//!
//! A lock is taken by an insert, which wins over one that has run out; kept by an update every third of its time; given back by a delete.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sea_orm::sqlx::{self, Executor, PgConnection};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::Failure;
use crate::contender::Cycle;
use crate::contenders::peers::own_database;

/// How long a lock lasts that is not kept: what a session of ours lasts by default.
const LASTS: Duration = Duration::from_secs(10);

const TABLE: &str = "
    CREATE TABLE lock_per_key (
        key TEXT PRIMARY KEY,
        holder UUID NOT NULL,
        until TIMESTAMPTZ NOT NULL
    )";
const TAKE: &str = "
    INSERT INTO lock_per_key (key, holder, until) VALUES ($1, $2, now() + $3)
    ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, until = excluded.until
    WHERE lock_per_key.until <= now()";
const KEEP: &str = "UPDATE lock_per_key SET until = now() + $3 WHERE key = $1 AND holder = $2 AND until > now()";
const GIVE: &str = "DELETE FROM lock_per_key WHERE key = $1 AND holder = $2";

#[derive(Clone)]
pub(crate) struct Keys {
    connection: Arc<Mutex<PgConnection>>,
    holder: Uuid,
}

impl Keys {
    pub(crate) async fn connect(url: &str) -> Result<Self, Failure> {
        let mut connection = own_database(url, "lock_per_key").await?;
        connection.execute(TABLE).await?;
        let connection = Arc::new(Mutex::new(connection));
        let holder = Uuid::new_v4();
        Ok(Self { connection, holder })
    }

    /// A key that nobody else wants is locked, kept and given back.
    pub(crate) async fn cycle(&self) -> Result<Cycle, Failure> {
        let key = format!("machine/{}", Uuid::new_v4());
        let began = Instant::now();
        self.must(TAKE, &key).await?;
        let claim = began.elapsed();
        let mut keeps = JoinSet::new();
        keeps.spawn({
            let (keys, key) = (self.clone(), key.clone());
            async move { keys.keep(&key).await }
        });
        self.must(GIVE, &key).await?;
        Ok(Cycle {
            machines: 1,
            claim,
            retries: 0,
        })
    }

    /// Takes as many at once as nobody would one by one, and keeps each: first after some part of the time, as if they had been taken one by one.
    pub(crate) async fn hold(&self, count: u32) -> Result<JoinSet<Failure>, Failure> {
        let keys: Vec<String> = (0..count).map(|number| format!("machine/{number}")).collect();
        let mut keeps = JoinSet::new();
        let take = "INSERT INTO lock_per_key (key, holder, until) SELECT unnest($1), $2, now() + $3";
        let query = sqlx::query(take).bind(&keys).bind(self.holder).bind(LASTS);
        query.execute(&mut *self.connection.lock().await).await?;
        for key in keys {
            let (all, first) = (self.clone(), (LASTS / 3).mul_f64(fastrand::f64()));
            keeps.spawn(async move {
                tokio::time::sleep(first).await;
                match all.must(KEEP, &key).await {
                    Ok(()) => all.keep(&key).await,
                    Err(error) => error,
                }
            });
        }
        Ok(keeps)
    }

    /// Keeps a lock until it is lost.
    async fn keep(&self, key: &str) -> Failure {
        loop {
            tokio::time::sleep(LASTS / 3).await;
            if let Err(error) = self.must(KEEP, key).await {
                return error;
            }
        }
    }

    /// Runs a statement that changes this key's row.
    async fn must(&self, statement: &'static str, key: &str) -> Result<(), Failure> {
        let mut connection = self.connection.lock().await;
        let mut query = sqlx::query(statement).bind(key).bind(self.holder);
        if statement != GIVE {
            query = query.bind(LASTS);
        }
        match query.execute(&mut *connection).await?.rows_affected() {
            1 => Ok(()),
            _ => Err(format!("the lock {key} is not ours").into()),
        }
    }

    pub(crate) async fn leave(self) -> Result<(), Failure> {
        self.connection.lock().await.execute("DROP TABLE lock_per_key").await?;
        Ok(())
    }
}
