//! The rows of processes and their rules: a component makes sure of each before its first claim.

use std::sync::Arc;

use sea_orm::DbErr;
use sea_orm::sea_query::Value;
use tokio::sync::watch;

use crate::db::database::Database;
use crate::db::dialect::{Dialect, milliseconds};
use crate::db::schema;
use crate::db::sql::SqlBuilder;
use crate::db::transaction::check_not_nested;
use crate::db::tx::Tx;
use crate::error::Error;
use crate::rules::check::check_name;
use crate::rules::process::Process;
use crate::store::known::{Known, Registering, Registration};
use crate::store::rule::Rule;

const REGISTERING: &str = "register a process";

/// Checks a value of a process, here and in the database, and makes sure of its rows. The database is asked once per component and rule, however many ask at
/// once: by the first of them, for all.
pub(crate) async fn register<P: Process>(
    database: &Arc<Database>,
    known: &Arc<Known>,
    process: &P,
) -> Result<Arc<Rule>, Error> {
    let rule = Rule::of(process, database.dialect)?;
    let mut registering = {
        let mut rules = known.rules();
        match rules.get(&rule.key) {
            Some(Registration::Registered(rule)) => return Ok(Arc::clone(rule)),
            // Closed, it has panicked.
            Some(Registration::UnderWay(registering)) if registering.has_changed().is_ok() => {
                check_not_nested()?;
                registering.clone()
            }
            _ => {
                check_not_nested()?;
                let key = rule.key;
                let registering = begin(database, known, rule);
                rules.insert(key, Registration::UnderWay(registering.clone()));
                registering
            }
        }
    };
    let answer = registering.wait_for(Option::is_some).await;
    let answer = answer.ok().and_then(|answer| answer.clone());
    // Without an answer the runtime is shutting down.
    answer.unwrap_or(Err(Error::CommitUnknown {
        doing: REGISTERING,
        source: None,
    }))
}

/// Registers a rule in a task, so that those who wait need not poll. Whoever comes after a failure begins anew.
fn begin(database: &Arc<Database>, known: &Arc<Known>, rule: Rule) -> Registering {
    let (tell, told) = watch::channel(None);
    let (own, known) = (Arc::clone(database), Arc::clone(known));
    database.tasks.spawn(async move {
        let registered = async {
            check_tables(&own, &rule).await?;
            check_rule(&own, &rule).await?;
            schema::check_component(&own.catalogue()).await?;
            write_rows(&own, &rule).await
        };
        let answer = match registered.await {
            Ok(()) => {
                let rule = Arc::new(rule);
                known.keep(&rule);
                Ok(rule)
            }
            Err(error) => {
                known.rules().remove(&rule.key);
                Err(error)
            }
        };
        tell.send_replace(Some(answer));
    });
    told
}

/// Checks that the tables that the rule looks into are there, and that we may read them.
async fn check_tables(database: &Database, rule: &Rule) -> Result<(), Error> {
    const DOING: &str = "find the tables of a rule";
    let mut tables: Vec<&str> = vec![&rule.text.item];
    tables.extend(
        rule.eligible
            .clauses
            .iter()
            .flat_map(|clause| clause.tables.iter().map(String::as_str)),
    );
    tables.sort_unstable();
    tables.dedup();
    let mut text = SqlBuilder::new(database.dialect);
    match database.dialect {
        Dialect::Sqlite => {
            text.put(
                "SELECT '', wanted.column1, EXISTS (SELECT name FROM sqlite_master WHERE '\"' || name || '\"' = wanted.column1 COLLATE NOCASE), \
                 true FROM (VALUES ",
                [],
            )
            .each(&tables, "($1)", |table| [(*table).into()])
            .put(") AS wanted", []);
        }
        Dialect::Postgres | Dialect::Cockroach => {
            text.put(
                "SELECT CAST(current_user AS TEXT), wanted.name, to_regclass(wanted.name) IS NOT NULL, \
                 COALESCE(has_table_privilege(CAST(to_regclass(wanted.name) AS OID), 'SELECT'), false) FROM (VALUES ",
                [],
            )
            .each(&tables, "(CAST($1 AS TEXT))", |table| [(*table).into()])
            .put(") AS wanted (name)", []);
        }
    }
    let (mut role, mut lacks) = (String::new(), Vec::new());
    for row in database.read_statement(DOING, text.finish()).await? {
        let read = || {
            Ok::<(String, String, bool, bool), DbErr>((
                row.try_get_by_index(0)?,
                row.try_get_by_index(1)?,
                row.try_get_by_index(2)?,
                row.try_get_by_index(3)?,
            ))
        };
        let (user, table, is_there, is_readable) = read().map_err(Error::database(DOING))?;
        if !is_there {
            return Err(Error::MissingTable {
                process: rule.key.process,
                table: table.replace('"', ""),
            });
        }
        if !is_readable {
            role = user;
            lacks.push(format!("SELECT on {}", table.replace('"', "")));
        }
    }
    if lacks.is_empty() {
        return Ok(());
    }
    Err(Error::NotAllowed {
        database: database.name.clone(),
        role,
        lacks,
    })
}

