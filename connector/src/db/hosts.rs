//! Which of the servers that a URL names new connections are opened to: one that takes writes, wherever a fail-over has put it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bmdb_address::place_of;
use futures_util::FutureExt;
use futures_util::future::select_ok;
use sea_orm::sqlx::{PgConnection, PgPool};
use tokio::sync::Notify;

use crate::db::connect::{self, CheckError, Door};
use crate::error::Error;

/// The servers, in the order of the URL. It holds no pools: those hold it, by what they have learned.
pub(crate) struct Hosts {
    doors: Vec<Door>,
    /// The one that connections are opened to.
    current: AtomicUsize,
    doubted: Notify,
}

/// A server that has not answered for so long is passed over.
const PATIENCE: Duration = Duration::from_secs(2);
/// They are not asked again before so long, in whatever doubt.
const PAUSE: Duration = Duration::from_millis(250);

impl Hosts {
    /// Connections are opened by the `current` one of the doors, as long as nothing is wrong with it.
    pub(crate) fn new(doors: Vec<Door>, current: usize) -> Self {
        Self {
            doors,
            current: AtomicUsize::new(current),
            doubted: Notify::new(),
        }
    }

    /// Which server connections are opened to.
    pub(crate) fn current(&self) -> usize {
        self.current.load(Ordering::Acquire)
    }

    pub(crate) fn door(&self) -> &Door {
        &self.doors[self.current()]
    }

    /// Opens the first connection of all, to the first in the order of the URL that takes writes. There is no other to compare it with yet, so with one
    /// server alone nothing is checked here.
    ///
    /// # Errors
    /// [`Error::Unreachable`], with what each of them said.
    pub(crate) async fn first(&self, limit: Duration, database: &str) -> Result<PgConnection, Error> {
        if let [alone] = &self.doors[..] {
            let opened = alone.open(limit).await;
            return opened.map_err(|error| connect::into_error(error.into(), database));
        }
        let mut refusals = Vec::new();
        for (place, door) in self.doors.iter().enumerate() {
            match door.open_writable(limit).await {
                Ok(connection) => {
                    self.current.store(place, Ordering::Release);
                    return Ok(connection);
                }
                Err(error) => refusals.push((place_of(door.options()), error)),
            }
        }
        Err(Error::Unreachable {
            database: database.to_owned(),
            source: Arc::new(Refusals(refusals)),
        })
    }

    /// Something may be wrong with the server: it does not answer, it goes down, it takes no writes.
    pub(crate) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Whether there is another server to go to.
    pub(crate) fn are_several(&self) -> bool {
        self.doors.len() > 1
    }

    /// Looks, whenever the server is in doubt, for the one that takes writes, and leads these pools there. `moved` is told of each move. Never ends.
    pub(crate) async fn follow(&self, pools: Vec<PgPool>, moved: impl Fn()) {
        loop {
            self.doubted.notified().await;
            let place = loop {
                match self.find().await {
                    Some(place) => break place,
                    None => tokio::time::sleep(PAUSE).await,
                }
            };
            if self.current.swap(place, Ordering::AcqRel) != place {
                let server = self.doors[place].options();
                let (host, port) = (server.get_host(), server.get_port());
                for pool in &pools {
                    pool.set_connect_options(pool.connect_options().as_ref().clone().host(host).port(port));
                }
                moved();
                tracing::warn!(
                    server = place_of(server),
                    "another server takes writes, and is used from now on"
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The first that answers and takes writes; the one that is used, if it does as soon.
    async fn find(&self) -> Option<usize> {
        let current = self.current();
        let others = (0..self.doors.len()).filter(|place| *place != current);
        let knocks = std::iter::once(current).chain(others).map(|place| {
            let door = &self.doors[place];
            async move { door.open_writable(PATIENCE).await.map(|_connection| place) }.boxed()
        });
        let found = select_ok(knocks).await;
        found.ok().map(|(place, _others)| place)
    }
}

/// What each of several servers said.
#[derive(Debug)]
struct Refusals(Vec<(String, CheckError)>);

impl std::error::Error for Refusals {}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("none of its servers takes writes")?;
        self.0
            .iter()
            .try_for_each(|(place, error)| write!(f, "; {place}: {error}"))
    }
}
