//! Pauses: nobody claims for a process until they end.

use bmdb::entity::process_pause;
use chrono::{DateTime, Utc};
use serde_json::json;

use crate::answer::Answer;
use crate::answer::words::{brief, count, foreign, quoted, span, until};
use crate::cli::{End, Reason};
use crate::commands::end::{lasts, until_of};
use crate::failure::Failure;
use crate::source::Source;

pub(in crate::commands) async fn pause(
    source: &Source,
    process: &str,
    end: End,
    and_stop: bool,
    reason: &Reason,
) -> Result<Answer, Failure> {
    let operator = source.operator(reason)?;
    operator.pause_process(process, until_of(end)).await?;
    let mut sentence = format!("{} is paused {}.", foreign(process), lasts(end, "somebody resumes it"));
    let mut asked = None;
    if and_stop {
        let many = operator.ask_all_to_stop(process).await?;
        asked = Some(many.to_string());
        sentence.push_str(&match many {
            0 => " Nobody works for it.".to_owned(),
            many => format!(" {} asked to stop.", count(many, "work is", "works are")),
        });
    }
    let process_pasted = quoted(process);
    Answer::new(sentence, json!({"process": process, "asked_to_stop": asked}))
        .lines(vec![
            // Whoever claims has read before it writes.
            format!(
                "next: bmdb work ls --process {process_pasted}: a claim that had begun before may have come through"
            ),
            format!("undo: bmdb process resume {process_pasted} --reason '…'"),
        ])
        .from(&source.bmdb)
        .await
}

pub(in crate::commands) async fn resume(source: &Source, process: &str, reason: &Reason) -> Result<Answer, Failure> {
    let operator = source.operator(reason)?;
    if !operator.resume_process(process).await? {
        return Err(Failure::not_found(format!(
            "nothing was done: {} is not paused",
            foreign(process)
        )));
    }
    let sentence = format!("{} goes on: components claim for it again.", foreign(process));
    Answer::new(sentence, json!({"process": process}))
        .lines(vec![format!("next: bmdb process show {}", quoted(process))])
        .from(&source.bmdb)
        .await
}

/// Who paused it, when, until when and why.
pub(in crate::commands) fn said(pause: &process_pause::Model, now: DateTime<Utc>) -> String {
    let ticket = pause.ticket.as_ref().map(|ticket| format!(", {}", brief(ticket)));
    format!(
        "paused by {}{} {} ago, {}: {}",
        brief(&pause.paused_by),
        ticket.unwrap_or_default(),
        span(now - pause.paused_at),
        until(pause.until, now, "until somebody resumes it"),
        brief(&pause.reason)
    )
}
