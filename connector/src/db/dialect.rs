//! The words in which the databases' SQL differs.

use std::borrow::Cow;
use std::time::Duration;

use sea_orm::sea_query::{Expr, IntoColumnRef};
use sea_orm::sqlx::postgres::{PgDatabaseError, PgSeverity};
use sea_orm::{DatabaseBackend, DbErr, RuntimeErr, Statement, Value};

/// Which database's SQL to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite: one writer, IMMEDIATE transactions, timestamps as text in SQLite's own form.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// CockroachDB: PostgreSQL's text less the shared row locks, which it does not keep; it is SERIALIZABLE throughout instead.
    Cockroach,
}

/// SQLite's own form, three digits wide, so that text order is time order and `CURRENT_TIMESTAMP` and `datetime('now')` of other tools compare
/// with it. (RFC 3339 with its `T` does not: ' ' sorts below 'T'.)
const SQLITE_NOW: &str = "strftime('%Y-%m-%d %H:%M:%f', 'now')";

/// Between these a time is one to every database and to chrono.
const FIRST: &str = "TIMESTAMPTZ '0001-01-01 00:00:00+00'";
const LAST: &str = "TIMESTAMPTZ '9999-12-31 23:59:59.999+00'";

/// A century is for ever here, and keeps `now + time` within what every database can hold. Times that are longer count as that.
pub(crate) const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// A time as SQL takes it.
pub(crate) fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.min(LONGEST).as_millis()).expect("BUG: a century has few milliseconds")
}

impl Dialect {
    pub(crate) fn backend(self) -> DatabaseBackend {
        match self {
            Self::Sqlite => DatabaseBackend::Sqlite,
            Self::Postgres | Self::Cockroach => DatabaseBackend::Postgres,
        }
    }

    /// Makes a statement from text in which `$1`, `$2`… are values and a few words in braces stand for what differs:
    /// `{now}`; `{after $n}`, now plus `$n` [milliseconds]; `{after c}`, the same of a column, which counts as [`LONGEST`] where it is more;
    /// `{time $n}`, a moment given by a person; `{clock}`, now in milliseconds; `{fence}`, a machine's [next fence](Self::next_fence);
    /// `{share}`, a lock that keeps the row from being deleted; `{lock}`, a lock that excludes other lockers; `{free t}`, the same on those rows of a table
    /// only that nobody has locked, where the database can leave the others out; `{kept t}`, the lock of `{share}` on those;
    /// `{moment c}` and `{until c}`, a time in a column as the driver can read it; `{exact c}`, a column as text that differs if the column does;
    /// `{id c}`, a UUID as people write it.
    pub(crate) fn statement(self, text: &str, values: impl IntoIterator<Item = Value>) -> Statement {
        Statement::from_sql_and_values(self.backend(), self.fill(text), values)
    }

    fn fill(self, text: &str) -> String {
        let mut sql = String::with_capacity(text.len() + 64);
        let mut rest = text;
        while let Some(place) = rest.find('{') {
            sql.push_str(&rest[..place]);
            let (filled, after) = self.fill_word(&rest[place..]);
            sql.push_str(&filled);
            rest = after;
        }
        sql.push_str(rest);
        sql
    }

