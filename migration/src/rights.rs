//! The roles of a control plane on a server, and the least that each of them needs. Every [`up`](crate::up) grants what is missing, so a table that a
//! later step makes has its rights with it.

use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection};

use crate::Error;
use crate::catalogue::{is_sqlite, list, pairs};
use crate::guard::LOCK;
use crate::migrations::{Migrations, tables};

/// Runs the migrator, and owns what it makes.
const MIGRATOR: &str = "bmdb_migrator";
/// What components connect as.
const COMPONENT: &str = "bmdb_component";
/// What consoles and people connect as. It can only look.
const CONSOLE: &str = "bmdb_console";

/// A component adds to these tables and never changes them.
const APPEND_ONLY: &[&str] = &["work_history", "operation"];

/// A role, a table, and what the role may do with it.
fn wanted(record: &str) -> Vec<(&'static str, String, &'static [&'static str])> {
    let mut wanted = vec![
        (COMPONENT, record.to_owned(), &["SELECT"][..]),
        (CONSOLE, record.to_owned(), &["SELECT"][..]),
    ];
    for table in tables() {
        let rights: &[_] = if APPEND_ONLY.contains(&table.as_str()) {
            &["SELECT", "INSERT"]
        } else {
            &["SELECT", "INSERT", "UPDATE", "DELETE"]
        };
        wanted.push((COMPONENT, table.clone(), rights));
        wanted.push((CONSOLE, table, &["SELECT"]));
    }
    wanted
}

/// The grants that are missing, for the roles and tables that there are. SQLite has no roles.
pub(crate) async fn missing(db: &impl ConnectionTrait, bmdb: &Migrations) -> Result<Vec<String>, Error> {
    if is_sqlite(db) {
        return Ok(Vec::new());
    }
    let wanted = wanted(&bmdb.record);
    let rows = wanted.iter().flat_map(|(role, table, rights)| {
        let row = move |right: &&str| format!("('{role}', '{table}', '{right}')");
        rights.iter().map(row)
    });
    let lacking = format!(
        "SELECT CAST(w.role AS TEXT), CAST(w.name AS TEXT) FROM (VALUES {}) AS w (role, name, privilege) JOIN pg_roles r ON r.rolname = w.role \
         JOIN pg_class c ON c.relname = w.name JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = current_schema() AND NOT has_table_privilege(r.oid, c.oid, w.privilege)",
        rows.collect::<Vec<_>>().join(", ")
    );
    let lacking = pairs(db, lacking)
        .await
        .map_err(Error::database("read the rights of roles"))?;
    let lacks = |role: &str, table: &String| lacking.iter().any(|(who, what)| who == role && what == table);
    Ok(wanted
        .iter()
        .filter(|(role, table, _)| lacks(role, table))
        .map(|(role, table, rights)| format!("GRANT {} ON TABLE \"{table}\" TO {role}", rights.join(", ")))
        .collect())
}

/// Gives the roles that there are what they lack.
pub(crate) async fn give(db: &impl ConnectionTrait, bmdb: &Migrations) -> Result<Vec<String>, Error> {
    let grants = missing(db, bmdb).await?;
    run(db, &grants).await?;
    Ok(grants)
}

async fn run(db: &impl ConnectionTrait, statements: &[String]) -> Result<(), Error> {
    for statement in statements {
        let done = db.execute_unprepared(statement).await;
        done.map_err(Error::database("give a role its rights"))?;
    }
    Ok(())
}

/// Makes the roles that are missing and gives each its rights; the tables that are there go to the migrator's role. Answers what it ran.
pub(crate) async fn make_roles(db: &DatabaseConnection, bmdb: &Migrations) -> Result<Vec<String>, Error> {
    let doing = "read the roles";
    let roles = list([MIGRATOR, COMPONENT, CONSOLE]);
    let there = pairs(
        db,
        format!("SELECT CAST(rolname AS TEXT), '' FROM pg_roles WHERE rolname IN ({roles})"),
    );
    let there = there.await.map_err(Error::database(doing))?;
    let place = pairs(
        db,
        "SELECT CAST(current_schema() AS TEXT), CAST(current_database() AS TEXT)".to_owned(),
    );
    let place = place.await.map_err(Error::database(doing))?;
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let (schema, database) = place
        .first()
        .map(|(schema, database)| (quoted(schema), quoted(database)))
        .unwrap_or_default();
    let mut statements: Vec<_> = [MIGRATOR, COMPONENT, CONSOLE]
        .into_iter()
        .filter(|role| there.iter().all(|(name, _)| name != role))
        .map(|role| format!("CREATE ROLE {role} LOGIN"))
        .collect();
    statements.extend([
        format!("GRANT CONNECT ON DATABASE {database} TO {MIGRATOR}, {COMPONENT}, {CONSOLE}"),
        format!("REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC"),
        format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO {MIGRATOR}"),
        format!("GRANT USAGE ON SCHEMA {schema} TO {COMPONENT}, {CONSOLE}"),
        // A console also reads tables of others that the migrator makes.
        format!("ALTER DEFAULT PRIVILEGES FOR ROLE {MIGRATOR} IN SCHEMA {schema} GRANT SELECT ON TABLES TO {CONSOLE}"),
    ]);
    run(db, &statements).await?;
    statements.extend(give(db, bmdb).await?);
    let owned = format!(
        "SELECT CAST(c.relname AS TEXT), '' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner \
         WHERE n.nspname = current_schema() AND c.relname IN ({}) AND c.relkind = 'r' AND r.rolname <> '{MIGRATOR}'",
        list(ours(&bmdb.record).iter().map(String::as_str))
    );
    let owned = pairs(db, owned).await.map_err(Error::database(doing))?;
    let handed: Vec<_> = owned
        .iter()
        .map(|(table, _)| format!("ALTER TABLE IF EXISTS \"{table}\" OWNER TO {MIGRATOR}"))
        .collect();
    run(db, &handed).await?;
    statements.extend(handed);
    Ok(statements)
}

/// The tables of BMDB and of its migrator.
fn ours(record: &str) -> Vec<String> {
    let mut ours = tables();
    ours.extend([record, LOCK, crate::destroy::MARK].map(str::to_owned));
    ours
}

/// Refuses, before anything else is asked, a role that may not read the record of steps.
pub(crate) async fn refuse_blind(db: &impl ConnectionTrait, records: &[&str]) -> Result<(), Error> {
    if is_sqlite(db) {
        return Ok(());
    }
    let unread = format!(
        "SELECT CAST(current_user AS TEXT), 'find a schema of its search path, ' || current_setting('search_path') WHERE current_schema() IS NULL \
         UNION ALL SELECT CAST(current_user AS TEXT), 'read the table ' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = current_schema() AND c.relname IN ({}) AND NOT has_table_privilege(c.oid, 'SELECT')",
        list(records.iter().copied())
    );
    not_allowed(db, unread).await
}

/// Refuses, before the first step, a role that could not take the last one: that may not make tables, or does not own what is there.
pub(crate) async fn refuse_stranger(db: &impl ConnectionTrait, bmdb: &Migrations) -> Result<(), Error> {
    if is_sqlite(db) {
        return Ok(());
    }
    // CockroachDB's administrators may change what they do not own, and are asked by no function that is known here.
    let may_not = format!(
        "SELECT CAST(current_user AS TEXT), 'make tables in the schema ' || current_schema() \
         WHERE NOT has_schema_privilege(CAST(current_schema() AS TEXT), 'CREATE') \
         UNION ALL SELECT CAST(current_user AS TEXT), 'change the table ' || c.relname || ', which belongs to ' || r.rolname \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner \
         WHERE version() NOT LIKE 'CockroachDB%' AND n.nspname = current_schema() AND c.relname IN ({}) AND NOT pg_has_role(c.relowner, 'USAGE')",
        list(ours(&bmdb.record).iter().map(String::as_str))
    );
    not_allowed(db, may_not).await
}

async fn not_allowed(db: &impl ConnectionTrait, sql: String) -> Result<(), Error> {
    let found = pairs(db, sql).await.map_err(Error::database("read our own rights"))?;
    let Some((role, _)) = found.first() else {
        return Ok(());
    };
    Err(Error::NotAllowed {
        role: role.clone(),
        what: found.iter().map(|(_, what)| what.clone()).collect(),
    })
}
