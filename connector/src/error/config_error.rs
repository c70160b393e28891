//! What is wrong with a configuration.

/// What is wrong with a configuration. Never holds the URL: it may carry a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The URL is not one.
    #[error(
        "the database URL is not valid: {reason}; expected sqlite://FILE?mode=rwc or postgres://USER@HOST:PORT/DATABASE"
    )]
    Url {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The URL has a parameter that we do not take.
    #[error(
        "the database URL has the parameter {name:?}; expected those of BMDB (bmdb.interval) or of PostgreSQL's that the driver takes (sslmode, host)"
    )]
    Parameter {
        /// Its name.
        name: String,
    },
    /// The URL names a database that we do not speak to.
    #[error(
        "the database URL has the scheme {scheme:?}; expected sqlite, postgres or postgresql (also for CockroachDB)"
    )]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// A database in memory is seen by one connection only, so there is nobody to lock against.
    #[error("a SQLite database in memory cannot be shared between components; use a file")]
    InMemory,
    /// The connection would be readable on its way, or to anyone who answers.
    #[error(
        "the host {host} is not this machine and sslmode is not verify-full; set sslmode=verify-full, or allow plaintext explicitly"
    )]
    Plaintext {
        /// The host.
        host: String,
    },
    /// A setting's value is not in its range.
    #[error("{setting} is {value:?}; expected {expected}")]
    Setting {
        /// Which setting.
        setting: &'static str,
        /// What it was.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// There is no such setting.
    #[error("there is no setting {name:?}; known are: {}", known.join(", "))]
    UnknownSetting {
        /// The name.
        name: String,
        /// Those that there are.
        known: &'static [&'static str],
    },
    /// A variable of the environment is needed.
    #[error("the environment variable {name} is not set; expected {expected}")]
    Missing {
        /// Which.
        name: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
}
