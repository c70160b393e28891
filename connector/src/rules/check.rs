//! Which names, texts and values every database can hold.

use sea_orm::sea_query::Value;

use crate::error::Error;

const NAME_EXPECTED: &str = "1 to 64 of the characters A-Z a-z 0-9 _ . -";

/// Whether `name` can name a process or slot: `[A-Za-z0-9_.-]{1,64}`.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), Error> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if (1..=64).contains(&name.len()) && name.bytes().all(good) {
        Ok(())
    } else {
        Err(Error::invalid(what, name, NAME_EXPECTED))
    }
}

/// Whether `text` can be stored on every backend: no NUL, and not longer than `longest` bytes.
pub(crate) fn check_text(what: &'static str, text: &str, longest: usize) -> Result<(), Error> {
    match text {
        _ if text.contains('\0') => Err(Error::invalid(what, text, "text without NUL")),
        _ if text.len() > longest => Err(Error::invalid(what, text, "at most 4 kB")),
        _ => Ok(()),
    }
}

/// PostgreSQL holds no NUL in texts and JSON; SQLite would.
pub(crate) fn check_value(value: &Value) -> Result<(), Error> {
    let text = match value {
        Value::String(Some(text)) if text.contains('\0') => text.as_str(),
        Value::Json(Some(json)) if has_nul(json) => "JSON",
        _ => return Ok(()),
    };
    Err(Error::invalid("a tag's value", text, "text without NUL"))
}

/// Whether a text or a name in it holds NUL.
pub(crate) fn has_nul(json: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Object, String};
    match json {
        String(text) => text.contains('\0'),
        Array(items) => items.iter().any(has_nul),
        Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// The longest cause, in bytes.
pub(crate) const LONGEST_CAUSE: usize = 4096;

/// Cuts a text so that [`Work::fail`](crate::Work::fail) takes it as a cause: 4 kB at most, NUL shown as `␀`.
#[must_use]
pub fn fit_cause(text: &str) -> String {
    let mut cause = text.replace('\0', "␀");
    if cause.len() > LONGEST_CAUSE {
        let ellipsis = "…";
        let mut end = LONGEST_CAUSE - ellipsis.len();
        while !cause.is_char_boundary(end) {
            end -= 1;
        }
        cause.truncate(end);
        cause.push_str(ellipsis);
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_made_to_fit() {
        assert_eq!(fit_cause("no\0answer"), "no␀answer");
        assert_eq!(fit_cause("short"), "short");
        let fits = "a".repeat(LONGEST_CAUSE);
        assert_eq!(fit_cause(&fits), fits);
        let long = fit_cause(&"ä".repeat(4000));
        assert!((LONGEST_CAUSE - 1..=LONGEST_CAUSE).contains(&long.len()) && long.ends_with("ä…"));
        assert!(check_text("a cause", &fit_cause(&"\0".repeat(5000)), LONGEST_CAUSE).is_ok());
    }
}
