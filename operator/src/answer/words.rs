//! How times, numbers and what others have written are said.

use bmdb::Escaped;
use chrono::{DateTime, TimeDelta, Utc};

/// A span of time in at most two units: `3 h 10 min`, `51 s`.
pub(crate) fn span(time: TimeDelta) -> String {
    let seconds = time.num_seconds().abs();
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let two = |large: i64, unit: &str, small: i64, of: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {of}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..600 => two(minutes, "min", rest, "s"),
        600..3600 => format!("{minutes} min"),
        3600..86_400 => two(hours, "h", minutes, "min"),
        _ => two(days, "d", hours, "h"),
    }
}

/// When something was or will be, seen from `now`.
pub(crate) fn when(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let span = span(at - now);
    if at > now {
        format!("in {span}")
    } else {
        format!("{span} ago")
    }
}

/// The time itself: today's without a date.
pub(crate) fn time(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let form = match at.date_naive() == now.date_naive() {
        true => "%H:%M:%S",
        false => "%Y-%m-%d %H:%M:%S",
    };
    at.format(form).to_string()
}

/// How something ends: at a time, or never by itself.
pub(crate) fn until(end: Option<DateTime<Utc>>, now: DateTime<Utc>, never: &str) -> String {
    end.map_or_else(
        || never.to_owned(),
        |end| format!("until {} ({})", time(end, now), when(end, now)),
    )
}

/// A number and what it counts, in English.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{} {many}", grouped(number)),
    }
}

/// `48,212`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What somebody wrote, in one line that can forge nothing.
pub(crate) fn foreign(text: &str) -> String {
    Escaped(text).to_string()
}

/// The same of a text of several lines of ours.
pub(crate) fn foreign_lines(text: &str) -> String {
    text.split('\n').map(foreign).collect::<Vec<_>>().join("\n")
}

/// The same, cut for a table.
pub(crate) fn brief(text: &str) -> String {
    const LONGEST: usize = 80;
    let text = foreign(text);
    if text.chars().count() <= LONGEST {
        return text;
    }
    let cut: String = text.chars().take(LONGEST - 1).collect();
    format!("{cut}…")
}

/// A text as a shell takes it for one word.
pub(crate) fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@+=,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The signs of states, as `--ascii` says them.
const SIGNS: [(&str, &str); 10] = [
    ("○", "o"),
    ("▶", ">"),
    ("⧗", "~"),
    ("■", "#"),
    ("⊘", "/"),
    ("✕", "x"),
    ("✓", "+"),
    ("–", "-"),
    ("≤", "<="),
    ("…", "..."),
];

/// Without any sign that is not ASCII: ours by their names, those of others as escapes.
pub(crate) fn ascii(text: &str) -> String {
    let ours = SIGNS
        .iter()
        .fold(text.to_owned(), |text, (sign, plain)| text.replace(sign, plain));
    let mut plain = String::with_capacity(ours.len());
    for letter in ours.chars() {
        if letter.is_ascii() {
            plain.push(letter);
        } else {
            plain.extend(letter.escape_unicode());
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_at_most_two_units() {
        let said = |seconds| span(TimeDelta::seconds(seconds));
        let spans = [0, 59, 60, 61, 599, 3599, 3600, 11_400, 86_400, 100_000, -5].map(said);
        assert_eq!(
            spans,
            [
                "0 s",
                "59 s",
                "1 min",
                "1 min 1 s",
                "9 min 59 s",
                "59 min",
                "1 h",
                "3 h 10 min",
                "1 d",
                "1 d 3 h",
                "5 s"
            ]
        );
    }

    #[test]
    fn what_others_wrote_is_pasted_as_one_word() {
        assert_eq!(quoted("OAK-4177"), "OAK-4177");
        assert_eq!(quoted("it's; rm -rf /"), r"'it'\''s; rm -rf /'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            (count(1, "work", "works"), count(0, "work", "works")),
            ("1 work".to_owned(), "0 works".to_owned())
        );
    }

    #[test]
    fn ascii_loses_nothing() {
        assert_eq!(ascii("✕ no ü…"), "x no \\u{fc}...");
    }
}