    /// What the word stands for with which the text begins, and the text after it.
    pub(crate) fn fill_word(self, text: &str) -> (Cow<'static, str>, &str) {
        let word = text.strip_prefix('{').and_then(|text| text.split_once('}'));
        let (word, after) = word.expect("BUG: a brace in a statement is not closed");
        let filled = match word.split_once(' ') {
            None if word == "now" => self.now().into(),
            None if word == "clock" => self.clock().into(),
            None if word == "fence" => self.next_fence_text().into(),
            None if word == "share" => if self == Self::Postgres { "FOR KEY SHARE" } else { "" }.into(),
            None if word == "lock" => if self == Self::Sqlite { "" } else { "FOR UPDATE" }.into(),
            Some(("after", milliseconds)) => self.now_plus(milliseconds).into(),
            Some(("time", value)) => self.time(value).into(),
            Some(("free", table)) => match self {
                Self::Sqlite => "".into(),
                Self::Postgres => format!("FOR UPDATE OF {table} SKIP LOCKED").into(),
                // There SKIP LOCKED may lock, or leave out, other rows than those that the statement answers.
                Self::Cockroach => format!("FOR UPDATE OF {table}").into(),
            },
            Some(("kept", table)) => match self {
                Self::Postgres => format!("FOR KEY SHARE OF {table} SKIP LOCKED").into(),
                Self::Sqlite | Self::Cockroach => "".into(),
            },
            Some(("moment", column)) => self.moment(column).into(),
            Some(("until", column)) => self.until(column).into(),
            Some(("exact", column)) => self.exact(column).into(),
            Some(("id", column)) => self.id(column).into(),
            _ => unreachable!("BUG: the word {word:?} in a statement is unknown"),
        };
        (filled, after)
    }

