//! What a server and its schema must be like before a component works on them. Nothing here alters a schema.

use std::collections::HashSet;
use std::sync::Arc;

use sea_orm::{ConnectionTrait, DatabaseConnection, QueryResult};

use crate::db::dialect::Dialect;
use crate::db::health::Health;
use crate::db::heartbeat_thread::HeartbeatThread;
use crate::db::timeout::{Timeout, timed_out};
use crate::error::Error;
use crate::error::fault::Fault;
use crate::runtime::retry::pause_after;

/// The steps of `bmdb-migration` that this component was built for. A test compares them with the migrations themselves.
pub const MIGRATIONS: &[&str] = &[
    "m20261122_000001_create_machine",
    "m20261122_000002_create_session",
    "m20261122_000003_create_session_lease",
    "m20261122_000004_create_work",
    "m20261122_000005_index_work_work_id",
    "m20261122_000006_index_work_session_id",
    "m20261122_000007_create_work_history",
    "m20261122_000008_create_work_backoff",
    "m20261122_000009_create_work_hold",
    "m20261122_000010_create_process",
    "m20261122_000011_create_machine_provided",
    "m20261122_000012_index_machine_provided_identity",
    "m20261122_000013_create_machine_agent_started",
    "m20261122_000014_create_machine_agent_heartbeat",
    "m20261122_000015_create_machine_hardware_report",
    "m20261122_000016_create_machine_os_installation_request",
    "m20261122_000017_create_machine_os_installation_report",
    "m20261122_000018_tune_fillfactor",
    "m20261123_000019_create_work_candidate",
    "m20261123_000020_create_work_retrieval",
    "m20261130_000021_create_session_sighting",
    "m20261130_000022_create_process_rule",
    "m20261130_000023_create_operation",
    "m20261130_000024_index_operation_machine_id",
    "m20261130_000025_add_work_hold_ticket",
    "m20261130_000026_index_machine_provided_provider_id",
    "m20261130_000027_index_machine_provided_address",
    "m20261201_000028_create_process_pause",
    "m20261201_000029_add_session_lease_drain_requested",
];

/// In the name of a step that removes what older components need.
const CONTRACT: &str = "_contract_";

/// The oldest CockroachDB that prepared statements around schema changes do not crash (cockroachdb/cockroach release notes v24.3.9).
const OLDEST_COCKROACH: (u32, u32, u32) = (24, 3, 9);
const COCKROACH_EXPECTED: &str = "CockroachDB v24.3.9 or later, except v25.1.0 to v25.1.2";

/// Reads the server's kind off the answer to `SELECT version()`.
pub(crate) fn dialect_of(database: &str, version: &str) -> Result<Dialect, Error> {
    if !version.starts_with("CockroachDB") {
        return Ok(Dialect::Postgres);
    }
    let number = version
        .split_whitespace()
        .find_map(|word| word.strip_prefix('v'))
        .and_then(|number| {
            let mut parts = number.split(['.', '-']).map(|part| part.parse::<u32>().ok());
            Some((parts.next()??, parts.next()??, parts.next()??))
        });
    match number {
        Some(number) if number >= OLDEST_COCKROACH && !((25, 1, 0)..=(25, 1, 2)).contains(&number) => {
            Ok(Dialect::Cockroach)
        }
        _ => Err(Error::UnsupportedServer {
            database: database.to_owned(),
            found: version.chars().take(60).collect(),
            expected: COCKROACH_EXPECTED,
        }),
    }
}

/// A component adds to these tables and never changes them.
const APPEND_ONLY: &[&str] = &["work_history", "operation"];

/// What the schema is asked by: the connection for heartbeats.
pub(crate) struct Catalogue<'a> {
    pub(crate) name: &'a str,
    pub(crate) dialect: Dialect,
    pub(crate) heartbeats: &'a DatabaseConnection,
    pub(crate) thread: &'a HeartbeatThread,
    pub(crate) limit: Timeout,
    pub(crate) health: &'a Health,
}

/// Checks that we may look at the schema, that every step we were built for is applied, and that no later step removed what we need. Other later
/// steps only add; they are what a rolling update looks like from the older side.
pub(crate) async fn check(catalogue: &Catalogue<'_>) -> Result<(), Error> {
    let mut applied = HashSet::new();
    if has_record(catalogue).await? {
        for row in ask(catalogue, "SELECT version FROM seaql_migrations".to_owned()).await? {
            let version: String = row
                .try_get_by_index(0)
                .map_err(Error::database("read the schema's steps"))?;
            applied.insert(version);
        }
    }
    let missing: Vec<String> = MIGRATIONS
        .iter()
        .filter(|step| !applied.contains(**step))
        .map(|step| (*step).to_owned())
        .collect();
    if !missing.is_empty() {
        return Err(Error::NotMigrated {
            database: catalogue.name.to_owned(),
            missing,
        });
    }
    let unknown = applied.iter().filter(|step| !MIGRATIONS.contains(&step.as_str()));
    if let Some(step) = unknown.filter(|step| step.contains(CONTRACT)).min() {
        return Err(Error::SchemaNewer {
            database: catalogue.name.to_owned(),
            step: step.clone(),
        });
    }
    check_rights(catalogue, &["SELECT"]).await
}

