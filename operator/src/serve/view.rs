//! A page as it was read: what every way of telling it is made of.

use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde_json::Value;

use crate::serve::assets::hex;
use crate::serve::page::Page;
use sha2::{Digest, Sha256};

/// A page as it was read.
pub(super) struct View {
    pub(super) page: Page,
    /// In the browser's tab.
    pub(super) title: String,
    /// From top to bottom.
    pub(super) parts: Vec<Part>,
    /// The same for programs.
    pub(super) json: Value,
    /// When this was so, by the database's clock.
    pub(super) at: DateTime<Utc>,
}

/// A piece of a page that changes by itself.
pub(super) struct Part {
    /// Its element's id.
    pub(super) id: &'static str,
    pub(super) place: Place,
    html: String,
    /// Of its text: equal ones need not be sent.
    pub(super) digest: String,
}

/// Where a part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// As wide as the page.
    Whole,
    /// Beside the next ones.
    Left,
    Right,
}

impl Part {
    pub(super) fn new(id: &'static str, html: Markup) -> Self {
        Self::at(id, Place::Whole, html)
    }

    pub(super) fn at(id: &'static str, place: Place, html: Markup) -> Self {
        let html = html.into_string();
        let digest = hex(&Sha256::digest(&html)[..8]);
        Self {
            id,
            place,
            html,
            digest,
        }
    }

    /// Its inside.
    pub(super) fn inner(&self) -> &str {
        &self.html
    }

    /// Its element.
    pub(super) fn element(&self) -> Markup {
        html! { div.part id=(self.id) data-digest=(self.digest) { (maud::PreEscaped(&self.html)) } }
    }
}

impl View {
    /// All parts, those that stand beside each other in columns.
    pub(super) fn body(&self) -> Markup {
        let mut rest = self.parts.as_slice();
        let mut rows = Vec::new();
        while let Some(first) = rest.first() {
            if first.place == Place::Whole {
                rows.push(first.element());
                rest = &rest[1..];
                continue;
            }
            let many = rest.iter().take_while(|part| part.place != Place::Whole).count();
            let (beside, after) = rest.split_at(many);
            let column = |place| beside.iter().filter(move |part| part.place == place);
            rows.push(html! {
                div.columns {
                    div.column { @for part in column(Place::Left) { (part.element()) } }
                    div.column { @for part in column(Place::Right) { (part.element()) } }
                }
            });
            rest = after;
        }
        html! { @for row in rows { (row) } }
    }
}