    /// Whether the server itself says that what it was sent last, a COMMIT or a statement that is a transaction, had no effect. An ERROR says so, unless
    /// its code is that of a server that does not know (40003); a FATAL one may come after the commit. CockroachDB may also be interrupted while it commits,
    /// or fail in its own code (cockroachlabs.com/docs/stable/common-errors, "result is ambiguous").
    pub(crate) fn is_rolled_back(self, error: &DbErr) -> bool {
        let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
            return false;
        };
        let error = error
            .as_database_error()
            .and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
        error.is_some_and(|error| {
            let is_of_cockroach = self == Self::Cockroach && matches!(error.code().get(..2), Some("57" | "XX"));
            error.severity() == PgSeverity::Error && error.code() != "40003" && !is_of_cockroach
        })
    }

    fn now(self) -> &'static str {
        match self {
            Self::Sqlite => SQLITE_NOW,
            Self::Postgres | Self::Cockroach => "now()",
        }
    }

    fn now_plus(self, milliseconds: &str) -> String {
        let is_column = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        let milliseconds = if milliseconds.chars().all(is_column) {
            // Anybody may have written it.
            let longest = LONGEST.as_millis();
            format!("(CASE WHEN {milliseconds} > {longest} THEN {longest} ELSE {milliseconds} END)").into()
        } else {
            Cow::Borrowed(milliseconds)
        };
        match self {
            Self::Sqlite => format!("strftime('%Y-%m-%d %H:%M:%f', 'now', ({milliseconds} / 1000.0) || ' seconds')"),
            Self::Postgres | Self::Cockroach => {
                format!("(now() + CAST({milliseconds} AS BIGINT) * INTERVAL '1 millisecond')")
            }
        }
    }

    fn time(self, value: &str) -> String {
        match self {
            Self::Sqlite => format!("strftime('%Y-%m-%d %H:%M:%f', {value})"),
            Self::Postgres | Self::Cockroach => format!("CAST({value} AS TIMESTAMPTZ)"),
        }
    }

    /// A time, or the nearest one that the driver can read: it panics on `infinity`, and on years that chrono does not count. On SQLite a text that
    /// is no time stays as it is, and is an error to who reads it.
    fn moment(self, column: &str) -> String {
        match self {
            Self::Sqlite => format!("ifnull(strftime('%Y-%m-%d %H:%M:%f', {column}), {column})"),
            Self::Postgres | Self::Cockroach => format!(
                "CASE WHEN {column} BETWEEN {FIRST} AND {LAST} THEN {column} WHEN {column} < {FIRST} THEN {FIRST} WHEN {column} > {LAST} THEN {LAST} END"
            ),
        }
    }

    /// The end of something: null if it has none. `infinity` is no end, nor is what lies beyond the year 9999; on SQLite a text that is no time
    /// counts as it does when it is compared, as no end or as long over.
    fn until(self, column: &str) -> String {
        match self {
            Self::Sqlite => format!(
                "CASE WHEN strftime('%Y-%m-%d %H:%M:%f', {column}) IS NOT NULL THEN strftime('%Y-%m-%d %H:%M:%f', {column}) \
                 WHEN {column} <= {SQLITE_NOW} THEN '0001-01-01 00:00:00.000' END"
            ),
            Self::Postgres | Self::Cockroach => {
                format!("CASE WHEN {column} < {FIRST} THEN {FIRST} WHEN {column} <= {LAST} THEN {column} END")
            }
        }
    }

    fn exact(self, column: &str) -> String {
        match self {
            Self::Sqlite => format!("CASE WHEN {column} IS NOT NULL THEN hex({column}) END"),
            Self::Postgres | Self::Cockroach => format!("CAST({column} AS TEXT)"),
        }
    }

    fn id(self, column: &str) -> String {
        match self {
            Self::Sqlite => {
                let part = |from: u8, length: u8| format!("substr(hex({column}), {from}, {length})");
                let parts = [part(1, 8), part(9, 4), part(13, 4), part(17, 4), part(21, 12)];
                format!("lower({})", parts.join(" || '-' || "))
            }
            Self::Postgres | Self::Cockroach => format!("CAST({column} AS TEXT)"),
        }
    }

    /// A statement with its values as this database keeps them: SQLite's driver would write times as RFC 3339 does, which do not compare with the
    /// database's own. Whatever is sent, and whoever made it, passes here.
    pub(crate) fn fit(self, mut statement: Statement) -> Statement {
        if self == Self::Sqlite {
            let values = statement.values.iter_mut().flat_map(|values| &mut values.0);
            values.for_each(fit_for_sqlite);
        }
        statement
    }

    pub(crate) fn fit_value(self, mut value: Value) -> Value {
        if self == Self::Sqlite {
            fit_for_sqlite(&mut value);
        }
        value
    }

    /// What `machine.fence` is raised to: the milliseconds of the database's clock, and above what it was in any case. Fences that were given out in a
    /// history that is lost, by a restored backup or a fail-over, lie below the clock, so that none is given out twice.
    pub(crate) fn next_fence(self) -> Expr {
        Expr::cust(self.next_fence_text())
    }

    fn next_fence_text(self) -> String {
        let greatest = if self == Self::Sqlite { "max" } else { "greatest" };
        format!("{greatest}(machine.fence + 1, {})", self.clock())
    }

    /// The database's clock in milliseconds.
    fn clock(self) -> &'static str {
        match self {
            Self::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            Self::Postgres | Self::Cockroach => "CAST(extract(epoch FROM now()) * 1000 AS BIGINT)",
        }
    }

    /// The database's clock as an expression.
    pub(crate) fn now_expr(self) -> Expr {
        Expr::cust(self.now())
    }

    /// Whether `column` lies more than `age` in the past, by the database's clock. The column may hold what a person or a driver wrote, so on
    /// SQLite it is brought into our form first.
    pub(crate) fn older_than(self, column: impl IntoColumnRef, age: Duration) -> Expr {
        let milliseconds = milliseconds(age);
        let column = Expr::col(column);
        match self {
            Self::Sqlite => Expr::cust_with_exprs(
                "strftime('%Y-%m-%d %H:%M:%f', ?) < strftime('%Y-%m-%d %H:%M:%f', 'now', (-? / 1000.0) || ' seconds')",
                [column, Expr::val(milliseconds)],
            ),
            Self::Postgres | Self::Cockroach => Expr::cust_with_exprs(
                "$1 < now() - CAST($2 AS BIGINT) * INTERVAL '1 millisecond'",
                [column, Expr::val(milliseconds)],
            ),
        }
    }
}

