//! Texts that somebody else wrote: in an element of their own, which they cannot leave, and in a line that they cannot turn round.

use std::fmt::Write;

use bmdb::{Escaped, Fence, MachineId};
use maud::{Markup, html};
use uuid::Uuid;

use crate::facts::name::Name;
use crate::serve::page::{Page, encoded};

/// Longer texts are folded.
const FOLD: usize = 160;
/// Longer names are cut, and whole only where they are pointed at.
const NAME: usize = 96;

/// A text with nothing in it that cannot be seen: what the library escapes, and what has no width, by which two names can look the same.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in Escaped(text).to_string().chars() {
        match letter {
            '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{17b4}'
            | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{e0000}'..='\u{e0fff}' => {
                write!(shown, "{}", letter.escape_unicode()).expect("BUG: a text takes any letter");
            }
            letter => shown.push(letter),
        }
    }
    shown
}

/// A name or a word of somebody else's.
pub(in crate::serve) fn foreign(text: &str) -> Markup {
    let shown = shown(text);
    match shown.char_indices().nth(NAME) {
        Some((cut, _)) => html! { bdi title=(shown) { (&shown[..cut]) "…" } },
        None => html! { bdi { (shown) } },
    }
}

/// A text of somebody else's that may be long: folded behind its beginning.
pub(in crate::serve) fn long(text: &str) -> Markup {
    let shown = shown(text);
    let many = shown.chars().count();
    let Some((cut, _)) = shown.char_indices().nth(FOLD).filter(|_| many > FOLD + 40) else {
        return html! { bdi.long { (shown) } };
    };
    html! {
        details.fold.long {
            summary { bdi { (&shown[..cut]) "…" } " " span.more { "All " (many) " characters" } }
            bdi { (shown) }
        }
    }
}

/// A sentence of ours that may hold what somebody else wrote.
pub(in crate::serve) fn prose(text: &str) -> String {
    shown(text)
}

/// Where people can read more: a link if it is an https address of a portal that the console was told of, and else what it says.
pub(in crate::serve) fn ticket(text: &str, portals: &[String]) -> Markup {
    match is_portal(text, portals) {
        true => html! { a href=(text) rel="noreferrer" { (foreign(text)) } },
        false => foreign(text),
    }
}

fn is_portal(text: &str, portals: &[String]) -> bool {
    let Some(rest) = text.strip_prefix("https://") else {
        return false;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_plain = text.chars().all(|letter| letter.is_ascii_graphic() && letter != '\\');
    is_plain && portals.iter().any(|portal| portal.eq_ignore_ascii_case(host))
}

/// A number that programs compare.
pub(in crate::serve) fn fence(fence: Fence) -> Markup {
    html! { span.fence { (super::chip::icon("fence")) span.unseen { "fence " } (fence) } }
}

/// An id, by its beginning; the whole where it is pointed at.
pub(in crate::serve) fn short(id: Uuid) -> Markup {
    let whole = id.to_string();
    html! { code.id title=(whole) { (&whole[..8]) } }
}

/// A machine by what people call it.
pub(in crate::serve) fn machine(id: MachineId, name: &Name) -> Markup {
    let page = Page::Machine { id, why: None };
    html! { a.name href=(page.address()) { (foreign(&name.shown)) } }
}

/// A process, with its page.
pub(in crate::serve) fn process(name: &str) -> Markup {
    html! { a href={ "/processes/" (encoded(name)) } { (foreign(name)) } }
}

/// A session by the beginning of its id, with its page.
pub(in crate::serve) fn session(id: bmdb::SessionId) -> Markup {
    html! { a href=(Page::Session(id).address()) { (short(id.0)) } }
}

/// A command that does the same in a shell.
pub(in crate::serve) fn command(text: &str) -> Markup {
    html! {
        div.command {
            code { (shown(text)) }
            button.copy type="button" hidden data-copy=(shown(text)) aria-label="Copy the command" { (super::chip::icon("copy")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_https_address_of_a_portal_is_a_link() {
        let portals = ["tickets.example.com".to_owned()];
        assert!(is_portal("https://tickets.example.com/OPS-1?a=b#c", &portals));
        for other in [
            "http://tickets.example.com/OPS-1",
            "javascript:alert(1)",
            "https://tickets.example.com.evil/OPS-1",
            "https://tickets.example.com@evil/",
            "https://tickets.example.com:8443/",
            "https://tickets.example.com\\@evil/",
            "https://tickets.example.com/ x",
            " https://tickets.example.com/",
            "OPS-4471",
        ] {
            assert!(!is_portal(other, &portals), "{other}");
        }
    }

    #[test]
    fn a_text_of_somebody_else_stays_in_its_element() {
        let shown = foreign("<script>alert(1)</script>\u{202e}\u{200b}\n").into_string();
        assert_eq!(
            shown,
            "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;\\u{202e}\\u{200b}\\n</bdi>"
        );
        let cut = foreign(&"ä".repeat(200)).into_string();
        assert!(cut.contains(&format!(">{}…<", "ä".repeat(96))), "{cut}");
        let folded = long(&"x".repeat(275)).into_string();
        assert!(
            folded.contains("All 275 characters") && folded.contains(&"x".repeat(275)),
            "{folded}"
        );
    }
}
