//! Values written into SQL text, each as the database would have been given it, for a statement that is kept to be run later.

use std::fmt::Write;

use sea_orm::Value;
use sea_orm::sea_query::{Expr, OptionEnum, PostgresQueryBuilder, Query, SqliteQueryBuilder};

use crate::db::dialect::Dialect;

/// A value as SQL of this dialect, of the type that the driver would have given it.
///
/// # Errors
/// What is wrong with a value that no text can say: a number that is none, a text with NUL.
pub(crate) fn literal(dialect: Dialect, value: &Value) -> Result<String, &'static str> {
    let value = dialect.fit_value(value.clone());
    match dialect {
        Dialect::Sqlite => for_sqlite(&value),
        Dialect::Postgres | Dialect::Cockroach => for_postgres(&value),
    }
}

fn for_sqlite(value: &Value) -> Result<String, &'static str> {
    Ok(match value {
        Value::Bool(Some(is)) => u8::from(*is).to_string(),
        Value::Float(Some(number)) => exact(f64::from(*number))?,
        Value::Double(Some(number)) => exact(*number)?,
        Value::Bytes(Some(bytes)) => format!("x'{}'", hex(bytes)),
        Value::Uuid(Some(id)) => format!("x'{}'", hex(id.as_bytes())),
        _ => match text_of(value) {
            Some(text) => quoted(&text)?,
            None => integer(value).unwrap_or_else(|| by_sea_query(value, Dialect::Sqlite)),
        },
    })
}

fn for_postgres(value: &Value) -> Result<String, &'static str> {
    let cast = |text: String, kind: &str| format!("CAST({text} AS {kind})");
    let kind = match value {
        Value::TinyInt(_) | Value::SmallInt(_) | Value::TinyUnsigned(_) => "SMALLINT",
        Value::Int(_) | Value::SmallUnsigned(_) => "INTEGER",
        Value::BigInt(_) | Value::Unsigned(_) | Value::BigUnsigned(_) => "BIGINT",
        Value::Float(_) => "REAL",
        Value::Double(_) => "DOUBLE PRECISION",
        Value::Json(_) => "JSONB",
        Value::Uuid(_) => "UUID",
        Value::ChronoDate(_) => "DATE",
        Value::ChronoTime(_) => "TIME",
        Value::ChronoDateTime(_) => "TIMESTAMP",
        Value::ChronoDateTimeUtc(_) | Value::ChronoDateTimeLocal(_) | Value::ChronoDateTimeWithTimeZone(_) => {
            "TIMESTAMPTZ"
        }
        _ => "TEXT",
    };
    Ok(match value {
        Value::Bool(Some(is)) => is.to_string(),
        Value::Float(Some(number)) => cast(quoted(&float(f64::from(*number))?)?, kind),
        Value::Double(Some(number)) => cast(quoted(&float(*number)?)?, kind),
        Value::Bytes(Some(bytes)) => format!("decode('{}', 'hex')", hex(bytes)),
        Value::Uuid(Some(id)) => cast(quoted(&id.to_string())?, kind),
        _ => match (text_of(value), integer(value)) {
            (Some(text), _) if kind == "TEXT" => escaped(&text)?,
            (Some(text), _) => cast(escaped(&text)?, kind),
            (None, Some(number)) => cast(number, kind),
            (None, None) => by_sea_query(value, Dialect::Postgres),
        },
    })
}

fn integer(value: &Value) -> Option<String> {
    Some(match value {
        Value::TinyInt(number) => i64::from((*number)?).to_string(),
        Value::SmallInt(number) => i64::from((*number)?).to_string(),
        Value::Int(number) => i64::from((*number)?).to_string(),
        Value::BigInt(number) => (*number)?.to_string(),
        Value::TinyUnsigned(number) => (*number)?.to_string(),
        Value::SmallUnsigned(number) => (*number)?.to_string(),
        Value::Unsigned(number) => (*number)?.to_string(),
        Value::BigUnsigned(number) => (*number)?.to_string(),
        _ => return None,
    })
}

