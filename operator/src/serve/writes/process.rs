//! Pausing a process, and having it go on.

use std::sync::Arc;

use axum::Form;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use bmdb::WorksOf;
use maud::html;

use crate::answer::words::{count, foreign as plain, quoted};
use crate::facts::process::check;
use crate::failure::Failure;
use crate::serve::access::Writer;
use crate::serve::console::Console;
use crate::serve::page::{Page, encoded};
use crate::serve::parts::clauses::paused;
use crate::serve::parts::text::foreign;
use crate::serve::writes::form::{Question, Sent, span_field};
use crate::serve::writes::{answer, done};

pub(super) async fn ask_pause(
    State(console): State<Arc<Console>>,
    writer: Writer,
    Path(name): Path<String>,
) -> Response {
    let asked = async {
        let bmdb = &console.source.bmdb;
        check(bmdb, &name).await?;
        let works = bmdb.works(WorksOf::Process(name.clone())).limit(10_000).await?;
        let many = works.rows.len() as u64;
        let at_work = match works.next {
            Some(_) => "More than 10,000 works go on for it".to_owned(),
            None => format!("{} for it", count(many, "work goes on", "works go on")),
        };
        let question = Question {
            title: html! { "Pause " (foreign(&name)) "?" },
            tab: format!("Pause {name}"),
            points: vec![
                html! { "No component claims for it until the pause ends. Machines stay as they are, and nothing is forgotten." },
                html! { (at_work) ". They go on unless you have them asked to stop." },
                html! { "A claim that has begun just now may still come through." },
            ],
            fields: html! {
                (span_field("until somebody resumes it"))
                label.check { input type="checkbox" name="and-stop" value="yes"; " Ask all its works to stop" }
            },
            seen: Vec::new(),
            action: format!("/processes/{}/pause", encoded(&name)),
            verb: "Pause it",
            is_dangerous: false,
            back: Page::Process(name.clone()).address(),
            twin: format!("bmdb process pause {} --reason '…'", quoted(&name)),
        };
        Ok(question.page(&console, &writer))
    };
    let asked: Result<_, Failure> = asked.await;
    answer(&console, &writer, asked)
}

pub(super) async fn pause(
    State(console): State<Arc<Console>>,
    writer: Writer,
    Path(name): Path<String>,
    form: Result<Form<Vec<(String, String)>>, FormRejection>,
) -> Response {
    let acted = async {
        let sent = Sent::read(form)?;
        let (until, ends) = sent.until("until somebody resumes it")?;
        let operator = sent.operator(&writer)?;
        operator.pause_process(&name, until).await?;
        let mut text = format!("{} is paused {ends}. Undo: resume it.", plain(&name));
        if sent.get("and-stop").is_some() {
            let asked = operator.ask_all_to_stop(&name).await?;
            text.push_str(&format!(" {} asked to stop.", count(asked, "work is", "works are")));
        }
        Ok(done(&console, &Page::Process(name), text))
    };
    let acted: Result<_, Failure> = acted.await;
    answer(&console, &writer, acted)
}

pub(super) async fn ask_resume(
    State(console): State<Arc<Console>>,
    writer: Writer,
    Path(name): Path<String>,
) -> Response {
    let asked = async {
        let bmdb = &console.source.bmdb;
        check(bmdb, &name).await?;
        let pauses = bmdb.pauses().await?;
        let pause = pauses.iter().find(|pause| pause.process == name);
        let pause = pause.ok_or_else(|| not_paused(&name))?;
        let question = Question {
            title: html! { "Resume " (foreign(&name)) "?" },
            tab: format!("Resume {name}"),
            points: vec![
                html! { "It was paused " (paused(pause, bmdb.now().await?)) },
                html! { "Components claim for it again at once." },
            ],
            fields: html! {},
            // Another pause has another reason.
            seen: vec![("paused-at", pause.paused_at.to_rfc3339())],
            action: format!("/processes/{}/resume", encoded(&name)),
            verb: "Resume it",
            is_dangerous: false,
            back: Page::Process(name.clone()).address(),
            twin: format!("bmdb process resume {} --reason '…'", quoted(&name)),
        };
        Ok(question.page(&console, &writer))
    };
    let asked: Result<_, Failure> = asked.await;
    answer(&console, &writer, asked)
}

pub(super) async fn resume(
    State(console): State<Arc<Console>>,
    writer: Writer,
    Path(name): Path<String>,
    form: Result<Form<Vec<(String, String)>>, FormRejection>,
) -> Response {
    let acted = async {
        let sent = Sent::read(form)?;
        let seen = sent.seen("paused-at")?;
        let operator = sent.operator(&writer)?;
        let pauses = console.source.bmdb.pauses().await?;
        if let Some(pause) = pauses.iter().find(|pause| pause.process == name)
            && pause.paused_at.to_rfc3339() != seen
        {
            return Err(Failure::changed(format!(
                "nothing was done: {} has paused {} anew. Look at it again",
                plain(&pause.paused_by),
                plain(&name)
            )));
        }
        if !operator.resume_process(&name).await? {
            return Err(not_paused(&name));
        }
        let text = format!("{} goes on: components claim for it again.", plain(&name));
        Ok(done(&console, &Page::Process(name), text))
    };
    let acted: Result<_, Failure> = acted.await;
    answer(&console, &writer, acted)
}

fn not_paused(name: &str) -> Failure {
    Failure::not_found(format!("nothing was done: {} is not paused", plain(name)))
}
