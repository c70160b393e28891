//! How BMDB reads the URL of its database, for components and the migrator alike: [`Sqlite`] for a file, [`Postgres`] for a server.
//!
//! The drivers' own readers do more and less than that: SQLite's takes parameters that switch off its locks, PostgreSQL's does not read an address in
//! brackets, and logs the value of a parameter that it does not know, which may be a password.

mod parts;
mod place;
mod sqlite;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sea_orm::sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::form_urlencoded;

use parts::Parts;
pub use place::what_is_wrong_with;
pub use sqlite::Sqlite;

/// Why a URL is not one. Holds nothing of the URL but the name of a parameter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It cannot be read, or says what cannot be done.
    #[error("{0}")]
    Malformed(&'static str),
    /// There is no such parameter, or we do not take it.
    #[error("it has the parameter {0:?}, which is none that we take")]
    Parameter(String),
    /// A database in SQLite's memory, which no other process sees.
    #[error("a database in memory is seen by one process only")]
    InMemory,
}

/// Where a server is, read as libpq reads it (postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS), as the driver takes it. Of several
/// servers one takes writes, and a fail-over may make it another.
#[derive(Clone, Debug)]
pub struct Postgres {
    /// For the driver, of the first server.
    pub options: PgConnectOptions,
    /// Hosts and ports of the others, in the order in which they are tried.
    others: Vec<(String, u16)>,
    /// How long a connection may take to be opened; none if the URL does not say.
    pub connect_timeout: Option<Duration>,
}

impl Postgres {
    /// Reads a URL whose scheme is `postgres` or `postgresql`.
    ///
    /// ```
    /// let server = bmdb_address::Postgres::parse("postgres://ada@[::1]:5433/bmdb?connect_timeout=3")?;
    /// assert_eq!(server.options.get_host(), "::1");
    /// assert_eq!(server.to_string(), "postgres://[::1]:5433/bmdb");
    ///
    /// let cluster = bmdb_address::Postgres::parse("postgres://ada@db1,db2,db3:5433/bmdb")?;
    /// let hosts: Vec<String> = cluster.servers().map(|server| server.get_host().to_owned()).collect();
    /// assert_eq!(hosts, ["db1", "db2", "db3"]);
    /// # Ok::<_, bmdb_address::UrlError>(())
    /// ```
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let parts = Parts::of(url)?;
        // Everything as a parameter, which the driver reads one by one and the last of a kind counts; it also looks the password up, as libpq does.
        let (host, port) = &parts.servers[0];
        let port = port.map(|port| ("port", port.to_string()));
        let plain: String = form_urlencoded::Serializer::new("postgres://localhost?".to_owned())
            .append_pair("host", host)
            .extend_pairs(port)
            .extend_pairs(&parts.for_driver)
            .finish();
        let options = PgConnectOptions::from_str(&plain).map_err(|_quotes_the_url| {
            UrlError::Malformed("a parameter has a value that PostgreSQL does not know, such as sslmode")
        })?;
        let server = Self {
            others: parts.servers[1..]
                .iter()
                .map(|(host, port)| (host.clone(), port.unwrap_or(DEFAULT_PORT)))
                .collect(),
            options,
            connect_timeout: parts.connect_timeout,
        };
        parts.servers.iter().try_for_each(|(host, _)| check_readable(host))?;
        check_readable(server.options.get_database().unwrap_or_default())?;
        Ok(server)
    }

    /// The options for each server, in the order in which they are tried.
    pub fn servers(&self) -> impl Iterator<Item = PgConnectOptions> {
        let others = self
            .others
            .iter()
            .map(|(host, port)| self.options.clone().host(host).port(*port));
        std::iter::once(self.options.clone()).chain(others)
    }

    /// The first host to which somebody on the way could read or forge what is said: it is another machine, and does not prove who it is.
    #[must_use]
    pub fn exposed_host(&self) -> Option<String> {
        let is_exposed = |server: &PgConnectOptions| {
            let proves_itself = matches!(server.get_ssl_mode(), PgSslMode::VerifyFull);
            !proves_itself && server.get_socket().is_none() && !is_this_machine(server.get_host())
        };
        let exposed = self.servers().find(is_exposed)?;
        Some(exposed.get_host().to_owned())
    }
}

/// What a server listens on if nobody says otherwise.
const DEFAULT_PORT: u16 = 5432;

/// The database's name for people: no user, no password, no parameters.
impl fmt::Display for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<String> = self.servers().map(|server| place_of(&server)).collect();
        let database = self.options.get_database().unwrap_or_default();
        write!(f, "postgres://{}/{database}", places.join(","))
    }
}

/// Host and port of a server, for people.
#[must_use]
pub fn place_of(server: &PgConnectOptions) -> String {
    let port = server.get_port();
    match (server.get_socket(), server.get_host()) {
        (Some(socket), _) => format!("{}:{port}", socket.display()),
        (None, host) if host.contains(':') => format!("[{host}]:{port}"),
        (None, host) => format!("{host}:{port}"),
    }
}

/// Names are shown in errors and logs: they must not be able to forge a line or turn one round.
fn check_readable(name: &str) -> Result<(), UrlError> {
    match name.chars().any(is_misleading) {
        true => Err(UrlError::Malformed(
            "a name in it holds a control character or a mark of direction",
        )),
        false => Ok(()),
    }
}

/// Whether a character could forge a line of a log or turn one round. The marks of direction are those of Unicode's Bidi_Control (unicode.org/reports/tr9).
#[must_use]
pub fn is_misleading(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost"
        || host.starts_with('/')
        || host.parse::<std::net::IpAddr>().is_ok_and(|host| host.is_loopback())
}
