//! What a server is told to do, and the guarantees rest on. What a component can set for its own connections, it sets and checks by itself.

use bmdb::Dialect;
use bmdb::sea_orm::{ConnectionTrait, DatabaseBackend, Statement};

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

/// The settings of the server.
pub(super) async fn check(patient: &Patient<'_>) -> Result<Checked, Failure> {
    let bmdb = patient.bmdb()?;
    match bmdb.dialect() {
        Dialect::Sqlite => {
            return Ok(Checked::Nothing(
                "SQLite has none that outlive a connection; each component has its `synchronous`",
            ));
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
