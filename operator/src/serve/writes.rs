//! Acts: a form that says what will happen, and the act itself. What was decided on goes along; where it has changed, nothing is done.

mod backoff;
mod form;
mod machine;
mod process;
mod session;
mod work;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::failure::Failure;
use crate::serve::console::Console;
use crate::serve::page::Page;

/// Every act, each with its form at the same address.
pub(super) fn routes() -> Router<Arc<Console>> {
    Router::new()
        .route("/machines/{id}/hold", get(machine::ask_hold).post(machine::hold))
        .route("/machines/{id}/drain", get(machine::ask_drain).post(machine::drain))
        .route(
            "/machines/{id}/release",
            get(machine::ask_release).post(machine::release),
        )
        .route(
            "/machines/{id}/backoff/clear",
            get(backoff::ask_clear).post(backoff::clear),
        )
        .route(
            "/machines/{id}/backoff/run-now",
            get(backoff::ask_run_now).post(backoff::run_now),
        )
        .route("/works/{id}/ask-to-stop", get(work::ask_to_ask).post(work::ask_to_stop))
        .route("/works/{id}/break", get(work::ask_break).post(work::break_holder))
        .route("/processes/{name}/pause", get(process::ask_pause).post(process::pause))
        .route(
            "/processes/{name}/resume",
            get(process::ask_resume).post(process::resume),
        )
        .route("/sessions/{id}/drain", get(session::ask_drain).post(session::drain))
        .route("/sessions/{id}/expire", get(session::ask_expire).post(session::expire))
}

/// To the page that shows what has become of it, with what was done in a line.
fn done(console: &Console, page: &Page, text: String) -> Response {
    let name = console.results.keep(text);
    let address = page.address();
    let join = if address.contains('?') { '&' } else { '?' };
    (
        StatusCode::SEE_OTHER,
        [(LOCATION, format!("{address}{join}done={name}"))],
    )
        .into_response()
}

/// The one answer of a handler: what it made, or what stood in the way.
fn answer(console: &Console, writer: &crate::serve::access::Writer, made: Result<Response, Failure>) -> Response {
    made.unwrap_or_else(|failure| crate::serve::trouble::page(console, Some(&writer.who), &failure))
}
