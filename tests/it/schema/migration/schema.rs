//! What a database's schema looks like, as lines that can be compared.

use harness::{Backend, TestDatabase};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

/// Everything about the schema that its own catalogue knows, a line a fact.
pub(super) async fn dump(db: &TestDatabase) -> Vec<String> {
    let queries: &[&str] = match db.backend() {
        Backend::Sqlite => &["SELECT type || ' ' || name || ': ' || coalesce(sql, '') FROM sqlite_master"],
        Backend::Postgres => &[
            "SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' null ' || is_nullable
                 || ' default ' || coalesce(column_default, '-')
             FROM information_schema.columns WHERE table_schema = 'public'",
            "SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'",
            "SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
             FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
            "SELECT 'relation ' || relname || ' ' || relkind::text || ' ' || coalesce(reloptions::text, '-')
             FROM pg_class WHERE relnamespace = 'public'::regnamespace",
            "SELECT 'type ' || typname FROM pg_type WHERE typnamespace = 'public'::regnamespace",
        ],
    };
    let connection = db.raw().await;
    let mut lines = Vec::new();
    for query in queries {
        lines.extend(texts(&connection, query).await);
    }
    connection.close().await.expect("a connection can be closed");
    lines.sort();
    lines
}

/// What entities and steps can both say: columns, types, nullability, keys, references and what is unique or indexed. Names of constraints
/// and checks are the steps' own.
pub(super) async fn shape(db: &TestDatabase) -> Vec<String> {
    let queries: &[&str] = match db.backend() {
        Backend::Sqlite => &[
            r#"SELECT 'column ' || t.name || '.' || c.name || ' ' || c.type || ' not null ' || c."notnull" || ' key ' || c.pk
               FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table'"#,
            r#"SELECT 'reference ' || t.name || '.' || f."from" || ' to ' || f."table" || '.' || f."to" || ' ' || f.on_delete
               FROM sqlite_master t, pragma_foreign_key_list(t.name) f WHERE t.type = 'table'"#,
            r#"SELECT 'index ' || t.name || ' unique ' || i."unique" || ' ' ||
                   (SELECT group_concat(c.name) FROM pragma_index_info(i.name) c)
               FROM sqlite_master t, pragma_index_list(t.name) i WHERE t.type = 'table'"#,
        ],
        Backend::Postgres => &[
            "SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' null ' || is_nullable
                 || ' default ' || coalesce(column_default, '-')
             FROM information_schema.columns WHERE table_schema = 'public'",
            "SELECT contype::text || ' ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid)
             FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype IN ('p', 'f')",
            "SELECT 'index ' || tablename || ' ' || split_part(indexdef, ' INDEX ', 1) || ' ' || split_part(indexdef, ' USING ', 2)
             FROM pg_indexes WHERE schemaname = 'public'",
        ],
    };
    let connection = db.raw().await;
    let mut lines = Vec::new();
    for query in queries {
        lines.extend(texts(&connection, query).await);
    }
    connection.close().await.expect("a connection can be closed");
    lines.retain(|line| !is_bookkeeping(line));
    lines.sort();
    lines
}

/// Whether the line speaks of a table that migrators keep for themselves.
pub(super) fn is_bookkeeping(line: &str) -> bool {
    line.contains("seaql_migrations") || line.contains("bmdb_migration_lock")
}

/// The first column of each row.
pub(super) async fn texts(connection: &DatabaseConnection, query: &str) -> Vec<String> {
    let query = Statement::from_string(connection.get_database_backend(), query);
    let rows = connection
        .query_all_raw(query)
        .await
        .expect("a look at the catalogue is allowed");
    rows.iter()
        .map(|row| row.try_get_by_index(0).expect("the query answers with text"))
        .collect()
}
