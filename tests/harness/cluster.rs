//! A cluster of CockroachDB that somebody named, with a database for each test: `BMDB_TEST_COCKROACH_URL`.

use url::Url;
use uuid::Uuid;

use crate::postgres::run;

/// The cluster, as its administrator reaches it.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    admin: Url,
    /// Whether the server answers statements inside transactions with serialization failures at random: `BMDB_TEST_COCKROACH_INJECT=1`.
    injects: bool,
}

impl Cluster {
    /// The cluster that the environment names, if it names one.
    pub(crate) fn named() -> Option<Self> {
        let url = std::env::var("BMDB_TEST_COCKROACH_URL")
            .ok()
            .filter(|url| !url.is_empty())?;
        let injects = std::env::var("BMDB_TEST_COCKROACH_INJECT").is_ok_and(|value| value == "1");
        let admin = Url::parse(&url).expect("BMDB_TEST_COCKROACH_URL is a URL");
        Some(Self { admin, injects })
    }

    /// Makes a database and returns its name.
    pub(crate) async fn new_database(&self) -> String {
        let name = format!("test_{}", Uuid::new_v4().simple());
        let made = run(&self.raw_url(self.admin.path()), &format!("CREATE DATABASE {name}")).await;
        made.unwrap_or_else(|error| panic!("BMDB_TEST_COCKROACH_URL makes no database: {error}"));
        name
    }

    /// A database's URL as a component takes it.
    pub(crate) fn url(&self, database: &str) -> String {
        let mut url = self.admin.clone();
        url.set_path(database);
        url.query_pairs_mut().append_pair("bmdb.dialect", "cockroach");
        if self.injects {
            url.query_pairs_mut()
                .append_pair("options", "-c inject_retry_errors_enabled=true");
        }
        url.into()
    }

    /// A database's URL for the driver itself.
    pub(crate) fn raw_url(&self, database: &str) -> String {
        let mut url = self.admin.clone();
        url.set_path(database);
        let drivers = self.admin.query_pairs().filter(|(name, _)| !name.starts_with("bmdb."));
        let drivers: Vec<_> = drivers.collect();
        if drivers.is_empty() {
            url.set_query(None);
        } else {
            url.query_pairs_mut().clear().extend_pairs(drivers);
        }
        url.into()
    }

    /// Removes a database, in a thread of its own, for the test's runtime may be ending; and waits, for the cluster outlives the tests.
    pub(crate) fn drop_database(&self, name: &str) {
        let url = self.raw_url(self.admin.path());
        let name = name.to_owned();
        let dropping = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(async {
                // CockroachDB's word for it, and PostgreSQL's.
                for how in ["CASCADE", "WITH (FORCE)"] {
                    if run(&url, &format!("DROP DATABASE IF EXISTS {name} {how}"))
                        .await
                        .is_ok()
                    {
                        return;
                    }
                }
                eprintln!("the database {name} stays in the cluster: it cannot be dropped");
            });
        });
        if dropping.join().is_err() {
            eprintln!("a database stays in the cluster");
        }
    }
}
