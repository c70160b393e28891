//! The pools of connections to a server: how many of each kind, how they are set up, and when one is used again.

use std::sync::Arc;
use std::time::Duration;

use bmdb_address::Postgres;
use sea_orm::SqlxPostgresConnector;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sea_orm::sqlx::{self, ConnectOptions, Connection, PgConnection, PgPool};

use crate::db::autocommit_pool::AutocommitPool;
use crate::db::config::Config;
use crate::db::connect::{self, Door, Settings};
use crate::db::dialect::Dialect;
use crate::db::health::{self, Health};
use crate::db::heartbeat_thread::HeartbeatThread;
use crate::db::hosts::Hosts;
use crate::db::pools::{AutocommitPools, Pools};
use crate::error::Error;
use crate::runtime::supervised::supervised;

/// How many connections there may be of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    bodies: u32,
    by_keys: u32,
    library: u32,
    searches: u32,
    heartbeats: u32,
}

impl Sizes {
    fn wanted(config: &Config) -> Self {
        Self {
            bodies: config.max_connections,
            by_keys: config.max_connections,
            library: 4,
            searches: 4,
            // One would do, were it not for a heartbeat whose connection hangs: the next must not wait for it.
            heartbeats: 2,
        }
    }

    fn all(self) -> u32 {
        self.bodies + self.by_keys + self.library + self.searches + self.heartbeats
    }

    /// At most half of what the server has for all: nobody may keep others out, however busy.
    fn within(self, room: u32) -> Self {
        let (all, most) = (self.all(), room / 2);
        if all <= most {
            return self;
        }
        // Heartbeats keep theirs; of the others each kind has one at least.
        let rest = most.saturating_sub(self.heartbeats);
        let share = |of: u32| {
            u32::try_from(u64::from(of) * u64::from(rest) / u64::from(all))
                .unwrap_or(of)
                .max(1)
        };
        let (library, searches) = (share(self.library), share(self.searches));
        let each = (rest.saturating_sub(library + searches) / 2).clamp(1, self.bodies);
        Self {
            bodies: each,
            by_keys: each,
            library,
            searches,
            ..self
        }
    }
}
/// A connection that was idle for longer is asked whether it lives before it is used. (Asking every time is a round trip per transaction.)
const TRUSTED_IDLE: Duration = Duration::from_secs(30);

