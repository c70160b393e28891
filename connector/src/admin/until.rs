//! Until when something lasts that an operator places: a hold, a pause.

use std::time::Duration;

use chrono::{DateTime, Datelike, Utc};
use sea_orm::sea_query::Value;

use crate::db::dialect::{LONGEST, milliseconds};
use crate::db::tx::Tx;
use crate::error::Error;

/// Until when something lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Until {
    /// Until somebody ends it.
    #[default]
    Open,
    /// For so long from now, by the database's clock; at most a century.
    For(Duration),
    /// Until this time, by the database's clock, in the years 1 to 9999.
    Time(DateTime<Utc>),
}

impl Until {
    /// What the one database cannot hold, the other takes for no end.
    pub(super) fn check(self, what: &'static str) -> Result<(), Error> {
        let is_good = match self {
            Self::Open => true,
            Self::For(time) => time <= LONGEST,
            Self::Time(time) => (1..=9999).contains(&time.year()),
        };
        if is_good {
            return Ok(());
        }
        let expected = "at most a century from now, or a time in the years 1 to 9999; or Until::Open";
        Err(Error::invalid(what, &format!("{self:?}"), expected))
    }

    /// Whether it lies ahead by the database's clock.
    pub(super) async fn check_to_come(self, tx: &Tx, what: &'static str) -> Result<(), Error> {
        let Self::Time(time) = self else {
            return Ok(());
        };
        let rows = tx.query_text("SELECT {now} AS now", []).await?;
        let now: Option<DateTime<Utc>> = rows.first().map(|row| row.try_get_by_index(0)).transpose()?;
        if now.is_none_or(|now| time <= now) {
            return Err(Error::invalid(what, &time.to_string(), "a time to come"));
        }
        Ok(())
    }

    /// As an expression of [`Dialect::statement`](crate::db::dialect::Dialect::statement), and the value that it takes at `place`, such as `$3`.
    pub(super) fn value(self, place: &str) -> (String, Value) {
        match self {
            Self::Open => (format!("{{time {place}}}"), None::<DateTime<Utc>>.into()),
            Self::For(time) => (format!("{{after {place}}}"), milliseconds(time).into()),
            Self::Time(time) => (format!("{{time {place}}}"), time.into()),
        }
    }

    /// In words that are kept. `ended`: what ends one that is open.
    pub(super) fn detail(self, ended: &str) -> String {
        match self {
            Self::Open => format!("until {ended}"),
            Self::For(time) => format!("for {} s", time.as_secs_f64()),
            Self::Time(time) => format!("until {}", time.format("%Y-%m-%d %H:%M:%S UTC")),
        }
    }
}
