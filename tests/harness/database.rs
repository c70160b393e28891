//! A database of a test's own.

use std::path::PathBuf;

use sea_orm::{ConnectOptions, Database, DatabaseBackend, DatabaseConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::{folder, postgres};

/// Which kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A file.
    Sqlite,
    /// A server, which also stands in for CockroachDB.
    Postgres,
}

/// A database that no other test sees. Dropping it removes it; a failed removal ends with the server or the temporary folder.
#[derive(Debug)]
pub struct TestDatabase {
    url: String,
    /// The same for tests themselves: not trapped, without settings of components.
    raw_url: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Sqlite(#[expect(dead_code, reason = "held so that the folder lives as long as the database")] TempDir),
    Postgres {
        name: String,
    },
    Cluster {
        cluster: Cluster,
        name: String,
    },
    /// It goes with its server.
    OwnServer,
}

/// What stands at the end of the URL of a SQLite database whose components do not wait for the disk.
pub const NOT_DURABLE: &str = "&bmdb.synchronous=normal";

/// The file of a migrated SQLite database.
static SQLITE_TEMPLATE: OnceCell<Vec<u8>> = OnceCell::const_new();

impl TestDatabase {
    /// A new database with the whole schema and no rows.
    ///
    /// # Panics
    /// Panics if there is no server to make it on, or the schema cannot be made.
    pub async fn migrated(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => {
                let template = SQLITE_TEMPLATE.get_or_init(sqlite_template).await;
                let (database, file) = new_file();
                std::fs::write(file, template).expect("a file in a new folder can be written");
                database
            }
            Backend::Postgres => on_server(postgres::server().await.migrated_database().await).await,
        }
    }

    /// A new database, with the whole schema, whose URL has components send what they send to CockroachDB. It is PostgreSQL's, unless
    /// `BMDB_TEST_COCKROACH_URL` names a cluster.
    ///
    /// # Panics
    /// Panics if there is no server to make it on.
    pub async fn with_cockroach_text() -> Self {
        if let Some(cluster) = Cluster::named() {
            let database = on_cluster(cluster).await;
            let migrated = bmdb_migration::up(&database.url, None).await;
            migrated.expect("the schema can be made on BMDB_TEST_COCKROACH_URL");
            return database;
        }
        let mut database = Self::migrated(Backend::Postgres).await;
        database.url.push_str("?bmdb.dialect=cockroach");
        database
    }

    /// A new SQLite database with the whole schema, whose URL has components wait for the disk with each commit or not.
    pub async fn sqlite_for_measurements(durable: bool) -> Self {
        let mut database = Self::migrated(Backend::Sqlite).await;
        if !durable {
            database.url.push_str(NOT_DURABLE);
        }
        database
    }

    pub(crate) fn of_own_server(url: String) -> Self {
        Self {
            raw_url: format!("{url}{}", postgres::FREELY),
            url,
            place: Place::OwnServer,
        }
    }

    /// One more like a migrated one.
    ///
    /// # Panics
    /// As [`migrated`](Self::migrated).
    pub async fn another(&self) -> Self {
        let mut database = Self::migrated(self.backend()).await;
        if let Some((_, settings)) = self.url.split_once("?bmdb.") {
            database.url.push_str("?bmdb.");
            database.url.push_str(settings);
        }
        database
    }

    /// A new database without a schema. For SQLite: the name of a file that does not exist yet.
    ///
    /// # Panics
    /// Panics if there is no server to make it on.
    pub async fn empty(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => new_file().0,
            Backend::Postgres => on_server(postgres::server().await.empty_database().await).await,
        }
    }

    /// A new database without a schema, where this one is.
    ///
    /// # Panics
    /// Panics if there is no server to make it on.
    pub async fn empty_beside(&self) -> Self {
        match &self.place {
            Place::Cluster { cluster, .. } => on_cluster(cluster.clone()).await,
            _ => Self::empty(self.backend()).await,
        }
    }

    /// Which kind of database this is.
    #[must_use]
    pub fn backend(&self) -> Backend {
        match self.place {
            Place::Sqlite(_) => Backend::Sqlite,
            Place::Postgres { .. } | Place::Cluster { .. } | Place::OwnServer => Backend::Postgres,
        }
    }

    /// Where it is, as a component takes it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What a PostgreSQL server received for this database since `ALTER DATABASE .. SET log_statement = 'all'`; connections that were open before
    /// that do not count.
    ///
    /// # Panics
    /// Panics where there is no log to read: on SQLite, on a cluster and on a server of a test's own.
    #[must_use]
    pub async fn statements(&self) -> Vec<String> {
        let Place::Postgres { name } = &self.place else {
            panic!("there is no log of statements to read");
        };
        postgres::server().await.statements(name)
    }

    /// What a PostgreSQL server has warned of in this database.
    ///
    /// # Panics
    /// As [`statements`](Self::statements).
    #[must_use]
    pub async fn warnings(&self) -> Vec<String> {
        let Place::Postgres { name } = &self.place else {
            panic!("there is no log of warnings to read");
        };
        postgres::server().await.warnings(name)
    }

    /// A new database with what `pg_dump` takes of this one now.
    ///
    /// # Panics
    /// Panics if PostgreSQL's programs fail, or this is not on the server that tests share.
    pub async fn dumped_and_restored(&self) -> Self {
        let Place::Postgres { name } = &self.place else {
            panic!("there is no server to take it from");
        };
        on_server(postgres::dump_and_restore(name).await).await
    }

    /// A plain SeaORM connection, for looking and for tampering: the trap for schema changes does not hold it, and
    /// it runs at READ COMMITTED unless a transaction asks for more.
    ///
    /// # Panics
    /// Panics if the database does not let us in.
    pub async fn raw(&self) -> DatabaseConnection {
        let mut options = ConnectOptions::new(&self.raw_url);
        options.max_connections(4).sqlx_logging(false);
        Database::connect(options)
            .await
            .expect("the test's own database can be opened")
    }
}

/// A key as it stands in a statement.
#[must_use]
pub fn literal(raw: &DatabaseConnection, key: Uuid) -> String {
    match raw.get_database_backend() {
        DatabaseBackend::Sqlite => format!("x'{}'", key.simple()),
        _ => format!("'{key}'"),
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        match &self.place {
            Place::Sqlite(_) | Place::OwnServer => {}
            Place::Postgres { name } => postgres::drop_database(name.clone()),
            Place::Cluster { cluster, name } => cluster.drop_database(name),
        }
    }
}

fn new_file() -> (TestDatabase, PathBuf) {
    let folder = folder::new("sqlite");
    let file = folder.path().join("bmdb.sqlite");
    let url = format!("sqlite://{}?mode=rwc", file.display());
    (
        TestDatabase {
            raw_url: url.clone(),
            url,
            place: Place::Sqlite(folder),
        },
        file,
    )
}

async fn on_server(name: String) -> TestDatabase {
    let url = postgres::server().await.url(&name);
    TestDatabase {
        raw_url: format!("{url}{}", postgres::FREELY),
        url,
        place: Place::Postgres { name },
    }
}

async fn on_cluster(cluster: Cluster) -> TestDatabase {
    let name = cluster.new_database().await;
    TestDatabase {
        url: cluster.url(&name),
        raw_url: cluster.raw_url(&name),
        place: Place::Cluster { cluster, name },
    }
}

async fn sqlite_template() -> Vec<u8> {
    let (database, file) = new_file();
    bmdb_migration::up(database.url(), None)
        .await
        .expect("the schema can be made in a new file");
    std::fs::read(file).expect("the migrated file can be read")
}
