//! How a machine leaves the database.

use bmdb_entity::MachineId;
use sea_orm::DbErr;

use crate::db::dialect::Dialect;
use crate::db::tx::Tx;
use crate::error::Error;
use crate::store::exclusion::exclude_claims;

/// What BMDB itself keeps of a machine, beside its history and hints. Hints are disproved by the next claim that reads them.
const OF_A_MACHINE: [&str; 8] = [
    "machine_provided",
    "machine_agent_started",
    "machine_agent_heartbeat",
    "machine_hardware_report",
    "machine_os_installation_request",
    "machine_os_installation_report",
    "work_backoff",
    "work_hold",
];

/// A table that our role may not look into, that stands in another schema, or that was written just now.
const UNSEEN: &str = "one that cannot be looked into, or was written just now";

/// Removes a machine with BMDB's own tags, its backoffs and its holds. Its history stays. Rows of your own that refer to it, delete before, in the same
/// transaction.
///
/// The machine's id is never given again; a provider that offers the same hardware later [provides](crate::machine::provide) a new machine, with fences that
/// begin anew.
///
/// ```no_run
/// # async fn example(session: bmdb::Session, machine: bmdb::MachineId) -> Result<(), bmdb::Error> {
/// session.transact(async |tx| bmdb::machine::remove(tx, machine).await).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::UnknownMachine`]; [`Error::MachineInWork`] while somebody works on it; [`Error::MachineReferred`] for rows of other tables that refer to it; or when the
/// database cannot be written. Nothing was removed then.
///
/// # Cancel safety
/// Dropping the future half-way spoils the transaction: it rolls back, and a body that returns `Ok` gets [`Error::Poisoned`].
pub async fn remove(tx: &Tx, machine: MachineId) -> Result<(), Error> {
    const DOING: &str = "remove a machine";
    const WORKS: &str = "
        SELECT w.process, s.component_name FROM work w JOIN session s ON s.session_id = w.session_id WHERE w.machine_id = $1 ORDER BY w.slot";
    // A claim that is faster is seen below, and one that is slower takes nothing.
    exclude_claims(tx, machine).await?;
    let works = tx.query_text(WORKS, [machine.into()]).await;
    if let Some(work) = works.map_err(Error::database(DOING))?.first() {
        let read = || Ok::<_, DbErr>((work.try_get_by_index(0)?, work.try_get_by_index(1)?));
        let (process, component) = read().map_err(Error::database(DOING))?;
        return Err(Error::MachineInWork {
            machine,
            process,
            component,
        });
    }
    let tables = referring(tx, machine).await.map_err(Error::database(DOING))?;
    if !tables.is_empty() {
        return Err(Error::MachineReferred { machine, tables });
    }
    for table in OF_A_MACHINE.iter().chain(&["machine"]) {
        let delete = format!("DELETE FROM {table} WHERE machine_id = $1");
        let deleted = tx.execute_text(&delete, [machine.into()]).await;
        deleted.map_err(|error| match Error::database(DOING)(error) {
            refused if refused.is_foreign_key_violation() => Error::MachineReferred {
                machine,
                tables: vec![UNSEEN.to_owned()],
            },
            other => other,
        })?;
    }
    Ok(())
}

/// The tables of others that have a row which refers to the machine, and which does not go with it.
async fn referring(tx: &Tx, machine: MachineId) -> Result<Vec<String>, DbErr> {
    const KEYS: &str = "
        SELECT CAST(c.relname AS TEXT), CAST(a.attname AS TEXT)
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
        WHERE k.contype = 'f' AND k.confdeltype IN ('a', 'r') AND has_table_privilege(c.oid, 'SELECT') AND k.confrelid = CAST(to_regclass('machine') AS OID) AND n.nspname = current_schema()
        ORDER BY c.relname, a.attname";
    const SQLITE_KEYS: &str = "
        SELECT t.name, k.\"from\" FROM sqlite_master AS t JOIN pragma_foreign_key_list(t.name) AS k
        WHERE t.type = 'table' AND k.\"table\" = 'machine' AND k.on_delete IN ('NO ACTION', 'RESTRICT') ORDER BY t.name, k.\"from\"";
    let keys = match tx.dialect() {
        Dialect::Sqlite => SQLITE_KEYS,
        Dialect::Postgres | Dialect::Cockroach => KEYS,
    };
    let mut tables = Vec::new();
    for row in tx.query_text(keys, []).await? {
        let (table, column): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
        if OF_A_MACHINE.contains(&table.as_str()) || table == "work" || tables.contains(&table) {
            continue;
        }
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let rows = format!(
            "SELECT 1 FROM {} WHERE {} = $1 LIMIT 1",
            quoted(&table),
            quoted(&column)
        );
        if !tx.query_text(&rows, [machine.into()]).await?.is_empty() {
            tables.push(table);
        }
    }
    Ok(tables)
}
