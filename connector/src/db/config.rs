//! How a component connects: where the values come from, and the one place that checks them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::db::address::{Address, Tls};
use crate::db::dialect::Dialect;
use crate::error::config_error::ConfigError;

/// What a commit on SQLite waits for. PostgreSQL has its own setting, `synchronous_commit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// The disk. What a call has answered is there after a power loss.
    #[default]
    Full,
    /// Nothing: the operating system writes it out within some seconds, and a process that crashes loses nothing by that. But **a power loss forgets the
    /// last seconds, and with them claims: their machines are claimed again, with the fences that were given out before**, so that a resource that
    /// compares fences cannot tell the two holders apart. It is for laptops and tests, and for where no effect outlives the power.
    Normal,
}

impl FromStr for Synchronous {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "full" => Ok(Self::Full),
            "normal" => Ok(Self::Normal),
            _ => Err(()),
        }
    }
}

/// How a component connects to BMDB.
///
/// Values come from code, from the URL's own parameters (`?bmdb.interval=5s`) and from the environment (`BMDB_INTERVAL=5s`, read by
/// [`Config::from_env`]). They are checked once, by [`Bmdb::connect`](crate::Bmdb::connect).
///
/// | setting | default | meaning |
/// |---|---|---|
/// | `interval` | 10 s | how long one heartbeat keeps a session alive: 100 ms to 1 h |
/// | `margin` | interval / 5 | how much earlier than the database the process stops believing: below half the interval |
/// | `stall_limit` | 10 intervals, at least 60 s | for how long this process's runtime may run nothing, blocked or stopped, before its sessions are given up: interval to 24 h |
/// | `max_connections` | 10 | connections for transaction bodies, and as many for claims and ends; the library has 4 more, 4 for claims that search, and 2 for heartbeats: 30 in all, and never more than half of what the server has |
/// | `acquire_timeout` | 5 s | how long a call waits for a free connection |
/// | `statement_timeout` | 10 s | how long one statement may run |
/// | `retry_budget` | 15 s | how long a transaction is run again after conflicts; never past the session's trust |
/// | `allow_plaintext` | false | connect to another host without `sslmode=verify-full` |
/// | `synchronous` | `full` | SQLite: whether a commit waits for the disk. `normal`: it does not, and a power loss gives [fences out again](Synchronous) |
/// | `tls_root_certificate` | the public ones | a file with the authority that signed the server's certificate; demands `verify-full` |
/// | `tls_client_certificate`, `tls_client_key` | none | files with what the server knows this component by |
/// | `dialect` | as the server says | `cockroach` sends CockroachDB's text to PostgreSQL, so that tests run it too |
///
/// PostgreSQL's own URL parameters say the same: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`. A URL is read as libpq reads it; `connect_timeout` bounds
/// the first connection, within `acquire_timeout`. It may name several servers, `postgres://ada@db1,db2:5433/bmdb`: connections go to the first that takes
/// writes, and when it no longer answers or takes none, to the one that does then.
///
/// ```
/// use bmdb::{Config, runtime_info};
/// use std::time::Duration;
///
/// let config = Config::new("sqlite://bmdb.sqlite?mode=rwc", "shepherd", runtime_info!()).interval(Duration::from_secs(5));
/// assert!(config.check().is_ok());
/// assert!(config.interval(Duration::ZERO).check().is_err());
/// ```
#[derive(Clone)]
pub struct Config {
    pub(crate) url: String,
    pub(crate) component: String,
    pub(crate) runtime_info: String,
    pub(crate) interval: Duration,
    margin: Option<Duration>,
    stall_limit: Option<Duration>,
    pub(crate) max_connections: u32,
    pub(crate) acquire_timeout: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) retry_budget: Duration,
    pub(crate) allow_plaintext: bool,
    pub(crate) synchronous: Synchronous,
    pub(crate) tls_root_certificate: Option<PathBuf>,
    pub(crate) tls_client_certificate: Option<PathBuf>,
    pub(crate) tls_client_key: Option<PathBuf>,
    pub(crate) dialect: Option<Dialect>,
}

/// The settings that a URL or the environment may carry.
const NAMES: &[&str] = &[
    "interval",
    "margin",
    "stall_limit",
    "max_connections",
    "acquire_timeout",
    "statement_timeout",
    "retry_budget",
    "allow_plaintext",
    "synchronous",
    "tls_root_certificate",
    "tls_client_certificate",
    "tls_client_key",
    "dialect",
];

const URL_PREFIX: &str = "bmdb.";

