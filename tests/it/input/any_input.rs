//! Any input at all: URLs, settings and names made at random. What is found is printed with its smallest form.

use std::time::Duration;

use bmdb::{Config, ConfigError, fit_cause};
use bmdb_address::Postgres;
use proptest::prelude::*;
use proptest::test_runner::Config as Cases;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgSslMode};

const BIRD: &str = "nightingale";

/// URLs that look nearly right, and texts that do not.
fn urls() -> impl Strategy<Value = String> {
    let scheme = prop_oneof!["postgres", "postgresql", "sqlite", "[a-z]{0,9}", "\\PC{0,5}"];
    let host = prop_oneof![
        "localhost",
        "127\\.0\\.0\\.1",
        "db\\.example",
        "\\[::1\\]",
        "%2Ftmp",
        "localhost(:5)?,(localhost|db\\.example|\\[::1\\]:6)",
        "\\PC{0,9}",
        "[/?#@:%\\[\\]]{0,3}"
    ];
    let rest = prop_oneof!["(:[0-9]{0,6})?/[a-z%0-9]{0,6}", "\\PC{0,20}"];
    let query = prop_oneof![
        Just(String::new()),
        "\\?(sslmode=(verify-full|disable|require|x)&?){0,3}",
        "\\?(host|hostaddr|port|dbname|user|options|mode|cache|bmdb\\.[a-z_]{0,9})=(%0[aA]|[a-z0-9./%-]){0,9}",
        "\\?\\PC{0,20}",
    ];
    (
        scheme,
        "(:|://|:/)?",
        "[a-z]{0,4}",
        "[a-z/?#%@:]{0,3}",
        "[a-z/?#%@:]{0,3}",
        host,
        rest,
        query,
    )
        .prop_map(|(scheme, colon, user, before, after, host, rest, query)| {
            format!("{scheme}{colon}{user}:{before}{BIRD}{after}@{host}{rest}{query}")
        })
}

fn said(error: &ConfigError) -> String {
    format!("{error} {error:?}")
}

/// Everything before the checks of a URL is good.
fn config(url: &str) -> Config {
    Config::new(url, "test", "")
}

/// Whether the driver would send what belongs to us to a machine that is neither this one nor proven to be the right one.
fn is_open(url: &str) -> bool {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    // Settings are not for the driver.
    let for_driver: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("bmdb.")).collect();
    let servers = Postgres::parse(&format!("{place}?{}", for_driver.join("&")));
    let servers = servers.expect("what was accepted can be connected");
    servers.servers().any(|options: PgConnectOptions| {
        let is_here =
            options.get_socket().is_some() || matches!(options.get_host(), "localhost" | "127.0.0.1" | "::1" | "[::1]");
        !is_here && !options.get_host().starts_with('/') && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull)
    })
}

proptest! {
    #![proptest_config(Cases { cases: 256, failure_persistence: None, ..Cases::default() })]

    #[test]
    fn no_url_makes_a_component_panic_or_say_its_password(url in urls()) {
        match config(&url).check() {
            Ok(()) => {
                prop_assert!(url.starts_with("sqlite:") || !is_open(&url), "{url} would be connected in the clear");
            }
            Err(error) => prop_assert!(!said(&error).contains(BIRD), "{url}: {}", said(&error)),
        }
    }

    #[test]
    fn any_text_is_a_url_or_refused(text in "\\PC{0,60}", more in any::<String>()) {
        for url in [text, more] {
            let refused = config(&url).check();
            prop_assert!(refused.is_err() || url.starts_with("sqlite:") || url.starts_with("postgres"), "{url:?}");
        }
    }

    #[test]
    fn a_migrator_and_a_component_refuse_the_same_urls(url in urls()) {
        // A file that is not there is not looked at by `check`, and a migrator has no settings of its own.
        prop_assume!(!url.contains("bmdb."));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("threads can be started");
        let component = config(&url).check();
        if component.is_err() {
            let migrator = runtime.block_on(bmdb_migration::status(&url)).expect_err("a component refuses it");
            let said = format!("{migrator} {migrator:?}");
            let is_of_the_url = matches!(migrator, bmdb_migration::Error::Url { .. } | bmdb_migration::Error::Parameter { .. });
            prop_assert!(is_of_the_url, "{url}: {said}");
            prop_assert!(!said.contains(BIRD), "{url}: {said}");
        }
    }

    #[test]
    fn settings_are_refused_with_their_name_or_make_sense(
        interval in any::<Duration>(),
        margin in proptest::option::of(any::<Duration>()),
        small in 0_u64..5_000,
        use_small in any::<bool>(),
        connections in any::<u32>(),
        timeouts in any::<[Duration; 3]>(),
    ) {
        let interval = if use_small { Duration::from_millis(small) } else { interval };
        let mut config = config("sqlite://bmdb.sqlite").interval(interval);
        if let Some(margin) = margin {
            config = config.margin(if use_small { Duration::from_millis(small / 3) } else { margin });
        }
        let alone = config.check();
        let good_interval = (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&interval);
        match alone {
            Ok(()) => {
                prop_assert!(good_interval);
                // Trust ends before the interval does, and there is some.
                let shown = format!("{config:?}");
                prop_assert!(shown.contains(&format!("interval: {interval:?}")), "{shown}");
            }
            Err(ConfigError::Setting { setting, .. }) => prop_assert_eq!(setting, if good_interval { "margin" } else { "interval" }),
            Err(other) => prop_assert!(false, "{}", said(&other)),
        }
        let base = self::config("sqlite://bmdb.sqlite");
        prop_assert_eq!(base.clone().max_connections(connections).check().is_ok(), (1..=1000).contains(&connections));
        let good = |time: Duration| (Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&time);
        let [acquire, statement, retry] = timeouts;
        prop_assert_eq!(base.clone().acquire_timeout(acquire).check().is_ok(), good(acquire));
        prop_assert_eq!(base.clone().statement_timeout(statement).check().is_ok(), good(statement));
        prop_assert_eq!(base.retry_budget(retry).check().is_ok(), good(retry));
    }

    #[test]
    fn settings_in_a_url_are_read_or_refused(
        name in prop_oneof!["interval", "margin", "max_connections", "acquire_timeout", "allow_plaintext", "dialect", "[a-z_]{0,20}"],
        value in prop_oneof!["[0-9]{0,25}(ms|s|m|h)?", "true|false|cockroach", "[^&#?]{0,60}"],
    ) {
        let url = format!("sqlite://bmdb.sqlite?bmdb.{name}={value}");
        match config(&url).check() {
            Ok(()) => {}
            Err(error @ (ConfigError::Setting { .. } | ConfigError::UnknownSetting { .. })) => {
                let shown = error.to_string();
                prop_assert!(shown.contains(&name) && !shown.chars().any(char::is_control) && shown.len() < 1000, "{shown}");
            }
            Err(other) => prop_assert!(false, "{url}: {}", said(&other)),
        }
    }

    #[test]
    fn any_text_can_be_cut_to_a_cause(text in any::<String>(), times in 0_usize..300) {
        let fitted = fit_cause(&text.repeat(times));
        prop_assert!(fitted.len() <= 4096 && !fitted.contains('\0'));
        if text.len() * times <= 4096 && !text.contains('\0') {
            prop_assert_eq!(fitted, text.repeat(times));
        }
    }
}