/// What is written as text.
fn text_of(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => text.clone()?,
        Value::Enum(OptionEnum::Some(value)) => value.value.to_string(),
        Value::Char(letter) => (*letter)?.to_string(),
        Value::Json(json) => json.as_ref()?.to_string(),
        Value::ChronoDate(date) => (*date)?.format("%F").to_string(),
        Value::ChronoTime(time) => (*time)?.format("%T%.f").to_string(),
        Value::ChronoDateTime(time) => (*time)?.format("%F %T%.f").to_string(),
        Value::ChronoDateTimeUtc(time) => (*time)?.to_rfc3339(),
        Value::ChronoDateTimeLocal(time) => (*time)?.to_rfc3339(),
        Value::ChronoDateTimeWithTimeZone(time) => (*time)?.to_rfc3339(),
        _ => return None,
    })
}

/// NULL, and kinds of values that only a feature of the user's brings.
fn by_sea_query(value: &Value, dialect: Dialect) -> String {
    let select = Query::select().expr(Expr::val(value.clone())).take();
    let text = match dialect {
        Dialect::Sqlite => select.to_string(SqliteQueryBuilder),
        Dialect::Postgres | Dialect::Cockroach => select.to_string(PostgresQueryBuilder),
    };
    text.trim_start_matches("SELECT ").to_owned()
}

/// So many digits that it is the same number when it is read.
fn float(number: f64) -> Result<String, &'static str> {
    if number.is_finite() {
        Ok(format!("{number:?}"))
    } else {
        Err("finite numbers")
    }
}

/// The same for SQLite, which rounds what it reads a little differently where a number has many digits or is very large or small: there it is written as a whole
/// number and powers of two, with which all steps are exact.
fn exact(number: f64) -> Result<String, &'static str> {
    let text = float(number)?;
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if number == 0.0 || (digits <= 15 && (1e-9..1e15).contains(&number.abs())) {
        return Ok(text);
    }
    let (bits, sign) = (number.to_bits(), if number < 0.0 { "-" } else { "" });
    let (fraction, exponent) = (bits & ((1 << 52) - 1), i64::from((bits >> 52) as u16 & 0x7ff));
    let (whole, mut exponent) = match exponent {
        0 => (fraction, -1074),
        _ => (fraction | 1 << 52, exponent - 1075),
    };
    let mut exact = format!("({sign}{whole}.0");
    while exponent != 0 {
        let step = exponent.abs().min(30);
        let by = if exponent > 0 { '*' } else { '/' };
        write!(exact, " {by} {}.0", 1_u64 << step).expect("a string can be written to");
        exponent -= step * exponent.signum();
    }
    exact.push(')');
    Ok(exact)
}

/// The same whatever `standard_conforming_strings` says.
fn escaped(text: &str) -> Result<String, &'static str> {
    let quoted = quoted(text)?;
    Ok(match text.contains('\\') {
        true => format!("E{}", quoted.replace('\\', "\\\\")),
        false => quoted,
    })
}

