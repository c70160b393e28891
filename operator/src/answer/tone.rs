//! The colours of the signs of states, on a terminal that shows them. Each sign has its word beside it: a colour says nothing by itself.

/// What a colour says, as the console's do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// It goes on.
    Going,
    /// It waits, or will soon need somebody.
    Waits,
    /// Somebody must act.
    Bad,
    /// It is as it should be, or kept so by somebody.
    Quiet,
}

impl Tone {
    /// Of a sign of ours; of any other letter none.
    pub(crate) fn of(sign: char) -> Option<Self> {
        match sign {
            '○' | '▶' => Some(Self::Going),
            '⧗' => Some(Self::Waits),
            '■' | '✕' => Some(Self::Bad),
            '⊘' | '✓' => Some(Self::Quiet),
            _ => None,
        }
    }

    /// What a terminal takes before and after it.
    fn escapes(self) -> (&'static str, &'static str) {
        match self {
            Self::Going => ("\u{1b}[36m", "\u{1b}[39m"),
            Self::Waits => ("\u{1b}[33m", "\u{1b}[39m"),
            Self::Bad => ("\u{1b}[31m", "\u{1b}[39m"),
            Self::Quiet => ("\u{1b}[2m", "\u{1b}[22m"),
        }
    }
}

/// A text with its signs in their colours. It is complete before: what others wrote has no escapes any more.
pub(crate) fn painted(text: &str) -> String {
    let mut painted = String::with_capacity(text.len());
    let mut is_dim = false;
    for letter in text.chars() {
        // The line of a heading: what ended a sign's dimness would end its own.
        is_dim = letter == '\u{1b}' || (is_dim && letter != '\n');
        match Tone::of(letter).filter(|tone| !is_dim || *tone != Tone::Quiet) {
            Some(tone) => {
                let (begin, end) = tone.escapes();
                painted.extend([begin, letter.encode_utf8(&mut [0; 4]), end]);
            }
            None => painted.push(letter),
        }
    }
    painted
}

/// A line that only says what stands below it.
pub(crate) fn dimmed(line: &str) -> String {
    format!("\u{1b}[2m{line}\u{1b}[22m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signs_are_coloured_and_nothing_else_changes() {
        let text = "✕ silent\n▶ in work – ok";
        let painted = painted(text);
        assert_eq!(
            painted,
            "\u{1b}[31m✕\u{1b}[39m silent\n\u{1b}[36m▶\u{1b}[39m in work – ok"
        );
        let mut plain = painted;
        for escape in ["\u{1b}[31m", "\u{1b}[36m", "\u{1b}[39m"] {
            plain = plain.replace(escape, "");
        }
        assert_eq!(plain, text);
        let heading = dimmed("⊘ held");
        assert_eq!(
            super::painted(&format!("{heading}\n⊘ x")),
            format!("{heading}\n\u{1b}[2m⊘\u{1b}[22m x")
        );
    }
}
