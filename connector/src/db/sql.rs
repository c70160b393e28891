//! SQL that is put together from text, values and queries, with the values numbered through.

use std::fmt::Write;

use sea_orm::Statement;
use sea_orm::sea_query::{
    Expr, PostgresQueryBuilder, Query, QueryStatementWriter, SqlWriterValues, SqliteQueryBuilder, Value, Values,
};

use crate::db::dialect::Dialect;
use crate::db::literal::literal;
use crate::error::Error;

/// Where a value goes. PostgreSQL knows no text with it.
const HOLE: char = '\0';

/// A part of statements that was built once, to be put into them again and again: to build it costs the client more than to send it and to read the
/// answer.
pub(crate) struct SqlFragment {
    /// Before, between and after the values.
    texts: Vec<String>,
    values: Vec<Value>,
}

impl SqlFragment {
    /// What has no values.
    pub(crate) fn text(text: String) -> Self {
        Self {
            texts: vec![text],
            values: Vec::new(),
        }
    }

    pub(crate) fn query(dialect: Dialect, query: &impl QueryStatementWriter) -> Self {
        let mut writer = SqlWriterValues::new(HOLE, false);
        match dialect {
            Dialect::Sqlite => query.build_collect_into(SqliteQueryBuilder, &mut writer),
            Dialect::Postgres | Dialect::Cockroach => query.build_collect_into(PostgresQueryBuilder, &mut writer),
        };
        let (text, values) = writer.into_parts();
        Self {
            texts: text.split(HOLE).map(str::to_owned).collect(),
            values: values.0,
        }
    }
}

impl SqlFragment {
    /// Its text, without the values.
    pub(crate) fn bare_text(&self) -> String {
        self.texts.concat()
    }

    /// Its text with the values in it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that no text can say.
    pub(crate) fn with_literals(&self, dialect: Dialect) -> Result<String, Error> {
        let mut values = self.values.iter();
        let mut sql = String::new();
        for (nth, text) in self.texts.iter().enumerate() {
            if nth > 0 {
                let value = values.next().expect("BUG: there is a value for each hole");
                let value = literal(dialect, value)
                    .map_err(|expected| Error::invalid("a value of a rule", &format!("{value:?}"), expected))?;
                sql.push_str(&value);
            }
            sql.push_str(text);
        }
        Ok(sql)
    }
}

impl SqlFragment {
    /// An expression, such as a condition.
    pub(crate) fn expression(dialect: Dialect, expression: impl Into<Expr>) -> Self {
        let mut select = Self::query(dialect, &Query::select().expr(expression.into()).take());
        let text = select.texts[0].strip_prefix("SELECT ");
        select.texts[0] = text.expect("BUG: a query selects").to_owned();
        select
    }
}

/// A statement that is being written; for SQLite, whose driver takes them together, there may be several.
pub(crate) struct SqlBuilder {
    sql: String,
    values: Vec<Value>,
    dialect: Dialect,
}

impl SqlBuilder {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self {
            // A claim on PostgreSQL takes about so many bytes.
            sql: String::with_capacity(4096),
            values: Vec::with_capacity(32),
            dialect,
        }
    }

    /// What follows is a statement of its own.
    pub(crate) fn another(&mut self) -> &mut Self {
        if !self.is_empty() {
            self.sql.push_str("; ");
        }
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sql.is_empty()
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Text with the words in braces of [`Dialect::statement`], and `$1`, `$2`… for `values`, in any order.
    pub(crate) fn put<const N: usize>(&mut self, text: &str, values: [Value; N]) -> &mut Self {
        self.fill(text, &values);
        self
    }

    fn fill(&mut self, text: &str, values: &[Value]) {
        let mut rest = text;
        while let Some(place) = memchr::memchr2(b'$', b'{', rest.as_bytes()) {
            let (before, after) = rest.split_at(place);
            self.sql.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                let (number, after) = after.split_at(digits);
                let nth: usize = number.parse().expect("BUG: a $ in a statement without a number");
                self.value(values[nth - 1].clone());
                rest = after;
            } else {
                let (filled, after) = self.dialect.fill_word(after);
                self.fill(&filled, values);
                rest = after;
            }
        }
        self.sql.push_str(rest);
    }

    fn value(&mut self, value: Value) {
        self.values.push(value);
        write!(self.sql, "${}", self.values.len()).expect("a string can be written to");
    }

    /// The text once for each item, with its values, and commas between.
    pub(crate) fn each<T, const N: usize>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        text: &str,
        values: impl Fn(T) -> [Value; N],
    ) -> &mut Self {
        for (nth, item) in items.into_iter().enumerate() {
            if nth > 0 {
                self.sql.push_str(", ");
            }
            self.put(text, values(item));
        }
        self
    }

    pub(crate) fn piece(&mut self, piece: &SqlFragment) -> &mut Self {
        let mut values = piece.values.iter();
        for (nth, text) in piece.texts.iter().enumerate() {
            if nth > 0 {
                let value = values.next().expect("BUG: there is a value for each hole");
                self.value(value.clone());
            }
            self.sql.push_str(text);
        }
        self
    }

    pub(crate) fn query(&mut self, query: &impl QueryStatementWriter) -> &mut Self {
        self.piece(&SqlFragment::query(self.dialect, query))
    }

    pub(crate) fn finish(self) -> Statement {
        Statement {
            sql: self.sql,
            values: Some(Values(self.values)),
            db_backend: self.dialect.backend(),
        }
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::sea_query::{Expr, ExprTrait, Query};

    use super::*;

    #[test]
    fn values_are_numbered_through() {
        let mut query = Query::select();
        query.column("d").from("t").and_where(Expr::col("e").eq(5_i64));
        let mut text = SqlBuilder::new(Dialect::Postgres);
        assert!(text.is_empty());
        text.another()
            .put(
                "a = $2, b = $1, c = $2, {after $1} {now} ",
                [1_i64.into(), 2_i64.into()],
            )
            .each([3_i64, 4], "($1)", |item| [item.into()])
            .put("; ", [])
            .query(&query)
            .piece(&SqlFragment::query(Dialect::Postgres, &query))
            .piece(&SqlFragment::text(" $1".to_owned()))
            .another();
        let statement = text.finish();
        assert_eq!(
            statement.sql,
            "a = $1, b = $2, c = $3, (now() + CAST($4 AS BIGINT) * INTERVAL '1 millisecond') now() ($5), ($6); \
             SELECT \"d\" FROM \"t\" WHERE \"e\" = $7SELECT \"d\" FROM \"t\" WHERE \"e\" = $8 $1; "
        );
        let expected = [2, 1, 2, 1, 3, 4, 5, 5].map(|value: i64| value.into());
        assert_eq!(statement.values, Some(Values(expected.to_vec())));
    }
}
