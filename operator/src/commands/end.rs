//! Until when what an operator does lasts.

use bmdb::Until;
use chrono::TimeDelta;

use crate::answer::words::span;
use crate::cli::End;

/// As the library takes it.
pub(super) fn until_of(end: End) -> Until {
    match (end.span, end.until) {
        (Some(span), _) => Until::For(span.0),
        (None, Some(time)) => Until::Time(time),
        (None, None) => Until::Open,
    }
}

/// In words. `open`: what ends one that has no end.
pub(super) fn lasts(end: End, open: &str) -> String {
    match (end.span, end.until) {
        (Some(time), _) => format!(
            "for {}",
            TimeDelta::from_std(time.0).map_or_else(|_long| "a century".to_owned(), span)
        ),
        (None, Some(time)) => format!("until {}", time.format("%Y-%m-%d %H:%M:%S UTC")),
        (None, None) => format!("until {open}"),
    }
}
