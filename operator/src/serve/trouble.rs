//! What went wrong, as a page: what was asked, what is, what to do.

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::html;
use serde_json::json;

use crate::answer::json_text;
use crate::failure::{Failure, Kind};
use crate::serve::access::Who;
use crate::serve::console::Console;
use crate::serve::frame;
use crate::serve::parts::text::prose;

/// The status of a failure.
pub(super) fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Usage => StatusCode::BAD_REQUEST,
        Kind::Changed => StatusCode::CONFLICT,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::NotAllowed => StatusCode::FORBIDDEN,
        Kind::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The page that tells it.
pub(super) fn page(console: &Console, who: Option<&Who>, failure: &Failure) -> Response {
    let title = match failure.kind {
        Kind::Usage => "That cannot be done so",
        Kind::Changed => "Nothing was done",
        Kind::NotFound => "There is no such thing",
        Kind::NotAllowed => "Not allowed",
        Kind::Unreachable => "This cannot be shown now",
    };
    let body = html! {
        header.head {
            h1 { (title) }
            @for line in failure.text.lines() { p.lead { (prose(&sentence(line))) } }
        }
        @if failure.kind == Kind::Unreachable {
            p.quiet { "What was shown before may still be so. Reload this page to ask again; the console's log has more." }
        }
    };
    let page = frame::plain(console, who, title, &body);
    (status(failure.kind), Html(page.into_string())).into_response()
}

/// The same for programs.
pub(super) fn json(failure: &Failure) -> Response {
    let document = json!({"error": {"kind": failure.kind.word(), "text": failure.text}});
    (
        status(failure.kind),
        [(axum::http::header::CONTENT_TYPE, "application/json")],
        json_text(&document),
    )
        .into_response()
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    let rest = letters.as_str();
    let stop = if text.ends_with(['.', ':', '!', '?']) || text.starts_with("  ") {
        ""
    } else {
        "."
    };
    format!("{}{rest}{stop}", first.unwrap_or_default())
}
