//! How BMDB reads the URL of its database, for components and the migrator alike: [`Sqlite`] for a file, [`Postgres`] for a server.
//!
//! The drivers' own readers do more and less than that: SQLite's takes parameters that switch off its locks, PostgreSQL's does not read an address in
//! brackets, and logs the value of a parameter that it does not know, which may be a password.

mod parts;
mod sqlite;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sea_orm::sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::form_urlencoded;

use parts::Parts;
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

/// Where a server is, read as libpq reads it (postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS), as the driver takes it.
#[derive(Clone, Debug)]
pub struct Postgres {
    /// For the driver.
    pub options: PgConnectOptions,
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
    /// # Ok::<_, bmdb_address::UrlError>(())
    /// ```
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let parts = Parts::of(url)?;
        // Everything as a parameter, which the driver reads one by one and the last of a kind counts; it also looks the password up, as libpq does.
        let plain: String = form_urlencoded::Serializer::new("postgres://localhost?".to_owned())
            .extend_pairs(&parts.for_driver)
            .finish();
        let options = PgConnectOptions::from_str(&plain).map_err(|_quotes_the_url| {
            UrlError::Malformed("a parameter has a value that PostgreSQL does not know, such as sslmode")
        })?;
        let server = Self {
            options,
            connect_timeout: parts.connect_timeout,
        };
        check_readable(server.options.get_host())?;
        check_readable(
            &server
                .options
                .get_socket()
                .map(|path| path.to_string_lossy())
                .unwrap_or_default(),
        )?;
        check_readable(server.options.get_database().unwrap_or_default())?;
        Ok(server)
    }

    /// Whether nobody on the way can read or forge what is said: the server proves who it is, or it is this machine.
    #[must_use]
    pub fn is_private(&self) -> bool {
        matches!(self.options.get_ssl_mode(), PgSslMode::VerifyFull)
            || self.options.get_socket().is_some()
            || is_this_machine(self.options.get_host())
    }
}

/// The database's name for people: no user, no password, no parameters.
impl fmt::Display for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (port, database) = (self.options.get_port(), self.options.get_database().unwrap_or_default());
        match (self.options.get_socket(), self.options.get_host()) {
            (Some(socket), _) => write!(f, "postgres://{}:{port}/{database}", socket.display()),
            (None, host) if host.contains(':') => write!(f, "postgres://[{host}]:{port}/{database}"),
            (None, host) => write!(f, "postgres://{host}:{port}/{database}"),
        }
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