fn quoted(text: &str) -> Result<String, &'static str> {
    if text.contains('\0') {
        return Err("texts without NUL");
    }
    Ok(format!("'{}'", text.replace('\'', "''")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_no_text_can_say_is_refused() {
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            for odd in [
                Value::from(f64::NAN),
                f64::INFINITY.into(),
                f32::NEG_INFINITY.into(),
                "a\0b".into(),
            ] {
                assert!(literal(dialect, &odd).is_err(), "{odd:?}");
            }
        }
    }

    #[test]
    fn a_number_with_many_digits_is_written_as_steps_that_are_exact() {
        for plain in [0.0, -0.5, 1.25, 123_456.75, 0.1] {
            assert_eq!(exact(plain).unwrap(), format!("{plain:?}"));
        }
        let read = |text: &str| {
            let mut words = text.trim_matches(['(', ')']).split(' ');
            let mut number: f64 = words.next().unwrap().parse().unwrap();
            while let (Some(by), Some(power)) = (words.next(), words.next()) {
                let power: f64 = power.parse().unwrap();
                number = if by == "*" { number * power } else { number / power };
            }
            number
        };
        for odd in [
            1.5e-300,
            -1.0 / 3.0,
            f64::MAX,
            f64::MIN_POSITIVE,
            5e-324,
            f64::from(0.1_f32),
            1e22 + 1e7,
        ] {
            assert_eq!(read(&exact(odd).unwrap()).to_bits(), odd.to_bits(), "{odd:?}");
        }
    }

    #[test]
    fn nothing_has_no_value() {
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            for none in [Value::BigInt(None), Value::String(None), Value::Uuid(None)] {
                assert_eq!(literal(dialect, &none), Ok("NULL".to_owned()));
            }
        }
    }

    /// A value without its kind would be compared otherwise: on servers `'5'` is no number, and a number that PostgreSQL takes for another chooses another index.
    #[test]
    fn a_value_is_written_with_its_kind() {
        let time = DateTime::from_timestamp(1_795_996_800, 125_000_000).expect("it is one");
        let (date, clock) = (time.date_naive(), time.time());
        let id = Uuid::from_u128(0x0102);
        for (value, postgres, sqlite) in [
            (Value::from(true), "true", "1"),
            (Value::TinyInt(Some(-1)), "CAST(-1 AS SMALLINT)", "-1"),
            (Value::SmallInt(Some(-2)), "CAST(-2 AS SMALLINT)", "-2"),
            (Value::Int(Some(-3)), "CAST(-3 AS INTEGER)", "-3"),
            (Value::BigInt(Some(-4)), "CAST(-4 AS BIGINT)", "-4"),
            (Value::TinyUnsigned(Some(5)), "CAST(5 AS SMALLINT)", "5"),
            (Value::SmallUnsigned(Some(6)), "CAST(6 AS INTEGER)", "6"),
            (Value::Unsigned(Some(7)), "CAST(7 AS BIGINT)", "7"),
            (Value::BigUnsigned(Some(8)), "CAST(8 AS BIGINT)", "8"),
            (0.5_f32.into(), "CAST('0.5' AS REAL)", "0.5"),
            (0.25_f64.into(), "CAST('0.25' AS DOUBLE PRECISION)", "0.25"),
            (
                1e15_f64.into(),
                "CAST('1000000000000000.0' AS DOUBLE PRECISION)",
                "(8000000000000000.0 / 8.0)",
            ),
            ("it's".into(), "'it''s'", "'it''s'"),
            (r"a\b".into(), r"E'a\\b'", r"'a\b'"),
            ('c'.into(), "'c'", "'c'"),
            (vec![0_u8, 255].into(), "decode('00ff', 'hex')", "x'00ff'"),
            (
                id.into(),
                "CAST('00000000-0000-0000-0000-000000000102' AS UUID)",
                "x'00000000000000000000000000000102'",
            ),
            (
                serde_json::json!({"a": 1}).into(),
                r#"CAST('{"a":1}' AS JSONB)"#,
                r#"'{"a":1}'"#,
            ),
            (date.into(), "CAST('2026-11-30' AS DATE)", "'2026-11-30'"),
            (clock.into(), "CAST('00:00:00.125' AS TIME)", "'00:00:00.125'"),
            (
                time.naive_utc().into(),
                "CAST('2026-11-30 00:00:00.125' AS TIMESTAMP)",
                "'2026-11-30 00:00:00.125'",
            ),
            (
                time.into(),
                "CAST('2026-11-30T00:00:00.125+00:00' AS TIMESTAMPTZ)",
                "'2026-11-30 00:00:00.125'",
            ),
            (
                time.fixed_offset().into(),
                "CAST('2026-11-30T00:00:00.125+00:00' AS TIMESTAMPTZ)",
                "'2026-11-30 00:00:00.125'",
            ),
        ] {
            assert_eq!(literal(Dialect::Postgres, &value).as_deref(), Ok(postgres), "{value:?}");
            assert_eq!(literal(Dialect::Sqlite, &value).as_deref(), Ok(sqlite), "{value:?}");
        }
    }
}
