//! SQL that is put together from text, values and queries, with the values numbered through.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sea_orm::Statement;
use sea_orm::sea_query::{
    PostgresQueryBuilder, QueryStatementWriter, SelectStatement, SqlWriter, SqlWriterValues, SqliteQueryBuilder, Value,
};

use crate::dialect::Dialect;

/// Where a value goes. PostgreSQL knows no text with it.
const HOLE: char = '\0';

/// A query that was built once, to be put into statements again and again: to build it costs the client more than to send it and to read the answer.
pub(crate) struct Piece {
    text: String,
    values: Vec<Value>,
}

/// Pieces by the type of the process that they are for.
#[derive(Default)]
pub(crate) struct Pieces(Mutex<HashMap<TypeId, Arc<Piece>>>);

impl Pieces {
    pub(crate) fn of<P: 'static>(&self, dialect: Dialect, build: impl FnOnce() -> SelectStatement) -> Arc<Piece> {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = pieces.entry(TypeId::of::<P>()).or_insert_with(|| {
            let mut writer = SqlWriterValues::new(HOLE, false);
            build_into(dialect, &build(), &mut writer);
            let (text, values) = writer.into_parts();
            Arc::new(Piece { text, values: values.0 })
        });
        Arc::clone(piece)
    }
}

/// A statement that is being written; for SQLite, whose driver takes them together, there may be several.
pub(crate) struct Text {
    writer: SqlWriterValues,
    dialect: Dialect,
    is_empty: bool,
}

impl Text {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self {
            writer: SqlWriterValues::new("$", true),
            dialect,
            is_empty: true,
        }
    }

    /// What follows is a statement of its own.
    pub(crate) fn another(&mut self) -> &mut Self {
        if !self.is_empty {
            self.write("; ");
        }
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.is_empty
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Text with the words in braces of [`Dialect::statement`], and `$1`, `$2`… for `values`, in any order.
    pub(crate) fn put<const N: usize>(&mut self, text: &str, values: [Value; N]) -> &mut Self {
        let text = self.dialect.fill(text);
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            self.write(before);
            let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, after) = after.split_at(digits);
            let place: usize = number.parse().expect("BUG: a $ in a statement without a number");
            self.writer.push_param(values[place - 1].clone(), &PostgresQueryBuilder);
            rest = after;
        }
        self.write(rest);
        self
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
                self.write(", ");
            }
            self.put(text, values(item));
        }
        self
    }

    pub(crate) fn piece(&mut self, piece: &Piece) -> &mut Self {
        let mut values = piece.values.iter();
        for (place, text) in piece.text.split(HOLE).enumerate() {
            if place > 0 {
                let value = values.next().expect("BUG: there is a value for each hole");
                self.writer.push_param(value.clone(), &PostgresQueryBuilder);
            }
            self.write(text);
        }
        self
    }

    pub(crate) fn query(&mut self, query: &impl QueryStatementWriter) -> &mut Self {
        self.is_empty = false;
        build_into(self.dialect, query, &mut self.writer);
        self
    }

    fn write(&mut self, text: &str) {
        self.is_empty = false;
        let writer = self.writer.as_writer();
        writer.write_str(text).expect("a string can be written to");
    }

    pub(crate) fn finish(self) -> Statement {
        let backend = self.dialect.backend();
        let (sql, values) = self.writer.into_parts();
        Statement::from_sql_and_values(backend, sql, values)
    }
}

fn build_into(dialect: Dialect, query: &impl QueryStatementWriter, writer: &mut SqlWriterValues) {
    match dialect {
        Dialect::Sqlite => query.build_collect_into(SqliteQueryBuilder, writer),
        Dialect::Postgres | Dialect::Cockroach => query.build_collect_into(PostgresQueryBuilder, writer),
    };
}