/// Looks whether the server is one of ours, and makes the pools, which open connections when they are needed.
pub(crate) async fn open(
    config: &mut Config,
    name: &str,
    server: Postgres,
    thread: &HeartbeatThread,
) -> Result<(Dialect, Pools, Arc<Health>), Error> {
    let quiet = |options: PgConnectOptions| {
        options
            .application_name(&format!("bmdb {}", config.component))
            .log_statements(log::LevelFilter::Debug)
            .log_slow_statements(log::LevelFilter::Warn, Duration::from_secs(1))
    };
    // A transaction whose client is gone keeps its rows until it has been idle for so long. Ours pause for no longer than a round trip, and may have
    // locked what a heartbeat needs; a body may think for longer, and locks nothing of that.
    let beat = config.interval / 3;
    let of_library = Settings {
        dialect: Dialect::Postgres,
        isolation: "read committed",
        statement: config.statement_timeout,
        idle: beat,
    };
    let servers: Vec<PgConnectOptions> = server.servers().map(quiet).collect();
    let doors = |settings| servers.iter().map(|server| Door::new(server, settings)).collect();
    let first = Hosts::new(doors(of_library), 0);
    let (dialect, room) = probe(config, name, &first, server.connect_timeout).await?;
    let wanted = Sizes::wanted(config);
    let sizes = room.map_or(wanted, |room| wanted.within(room));
    if sizes != wanted {
        let (wanted, most) = (wanted.all(), sizes.all());
        tracing::warn!(
            room,
            wanted,
            most,
            "the server takes few connections: this component uses no more than half of them"
        );
    }
    config.max_connections = sizes.by_keys;
    let config = &*config;
    let of_library = Settings {
        dialect,
        isolation: match dialect {
            Dialect::Cockroach => "serializable",
            Dialect::Postgres | Dialect::Sqlite => of_library.isolation,
        },
        ..of_library
    };
    let of_bodies = Settings {
        isolation: "serializable",
        idle: config.interval,
        ..of_library
    };
    let of_heartbeats = Settings {
        statement: beat,
        ..of_library
    };
    if dialect == Dialect::Cockroach {
        let door = Door::new(&servers[first.current()], of_library);
        let knocked = tokio::time::timeout(config.acquire_timeout, door.knock()).await;
        let knocked = knocked.unwrap_or_else(|_elapsed| Err(sqlx::Error::PoolTimedOut.into()));
        knocked.map_err(|error| connect::into_error(error, name))?;
    }
    let hosts = Arc::new(Hosts::new(doors(of_library), first.current()));
    let health = Arc::new(Health::with(Arc::clone(&hosts)));
    let quiet = &servers[first.current()];
    let pool = |settings, options, connections| pool(config, &health, settings, options, connections);
    let library = pool(of_library, quiet.clone(), sizes.library);
    let heartbeats = thread.make(|| pool(of_heartbeats, quiet.clone(), sizes.heartbeats));
    let bodies = pool(of_bodies, quiet.clone(), sizes.bodies);
    let by_keys = pool(of_library, by_keys(dialect, quiet.clone()), sizes.by_keys);
    let searches = pool(of_library, quiet.clone(), sizes.searches);
    if hosts.are_several() {
        let pools = [&library, &heartbeats, &bodies, &by_keys, &searches].map(PgPool::clone);
        let moves = Arc::clone(&health);
        let follow = supervised("hosts", move || {
            let (hosts, pools, moves) = (Arc::clone(&hosts), pools.clone(), Arc::clone(&moves));
            async move { hosts.follow(pools.into(), || moves.all_are_stale()).await }
        });
        // Where nothing that the component does can keep it from running. It ends with the thread, and what it holds with it.
        drop(thread.runtime().spawn(follow));
    }
    let autocommit = |pool: PgPool| AutocommitPool::new(pool, config.acquire_timeout, Arc::clone(&health));
    let library = SqlxPostgresConnector::from_sqlx_postgres_pool(library);
    let pools = Pools {
        bodies: SqlxPostgresConnector::from_sqlx_postgres_pool(bodies),
        reads: library.clone(),
        library,
        autocommit: Some(AutocommitPools {
            by_keys: autocommit(by_keys),
            searches: autocommit(searches),
            heartbeats: autocommit(heartbeats.clone()),
        }),
        heartbeats: SqlxPostgresConnector::from_sqlx_postgres_pool(heartbeats),
    };
    Ok((dialect, pools, health))
}

/// Opens the first connection and sees what the server is, and how many connections it has for us and others, if it says.
async fn probe(
    config: &Config,
    name: &str,
    hosts: &Hosts,
    limit: Option<Duration>,
) -> Result<(Dialect, Option<u32>), Error> {
    let limit = limit.map_or(config.acquire_timeout, |limit| limit.min(config.acquire_timeout));
    let unreachable = |source: sqlx::Error| connect::into_error(source.into(), name);
    let refused = |error| connect::into_error(error, name);
    let mut first = hosts.first(limit, name).await?;
    let door = hosts.door();
    let probing = async {
        let version: Result<String, _> = sqlx::query_scalar("SELECT version()").fetch_one(&mut first).await;
        let found = crate::db::schema::dialect_of(name, &version.map_err(unreachable)?)?;
        let dialect = config.dialect.unwrap_or(found);
        let mut room = None;
        // CockroachDB's isolation is asked for once it is known that it is one.
        if dialect == Dialect::Postgres {
            let found = door.check(&mut first).await;
            for setting in found.map_err(refused)?.unsafe_settings {
                tracing::warn!(
                    setting,
                    "is off: a crash of the server's machine loses claims that it has answered, and their fences"
                );
            }
            room = connect::room(&mut first).await.map_err(unreachable)?;
        }
        Ok((dialect, room))
    };
    let probed = tokio::time::timeout(config.acquire_timeout, probing)
        .await
        .unwrap_or_else(|_elapsed| Err(unreachable(sqlx::Error::PoolTimedOut)))?;
    if let Err(error) = first.close().await {
        tracing::debug!(%error, "the first connection did not close cleanly");
    }
    Ok(probed)
}

