//! Old history goes.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::json;

use crate::answer::Answer;
use crate::answer::words::count;
use crate::cli::Reason;
use crate::cli::values::Span;
use crate::failure::Failure;
use crate::source::Source;

pub(super) async fn run(
    source: &Source,
    older_than: Option<Span>,
    before: Option<DateTime<Utc>>,
    yes: Option<u64>,
    reason: &Reason,
) -> Result<Answer, Failure> {
    if yes.is_some() && before.is_none() {
        return Err(Failure::usage(
            "--yes needs --before TIME, as the answer without --yes says it: a time that moves has another count",
        ));
    }
    let operator = source.operator(reason)?;
    let before = match (before, older_than) {
        (Some(before), _) => before,
        (None, Some(span)) => {
            let age = TimeDelta::from_std(span.0).unwrap_or(TimeDelta::MAX);
            let before = source.bmdb.now().await?.checked_sub_signed(age);
            before.ok_or_else(|| Failure::usage("--older-than is longer than time itself"))?
        }
        (None, None) => return Err(Failure::usage("say --older-than TIME, or --before TIME")),
    };
    let said = before.to_rfc3339_opts(SecondsFormat::Secs, true);
    // To the second, so that what is said is what is meant.
    let before = DateTime::parse_from_rfc3339(&said).map_or(before, |before| before.to_utc());
    let there = source.bmdb.prunable_history(before).await?;
    let events = count(there, "event", "events");
    let Some(seen) = yes else {
        let json = json!({"events": there.to_string(), "before": said});
        let answer = match there {
            0 => Answer::new(
                format!("No claim ended before {said}: there is nothing to prune."),
                json,
            ),
            _ => Answer::new(
                format!("{events} of claims that ended before {said} would go. Nothing was deleted."),
                json,
            )
            .lines(vec![format!(
                "next: bmdb prune --before {said} --yes {there} --reason '…'"
            )]),
        };
        return answer.from(&source.bmdb).await;
    };
    // What ended before a time gets less, never more.
    if there != seen {
        return Err(Failure::changed(format!(
            "nothing was done: {events} would go, not {seen}. Look again without --yes"
        )));
    }
    let gone = operator.prune_history(before).await?;
    Answer::new(
        format!("{} deleted.", count(gone, "event is", "events are")),
        json!({"deleted": gone.to_string(), "before": said}),
    )
    .from(&source.bmdb)
    .await
}
