//! Which address does what.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_TYPE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, middleware};
use maud::html;
use serde_json::json;

use crate::answer::json_text;
use crate::failure::{Failure, Kind};
use crate::serve::access::{COOKIE_NAME, Reader, guard};
use crate::serve::console::Console;
use crate::serve::page::Page;
use crate::serve::{assets, frame, live, pages, trouble, writes};

/// The pairs behind the `?`, or of a form.
type Pairs = Vec<(String, String)>;

/// Forms are small; what is larger is none of ours.
const LARGEST_FORM: usize = 64 * 1024;

/// Every address, behind the guard; whether it lives and is ready is told to anybody.
pub(super) fn router(console: Arc<Console>) -> Router {
    let guarded = Router::new()
        .route("/", get(async || Redirect::to("/fleet")))
        .route("/sign-in", get(sign_in_form).post(sign_in))
        .route("/sign-out", post(sign_out))
        .route("/find", get(find))
        .route("/metrics", get(metrics))
        .merge(writes::routes())
        .fallback(get(page))
        .layer(axum::extract::DefaultBodyLimit::max(LARGEST_FORM))
        .layer(middleware::from_fn_with_state(Arc::clone(&console), guard));
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .merge(guarded)
        .with_state(console)
}

/// Whether the database answers.
async fn ready(State(console): State<Arc<Console>>) -> Response {
    match console.source.bmdb.now().await {
        Ok(_) => "ready\n".into_response(),
        Err(_unreachable) => (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n").into_response(),
    }
}

/// What a monitoring system reads: only who may read the console, too. Nothing is counted for it.
async fn metrics(State(console): State<Arc<Console>>, reader: Result<Reader, Response>) -> Response {
    match (reader, &console.metrics) {
        (Err(refused), _) => refused,
        (Ok(_), Some(exporter)) => {
            let text = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (text, exporter.render()).into_response()
        }
        (Ok(_), None) => (
            StatusCode::NOT_FOUND,
            "No metrics are kept. Start the console with --metrics.\n",
        )
            .into_response(),
    }
}

/// A page, in one of the three ways in which it is told; or a file that pages need.
async fn page(State(console): State<Arc<Console>>, uri: Uri, reader: Result<Reader, Response>) -> Response {
    if let Some(asset) = assets::find(uri.path()) {
        return asset;
    }
    let reader = match reader {
        Ok(reader) => reader,
        Err(refused) => return refused,
    };
    let (way, path) = ["/json", "/live"]
        .into_iter()
        .find_map(|way| Some((way, uri.path().strip_prefix(way)?)).filter(|(_, path)| path.starts_with('/')))
        .unwrap_or(("", uri.path()));
    let mut pairs = match pairs(&uri) {
        Ok(pairs) => pairs,
        Err(failure) => return trouble::page(&console, Some(&reader.who), &failure),
    };
    // What a write has answered stands on the page that it leads to.
    let done = pairs
        .iter()
        .position(|(name, _)| name == "done")
        .filter(|_| way.is_empty());
    let done = done.map(|place| pairs.swap_remove(place).1);
    let parsed = Page::parse(path, pairs);
    match (way, parsed) {
        ("/live", Ok(page)) => live::stream(&console, page, reader.may_write),
        ("/json", Ok(page)) => match pages::read(&console, &page, reader.may_write).await {
            Ok(view) => {
                let document =
                    json!({"answer": view.json, "source": console.source.bmdb.name(), "at": view.at.to_rfc3339()});
                ([(CONTENT_TYPE, "application/json")], json_text(&document)).into_response()
            }
            Err(failure) => trouble::json(&failure),
        },
        (_, Ok(page)) => match pages::read(&console, &page, reader.may_write).await {
            Ok(view) => {
                let result = done.and_then(|id| console.results.take(&id));
                Html(frame::page(&console, &reader, &view, result.as_deref()).into_string()).into_response()
            }
            Err(failure) => trouble::page(&console, Some(&reader.who), &failure),
        },
        ("/json" | "/live", Err(failure)) => trouble::json(&failure),
        (_, Err(failure)) => trouble::page(&console, Some(&reader.who), &failure),
    }
}

fn pairs(uri: &Uri) -> Result<Pairs, Failure> {
    let query = Query::<Pairs>::try_from_uri(uri);
    query
        .map(|Query(pairs)| pairs)
        .map_err(|_odd| Failure::usage("the address cannot be read"))
}

/// One place to look for anything: what it names, or a list where it names several.
async fn find(State(console): State<Arc<Console>>, reader: Reader, Query(pairs): Query<Pairs>) -> Response {
    let text = pairs.iter().find(|(name, _)| name == "q").map(|(_, text)| text.trim());
    match pages::find(&console, text.unwrap_or_default()).await {
        Ok(page) => Redirect::to(&page.address()).into_response(),
        Err(failure) => trouble::page(&console, Some(&reader.who), &failure),
    }
}

async fn sign_in_form(State(console): State<Arc<Console>>) -> Response {
    if !console.access.signs_in() {
        return Redirect::to("/fleet").into_response();
    }
    sign_in_page(&console, StatusCode::OK, None)
}

fn sign_in_page(console: &Console, status: StatusCode, wrong: Option<&str>) -> Response {
    let body = html! {
        header.head { h1 { "Sign in" } p.lead { "With the token that was made for you. It is kept by whoever runs this console." } }
        @if let Some(wrong) = wrong { p.notice.bad role="alert" { (wrong) } }
        form.form method="post" action="/sign-in" {
            label { "Token" input name="token" type="password" autocomplete="current-password" required autofocus; }
            div.actions { button.main type="submit" { "Sign in" } }
        }
    };
    (
        status,
        Html(frame::plain(console, None, "Sign in", &body).into_string()),
    )
        .into_response()
}

async fn sign_in(State(console): State<Arc<Console>>, Form(pairs): Form<Pairs>) -> Response {
    let token = pairs
        .iter()
        .find(|(name, _)| name == "token")
        .map(|(_, token)| token.trim());
    let Some(cookie) = token.and_then(|token| console.access.sign_in(token)) else {
        tracing::warn!("somebody gave a token that is nobody's");
        let wrong = "Nobody has this token. Ask who runs this console for yours.";
        return sign_in_page(&console, StatusCode::FORBIDDEN, Some(wrong));
    };
    let cookie = format!("{COOKIE_NAME}={cookie}; Path=/; Secure; HttpOnly; SameSite=Lax");
    (StatusCode::SEE_OTHER, [(SET_COOKIE, cookie)], [("location", "/fleet")]).into_response()
}

async fn sign_out(State(console): State<Arc<Console>>, headers: HeaderMap) -> Response {
    console.access.sign_out(&headers);
    let gone = format!("{COOKIE_NAME}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0");
    (StatusCode::SEE_OTHER, [(SET_COOKIE, gone)], [("location", "/sign-in")]).into_response()
}

/// The failure of a form that cannot be read.
pub(super) fn unreadable_form() -> Failure {
    Failure::new(
        Kind::Usage,
        "nothing was done: the form cannot be read. Open it once more",
    )
}
