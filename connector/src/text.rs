//! SQL that is put together from text, values and queries, with the values numbered through.

use sea_orm::sea_query::{PostgresQueryBuilder, SelectStatement, SqlWriter, SqlWriterValues, Value};
use sea_orm::{DatabaseBackend, Statement};

use crate::dialect::Dialect;

/// A statement for PostgreSQL or CockroachDB that is being written.
pub(crate) struct Text {
    writer: SqlWriterValues,
    dialect: Dialect,
}

impl Text {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self {
            writer: SqlWriterValues::new("$", true),
            dialect,
        }
    }

    /// Text with the words in braces of [`Dialect::statement`], and `$1`, `$2`… for `values`, in any order.
    pub(crate) fn put<const N: usize>(&mut self, text: &str, values: [Value; N]) -> &mut Self {
        let text = self.dialect.fill(text);
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            self.writer
                .as_writer()
                .write_str(before)
                .expect("a string can be written to");
            let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, after) = after.split_at(digits);
            let place: usize = number.parse().expect("BUG: a $ in a statement without a number");
            self.writer.push_param(values[place - 1].clone(), &PostgresQueryBuilder);
            rest = after;
        }
        self.writer
            .as_writer()
            .write_str(rest)
            .expect("a string can be written to");
        self
    }

    pub(crate) fn query(&mut self, query: &SelectStatement) -> &mut Self {
        query.build_collect_into(PostgresQueryBuilder, &mut self.writer);
        self
    }

    pub(crate) fn finish(self) -> Statement {
        let (sql, values) = self.writer.into_parts();
        Statement::from_sql_and_values(DatabaseBackend::Postgres, sql, values)
    }
}
