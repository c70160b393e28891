//! States, each as a shape and a word: the shape never says more than the word.

use maud::{Markup, PreEscaped, html};

/// How a state is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::serve) enum Tone {
    /// As it should be.
    Quiet,
    /// Somebody is at it, or could be.
    Work,
    /// Time ends it.
    Waits,
    /// Look soon.
    Soon,
    /// A person must act.
    Person,
}

/// A state.
pub(in crate::serve) fn chip(shape: &str, tone: Tone, word: &str) -> Markup {
    let tone = match tone {
        Tone::Quiet => "quiet",
        Tone::Work => "work",
        Tone::Waits => "waits",
        Tone::Soon => "soon",
        Tone::Person => "person",
    };
    html! { span.chip.(tone) { (icon(shape)) (word) } }
}

/// A word that this console does not know, as stored.
pub(in crate::serve) fn raw(word: &str) -> Markup {
    html! { span.chip.raw { (super::text::foreign(word)) } }
}

/// A shape of [`SPRITE`].
pub(in crate::serve) fn icon(shape: &str) -> Markup {
    html! { svg.icon aria-hidden="true" { use href={ "#i-" (shape) } {} } }
}

/// All shapes, once a page.
pub(in crate::serve) const SPRITE: PreEscaped<&str> = PreEscaped(include_str!("../assets/sprite.svg"));
