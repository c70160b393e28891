//! Texts that people and other components wrote, as one line of a log or an explanation shows them.

use std::fmt::{self, Write};

/// Shows a text without what could forge a line or turn one round: control characters, line separators and marks of direction are written as
/// escapes, all else as it is.
pub(crate) struct Plain<'a>(pub(crate) &'a str);

impl fmt::Display for Plain<'_> {
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

/// Whether a character could forge a line or turn one round. The marks of direction are those of Unicode's Bidi_Control (unicode.org/reports/tr9).
pub(crate) fn is_misleading(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_in_its_line_and_its_direction() {
        let shown = Plain("can't \"stop\" ä🔧\\\r\n\u{202e}x\u{2028}\x1b[31m\0").to_string();
        assert_eq!(shown, "can't \"stop\" ä🔧\\\\r\\n\\u{202e}x\\u{2028}\\u{1b}[31m\\0");
    }
}
