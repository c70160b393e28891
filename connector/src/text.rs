//! SQL that is put together from text, values and queries, with the values numbered through.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sea_orm::sea_query::{
    PostgresQueryBuilder, QueryStatementWriter, SelectStatement, SqlWriter, SqlWriterValues, Value,
};
use sea_orm::{DatabaseBackend, Statement};

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
    pub(crate) fn of<P: 'static>(&self, build: impl FnOnce() -> SelectStatement) -> Arc<Piece> {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = pieces.entry(TypeId::of::<P>()).or_insert_with(|| {
            let mut writer = SqlWriterValues::new(HOLE, false);
            build().build_collect_into(PostgresQueryBuilder, &mut writer);
            let (text, values) = writer.into_parts();
            Arc::new(Piece { text, values: values.0 })
        });
        Arc::clone(piece)
    }
}

/// `$first`, `$first+1`… for so many values.
pub(crate) fn places(first: usize, count: usize) -> String {
    let mut text = String::new();
    for place in first..first + count {
        text.push_str(if place == first { "$" } else { ", $" });
        text.push_str(&place.to_string());
    }
    text
}

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

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
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

    pub(crate) fn piece(&mut self, piece: &Piece) -> &mut Self {
        let mut values = piece.values.iter();
        for (place, text) in piece.text.split(HOLE).enumerate() {
            if place > 0 {
                let value = values.next().expect("BUG: there is a value for each hole");
                self.writer.push_param(value.clone(), &PostgresQueryBuilder);
            }
            let writer = self.writer.as_writer();
            writer.write_str(text).expect("a string can be written to");
        }
        self
    }

    pub(crate) fn query(&mut self, query: &impl QueryStatementWriter) -> &mut Self {
        query.build_collect_into(PostgresQueryBuilder, &mut self.writer);
        self
    }

    pub(crate) fn finish(self) -> Statement {
        let (sql, values) = self.writer.into_parts();
        Statement::from_sql_and_values(DatabaseBackend::Postgres, sql, values)
    }
}
