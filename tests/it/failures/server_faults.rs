//! Faults of the server itself: it stops, crashes, loses what it was told, has no room left, or a clock that jumps. Each test has a server of its
//! own.

mod clock;
mod connections;
mod disk;
mod fail_over;
mod stops;

use std::future::IntoFuture;
use std::time::{Duration, Instant};

use bmdb::{Bmdb, Config, MachineId, Session, Work};
use bmdb_entity::{machine, session_lease};
pub(crate) use harness::NOISE;
use harness::{TestDatabase, check_history, of, until};
use sea_orm::prelude::DateTimeUtc;
use sea_orm::{DatabaseConnection, EntityTrait, PaginatorTrait};

use crate::claims::stress::idle_in_transaction;
use crate::world::{AgentStart, LONG, provide, sessions, works};

/// A component with a session, on a database of a server of its own.
pub(crate) struct Scene {
    pub(crate) bmdb: Bmdb,
    pub(crate) session: Session,
    pub(crate) raw: DatabaseConnection,
    pub(crate) machines: Vec<MachineId>,
}

impl Scene {
    /// With so many machines.
    pub(crate) async fn on(db: &TestDatabase, interval: Duration, machines: usize) -> Self {
        Self::of(connect(db, interval).await, db, machines).await
    }

    /// Of this component.
    pub(crate) async fn of(bmdb: Bmdb, db: &TestDatabase, machines: usize) -> Self {
        let session = bmdb.start_session().await.unwrap();
        let machines = provide(&session, machines).await;
        let raw = db.raw().await;
        Self {
            bmdb,
            session,
            raw,
            machines,
        }
    }

    pub(crate) async fn sees_a_heartbeat(&self) {
        sees_a_heartbeat(&self.raw, &self.session).await;
    }

    /// How many machines there are: bodies count their runs by making some.
    pub(crate) async fn machines(&self) -> u64 {
        machine::Entity::find().count(&self.raw).await.unwrap()
    }

    /// Closes the session; nothing may be left, and history must be whole.
    pub(crate) async fn ends_well(self) {
        self.session.close().await.unwrap();
        self.bmdb.close().await;
        assert_eq!((works(&self.raw).await, sessions(&self.raw).await), (0, 0));
        if self.raw.get_database_backend() != sea_orm::DatabaseBackend::Sqlite {
            assert_eq!(idle_in_transaction(&self.raw).await, 0);
        }
        assert_eq!(check_history(&self.raw).await, Vec::<String>::new());
    }
}

pub(crate) async fn connect(db: &TestDatabase, interval: Duration) -> Bmdb {
    let config = Config::new(db.url(), "test", bmdb::runtime_info!()).interval(interval);
    Bmdb::connect(config).await.unwrap()
}

async fn deadline(raw: &DatabaseConnection, session: &Session) -> Option<DateTimeUtc> {
    let lease = session_lease::Entity::find_by_id(session.id()).one(raw).await.unwrap();
    lease.map(|lease| lease.deadline)
}

/// Waits until a heartbeat has just been written: the next comes in almost a third of the interval.
async fn sees_a_heartbeat(raw: &DatabaseConnection, session: &Session) {
    let before = deadline(raw, session).await;
    until("a heart beats", LONG, async || deadline(raw, session).await != before).await;
}

pub(crate) async fn claim(session: &Session) -> Work<AgentStart> {
    let claimed = session.claim(&of::<AgentStart>(&session).await).await.unwrap();
    claimed.expect("a machine is eligible")
}

/// Claims until there is something to claim.
pub(crate) async fn takes_over(session: &Session, limit: Duration) -> Work<AgentStart> {
    let mut taken = None;
    until("the machine is taken over", limit + NOISE, async || {
        taken = session.claim(&of::<AgentStart>(&session).await).await.unwrap();
        taken.is_some()
    })
    .await;
    taken.expect("it was taken")
}

/// The answer, and how long it took: at most `limit`.
pub(crate) async fn within<T>(limit: Duration, call: impl IntoFuture<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let answer = tokio::time::timeout(limit, call.into_future()).await;
    (
        answer.unwrap_or_else(|_elapsed| panic!("no answer within {limit:?}")),
        began.elapsed(),
    )
}
