//! Connections of those who send their own statements: one for each worker, and a session that nobody needs to keep alive.

use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::{self, ConnectOptions, Connection, PgConnection};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::Failure;

const SESSION: &str = "
    WITH s AS (INSERT INTO session (session_id, component_name, runtime_info, created_at, interval_ms)
               VALUES ($1, $2, '', now(), 3600000) RETURNING session_id)
    INSERT INTO session_lease (session_id, deadline) SELECT session_id, now() + INTERVAL '1 hour' FROM s";

/// Works go with their session.
pub(crate) const LEAVE: [&str; 2] = [
    "DELETE FROM work WHERE session_id = $1",
    "DELETE FROM session WHERE session_id = $1",
];

pub(crate) struct Clients {
    pub(crate) session: Uuid,
    connections: Vec<Mutex<PgConnection>>,
}

impl Clients {
    pub(crate) async fn connect(options: PgConnectOptions, workers: usize, component: &str) -> Result<Self, Failure> {
        let mut connections = Vec::new();
        for _ in 0..workers {
            connections.push(Mutex::new(options.connect().await?));
        }
        let clients = Self {
            session: Uuid::new_v4(),
            connections,
        };
        sqlx::query(SESSION)
            .bind(clients.session)
            .bind(component)
            .execute(&mut *clients.of(0).await)
            .await?;
        Ok(clients)
    }

    /// A worker's connection.
    pub(crate) async fn of(&self, worker: usize) -> MutexGuard<'_, PgConnection> {
        self.connections[worker].lock().await
    }

    pub(crate) async fn leave(self) -> Result<(), Failure> {
        for statement in LEAVE {
            let statement = sqlx::query(statement).bind(self.session);
            statement.execute(&mut *self.of(0).await).await?;
        }
        for connection in self.connections {
            connection.into_inner().close().await?;
        }
        Ok(())
    }
}
