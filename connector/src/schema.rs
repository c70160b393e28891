//! What a server and its schema must be like before a component works on them. Nothing here alters a schema.

use std::collections::HashSet;

use sea_orm::ConnectionTrait;

use crate::database::Database;
use crate::dialect::Dialect;
use crate::error::{Error, Fault};

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

/// Checks that every step we were built for is applied and that no later step removed what we need. Other later steps only add; they are
/// what a rolling update looks like from the older side.
pub(crate) async fn check(database: &Database) -> Result<(), Error> {
    let installed = match database.dialect {
        Dialect::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'seaql_migrations'",
        Dialect::Postgres | Dialect::Cockroach => {
            "SELECT table_name FROM information_schema.tables \
             WHERE table_schema = current_schema() AND table_name = 'seaql_migrations'"
        }
    };
    // On the connection for heartbeats, which is open by then: a first heartbeat that also had to connect could come too late.
    let ask = async |text: &str| {
        let asked = database.heartbeats.query_all_raw(database.dialect.statement(text, []));
        let rows = database.limit.plus(database.config.acquire_timeout).within(asked).await;
        rows.map_err(|error| match Fault::of(&error) {
            Fault::Disconnected => database.unreachable(error),
            _ => Error::database("read the schema's steps")(error),
        })
    };
    let mut applied = HashSet::new();
    if !ask(installed).await?.is_empty() {
        for row in ask("SELECT version FROM seaql_migrations").await? {
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
            database: database.name.clone(),
            missing,
        });
    }
    let unknown = applied.iter().filter(|step| !MIGRATIONS.contains(&step.as_str()));
    match unknown.filter(|step| step.contains(CONTRACT)).min() {
        Some(step) => Err(Error::SchemaNewer {
            database: database.name.clone(),
            step: step.clone(),
        }),
        None => Ok(()),
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
