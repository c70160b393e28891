//! Where the database is: the one place that reads a URL.

use std::path::Path;

use bmdb_address::{Postgres, Sqlite, UrlError};
use sea_orm::sqlx::postgres::PgSslMode;

use crate::error::config_error::ConfigError;

/// Where the database is.
pub(crate) enum Address {
    Sqlite(Sqlite),
    Postgres(Box<Postgres>),
}

/// How the way to a server is to be kept from others.
pub(crate) struct Tls<'a> {
    /// A file with the authority that signed the server's certificate.
    pub(crate) root_certificate: Option<&'a Path>,
    /// Files with the certificate and the key that the server knows this component by.
    pub(crate) client: Option<(&'a Path, &'a Path)>,
    pub(crate) allow_plaintext: bool,
}

impl Address {
    pub(crate) fn parse(url: &str, tls: &Tls<'_>) -> Result<Self, ConfigError> {
        let Some((scheme, rest)) = url.split_once(':') else {
            return Err(ConfigError::Url {
                reason: "it has no scheme",
            });
        };
        match scheme {
            "sqlite" => Ok(Self::Sqlite(Sqlite::parse(url)?)),
            "postgres" | "postgresql" => Self::postgres(url, tls),
            // What stands before the first colon of anything else may be half a password.
            _ if !rest.starts_with("//") => Err(ConfigError::Url {
                reason: "its scheme is none of ours",
            }),
            // An unknown scheme is short; anything longer may be a password in the wrong place.
            _ => Err(ConfigError::Scheme {
                scheme: scheme.chars().take(16).collect(),
            }),
        }
    }

    fn postgres(url: &str, tls: &Tls<'_>) -> Result<Self, ConfigError> {
        let mut server = Postgres::parse(url)?;
        if let Some(authority) = tls.root_certificate {
            server.options = server.options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(authority);
        }
        if let Some((certificate, key)) = tls.client {
            server.options = server.options.ssl_client_cert(certificate).ssl_client_key(key);
        }
        if let (Some(host), false) = (server.exposed_host(), tls.allow_plaintext) {
            return Err(ConfigError::Plaintext { host });
        }
        Ok(Self::Postgres(Box::new(server)))
    }

    /// The database's name for people: no user, no password, no parameters.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Sqlite(place) => place.to_string(),
            Self::Postgres(server) => server.to_string(),
        }
    }
}

impl From<UrlError> for ConfigError {
    fn from(error: UrlError) -> Self {
        match error {
            UrlError::Malformed(reason) => Self::Url { reason },
            UrlError::Parameter(name) => Self::Parameter { name },
            UrlError::InMemory => Self::InMemory,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::db::config::Config;
    use crate::error::config_error::ConfigError;

    fn check(url: &str) -> Result<(), ConfigError> {
        Config::new(url, "shepherd", "").check()
    }

    #[test]
    fn good_urls_are_taken() {
        for url in [
            "sqlite://bmdb.sqlite?mode=rwc",
            "sqlite:bmdb.sqlite",
            "sqlite:///var/lib/bmdb.sqlite?mode=rw&bmdb.interval=2s",
            "postgres://bmdb@127.0.0.1:5432/bmdb",
            "postgresql://bmdb:secret@[::1]/bmdb",
            "postgresql://bmdb:secret@/bmdb?host=/run/postgresql",
            "postgres://bmdb@localhost/bmdb?connect_timeout=10&channel_binding=prefer&target_session_attrs=read-write",
            "postgres://bmdb@localhost/bmdb?bmdb.margin=250ms",
            "postgres://bmdb@db.example:26257/bmdb?sslmode=verify-full",
            "postgres://bmdb@db.example:26257/bmdb?bmdb.allow_plaintext=true",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn bad_urls_are_refused_without_showing_the_password() {
        for url in [
            "",
            "canary",
            "canary:canary",
            "sqlite:",
            "sqlite://?mode=rwc",
            "sqlite::memory:",
            "sqlite://%3Amemory%3A",
            "sqlite://x?mode=%6Demory",
            "sqlite://x?mode=ro",
            "sqlite://x?immutable=true",
            "sqlite:file:x%3Fimmutable=1",
            "sqlite://x?canary=canary",
            "sqlite://x%0d%0acanary",
            "sqlite://x?mode=canary",
            "mysql://user:canary@localhost/bmdb",
            "cockroachdb://user:canary@localhost/bmdb",
            "postgres://user:canary@localhost",
            "postgres://user:canary@localhost:99999/bmdb",
            "postgres://user:canary@localhost/bmdb?sslmode=canary",
            // Read as the host `user`, the port 12 and the database `canary@localhost/bmdb`.
            "postgres://localhost:12/canary@localhost/bmdb",
            "postgres://:p@canary/word#@localhost/",
            "postgres://user:canary@localhost/bmdb#canary",
            "postgres://user:canary@localhost/bmdb?sslpassword=canary",
            "postgres://user@localhost/bmdb?pasword=canary",
            "postgres://user:canary@localhost/bm%0d%0adb",
            "postgres://user:canary@localhost/bmdb?host=a%0ab&sslmode=verify-full",
            "postgres://user:canary@localhost/bmdb?host=db.example",
            "postgres://user:canary@db.example/bmdb?sslmode=verify-full&sslmode=disable",
            "postgres://user:canary@db.example/bmdb",
            "postgres://user:canary@db.example/bmdb?sslmode=require",
            "postgres://user:canary@127.0.0.1.example/bmdb",
            "postgres://user:canary@localhost/bmdb?bmdb.interval=0s",
            "postgres://user:canary@localhost/bmdb?bmdb.interval=soon",
            "postgres://user:canary@localhost/bmdb?bmdb.intervall=1s",
        ] {
            let error = check(url).expect_err(url);
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("canary"), "{url} gives {shown}");
        }
    }
}
