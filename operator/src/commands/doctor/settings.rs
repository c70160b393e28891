//! What a server is told to do, and the guarantees rest on. What a component can set for its own connections, it sets and checks by itself.

use bmdb::sea_orm::{ConnectionTrait, DatabaseBackend, Statement};
use bmdb::{Bmdb, Dialect};

use super::{Checked, Finding, Patient};
use crate::failure::{Failure, Kind};

/// A setting of PostgreSQL, and what is lost without it.
const ON: [(&str, &str); 2] = [
    (
        "fsync",
        "a power loss may forget or damage what was committed, claims and fences among it",
    ),
    (
        "full_page_writes",
        "a power loss may leave pages that are half old and half new",
    ),
];

/// What a file is set to, and what our own connections set: a component's `synchronous` is in its own URL.
async fn of_sqlite(bmdb: &Bmdb) -> Result<Checked, Failure> {
    const ASK: &str = "SELECT journal_mode, synchronous, foreign_keys FROM pragma_journal_mode, pragma_synchronous, pragma_foreign_keys";
    let unread = |_unread| Failure::new(Kind::Unreachable, "the settings of the file cannot be read");
    let ask = Statement::from_string(DatabaseBackend::Sqlite, ASK);
    let row = bmdb.reads().query_one_raw(ask).await.map_err(unread)?;
    let row = row.ok_or_else(|| Failure::new(Kind::Unreachable, "the settings of the file cannot be read"))?;
    let journal: String = row.try_get_by_index(0).map_err(unread)?;
    let synchronous: i64 = row.try_get_by_index(1).map_err(unread)?;
    let foreign_keys: i64 = row.try_get_by_index(2).map_err(unread)?;
    let mut found = Vec::new();
    if !matches!(journal.as_str(), "wal" | "delete" | "truncate" | "persist") {
        found.push(Finding {
            what: format!("journal_mode is {journal}: a component that dies while it writes may leave a broken file"),
            mend: "stop every component, and as the owner of the file: PRAGMA journal_mode = wal".to_owned(),
        });
    }
    if found.is_empty() {
        let synchronous = match synchronous {
            0 => "off",
            1 => "normal",
            2 => "full",
            _ => "extra",
        };
        let references = if foreign_keys == 0 { "off" } else { "on" };
        return Ok(Checked::Fine(format!(
            "journal_mode is {journal}; where this command reads, foreign_keys is {references} and synchronous {synchronous}; who writes waits as its URL says, in full by default"
        )));
    }
    Ok(Checked::Found(found))
}

/// The settings of the server.
pub(super) async fn check(patient: &Patient<'_>) -> Result<Checked, Failure> {
    let bmdb = patient.bmdb()?;
    match bmdb.dialect() {
        Dialect::Sqlite => {
            return of_sqlite(bmdb).await;
        }
        Dialect::Cockroach => return Ok(Checked::Nothing("CockroachDB has none of them")),
        _ => {}
    }
    let unread = |_unread| Failure::new(Kind::Unreachable, "the settings of the server cannot be read");
    let ask = "SELECT current_setting('fsync'), current_setting('full_page_writes')";
    let ask = Statement::from_string(DatabaseBackend::Postgres, ask);
    let row = bmdb.reads().query_one_raw(ask).await.map_err(unread)?;
    let mut found = Vec::new();
    for (place, (name, lost)) in ON.into_iter().enumerate() {
        let value: Option<String> = row
            .as_ref()
            .map(|row| row.try_get_by_index(place))
            .transpose()
            .map_err(unread)?;
        if value.as_deref() == Some("off") {
            found.push(Finding {
                what: format!("{name} is off: {lost}"),
                mend: format!("as an administrator: ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()"),
            });
        }
    }
    Ok(Checked::Found(found))
}
