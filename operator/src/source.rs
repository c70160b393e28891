//! Which database a command asks, and with which rights.

use std::collections::HashMap;

use bmdb::sea_orm::{ConnectionTrait, DatabaseBackend, QueryResult, Statement};
use bmdb::{Bmdb, Config, Dialect, Operator, runtime_info};

use crate::cli::{Global, Reason};
use crate::failure::Failure;

/// The name that sessions and acts of this command carry.
const COMPONENT: &str = "bmdb";

/// The database of a command.
pub(crate) struct Source {
    /// What is read, and written where the login may.
    pub(crate) bmdb: Bmdb,
    /// A login that can only read, on which rules may be run. `None`: no other was given.
    pub(crate) reader: Option<Bmdb>,
}

impl Source {
    pub(crate) async fn open(global: &Global) -> Result<Self, Failure> {
        Self::open_for(global, FOR_A_PERSON).await
    }

    /// With so many connections for each login.
    pub(crate) async fn open_for(global: &Global, connections: u32) -> Result<Self, Failure> {
        let Some(url) = global.database.as_ref().filter(|url| !url.is_empty()) else {
            return Err(Failure::usage(
                "no database was named. Give --database URL or set BMDB_DATABASE_URL: sqlite://FILE or postgres://USER@HOST/DATABASE",
            ));
        };
        let reader = match global.read_database.as_ref().filter(|url| !url.is_empty()) {
            Some(url) => Some(connect(url, connections).await?),
            None => None,
        };
        let bmdb = connect(url, connections).await?;
        if let Some(reader) = &reader {
            check_same(&bmdb, reader).await?;
        }
        Ok(Self { bmdb, reader })
    }

    /// On what rules may be asked: the login for reading, or the only one that there is.
    pub(crate) fn reader(&self) -> &Bmdb {
        self.reader.as_ref().unwrap_or(&self.bmdb)
    }

    /// Who acts, and why. Nothing can be written without.
    pub(crate) fn operator(&self, reason: &Reason) -> Result<Operator, Failure> {
        let named = |by: &String| !by.trim().is_empty();
        let by = reason.by.clone().filter(named);
        let Some(by) = by.or_else(|| std::env::var("USER").ok().filter(named)) else {
            return Err(Failure::usage(
                "nobody was named who does this. Give --by NAME or set BMDB_OPERATOR",
            ));
        };
        if !reason.reason.chars().any(char::is_alphanumeric) {
            return Err(Failure::usage("--reason says nothing: say why, for who reads it later"));
        }
        let operator = self.bmdb.operator(by, reason.reason.as_str())?;
        Ok(match &reason.ticket {
            Some(ticket) => operator.ticket(ticket.as_str())?,
            None => operator,
        })
    }

    pub(crate) async fn close(self) {
        if let Some(reader) = self.reader {
            reader.close().await;
        }
        self.bmdb.close().await;
    }
}

/// Rules that are asked of another database would tell of its machines, and nobody would see it. When each step was applied says which database it is: a
/// standby has the same times, and may lack the last steps. A copy has them too, and cannot be told from what it was made of.
async fn check_same(bmdb: &Bmdb, reader: &Bmdb) -> Result<(), Failure> {
    let (ours, theirs) = (applied(bmdb).await?, applied(reader).await?);
    let differs = theirs
        .iter()
        .any(|(step, at)| ours.get(step).is_some_and(|ours| ours != at));
    if !differs {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "--read-database is another database than --database: {} was made at another time than {}",
        reader.name(),
        bmdb.name()
    )))
}

/// When each step of the schema was applied, in seconds.
async fn applied(bmdb: &Bmdb) -> Result<HashMap<String, i64>, Failure> {
    let backend = match bmdb.dialect() {
        Dialect::Sqlite => DatabaseBackend::Sqlite,
        _ => DatabaseBackend::Postgres,
    };
    let ask = Statement::from_string(backend, "SELECT version, applied_at FROM seaql_migrations");
    let rows = bmdb.reads().query_all_raw(ask).await.map_err(bmdb::Error::from)?;
    let read = |row: &QueryResult| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?));
    let read: Result<HashMap<_, _>, bmdb::sea_orm::DbErr> = rows.iter().map(read).collect();
    Ok(read.map_err(bmdb::Error::from)?)
}

/// A few connections are enough for a person.
const FOR_A_PERSON: u32 = 2;

/// Connects as this command.
pub(crate) async fn connect(url: &str, connections: u32) -> Result<Bmdb, Failure> {
    let config = Config::new(url, COMPONENT, runtime_info!()).max_connections(connections);
    Ok(Bmdb::connect(config).await?)
}
