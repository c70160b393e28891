//! The rules that the database keeps, for who has no code of the processes: counted and explained by the very predicate that claims use, where that is safe.
//!
//! Whoever may write the table of rules has the SQL in it run by whoever asks. So it is run only on connections that can do nothing but read.

use std::fmt;
use std::time::Duration;

use bmdb_entity::MachineId;
use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, QueryResult};

use crate::admin::explain::{Asked, COUNTING, Explanation, explain_many, explain_one};
use crate::bmdb::Bmdb;
use crate::db::dialect::Dialect;
use crate::db::transaction::TxRunner;
use crate::db::tx::Tx;
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::store::rule::{ClauseText, RuleText};

/// A rule that some component has registered, as the database keeps it.
///
/// ```no_run
/// # async fn example(bmdb: bmdb::Bmdb, machine: bmdb::MachineId) -> Result<(), bmdb::Error> {
/// for rule in bmdb.rules("agent-start").await? {
///     println!("{} of {}: {} eligible", rule.digest, rule.component, rule.count().await?);
///     print!("{}", rule.explain(machine).await?);
/// }
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
pub struct StoredRule {
    /// The process.
    pub process: String,
    /// Its slot.
    pub slot: String,
    /// What names the rule among those of its process: 16 hexadecimal digits.
    pub digest: String,
    /// The component that registered it last.
    pub component: String,
    /// When that was. A component that claims by a rule registers it again every hour, and one that nobody has used for a day is swept.
    pub used_at: DateTime<Utc>,
    bmdb: Bmdb,
    text: RuleText,
}

impl Bmdb {
    /// The registered rules of a process, by digest. Empty if nobody has used the process for a day, or no process has that name.
    ///
    /// # Errors
    /// When the database cannot be read, or what it keeps is no rule.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn rules(&self, process: &str) -> Result<Vec<StoredRule>, Error> {
        const DOING: &str = "read the rules of a process";
        const RULES: &str = "
            SELECT p.name, p.slot, r.digest, r.component, {moment r.used_at}, r.item, r.item_machine_id, r.clauses
            FROM process_rule r JOIN process p ON p.name = r.process WHERE r.process = $1 ORDER BY r.digest";
        let rows = self.database().read(DOING, RULES, [process.into()]).await?;
        let read = |row: &QueryResult| {
            let clauses: serde_json::Value = row.try_get_by_index(7)?;
            let clauses: Vec<ClauseText> =
                serde_json::from_value(clauses).map_err(|error| DbErr::Type(error.to_string()))?;
            Ok(StoredRule {
                process: row.try_get_by_index(0)?,
                slot: row.try_get_by_index(1)?,
                digest: row.try_get_by_index(2)?,
                component: row.try_get_by_index(3)?,
                used_at: row.try_get_by_index(4)?,
                bmdb: self.clone(),
                text: RuleText {
                    item: row.try_get_by_index(5)?,
                    item_machine_id: row.try_get_by_index(6)?,
                    clauses,
                },
            })
        };
        rows.iter()
            .map(read)
            .collect::<Result<_, _>>()
            .map_err(Error::database(DOING))
    }
}

impl StoredRule {
    /// What it asks of a machine, clause by clause, in words.
    pub fn clauses(&self) -> impl Iterator<Item = &str> {
        self.text.clauses.iter().map(|clause| clause.why.as_str())
    }

    /// How many machines are eligible now, as [`Registered::count`](crate::Registered::count).
    ///
    /// # Errors
    /// [`Error::MayWrite`] on a connection that can do more than read; [`Error::Invalid`] for what is no rule; or when the database cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn count(&self) -> Result<u64, Error> {
        let runner = self.runner(COUNTING).await?;
        let count = self.asked().count(runner.database.dialect);
        let ask = async |tx: &Tx| {
            let rows = tx.query_all_raw(count.clone()).await?;
            let count: Option<i64> = rows.first().map(|row| row.try_get_by_index(0)).transpose()?;
            Ok::<_, Error>(count.unwrap_or_default().unsigned_abs())
        };
        runner.run(ask).await.or_else(TxError::or_read)
    }

    /// Up to so many machines that are eligible now, from the smallest id on: asked again, it answers the same ones as long as they are eligible.
    ///
    /// # Errors
    /// As [`count`](Self::count).
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn eligible(&self, limit: u32) -> Result<Vec<MachineId>, Error> {
        const DOING: &str = "find eligible machines";
        let runner = self.runner(DOING).await?;
        let first = self.asked().first(runner.database.dialect, limit);
        let ask = async |tx: &Tx| {
            let rows = tx.query_all_raw(first.clone()).await?;
            let machines = rows.iter().map(|row| row.try_get_by_index(0));
            machines.collect::<Result<_, _>>().map_err(Error::database(DOING))
        };
        runner.run(ask).await.or_else(TxError::or_read)
    }

    /// Whether a machine could be claimed now, and if not, why, as [`Registered::explain`](crate::Registered::explain).
    ///
    /// # Errors
    /// [`Error::UnknownMachine`]; else as [`count`](Self::count).
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn explain(&self, machine: MachineId) -> Result<Explanation, Error> {
        explain_one(&self.runner("explain a machine").await?, &self.asked(), machine).await
    }

    /// [`explain`](Self::explain) for many machines, as [`Registered::explain_many`](crate::Registered::explain_many).
    ///
    /// # Errors
    /// As [`count`](Self::count).
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn explain_many(&self, machines: &[MachineId]) -> Result<Vec<Result<Explanation, Error>>, Error> {
        explain_many(&self.runner("explain machines").await?, &self.asked(), machines).await
    }

    fn asked(&self) -> Asked<'_> {
        Asked {
            process: &self.process,
            slot: &self.slot,
            text: &self.text,
        }
    }

    /// A transaction that can only read, of a connection that can do nothing else, and not for long.
    async fn runner(&self, doing: &'static str) -> Result<TxRunner<'_>, Error> {
        let database = self.bmdb.database();
        let may = match database.dialect {
            // Its readers are opened read-only, and take one statement.
            Dialect::Sqlite => Vec::new(),
            Dialect::Postgres | Dialect::Cockroach => {
                let rows = database.read("read our own rights", MAY, []).await?;
                let may = rows.iter().map(|row| row.try_get_by_index(0));
                may.collect::<Result<Vec<String>, _>>()
                    .map_err(Error::database("read our own rights"))?
            }
        };
        if !may.is_empty() {
            return Err(Error::MayWrite {
                database: database.name.clone(),
                may,
            });
        }
        for clause in &self.text.clauses {
            check_one(&clause.sql)?;
        }
        Ok(TxRunner {
            limit: database.limit.at_most(LONGEST),
            ..database.snapshot(doing)
        })
    }
}