/// Claims by hints and ends look rows up by their keys, whatever the parameters are: there is one good plan, and to make one for each execution
/// costs more than to carry it out. It is made once, when PostgreSQL may take a table for small that will not be (work, hints and backoffs come
/// and go), so what else it might choose then is forbidden.
fn by_keys(dialect: Dialect, options: PgConnectOptions) -> PgConnectOptions {
    match dialect {
        Dialect::Postgres => options.options([
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("enable_bitmapscan", "off"),
            ("enable_mergejoin", "off"),
            ("jit", "off"),
        ]),
        Dialect::Cockroach | Dialect::Sqlite => options,
    }
}

fn pool(
    config: &Config,
    health: &Arc<Health>,
    settings: Settings,
    options: PgConnectOptions,
    connections: u32,
) -> PgPool {
    let (connecting, taking, releasing) = (Arc::clone(health), Arc::clone(health), Arc::clone(health));
    PgPoolOptions::new()
        .max_connections(connections)
        .min_connections(0)
        .acquire_timeout(config.acquire_timeout)
        .max_lifetime(jittered(Duration::from_secs(300)))
        .test_before_acquire(false)
        .after_connect(move |connection, _metadata| {
            let health = Arc::clone(&connecting);
            Box::pin(async move {
                match settings.check(connection).await {
                    Ok(_found) => {
                        health.let_in();
                        Ok(())
                    }
                    Err(error) => {
                        // The pool tries again until its time is up, and does not tell.
                        health.refused(&error);
                        Err(connect::into_driver_error(error))
                    }
                }
            })
        })
        .before_acquire(move |connection, metadata| {
            let is_stale = taking.is_stale(metadata.age);
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
                let probe = async {
                    if may_be_inside {
                        leave_transaction(connection).await
                    } else {
                        connection.ping().await
                    }
                };
                Ok(tokio::time::timeout(health::PROBE_LIMIT, probe)
                    .await
                    .is_ok_and(|probe| probe.is_ok()))
            })
        })
        .connect_lazy_with(settings.asked_of(options))
}

/// Rolls back if the server says that the connection is inside a transaction, which the driver does not know of. (A ROLLBACK outside of one is a warning
/// in the server's log and in ours.)
async fn leave_transaction(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Begins nothing: the driver then reads what the server says, and takes the transaction for one that it has begun.
    match connection.begin_with("SHOW default_transaction_isolation").await {
        Ok(transaction) => transaction.rollback().await,
        Err(sqlx::Error::BeginFailed) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A component's connections must not all be renewed at once.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.9 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_leaves_half_of_a_small_server_to_others() {
        let wanted = Sizes::wanted(&Config::new("", "", ""));
        assert_eq!(wanted.all(), 30);
        assert_eq!((wanted.within(97), wanted.within(60)), (wanted, wanted));
        let few = wanted.within(17);
        assert_eq!(
            [few.bodies, few.by_keys, few.library, few.searches, few.heartbeats],
            [2, 2, 1, 1, 2]
        );
        for room in 0..200 {
            let sizes = wanted.within(room);
            assert!(sizes.all() <= (room / 2).max(6), "{room}: {sizes:?}");
            assert!(sizes.bodies.min(sizes.by_keys).min(sizes.library).min(sizes.searches) >= 1);
        }
    }
}
