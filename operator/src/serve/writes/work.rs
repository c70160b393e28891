//! Acts on a work: asking its holder to stop, and breaking its session.

use std::sync::Arc;

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use bmdb::{Fence, WorkId, WorksOf};
use maud::{Markup, html};
use uuid::Uuid;

use crate::answer::words::{count, foreign as plain, span as plain_span};
use crate::facts::name::name_of;
use crate::facts::work::{find, gone, is_silent};
use crate::failure::Failure;
use crate::serve::access::Writer;
use crate::serve::console::Console;
use crate::serve::page::Page;
use crate::serve::parts::text::{foreign, process, session};
use crate::serve::parts::time::span;
use crate::serve::router::unreadable_form;
use crate::serve::writes::form::{Question, Sent};
use crate::serve::writes::{answer, done};

pub(super) async fn ask_to_ask(State(console): State<Arc<Console>>, writer: Writer, Path(id): Path<Uuid>) -> Response {
    let asked = async {
        let work = find(&console.source.bmdb, WorkId(id)).await?;
        let name = name_of(work.machine, work.provider_id.as_deref());
        let question = Question {
            title: html! { "Ask " (foreign(&work.component)) " to stop working on " (foreign(&name.shown)) "?" },
            tab: format!("Ask to stop on {}", name.shown),
            points: vec![
                html! { "It has worked for " (process(&work.process)) " for " (span(work.age())) "; its session " (session(work.session)) " is " (alive(is_silent(&work))) "." },
                html! { "It learns of it with its next heartbeat, and decides by itself what it does then. Nothing is taken from it." },
                html! { "The question cannot be taken back." },
            ],
            fields: html! {},
            seen: Vec::new(),
            action: format!("/works/{id}/ask-to-stop"),
            verb: "Ask it to stop",
            is_dangerous: false,
            back: Page::Work(WorkId(id)).address(),
            twin: format!("bmdb work ask-to-stop {id} --reason '…'"),
        };
        Ok(question.page(&console, &writer))
    };
    let asked: Result<_, Failure> = asked.await;
    answer(&console, &writer, asked)
}

fn alive(is_silent: bool) -> Markup {
    match is_silent {
        true => html! { b { "silent" } },
        false => html! { b { "alive" } },
    }
}

pub(super) async fn ask_to_stop(
    State(console): State<Arc<Console>>,
    writer: Writer,
    Path(id): Path<Uuid>,
    form: Result<Form<Vec<(String, String)>>, FormRejection>,
) -> Response {
    let acted = async {
        let sent = Sent::read(form)?;
        let operator = sent.operator(&writer)?;
        if !operator.ask_to_stop(WorkId(id)).await? {
            return Err(gone(WorkId(id)));
        }
        let text = "It is asked to stop: its holder learns it with its next heartbeat, and decides.".to_owned();
        Ok(done(&console, &Page::Work(WorkId(id)), text))
    };
    let acted: Result<_, Failure> = acted.await;
    answer(&console, &writer, acted)
}

pub(super) async fn ask_break(State(console): State<Arc<Console>>, writer: Writer, Path(id): Path<Uuid>) -> Response {
    let asked = async {
        let bmdb = &console.source.bmdb;
        let work = find(bmdb, WorkId(id)).await?;
        let name = name_of(work.machine, work.provider_id.as_deref());
        let sessions = crate::facts::session::find(&console.source, work.session).await?;
        let question = Question {
            title: html! { "Break the session of " (foreign(&work.component)) "?" },
            tab: format!("Break the session on {}", name.shown),
            points: vec![
                html! { "It is " (alive(is_silent(&work))) ", and has held slot " (foreign(&work.slot)) " of " (foreign(&name.shown)) " for " (span(work.age())) "." },
                html! { "All that it holds is lost to it: " b { (count(sessions.works, "work", "works")) } ", not only this one. It learns so at its next heartbeat, or when its trust ends; a collector then frees them." },
                html! { "A command that is already on its way to a machine still arrives. What checks fences refuses it." },
            ],
            fields: html! {},
            seen: vec![("fence", work.fence.to_string())],
            action: format!("/works/{id}/break"),
            verb: "Break its session",
            is_dangerous: true,
            back: Page::Work(WorkId(id)).address(),
            twin: format!("bmdb work break {id} --expect-fence {} --reason '…'", work.fence),
        };
        Ok(question.page(&console, &writer))
    };
    let asked: Result<_, Failure> = asked.await;
    answer(&console, &writer, asked)
}

pub(super) async fn break_holder(
    State(console): State<Arc<Console>>,
    writer: Writer,
    Path(id): Path<Uuid>,
    form: Result<Form<Vec<(String, String)>>, FormRejection>,
) -> Response {
    let acted = async {
        let sent = Sent::read(form)?;
        let fence: i64 = sent.seen("fence")?.parse().map_err(|_odd| unreadable_form())?;
        let operator = sent.operator(&writer)?;
        let bmdb = &console.source.bmdb;
        let before = bmdb.works(WorksOf::Work(WorkId(id))).await?.rows.into_iter().next();
        let Some(held) = operator.break_holder(WorkId(id), Fence(fence)).await? else {
            return Err(changed(&console, WorkId(id), fence).await?);
        };
        let text = format!(
            "The session of {} is broken. It learns so at its next heartbeat, or when its trust ends; a collector then frees {}.",
            plain(&held.component_name),
            count(held.works.len() as u64, "work", "works")
        );
        let page = before.map_or(Page::Sessions, |work| Page::Machine {
            id: work.machine,
            why: None,
        });
        Ok(done(&console, &page, text))
    };
    let acted: Result<_, Failure> = acted.await;
    answer(&console, &writer, acted)
}

/// What is so instead of what it was decided on.
async fn changed(console: &Console, id: WorkId, fence: i64) -> Result<Failure, Failure> {
    let work = match find(&console.source.bmdb, id).await {
        Ok(work) => work,
        Err(_gone) => {
            return Ok(Failure::changed(format!(
                "nothing was done: work {id} with fence {fence} has ended since the form was opened"
            )));
        }
    };
    Ok(Failure::changed(format!(
        "nothing was done: work {id} is not held with fence {fence} any more. {} holds it with fence {}, for {}",
        plain(&work.component),
        work.fence,
        plain_span(work.age())
    )))
}
