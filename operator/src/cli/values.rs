//! How values of the command line are read.

use std::time::Duration;

use bmdb::{SessionId, WorkId};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A span of time as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// Reads `90s`, `30m`, `2h`, `3d`.
pub(crate) fn span(text: &str) -> Result<Span, String> {
    let expected = || "expected a number with s, m, h or d after it, such as 30m".to_owned();
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(expected)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_no_number| expected())?;
    let seconds = number
        .checked_mul(seconds)
        .filter(|seconds| (1..=3_155_760_000).contains(seconds));
    let seconds = seconds.ok_or_else(|| "expected at least a second and at most a century".to_owned())?;
    Ok(Span(Duration::from_secs(seconds)))
}

/// Reads a time of RFC 3339.
pub(crate) fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.to_utc())
        .map_err(|_no_time| "expected a time with its zone, such as 2026-12-01T08:00:00Z".to_owned())
}

fn id(text: &str) -> Result<Uuid, String> {
    Uuid::try_parse(text).map_err(|_no_uuid| "expected a whole id, as lists show it".to_owned())
}

/// Reads a work's id.
pub(crate) fn work(text: &str) -> Result<WorkId, String> {
    id(text).map(WorkId)
}

/// Reads a session's id.
pub(crate) fn session(text: &str) -> Result<SessionId, String> {
    id(text).map(SessionId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, seconds) in [("1s", 1), ("90s", 90), ("30m", 1800), ("2h", 7200), ("3d", 259_200)] {
            assert_eq!(span(text), Ok(Span(Duration::from_secs(seconds))), "{text}");
        }
        for wrong in [
            "",
            "s",
            "0s",
            "-1s",
            "30",
            "1.5h",
            "99999999999d",
            "18446744073709551615d",
            "5 m",
            "µs",
            "3ü",
        ] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