/// Whether there is a record of steps. The catalogue tells of it also where we may not read it: a missing right is not a missing schema.
async fn has_record(catalogue: &Catalogue<'_>) -> Result<bool, Error> {
    if catalogue.dialect == Dialect::Sqlite {
        let installed = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'seaql_migrations'";
        return Ok(!ask(catalogue, installed.to_owned()).await?.is_empty());
    }
    let rights = "SELECT CAST(current_user AS TEXT), current_schema() IS NULL, \
                  (SELECT has_table_privilege(c.oid, 'SELECT') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                   WHERE n.nspname = current_schema() AND c.relname = 'seaql_migrations')";
    let rows = ask(catalogue, rights.to_owned()).await?;
    let read = |row: &QueryResult| {
        Ok((
            row.try_get_by_index(0)?,
            row.try_get_by_index(1)?,
            row.try_get_by_index(2)?,
        ))
    };
    let first = rows.first().map(read).transpose();
    let (role, nowhere, readable) =
        first
            .map_err(Error::database("read our own rights"))?
            .unwrap_or((String::new(), false, None));
    let lacks = if nowhere {
        "USAGE on a schema of its search path"
    } else if readable == Some(false) {
        "SELECT on seaql_migrations"
    } else {
        return Ok(readable.is_some());
    };
    Err(Error::NotAllowed {
        database: catalogue.name.to_owned(),
        role,
        lacks: vec![lacks.to_owned()],
    })
}

/// Checks that a component may do its work. A console, which only looks, may not.
pub(crate) async fn check_component(catalogue: &Catalogue<'_>) -> Result<(), Error> {
    check_rights(catalogue, &["SELECT", "INSERT", "UPDATE", "DELETE"]).await
}

/// Checks that we have these rights on every table that the steps make. SQLite knows none.
async fn check_rights(catalogue: &Catalogue<'_>, rights: &[&str]) -> Result<(), Error> {
    if catalogue.dialect == Dialect::Sqlite {
        return Ok(());
    }
    let tables = MIGRATIONS
        .iter()
        .filter_map(|step| step.splitn(3, '_').nth(2)?.strip_prefix("create_"));
    let mut wanted = Vec::new();
    for table in tables {
        let needed = |right: &&&str| !APPEND_ONLY.contains(&table) || matches!(**right, "SELECT" | "INSERT");
        wanted.extend(
            rights
                .iter()
                .filter(needed)
                .map(|right| format!("('{table}', '{right}')")),
        );
    }
    let lacking = format!(
        "SELECT CAST(current_user AS TEXT), CAST(w.privilege AS TEXT) || ' on ' || CAST(w.name AS TEXT) FROM (VALUES {}) AS w (name, privilege) \
         JOIN pg_class c ON c.relname = w.name JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = current_schema() AND NOT has_table_privilege(c.oid, w.privilege)",
        wanted.join(", ")
    );
    let (mut role, mut lacks) = (String::new(), Vec::new());
    for row in ask(catalogue, lacking).await? {
        role = row
            .try_get_by_index(0)
            .map_err(Error::database("read our own rights"))?;
        lacks.push(
            row.try_get_by_index(1)
                .map_err(Error::database("read our own rights"))?,
        );
    }
    if lacks.is_empty() {
        return Ok(());
    }
    Err(Error::NotAllowed {
        database: catalogue.name.to_owned(),
        role,
        lacks,
    })
}

/// How often the schema is asked for, at most.
const ATTEMPTS: u32 = 3;

/// On the connection for heartbeats, which is open by then: a first heartbeat that also had to connect could come too late.
async fn ask(catalogue: &Catalogue<'_>, text: String) -> Result<Vec<QueryResult>, Error> {
    let limit = catalogue.limit;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let (heartbeats, statement) = (catalogue.heartbeats.clone(), catalogue.dialect.statement(&text, []));
        let asked = async move { limit.within(heartbeats.query_all_raw(statement)).await };
        let rows = catalogue.thread.run(asked).await;
        let rows = rows.unwrap_or_else(|| Err(timed_out()));
        let error = match catalogue.health.told(rows).await {
            Ok(rows) => return Ok(rows),
            Err(error) => error,
        };
        // The server may have ended the connection since it was last used.
        if attempts < ATTEMPTS && catalogue.health.learn(&error).is_transient() {
            tokio::time::sleep(pause_after(attempts)).await;
            continue;
        }
        return Err(match Fault::of(&error) {
            Fault::Disconnected => Error::Unreachable {
                database: catalogue.name.to_owned(),
                source: Arc::new(error),
            },
            _ => Error::database("read the schema's steps")(error),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_apart() {
        let dialect = |version: &str| dialect_of("db", version);
        assert_eq!(
            dialect("PostgreSQL 15.18 (Debian 15.18-0+deb12u1)").expect("is good"),
            Dialect::Postgres
        );
        for good in ["v24.3.9", "v25.1.3", "v25.4.0-beta.1", "v26.2.2"] {
            let version = format!("CockroachDB CCL {good} (x86_64-pc-linux-gnu, built 2026/06/01)");
            assert_eq!(dialect(&version).expect(good), Dialect::Cockroach);
        }
        for bad in ["v24.3.8", "v23.2.0", "v25.1.0", "v25.1.2", "vnext"] {
            assert!(dialect(&format!("CockroachDB CCL {bad} (x86_64)")).is_err(), "{bad}");
        }
    }
}
