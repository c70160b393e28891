//! Times and spans, by the database's clock.

use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};

use crate::answer::words;

const NO_BREAK: &str = "\u{a0}";

/// A span of time that does not break across lines.
pub(in crate::serve) fn span(time: TimeDelta) -> String {
    words::span(time).replace(' ', NO_BREAK)
}

/// A span from a time on, or up to it.
pub(in crate::serve) fn since(at: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    time(at, &span(now - at))
}

/// `6 min ago`, or `in 18 min`.
pub(in crate::serve) fn when(at: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    time(at, &words::when(at, now).replace(' ', NO_BREAK))
}

/// The time itself; today's without its date.
pub(in crate::serve) fn clock(at: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    time(at, &words::time(at, now))
}

fn time(at: DateTime<Utc>, shown: &str) -> Markup {
    html! { time datetime=(at.to_rfc3339()) title=(at.format("%Y-%m-%d %H:%M:%S UTC")) { (shown) } }
}