impl Config {
    /// The configuration of a component with this name, for the database at `url`. `runtime_info` tells people which incarnation this is;
    /// [`runtime_info!`](crate::runtime_info) makes one.
    pub fn new(url: impl Into<String>, component: impl Into<String>, runtime_info: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            component: component.into(),
            runtime_info: runtime_info.into(),
            interval: Duration::from_secs(10),
            margin: None,
            stall_limit: None,
            max_connections: 10,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            retry_budget: Duration::from_secs(15),
            allow_plaintext: false,
            synchronous: Synchronous::Full,
            tls_root_certificate: None,
            tls_client_certificate: None,
            tls_client_key: None,
            dialect: None,
        }
    }

    /// The same from the environment: `BMDB_DATABASE_URL`, and `BMDB_` with each setting's name in capitals.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] without `BMDB_DATABASE_URL`; [`ConfigError::Setting`] for a value that cannot be read.
    pub fn from_env(component: impl Into<String>, runtime_info: impl Into<String>) -> Result<Self, ConfigError> {
        Self::from_variables(component, runtime_info, |name| std::env::var(name).ok())
    }

    fn from_variables(
        component: impl Into<String>,
        runtime_info: impl Into<String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let url = variable("BMDB_DATABASE_URL").ok_or(ConfigError::Missing {
            name: "BMDB_DATABASE_URL",
            expected: "the database's URL",
        })?;
        let mut config = Self::new(url, component, runtime_info);
        for name in NAMES {
            if let Some(value) = variable(&format!("BMDB_{}", name.to_uppercase())) {
                config.set(name, &value)?;
            }
        }
        Ok(config)
    }

    /// How long one heartbeat keeps a session alive. Heartbeats are sent every third of it.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How much earlier than the database the process stops believing in its session.
    #[must_use]
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = Some(margin);
        self
    }

    /// For how long the runtime in which a session was started may run nothing before the session is given up.
    ///
    /// Heartbeats have a thread of their own, so code that blocks every other thread costs no session. But a process that hangs for ever must not keep
    /// its machines: after this time, and at most an interval more, others can have them.
    #[must_use]
    pub fn stall_limit(mut self, limit: Duration) -> Self {
        self.stall_limit = Some(limit);
        self
    }

    /// How many connections the bodies of transactions may use at once; and as many more may be used by claims and ends. (SQLite has one writer, whatever this says.)
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// How long a call waits for a free connection.
    #[must_use]
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// How long one statement may run.
    #[must_use]
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// For how long a transaction is run again after losing against others.
    #[must_use]
    pub fn retry_budget(mut self, budget: Duration) -> Self {
        self.retry_budget = budget;
        self
    }

    /// Whether to connect to another host without `sslmode=verify-full`.
    #[must_use]
    pub fn allow_plaintext(mut self, allow: bool) -> Self {
        self.allow_plaintext = allow;
        self
    }

    /// What a commit on SQLite waits for.
    #[must_use]
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// A PEM file with the authority that signed the server's certificate. Demands `verify-full`.
    #[must_use]
    pub fn tls_root_certificate(mut self, file: impl Into<PathBuf>) -> Self {
        self.tls_root_certificate = Some(file.into());
        self
    }

    /// What the server knows this component by: PEM files with a certificate and its key.
    #[must_use]
    pub fn tls_client(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls_client_certificate = Some(certificate.into());
        self.tls_client_key = Some(key.into());
        self
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        match name {
            "interval" => self.interval = duration("interval", value)?,
            "margin" => self.margin = Some(duration("margin", value)?),
            "stall_limit" => self.stall_limit = Some(duration("stall_limit", value)?),
            "max_connections" => self.max_connections = parse("max_connections", value, "a whole number above zero")?,
            "acquire_timeout" => self.acquire_timeout = duration("acquire_timeout", value)?,
            "statement_timeout" => self.statement_timeout = duration("statement_timeout", value)?,
            "retry_budget" => self.retry_budget = duration("retry_budget", value)?,
            "allow_plaintext" => self.allow_plaintext = parse("allow_plaintext", value, "true or false")?,
            "synchronous" => self.synchronous = parse("synchronous", value, "full or normal")?,
            "tls_root_certificate" => self.tls_root_certificate = Some(value.into()),
            "tls_client_certificate" => self.tls_client_certificate = Some(value.into()),
            "tls_client_key" => self.tls_client_key = Some(value.into()),
            "dialect" if value == "cockroach" => self.dialect = Some(Dialect::Cockroach),
            "dialect" => {
                let (setting, expected) = ("dialect", "cockroach, or nothing: the server says what it is");
                return Err(ConfigError::Setting {
                    setting,
                    value: value.chars().take(50).collect(),
                    expected,
                });
            }
            _ => {
                return Err(ConfigError::UnknownSetting {
                    name: name.to_owned(),
                    known: NAMES,
                });
            }
        }
        Ok(())
    }

    /// Checks every value without connecting.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.clone().checked().map(drop)
    }

    /// Applies the URL's own settings and checks everything.
    pub(crate) fn checked(mut self) -> Result<(Self, Address), ConfigError> {
        let url = std::mem::take(&mut self.url);
        self.url = self.take_settings_of(&url)?;
        self.check_settings()?;
        let tls = Tls {
            root_certificate: self.tls_root_certificate.as_deref(),
            client: self
                .tls_client_certificate
                .as_deref()
                .zip(self.tls_client_key.as_deref()),
            allow_plaintext: self.allow_plaintext,
        };
        let address = Address::parse(&self.url, &tls)?;
        Ok((self, address))
    }

    /// Reads our parameters off the URL and returns the rest of it.
    fn take_settings_of(&mut self, url: &str) -> Result<String, ConfigError> {
        let Some((base, query)) = url.split_once('?') else {
            return Ok(url.to_owned());
        };
        let mut others = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.strip_prefix(URL_PREFIX) {
                None => others.push(pair),
                Some(setting) => {
                    let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
                    self.set(name, value)?;
                }
            }
        }
        Ok(if others.is_empty() {
            base.to_owned()
        } else {
            format!("{base}?{}", others.join("&"))
        })
    }

    fn check_settings(&self) -> Result<(), ConfigError> {
        let wrong = |setting, value: &dyn fmt::Debug, expected| {
            Err(ConfigError::Setting {
                setting,
                value: format!("{value:?}"),
                expected,
            })
        };
        if !is_plain_text(&self.component, 200) {
            return wrong(
                "component",
                &self.component.chars().take(100).collect::<String>(),
                "1 to 200 characters, none of them a control character",
            );
        }
        if self.runtime_info.len() > 4096 || self.runtime_info.contains('\0') {
            return wrong("runtime_info", &"…", "at most 4 kB without NUL");
        }
        if self.interval < Duration::from_millis(100) || self.interval > Duration::from_secs(3600) {
            return wrong("interval", &self.interval, "100ms to 1h");
        }
        let margin = self.margin_or_default();
        if margin.is_zero() || margin >= self.interval / 2 {
            return wrong("margin", &margin, "more than zero and less than half the interval");
        }
        let stall_limit = self.stall_limit_or_default();
        if stall_limit < self.interval || stall_limit > Duration::from_secs(24 * 3600) {
            return wrong("stall_limit", &stall_limit, "the interval to 24h");
        }
        if !(1..=1000).contains(&self.max_connections) {
            return wrong("max_connections", &self.max_connections, "1 to 1000");
        }
        self.check_certificates()?;
        let times = [
            ("acquire_timeout", self.acquire_timeout),
            ("statement_timeout", self.statement_timeout),
            ("retry_budget", self.retry_budget),
        ];
        for (setting, time) in times {
            if time < Duration::from_millis(10) || time > Duration::from_secs(3600) {
                return wrong(setting, &time, "10ms to 1h");
            }
        }
        Ok(())
    }

    fn check_certificates(&self) -> Result<(), ConfigError> {
        if self.tls_client_certificate.is_some() != self.tls_client_key.is_some() {
            return Err(ConfigError::Setting {
                setting: "tls_client_key",
                value: "without tls_client_certificate, or the other way round".to_owned(),
                expected: "both or neither",
            });
        }
        let files = [
            ("tls_root_certificate", &self.tls_root_certificate),
            ("tls_client_certificate", &self.tls_client_certificate),
            ("tls_client_key", &self.tls_client_key),
        ];
        for (setting, file) in files {
            if let Some(file) = file.as_ref().filter(|file| !file.is_file()) {
                let value = file.display().to_string();
                return Err(ConfigError::Setting {
                    setting,
                    value,
                    expected: "a file that can be read",
                });
            }
        }
        Ok(())
    }

    pub(crate) fn margin_or_default(&self) -> Duration {
        self.margin.unwrap_or(self.interval / 5)
    }

    pub(crate) fn stall_limit_or_default(&self) -> Duration {
        self.stall_limit
            .unwrap_or_else(|| Duration::from_secs(60).max(self.interval * 10))
    }
}

