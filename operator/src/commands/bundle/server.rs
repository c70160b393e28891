//! What the database says of itself: only what is named here, for other settings may hold secrets, such as a connection to another server.

use bmdb::Dialect;
use bmdb::sea_orm::{ConnectionTrait, DatabaseBackend, QueryResult, Statement};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::source::Source;

const OF_POSTGRES: &str = "
    SELECT name, setting FROM pg_settings WHERE name IN ('autovacuum', 'autovacuum_vacuum_scale_factor', 'default_transaction_isolation', 'effective_cache_size',
        'fsync', 'full_page_writes', 'hot_standby', 'idle_in_transaction_session_timeout', 'jit', 'lock_timeout', 'max_connections', 'max_locks_per_transaction',
        'random_page_cost', 'shared_buffers', 'statement_timeout', 'synchronous_commit', 'TimeZone', 'track_activities', 'wal_level', 'work_mem')
    ORDER BY name";
const OF_SQLITE: [&str; 8] = [
    "journal_mode",
    "synchronous",
    "foreign_keys",
    "busy_timeout",
    "auto_vacuum",
    "page_size",
    "page_count",
    "freelist_count",
];
const TABLES_OF_POSTGRES: &str = "
    SELECT CAST(relname AS TEXT), CAST(reltuples AS BIGINT), pg_total_relation_size(oid) FROM pg_class
    WHERE relkind = 'r' AND relnamespace = CAST(current_schema() AS regnamespace) ORDER BY relname";

async fn ask(source: &Source, text: &str) -> Result<Vec<QueryResult>, Failure> {
    let backend = match source.bmdb.dialect() {
        Dialect::Sqlite => DatabaseBackend::Sqlite,
        _ => DatabaseBackend::Postgres,
    };
    let asked = source
        .bmdb
        .reads()
        .query_all_raw(Statement::from_string(backend, text))
        .await;
    Ok(asked.map_err(bmdb::Error::from)?)
}

async fn one(source: &Source, text: &str) -> Result<Option<String>, Failure> {
    let rows = ask(source, text).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let text = row.try_get_by_index::<String>(0).ok();
    Ok(text.or_else(|| row.try_get_by_index::<i64>(0).ok().map(|number| number.to_string())))
}

pub(super) async fn versions(source: &Source) -> Result<Value, Failure> {
    let ask = match source.bmdb.dialect() {
        Dialect::Sqlite => "SELECT sqlite_version()",
        _ => "SELECT version()",
    };
    Ok(json!({
        "bmdb": env!("CARGO_PKG_VERSION"), "target": format!("{} {}", std::env::consts::ARCH, std::env::consts::OS),
        "database": source.bmdb.name(), "dialect": format!("{:?}", source.bmdb.dialect()), "server": one(source, ask).await?,
        "asked_at": source.bmdb.now().await?.to_rfc3339(),
    }))
}

pub(super) async fn settings(source: &Source) -> Result<Value, Failure> {
    let mut settings = serde_json::Map::new();
    match source.bmdb.dialect() {
        Dialect::Sqlite => {
            for name in OF_SQLITE {
                settings.insert(name.to_owned(), json!(one(source, &format!("PRAGMA {name}")).await?));
            }
        }
        _ => {
            for row in ask(source, OF_POSTGRES).await? {
                let name: String = row.try_get_by_index(0).map_err(bmdb::Error::from)?;
                let setting: Option<String> = row.try_get_by_index(1).map_err(bmdb::Error::from)?;
                settings.insert(name, json!(setting));
            }
        }
    }
    Ok(json!({"settings": settings}))
}

pub(super) async fn tables(source: &Source) -> Result<Value, Failure> {
    match source.bmdb.dialect() {
        Dialect::Sqlite => {
            let bytes = one(
                source,
                "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
            )
            .await?;
            Ok(json!({"bytes": bytes, "tables": Value::Null, "note": "SQLite estimates nothing of single tables"}))
        }
        Dialect::Cockroach => {
            Ok(json!({"tables": Value::Null, "note": "CockroachDB says this by SHOW RANGES, to administrators"}))
        }
        _ => {
            let mut tables = Vec::new();
            for row in ask(source, TABLES_OF_POSTGRES).await? {
                let name: String = row.try_get_by_index(0).map_err(bmdb::Error::from)?;
                let rows: i64 = row.try_get_by_index(1).map_err(bmdb::Error::from)?;
                let bytes: i64 = row.try_get_by_index(2).map_err(bmdb::Error::from)?;
                // The server has not counted it yet.
                let rows = (rows >= 0).then(|| rows.to_string());
                tables.push(json!({"table": name, "rows_about": rows, "bytes": bytes.to_string()}));
            }
            Ok(json!({"tables": tables}))
        }
    }
}