/// For how long a rule of somebody else's may run.
const LONGEST: Duration = Duration::from_secs(2);

/// What our role, or one that it can become, can do beyond reading: each a reason not to run what others have written.
const MAY: &str = r"
    WITH ours AS (SELECT oid, rolname, rolsuper FROM pg_roles
        WHERE pg_has_role(CAST(session_user AS TEXT), oid, 'MEMBER') OR pg_has_role(CAST(current_user AS TEXT), oid, 'MEMBER')),
    relations AS (SELECT c.oid, c.relname, c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'),
    may (what) AS (
        SELECT 'everything, as the superuser ' || rolname FROM ours WHERE rolsuper
        UNION ALL SELECT 'what the role ' || rolname || ' can' FROM ours WHERE rolname LIKE 'pg\_%'
            AND rolname NOT IN ('pg_read_all_data', 'pg_read_all_settings', 'pg_read_all_stats', 'pg_stat_scan_tables', 'pg_monitor')
        UNION ALL SELECT 'what an owner can with ' || relname FROM relations JOIN ours ON ours.oid = relations.relowner
        UNION ALL SELECT 'write ' || relname FROM relations CROSS JOIN ours
            WHERE has_table_privilege(ours.oid, relations.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
            OR has_any_column_privilege(ours.oid, relations.oid, 'INSERT, UPDATE'))
    SELECT what FROM may ORDER BY what LIMIT 8";

/// Whether a clause is one expression: SQLite's driver would run what follows a semicolon as well.
///
/// # Errors
/// [`Error::Invalid`] if it could be more.
fn check_one(sql: &str) -> Result<(), Error> {
    let mut open = 0_u32;
    let mut letters = sql.char_indices();
    let more = || Error::invalid("a kept rule", sql, "one expression");
    while let Some((place, letter)) = letters.next() {
        match letter {
            '(' => open += 1,
            ')' => open = open.checked_sub(1).ok_or_else(more)?,
            '\'' | '"' | '`' | '[' => {
                let closing = if letter == '[' { ']' } else { letter };
                // A doubled one is none: it ends, and another begins.
                letters.find(|(_, letter)| *letter == closing).ok_or_else(more)?;
            }
            ';' | '\0' => return Err(more()),
            '-' | '/' if ["--", "/*"].iter().any(|comment| sql[place..].starts_with(comment)) => return Err(more()),
            _ => {}
        }
    }
    if open == 0 { Ok(()) } else { Err(more()) }
}

impl fmt::Debug for StoredRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredRule")
            .field("process", &self.process)
            .field("slot", &self.slot)
            .field("digest", &self.digest)
            .field("component", &self.component)
            .field("used_at", &self.used_at)
            .field("text", &self.text)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clause_that_could_be_more_is_refused() {
        for good in [
            r#""machine"."fence" > 7"#,
            r#"EXISTS (SELECT a FROM t WHERE b = 'it''s; (fine) -- here' AND "c;" = [d;] - 1)"#,
            "a / b = x'00'",
        ] {
            assert!(check_one(good).is_ok(), "{good}");
        }
        for bad in [
            "true; DELETE FROM work",
            "true) THEN 1 END AS BIGINT); DELETE FROM work",
            "1) OR (1",
            "(1",
            "true -- and the rest",
            "true /* and the rest",
            "a = 'open",
            "\"a = 1",
            "[a",
        ] {
            assert!(check_one(bad).is_err(), "{bad}");
        }
    }
}
