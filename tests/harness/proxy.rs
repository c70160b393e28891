//! A network between a component and PostgreSQL that loses, delays and forges what the test says, statement by statement.
//!
//! It speaks the frontend/backend protocol 3.0 (postgresql.org/docs/current/protocol-message-formats.html) as far as it must: it knows where a
//! statement begins, what its text is, and whether the server is inside a transaction.

mod connection;
mod wire;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

/// A statement on its way to the server.
#[derive(Clone, Debug)]
pub struct Passing<'a> {
    /// Which connection it is on, counted from the first that was made.
    pub connection: u64,
    /// Its text.
    pub sql: &'a str,
    /// Whether it ends a transaction by committing it: COMMIT, or a write that is a transaction of its own.
    pub commits: bool,
    /// What it is sent with.
    pub values: &'a [Bound],
}

/// A value that a statement is sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The OID of its type as the client declared it; 0: the server finds out.
    pub oid: u32,
    /// As it is sent; none for NULL.
    pub bytes: Option<Vec<u8>>,
}

/// What becomes of a statement.
#[derive(Debug)]
pub enum Fate {
    /// It passes.
    Pass,
    /// It passes when the other end of this says so, or is dropped.
    Wait(oneshot::Receiver<()>),
    /// It passes after so long.
    Delay(Duration),
    /// It fails.
    Fail(Fault),
}

/// What goes wrong. Each is what a client sees of a real fault, and the server is left as that fault leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The server answers with this SQLSTATE and rolls back: 40001, 40P01, or 40003 for a COMMIT that was not applied.
    Refused(&'static str),
    /// The server does what was asked and answers with this SQLSTATE: 40003 for a COMMIT that was applied.
    Disowned(&'static str),
    /// The connection breaks before the statement arrives.
    DropBefore,
    /// The connection breaks after the statement took effect and before its answer arrives.
    DropAfter,
    /// The client's connection breaks at once; the statement arrives later.
    Late(Duration),
    /// Nothing arrives any more in either direction, and nobody is told.
    HalfOpen,
    /// An administrator ends the connection: 57P01.
    Terminated,
}

/// Who decides about each statement.
type Decide = Box<dyn FnMut(&Passing<'_>) -> Fate + Send>;
/// Who changes the text of statements as they are prepared.
type Rewrite = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The proxy. It ends, with its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    target: String,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

pub(crate) struct Shared {
    server: Mutex<String>,
    decide: Mutex<Decide>,
    rewrite: Mutex<Option<Rewrite>>,
    /// Whether it is a pooler that drops the options of a connection's start.
    drops_options: AtomicBool,
    /// Whether the server's messages are in a language that we do not know.
    translates: AtomicBool,
    /// The codes of those that were.
    translated: Mutex<Vec<String>>,
    connections: AtomicU64,
    round_trips: AtomicU64,
    /// Changes when all connections are to be cut; they also end with the proxy.
    cut: watch::Sender<u64>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("server", &lock(&self.server))
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// Listens on a port of its own and passes everything on to the server of `url`.
    ///
    /// # Panics
    /// Panics if `url` is not one of the harness's, or no port can be had.
    pub async fn to(url: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("this machine has a loopback address");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let server = server_of(url);
        let shared = Arc::new(Shared {
            server: Mutex::new(server.to_owned()),
            decide: Mutex::new(Box::new(|_| Fate::Pass)),
            rewrite: Mutex::new(None),
            drops_options: AtomicBool::new(false),
            translates: AtomicBool::new(false),
            translated: Mutex::default(),
            connections: AtomicU64::new(0),
            round_trips: AtomicU64::new(0),
            cut: watch::Sender::new(0),
        });
        let mut accepting = JoinSet::new();
        accepting.spawn({
            let shared = Arc::clone(&shared);
            async move {
                let mut connections = JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    let number = shared.connections.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(connection::serve(Arc::clone(&shared), number, client));
                    while connections.try_join_next().is_some() {}
                }
            }
        });
        Self {
            port,
            target: url.replace(server, &format!("127.0.0.1:{port}")),
            shared,
            _accepting: accepting,
        }
    }

    /// The same database, by way of this proxy.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.target
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Asks `decide` about every statement from now on, in the order in which they arrive.
    pub fn decide(&self, decide: impl FnMut(&Passing<'_>) -> Fate + Send + 'static) {
        *lock(&self.shared.decide) = Box::new(decide);
    }

    /// Lets everything pass again.
    pub fn calm(&self) {
        self.decide(|_| Fate::Pass);
    }

    /// Changes the text of the statements that are prepared from now on; `None` leaves one as it is.
    pub fn rewrite(&self, rewrite: impl Fn(&str) -> Option<String> + Send + Sync + 'static) {
        *lock(&self.shared.rewrite) = Some(Box::new(rewrite));
    }

    /// From now on drops the options of new connections, as pgbouncer does with `ignore_startup_parameters=options`.
    pub fn drop_options(&self) {
        self.shared.drops_options.store(true, Ordering::Relaxed);
    }

    /// From now on the texts of errors are in another language, as with `lc_messages`.
    pub fn translate(&self) {
        self.shared.translates.store(true, Ordering::Relaxed);
    }

    /// The codes of the errors that it has translated.
    #[must_use]
    pub fn translated(&self) -> Vec<String> {
        lock(&self.shared.translated).clone()
    }

    /// Passes new connections on to the server of `url`, as when a name leads to another server after a fail-over.
    ///
    /// # Panics
    /// Panics if `url` is not one of the harness's.
    pub fn redirect(&self, url: &str) {
        server_of(url).clone_into(&mut lock(&self.shared.server));
    }

    /// Breaks every connection. New ones are served.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|times| *times += 1);
    }

    /// How often a client has sent something and waited for the answer, since the proxy was made.
    #[must_use]
    pub fn round_trips(&self) -> u64 {
        self.shared.round_trips.load(Ordering::Relaxed)
    }
}

/// The host and port in a test's URL.
fn server_of(url: &str) -> &str {
    let (_, place) = url.split_once('@').expect("a test's URL names a user");
    place.split_once('/').expect("a test's URL names a database").0
}

impl Shared {
    fn server(&self) -> String {
        lock(&self.server).clone()
    }

    fn fate_of(&self, passing: &Passing<'_>) -> Fate {
        lock(&self.decide)(passing)
    }

    fn rewritten(&self, sql: &str) -> Option<String> {
        lock(&self.rewrite).as_ref().and_then(|rewrite| rewrite(sql))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("a test's decision does not panic")
}