/// Has the database read the rule as claims do, of no machine.
async fn check_rule(database: &Database, rule: &Rule) -> Result<(), Error> {
    const DOING: &str = "check a rule";
    let mut text = SqlBuilder::new(database.dialect);
    text.piece(&rule.sql.eligible).put(" LIMIT 0", []);
    let refused = match database.read_statement(DOING, text.finish()).await {
        Ok(_nothing) => return Ok(()),
        Err(outage) if outage.is_outage() => return Err(outage),
        Err(refused) => refused,
    };
    let Error::Database { source, .. } = refused else {
        return Err(refused);
    };
    // The first that is refused alone. None: it is the item's columns, or how the clauses stand together.
    let mut culprit = None;
    for clause in &rule.text.clauses {
        let alone = format!(
            "SELECT 1 AS one FROM {} WHERE {} LIMIT 0",
            rule.text.machines(false),
            clause.sql
        );
        let alone = sea_orm::Statement::from_string(database.dialect.backend(), alone);
        if database.read_statement(DOING, alone).await.is_err() {
            culprit = Some(clause.why.clone());
            break;
        }
    }
    Err(Error::RuleRefused {
        process: rule.key.process,
        clause: culprit,
        source,
    })
}

/// Writes the rows of a process and its rule, those of another component as well, with what this one says of it. A slot that differs changes nothing.
pub(crate) async fn write_rows(database: &Database, rule: &Rule) -> Result<(), Error> {
    const PROCESS: &str = "
        INSERT INTO process (name, slot, description, cool_down_ms, registered_at, registered_by)
        VALUES ($1, $2, $3, $4, {now}, $5)
        ON CONFLICT (name) DO UPDATE SET description = excluded.description, cool_down_ms = excluded.cool_down_ms
        WHERE process.slot = excluded.slot";
    const RULE: &str = "
        INSERT INTO process_rule (process, digest, item, item_machine_id, clauses, component, used_at)
        VALUES ($1, $2, $3, $4, $5, $6, {now})
        ON CONFLICT (process, digest) DO UPDATE SET component = excluded.component, used_at = excluded.used_at";
    /// None has begun: a search before all others is due. Numbers begin at the clock, so that a row which was swept and comes again does not take the end of
    /// a search of before for that of one since.
    const SEARCHES: &str = "
        INSERT INTO work_retrieval (process, begun, ended, began_at, until) VALUES ($1, {clock}, 0, {now}, {now})
        ON CONFLICT (process) DO NOTHING";
    const RULES: &str = "SELECT CAST(count(digest) AS BIGINT) FROM process_rule WHERE process = $1";
    let (name, component) = (rule.key.process, database.config.component.as_str());
    let clauses = serde_json::to_value(&rule.text.clauses).expect("BUG: texts are JSON");
    let write = async |tx: &Tx| {
        let process: [Value; 5] = [
            name.into(),
            rule.slot.into(),
            rule.description.into(),
            milliseconds(rule.cool_down).into(),
            component.into(),
        ];
        tx.execute_text(PROCESS, process).await?;
        let rows = tx
            .query_text("SELECT slot, registered_by FROM process WHERE name = $1", [name.into()])
            .await?;
        let row = rows.first().ok_or(DbErr::RecordNotFound("process".to_owned()))?;
        let registered: String = row.try_get_by_index(0)?;
        if registered != rule.slot {
            return Err(Error::SlotClash {
                process: name.to_owned(),
                slot: rule.slot.to_owned(),
                registered,
                registered_by: row.try_get_by_index(1)?,
            });
        }
        let values: [Value; 6] = [
            name.into(),
            rule.key.digest().into(),
            rule.text.item.as_str().into(),
            rule.text.item_machine_id.as_str().into(),
            clauses.clone().into(),
            component.into(),
        ];
        tx.execute_text(RULE, values).await?;
        tx.execute_text(SEARCHES, [rule.key.into()]).await?;
        let rows = tx.query_text(RULES, [name.into()]).await?;
        let rules: Option<i64> = rows.first().map(|row| row.try_get_by_index(0)).transpose()?;
        Ok::<_, Error>(rules.unwrap_or_default())
    };
    let rules = database.runner(REGISTERING).run_or_error(write).await?;
    if rules > MANY {
        tracing::warn!(
            process = name,
            rules,
            "a process has many rules of a day: its `eligible` binds something that changes, and each value has to find its machines anew"
        );
    }
    Ok(())
}

