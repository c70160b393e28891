//! Draining a session, and expiring one by who knows what it holds.

use std::sync::Arc;

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use bmdb::SessionId;
use maud::html;
use uuid::Uuid;

use crate::answer::words::{count, foreign as plain};
use crate::facts::session::{find, gone, is_silent};
use crate::failure::Failure;
use crate::serve::access::Writer;
use crate::serve::console::Console;
use crate::serve::page::Page;
use crate::serve::parts::text::foreign;
use crate::serve::router::unreadable_form;
use crate::serve::writes::form::{Question, Sent};
use crate::serve::writes::{answer, done};

pub(super) async fn ask_drain(State(console): State<Arc<Console>>, writer: Writer, Path(id): Path<Uuid>) -> Response {
    let asked = async {
        let row = find(&console.source, SessionId(id)).await?;
        let question = Question {
            title: html! { "Drain the session of " (foreign(&row.component)) "?" },
            tab: format!("Drain the session of {}", row.component),
            points: vec![
                html! { "It takes no new work from its next heartbeat on. What it holds goes on to its end: " b { (count(row.works, "work", "works")) } "." },
                html! { "It lives on, and can be stopped once it holds nothing. There is no way back but to restart the component." },
            ],
            fields: html! {},
            seen: Vec::new(),
            action: format!("/sessions/{id}/drain"),
            verb: "Drain it",
            is_dangerous: false,
            back: Page::Session(SessionId(id)).address(),
            twin: format!("bmdb session drain {id} --reason '…'"),
        };
        Ok(question.page(&console, &writer))
    };
    let asked: Result<_, Failure> = asked.await;
    answer(&console, &writer, asked)
}

pub(super) async fn drain(
    State(console): State<Arc<Console>>,
    writer: Writer,
    Path(id): Path<Uuid>,
    form: Result<Form<Vec<(String, String)>>, FormRejection>,
) -> Response {
    let acted = async {
        let operator = Sent::read(form)?.operator(&writer)?;
        let session = SessionId(id);
        let held = operator.drain_session(session).await?.ok_or_else(|| gone(session))?;
        let text = format!(
            "{} takes no new work from its next heartbeat on. It holds {}.",
            plain(&held.component_name),
            count(held.works.len() as u64, "work", "works")
        );
        Ok(done(&console, &Page::Session(session), text))
    };
    let acted: Result<_, Failure> = acted.await;
    answer(&console, &writer, acted)
}

pub(super) async fn ask_expire(State(console): State<Arc<Console>>, writer: Writer, Path(id): Path<Uuid>) -> Response {
    let asked = async {
        let row = find(&console.source, SessionId(id)).await?;
        let question = Question {
            title: html! { "Expire the session of " (foreign(&row.component)) "?" },
            tab: format!("Expire the session of {}", row.component),
            points: vec![
                html! { "It is " b { (if is_silent(&row) { "silent" } else { "alive" }) } ", and runs as " (foreign(&row.runtime_info)) "." },
                html! { "All that it holds is lost to it: " b { (count(row.works, "work", "works")) } ". It learns so at its next heartbeat, or when its trust ends; a collector then frees them." },
                html! { "A command that is already on its way to a machine still arrives. What checks fences refuses it." },
            ],
            fields: html! {},
            seen: vec![
                ("works", row.works.to_string()),
                ("silent", is_silent(&row).to_string()),
            ],
            action: format!("/sessions/{id}/expire"),
            verb: "Expire it",
            is_dangerous: true,
            back: Page::Session(SessionId(id)).address(),
            twin: format!("bmdb session expire {id} --yes {} --reason '…'", row.works),
        };
        Ok(question.page(&console, &writer))
    };
    let asked: Result<_, Failure> = asked.await;
    answer(&console, &writer, asked)
}

pub(super) async fn expire(
    State(console): State<Arc<Console>>,
    writer: Writer,
    Path(id): Path<Uuid>,
    form: Result<Form<Vec<(String, String)>>, FormRejection>,
) -> Response {
    let acted = async {
        let sent = Sent::read(form)?;
        let seen: u64 = sent.seen("works")?.parse().map_err(|_odd| unreadable_form())?;
        let was_silent = sent.seen("silent")?;
        let operator = sent.operator(&writer)?;
        let session = SessionId(id);
        let row = find(&console.source, session).await?;
        if is_silent(&row).to_string() != was_silent {
            return Err(Failure::changed(format!(
                "nothing was done: session {session} of {} is {} by now. Look at it again",
                plain(&row.component),
                if is_silent(&row) { "silent" } else { "alive again" }
            )));
        }
        if row.works != seen {
            return Err(Failure::changed(format!(
                "nothing was done: session {session} of {} holds {} by now, not {seen}. Look at it again",
                plain(&row.component),
                count(row.works, "work", "works")
            )));
        }
        let held = operator.break_session(session).await?.ok_or_else(|| gone(session))?;
        let frees = count(held.works.len() as u64, "work", "works");
        let text = if is_silent(&row) {
            format!(
                "The session of {} was silent already, so there was nothing to break. A collector frees {frees} once it has stood still for an interval.",
                plain(&held.component_name)
            )
        } else {
            format!(
                "The session of {} is broken. It learns so at its next heartbeat, or when its trust ends; a collector then frees {frees}.",
                plain(&held.component_name)
            )
        };
        Ok(done(&console, &Page::Sessions, text))
    };
    let acted: Result<_, Failure> = acted.await;
    answer(&console, &writer, acted)
}
