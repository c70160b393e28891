//! Texts that people and other components wrote, as one line of a log or an explanation shows them.

use std::fmt::{self, Write};

use bmdb_address::is_misleading;

/// Shows a text without what could forge a line or turn one round: control characters, line separators and marks of direction are written as
/// escapes, all else as it is.
///
/// ```
/// assert_eq!(bmdb::Escaped("fine\nERROR: forged").to_string(), "fine\\nERROR: forged");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if is_misleading(character) {
                write!(f, "{}", character.escape_debug())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_in_its_line_and_its_direction() {
        let shown = Escaped("can't \"stop\" ä🔧\\\r\n\u{202e}x\u{2028}\x1b[31m\0").to_string();
        assert_eq!(shown, "can't \"stop\" ä🔧\\\\r\\n\\u{202e}x\\u{2028}\\u{1b}[31m\\0");
    }
}
