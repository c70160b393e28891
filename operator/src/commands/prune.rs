//! Old history goes.

use chrono::TimeDelta;
use serde_json::json;

use crate::answer::Answer;
use crate::answer::words::{count, span};
use crate::cli::Reason;
use crate::cli::values::Span;
use crate::failure::Failure;
use crate::source::Source;

pub(super) async fn run(
    source: &Source,
    older_than: Span,
    yes: Option<u64>,
    reason: &Reason,
) -> Result<Answer, Failure> {
    let operator = source.operator(reason)?;
    let age = TimeDelta::from_std(older_than.0).unwrap_or(TimeDelta::MAX);
    let now = source.bmdb.now().await?;
    let before = now
        .checked_sub_signed(age)
        .ok_or_else(|| Failure::usage("--older-than is longer than time itself"))?;
    let there = source.bmdb.prunable_history(before).await?;
    let events = count(there, "event", "events");
    let Some(seen) = yes else {
        let sentence = match there {
            0 => format!("No claim ended more than {} ago: there is nothing to prune.", span(age)),
            _ => format!(
                "{events} of claims that ended more than {} ago would go. Nothing was deleted: --yes {there} deletes them.",
                span(age)
            ),
        };
        return Ok(Answer::new(
            sentence,
            json!({"events": there.to_string(), "before": before.to_rfc3339()}),
        )
        .read_at(&source.bmdb, now));
    };
    // Time goes on, so there may be more than were seen: they are as old as was asked. Fewer are there only if somebody else prunes.
    if there < seen {
        return Err(Failure::changed(format!(
            "nothing was done: {events} would go, not {seen}. Look again without --yes"
        )));
    }
    let gone = operator.prune_history(before).await?;
    Answer::new(
        format!("{} deleted.", count(gone, "event is", "events are")),
        json!({"deleted": gone.to_string(), "before": before.to_rfc3339()}),
    )
    .from(&source.bmdb)
    .await
}