fn fit_for_sqlite(value: &mut Value) {
    let time = match value {
        Value::ChronoDateTimeUtc(Some(time)) => *time,
        Value::ChronoDateTimeLocal(Some(time)) => time.to_utc(),
        Value::ChronoDateTimeWithTimeZone(Some(time)) => time.to_utc(),
        _ => return,
    };
    // As wide as SQLite's own, and wider where there is more to keep: text order still is time order.
    let form = if time.timestamp_subsec_nanos() % 1_000_000 == 0 {
        "%Y-%m-%d %H:%M:%S%.3f"
    } else {
        "%Y-%m-%d %H:%M:%S%.f"
    };
    *value = time.format(form).to_string().into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_longer_than_a_century() {
        let most = milliseconds(Duration::MAX);
        assert_eq!(
            (milliseconds(LONGEST), milliseconds(Duration::from_millis(7))),
            (most, 7)
        );
        for dialect in [Dialect::Postgres, Dialect::Sqlite] {
            let text = dialect.fill("{after p.cool_down_ms}");
            assert!(
                text.contains(&format!("CASE WHEN p.cool_down_ms > {most} THEN {most} ELSE")),
                "{text}"
            );
        }
    }

    const TEXT: &str = "UPDATE t SET a = {now}, b = {after $2}, c = {time $3} WHERE k = $1 {share}{lock}";

    #[test]
    fn each_dialect_fills_the_words() {
        assert_eq!(
            Dialect::Postgres.fill(TEXT),
            "UPDATE t SET a = now(), b = (now() + CAST($2 AS BIGINT) * INTERVAL '1 millisecond'), \
             c = CAST($3 AS TIMESTAMPTZ) WHERE k = $1 FOR KEY SHAREFOR UPDATE"
        );
        assert_eq!(
            Dialect::Cockroach.fill(TEXT),
            Dialect::Postgres.fill(TEXT).replace("FOR KEY SHARE", "")
        );
        assert_eq!(
            Dialect::Sqlite.fill(TEXT),
            "UPDATE t SET a = strftime('%Y-%m-%d %H:%M:%f', 'now'), \
             b = strftime('%Y-%m-%d %H:%M:%f', 'now', ($2 / 1000.0) || ' seconds'), \
             c = strftime('%Y-%m-%d %H:%M:%f', $3) WHERE k = $1 "
        );
    }

    #[test]
    fn only_postgres_leaves_out_what_is_locked() {
        const TEXT: &str = "SELECT {exact a}, {id k} FROM t WHERE a IS NULL {free t}";
        assert_eq!(
            Dialect::Postgres.fill(TEXT),
            "SELECT CAST(a AS TEXT), CAST(k AS TEXT) FROM t WHERE a IS NULL FOR UPDATE OF t SKIP LOCKED"
        );
        assert_eq!(
            Dialect::Cockroach.fill(TEXT),
            Dialect::Postgres.fill(TEXT).replace(" SKIP LOCKED", "")
        );
        assert_eq!(
            Dialect::Sqlite.fill("SELECT {exact a} FROM t {free t}"),
            "SELECT CASE WHEN a IS NOT NULL THEN hex(a) END FROM t "
        );
    }

    #[test]
    fn times_are_kept_as_sqlite_writes_them() {
        let time = |nanos| chrono::DateTime::from_timestamp(1_700_000_000, nanos).expect("it is a time");
        let east = chrono::FixedOffset::east_opt(3600).expect("it is an offset");
        let values = [
            Value::from(time(0)),
            time(5_000_000).with_timezone(&east).into(),
            time(5_000_001).with_timezone(&chrono::Local).into(),
            None::<chrono::DateTime<chrono::Utc>>.into(),
            7_i64.into(),
        ];
        let statement = |dialect: Dialect| dialect.fit(dialect.statement("SELECT 1", values.clone())).values;
        assert_eq!(statement(Dialect::Postgres).expect("it has some").0, values);
        let ours = statement(Dialect::Sqlite).expect("it has some").0;
        let expected = [
            Value::from("2023-11-14 22:13:20.000"),
            "2023-11-14 22:13:20.005".into(),
            "2023-11-14 22:13:20.005000001".into(),
        ];
        assert_eq!(ours[..3], expected);
        assert_eq!(ours[3..], values[3..]);
        assert!(expected.is_sorted_by_key(|value| value.clone().unwrap::<String>()));
    }
}
