//! Where the database is: the one place that reads a URL.

use std::str::FromStr;

use sea_orm::sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::config::{Config, ConfigError};
use crate::plain::is_misleading;
use crate::sqlite_url::{Refused, SqliteUrl};

/// Where the database is.
pub(crate) enum Address {
    Sqlite(SqliteUrl),
    Postgres(Box<PgConnectOptions>),
}

impl Address {
    /// Reads the URL of a configuration whose settings are good.
    pub(crate) fn parse(config: &Config) -> Result<Self, ConfigError> {
        let url = config.url.as_str();
        let Some((scheme, rest)) = url.split_once(':') else {
            return Err(ConfigError::Url {
                reason: "it has no scheme",
            });
        };
        match scheme {
            "sqlite" => Self::sqlite(url),
            "postgres" | "postgresql" => Self::postgres(config),
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

    fn sqlite(url: &str) -> Result<Self, ConfigError> {
        SqliteUrl::parse(url)
            .map(Self::Sqlite)
            .map_err(|refused| match refused {
                Refused::InMemory => ConfigError::InMemory,
                Refused::Because(reason) => ConfigError::Url { reason },
            })
    }

    fn postgres(config: &Config) -> Result<Self, ConfigError> {
        let url = config.url.as_str();
        let parsed = url::Url::parse(url).map_err(|error| ConfigError::Url {
            reason: match error {
                url::ParseError::InvalidPort => "its port is not a number below 65536",
                url::ParseError::EmptyHost => "it names no host",
                _ => "it cannot be read as a URL",
            },
        })?;
        if parsed.path().trim_start_matches('/').is_empty() {
            return Err(ConfigError::Url {
                reason: "it names no database",
            });
        }
        // A password that is not encoded ends at its first `/` or `#`, and its rest would be shown as a host's or database's name.
        if parsed.path().contains('@') || parsed.fragment().is_some() {
            return Err(ConfigError::Url {
                reason: "there is an @ after its first /, or a #; in a password or a name, write / as %2F, ? as %3F, # as %23 and @ as %40",
            });
        }
        if !parsed.query_pairs().all(|(name, _)| is_known(&name)) {
            return Err(ConfigError::Url {
                reason: "a parameter is not one that the driver knows",
            });
        }
        let mut options = PgConnectOptions::from_str(url).map_err(|_hides_the_url| ConfigError::Url {
            reason: "a parameter has a value that PostgreSQL does not know, such as sslmode",
        })?;
        if let Some(authority) = &config.tls_root_certificate {
            options = options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(authority);
        }
        if let (Some(certificate), Some(key)) = (&config.tls_client_certificate, &config.tls_client_key) {
            options = options.ssl_client_cert(certificate).ssl_client_key(key);
        }
        let verified = matches!(options.get_ssl_mode(), PgSslMode::VerifyFull);
        let host = options.get_host();
        check_readable(host)?;
        check_readable(options.get_database().unwrap_or_default())?;
        if !verified && !config.allow_plaintext && options.get_socket().is_none() && !is_this_machine(host) {
            return Err(ConfigError::Plaintext { host: host.to_owned() });
        }
        Ok(Self::Postgres(Box::new(options)))
    }

    /// The database's name for people: no user, no password, no parameters.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Sqlite(url) => format!("sqlite://{}", url.file.display()),
            Self::Postgres(options) => {
                let database = options.get_database().unwrap_or_default();
                match options.get_socket() {
                    Some(socket) => format!("postgres://{}:{}/{database}", socket.display(), options.get_port()),
                    None => format!("postgres://{}:{}/{database}", options.get_host(), options.get_port()),
                }
            }
        }
    }
}

/// Whether the driver knows a parameter. It would log any other with its value, which may be a password.
fn is_known(parameter: &str) -> bool {
    const KNOWN: &str = "sslmode ssl-mode sslrootcert ssl-root-cert ssl-ca sslcert ssl-cert sslkey ssl-key statement-cache-capacity \
                         host hostaddr port dbname user password application_name options";
    parameter.starts_with("options[") || KNOWN.split(' ').any(|known| known == parameter)
}

/// Names are shown in errors and logs: they must not be able to forge a line.
fn check_readable(name: &str) -> Result<(), ConfigError> {
    if name.chars().any(is_misleading) {
        return Err(ConfigError::Url {
            reason: "a name in it holds a control character or a mark of direction",
        });
    }
    Ok(())
}

fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.starts_with('/')
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, ConfigError};

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