/// More rules of one process than that are rather a mistake than many kinds of machines. Those that nobody has used for a day are swept.
const MANY: i64 = 16;

/// Forgets the rules that nobody has used for a day, with their hints and searches; those of older components, which know processes and no rules, among
/// them. Answers their names. Who uses one again writes it again.
pub(crate) async fn forget_unused(database: &Database) -> Result<Vec<String>, Error> {
    const DOING: &str = "forget rules that nobody uses";
    const UNUSED: &str = "
        SELECT s.process FROM work_retrieval s WHERE s.began_at < {after -86400000} AND NOT EXISTS (
            SELECT r.digest FROM process_rule r WHERE r.process || '@' || r.digest = s.process AND r.used_at >= {after -86400000})
        ORDER BY s.process";
    const HINTS: &str = "
        DELETE FROM work_candidate WHERE process = $1 AND machine_id IN (
            SELECT machine_id FROM work_candidate WHERE process = $1 ORDER BY machine_id LIMIT 1000)";
    const SEARCHES: &str = "DELETE FROM work_retrieval WHERE process = $1 AND began_at < {after -86400000}";
    const RULES: &str = "DELETE FROM process_rule WHERE used_at < {after -86400000}";
    let rows = database.read(DOING, UNUSED, []).await?;
    let unused = rows.iter().map(|row| row.try_get_by_index(0));
    let unused: Vec<String> = unused.collect::<Result<_, _>>().map_err(Error::database(DOING))?;
    let run = async |text: &str, values: &[Value]| {
        let delete = async |tx: &Tx| Ok::<_, Error>(tx.execute_text(text, values.iter().cloned()).await?);
        database.runner(DOING).run_or_error(delete).await
    };
    for name in &unused {
        let name: [Value; 1] = [name.as_str().into()];
        // Some at a time: nobody waits for long for what it locks.
        while run(HINTS, &name).await? > 0 {}
        run(SEARCHES, &name).await?;
    }
    run(RULES, &[]).await?;
    Ok(unused)
}

/// The slots of all registered processes.
pub(crate) async fn known_slots(database: &Database) -> Result<Vec<String>, Error> {
    names(database, "SELECT DISTINCT slot FROM process ORDER BY slot").await
}

/// The names of all registered processes.
pub(crate) async fn known_names(database: &Database) -> Result<Vec<String>, Error> {
    names(database, "SELECT name FROM process ORDER BY name").await
}

/// Whether somebody has registered a process: what is done to another would do nothing.
///
/// # Errors
/// [`Error::Invalid`], [`Error::UnknownProcess`], or when the database cannot be read.
pub(crate) async fn check_registered(database: &Database, process: &str) -> Result<(), Error> {
    check_name("the name of a process", process)?;
    let known = known_names(database).await?;
    if known.iter().any(|name| name == process) {
        return Ok(());
    }
    Err(Error::UnknownProcess {
        process: process.to_owned(),
        known,
    })
}

async fn names(database: &Database, text: &str) -> Result<Vec<String>, Error> {
    let rows = database.read("list processes", text, []).await?;
    let names = rows.iter().map(|row| row.try_get_by_index(0));
    names
        .collect::<Result<_, _>>()
        .map_err(Error::database("list processes"))
}