/// Without the URL, which may carry a password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("component", &self.component)
            .field("runtime_info", &self.runtime_info)
            .field("interval", &self.interval)
            .field("margin", &self.margin_or_default())
            .finish_non_exhaustive()
    }
}

/// Whether `text` can be shown in one line of a log without changing its form.
fn is_plain_text(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.chars().count() <= longest && !text.chars().any(char::is_control)
}

fn parse<T: FromStr>(setting: &'static str, value: &str, expected: &'static str) -> Result<T, ConfigError> {
    value.trim().parse().map_err(|_any| ConfigError::Setting {
        setting,
        value: value.chars().take(50).collect(),
        expected,
    })
}

/// Reads `250ms`, `10s`, `5m` or `1h`.
fn duration(setting: &'static str, value: &str) -> Result<Duration, ConfigError> {
    const EXPECTED: &str = "a whole number with ms, s, m or h";
    let digits = value.trim().trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let number: u64 = parse(setting, digits, EXPECTED)?;
    let milliseconds = match value.trim().trim_start_matches(|digit: char| digit.is_ascii_digit()) {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    milliseconds
        .map(Duration::from_millis)
        .ok_or_else(|| ConfigError::Setting {
            setting,
            value: value.chars().take(50).collect(),
            expected: EXPECTED,
        })
}

/// Version, host and process of this component, for people who look at its session.
#[macro_export]
macro_rules! runtime_info {
    () => {
        $crate::runtime_info_of(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
    };
}

/// What [`runtime_info!`](crate::runtime_info) calls with the package's name and version.
#[must_use]
pub fn runtime_info_of(package: &str, version: &str) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{package} {version} on {host}, process {}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused() {
        let config = || Config::new("sqlite://bmdb.sqlite", "shepherd", "");
        let seconds = Duration::from_secs;
        for (wrong, setting) in [
            (config().interval(Duration::ZERO), "interval"),
            (config().interval(seconds(3601)), "interval"),
            (config().margin(seconds(5)), "margin"),
            (config().margin(Duration::ZERO), "margin"),
            (config().stall_limit(seconds(9)), "stall_limit"),
            (config().stall_limit(Duration::MAX), "stall_limit"),
            (config().max_connections(0), "max_connections"),
            (config().acquire_timeout(Duration::ZERO), "acquire_timeout"),
            (config().statement_timeout(Duration::ZERO), "statement_timeout"),
            (config().retry_budget(Duration::MAX), "retry_budget"),
            (
                Config::new("sqlite://bmdb.sqlite?bmdb.synchronous=off", "x", ""),
                "synchronous",
            ),
            (Config::new("sqlite://bmdb.sqlite", "", ""), "component"),
            (Config::new("sqlite://bmdb.sqlite", "two\nlines", ""), "component"),
            (Config::new("sqlite://bmdb.sqlite", "shepherd", "\0"), "runtime_info"),
        ] {
            match wrong.check() {
                Err(ConfigError::Setting { setting: found, .. }) => assert_eq!(found, setting),
                other => panic!("{setting}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_environment_carries_every_setting() {
        let variable = |name: &str| match name {
            "BMDB_DATABASE_URL" => Some("sqlite://bmdb.sqlite".to_owned()),
            "BMDB_INTERVAL" => Some("2s".to_owned()),
            "BMDB_MAX_CONNECTIONS" => Some("3".to_owned()),
            "BMDB_SYNCHRONOUS" => Some("normal".to_owned()),
            _ => None,
        };
        let config = Config::from_variables("shepherd", "", variable).expect("the variables are good");
        assert_eq!(config.interval, Duration::from_secs(2));
        assert_eq!(config.max_connections, 3);
        assert_eq!(config.synchronous, Synchronous::Normal);
        assert_eq!(
            Config::from_variables("shepherd", "", |_| None).expect_err("there is no URL"),
            ConfigError::Missing {
                name: "BMDB_DATABASE_URL",
                expected: "the database's URL"
            }
        );
    }

    #[test]
    fn the_longest_interval_has_a_stall_limit() {
        let config = Config::new("sqlite://bmdb.sqlite", "shepherd", "").interval(Duration::from_secs(3600));
        assert_eq!(
            (config.check(), config.stall_limit_or_default()),
            (Ok(()), Duration::from_secs(36_000))
        );
        let short = config.interval(Duration::from_secs(1));
        assert_eq!(short.stall_limit_or_default(), Duration::from_secs(60));
    }

    #[test]
    fn the_url_is_not_in_the_debug_form() {
        let config = Config::new("postgres://user:canary@localhost/bmdb", "shepherd", "");
        assert!(!format!("{config:?}").contains("canary"));
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("interval", "250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("interval", "1h"), Ok(Duration::from_secs(3600)));
        for wrong in [
            "",
            "s",
            "10",
            "1.5s",
            "-1s",
            "10 s",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(duration("interval", wrong).is_err(), "{wrong}");
        }
    }
}
