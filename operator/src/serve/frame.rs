//! What stands round every page: where one can go, who one is, and whether what is shown is still so.

use maud::{DOCTYPE, Markup, html};

use crate::serve::access::{Reader, Who};
use crate::serve::assets::{ICON, SCRIPT, STYLE};
use crate::serve::console::Console;
use crate::serve::page::Page;
use crate::serve::parts::chip::{SPRITE, icon};
use crate::serve::parts::text::foreign;
use crate::serve::view::View;

/// Where one can go: the address, the word, and the key after `g`.
const PLACES: [&[(&str, &str, &str)]; 3] = [
    &[
        ("/fleet", "Fleet", "f"),
        ("/attention", "Attention", "a"),
        ("/machines", "Machines", "m"),
        ("/works", "Works", "w"),
        ("/sessions", "Sessions", "s"),
        ("/processes", "Processes", "p"),
    ],
    &[("/actions", "Operator actions", "o")],
    &[("/collector", "Collector", "c"), ("/schema", "Schema", "d")],
];

const KEYS: [(&str, &str); 11] = [
    ("/", "search"),
    (
        "g then f a m w s p o c d",
        "fleet, attention, machines, works, sessions, processes, operator actions, collector, schema",
    ),
    ("j k", "next row, row before"),
    ("Enter", "open the row"),
    ("n b", "next page of a list, first page"),
    ("w", "unfold the reasons, or fold them"),
    ("y", "copy the id of this page"),
    (".", "pause, go on"),
    ("t", "theme: as the system, light, dark"),
    ("?", "this map"),
    ("Esc", "leave a field, close"),
];

/// A whole page that stays true while it is looked at.
pub(super) fn page(console: &Console, reader: &Reader, view: &View, result: Option<&str>) -> Markup {
    let body = html! {
        @if let Some(result) = result { p.result role="status" { (icon("met")) (super::parts::text::prose(result)) } }
        (view.body())
    };
    let frame = Frame {
        console,
        who: Some(&reader.who),
        may_write: reader.may_write,
        theme: reader.theme,
        title: &view.title,
        live: Some(&view.page),
    };
    frame.around(&body)
}

/// A page that was true once: a form, or what went wrong.
pub(super) fn plain(console: &Console, who: Option<&Who>, title: &str, body: &Markup) -> Markup {
    let frame = Frame {
        console,
        who,
        may_write: who.is_some_and(|who| console.write && who.may_write()),
        theme: who.and_then(|who| who.theme),
        title,
        live: None,
    };
    frame.around(body)
}

struct Frame<'a> {
    console: &'a Console,
    who: Option<&'a Who>,
    may_write: bool,
    theme: Option<&'static str>,
    title: &'a str,
    live: Option<&'a Page>,
}

impl Frame<'_> {
    fn around(&self, body: &Markup) -> Markup {
        let live = self.live.map(|page| format!("/live{}", page.address()));
        html! {
            (DOCTYPE)
            html lang="en" data-theme=[self.theme] {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (super::parts::text::prose(self.title)) " · bmdb" }
                    link rel="stylesheet" href=(STYLE.path);
                    link rel="icon" href=(ICON.path);
                    script src=(SCRIPT.path) defer {}
                }
                body data-live=[live] {
                    (SPRITE)
                    a.skip href="#main" { "Skip to the page" }
                    div.shell {
                        (self.rail())
                        div.beside {
                            @if self.who.is_some() { (self.top()) }
                            main id="main" tabindex="-1" { (body) }
                        }
                    }
                    (keys())
                }
            }
        }
    }

    fn rail(&self) -> Markup {
        let here = self.live.map(Page::address).unwrap_or_default();
        let is_here = |place: &str| {
            here == place
                || here
                    .strip_prefix(place)
                    .is_some_and(|rest| rest.starts_with(['/', '?']))
        };
        let attention = self.console.counts.attention().unwrap_or_default();
        html! {
            header.rail {
                a.brand href="/fleet" { (icon("fence")) "bmdb" }
                @if let Some(who) = self.who {
                    p.database { (foreign(self.console.source.bmdb.name())) }
                    nav aria-label="Pages" {
                        @for group in PLACES {
                            ul {
                                @for (address, word, key) in group {
                                    li {
                                        a href=(address) data-go=(key) aria-current=[is_here(address).then_some("page")] {
                                            (word)
                                            @if *address == "/attention" {
                                                span.count id="attention-count" hidden[attention == 0] { b { (attention) } span.unseen { " things need a person" } }
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                    div.who {
                        p { b { (foreign(&who.name)) } ", may " (if self.may_write { "write" } else { "read" }) }
                        p { "bmdb " (env!("CARGO_PKG_VERSION")) }
                        @if self.console.access.signs_in() {
                            form method="post" action="/sign-out" { button.link type="submit" { "Sign out" } }
                        }
                    }
                }
            }
        }
    }

    fn top(&self) -> Markup {
        html! {
            div.top {
                form.find action="/find" role="search" {
                    label.unseen for="find" { "Find a machine, session, work or process" }
                    input id="find" name="q" type="search" placeholder="Id, provider id, address or process" autocomplete="off" spellcheck="false";
                    kbd aria-hidden="true" { "/" }
                }
                div.controls {
                    @if self.live.is_some() {
                        span.live id="live" role="status" { (icon("live")) span id="live-word" { "Read once" } }
                        button.bare.small id="pause" type="button" hidden { "Pause" }
                    }
                    button.bare.small id="theme" type="button" hidden aria-label="Change the theme" { (icon("theme")) }
                    button.bare.small id="help" type="button" hidden { "?" span.unseen { " Keys" } }
                }
            }
        }
    }
}

fn keys() -> Markup {
    html! {
        dialog id="keys" aria-labelledby="keys-title" {
            h2 id="keys-title" { "Keys" }
            dl.keys { @for (key, what) in KEYS { div { dt { kbd { (key) } } dd { (what) } } } }
            form method="dialog" {
                label { input type="checkbox" id="keys-off"; " No single keys in this browser" }
                button.small type="submit" { "Close" }
            }
        }
    }
}
