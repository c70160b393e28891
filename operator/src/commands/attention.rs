//! What needs a person: one line for each cause, however many machines it hits, and the command for the next step.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::answer::words::{brief, count, foreign, grouped, quoted, span};
use crate::cli::values::Span;
use crate::commands::process::pauses;
use crate::facts::attention::{self, Attention, Failures, OFTEN, Thing, Urgency};
use crate::facts::name::name_of;
use crate::facts::process;
use crate::failure::Failure;
use crate::source::Source;

fn heading(urgency: Urgency) -> &'static str {
    match urgency {
        Urgency::Now => "now: it is locked, or gets worse",
        Urgency::Decision => "a decision: nothing goes on without one",
        Urgency::Later => "when there is time",
    }
}

pub(super) async fn run(source: &Source, longer_than: Span) -> Result<Answer, Failure> {
    let longest = TimeDelta::from_std(longer_than.0).unwrap_or(TimeDelta::MAX);
    let processes = process::read(source).await?;
    let found = attention::read(source, &processes, longest).await?;
    Ok(answer(&found, &processes.unread).read_at(&source.bmdb, found.at))
}

/// What was found, in words.
pub(super) fn answer(found: &Attention, unread: &[String]) -> Answer {
    let has_unreadable = !found.unreadable.is_empty();
    let sentence = match found.things.len() as u64 {
        0 if has_unreadable => "Rows that nobody can read need a person.".to_owned(),
        0 => "Nothing needs a person.".to_owned(),
        many => format!("{} a person.", count(many, "thing needs", "things need")),
    };
    let things: Vec<_> = found.things.iter().map(|thing| Said::of(thing, found.at)).collect();
    let json = things.iter().map(Said::as_json).collect::<Vec<_>>();
    let mut answer = Answer::new(sentence, json!({"attention": json})).found(!things.is_empty() || has_unreadable);
    for urgency in [Urgency::Now, Urgency::Decision, Urgency::Later] {
        let mut lines: Vec<_> = things
            .iter()
            .filter(|thing| thing.urgency == urgency)
            .flat_map(|thing| [format!("  {}", thing.what), format!("    next: {}", thing.next)])
            .collect();
        if !lines.is_empty() {
            lines.insert(0, heading(urgency).to_owned());
        }
        answer = answer.lines(lines);
    }
    for why in unread {
        answer = answer.note(why.clone());
    }
    answer.unreadable(&found.unreadable)
}

/// A thing in words.
struct Said {
    urgency: Urgency,
    kind: &'static str,
    what: String,
    next: String,
}

impl Said {
    fn of(thing: &Thing, now: DateTime<Utc>) -> Self {
        let (what, next) = match thing {
            Thing::SilentSession(row) => {
                let since = row.left().map_or_else(
                    || "it has no lease".to_owned(),
                    |left| format!("its deadline passed {} ago", span(left)),
                );
                (
                    format!(
                        "{} is silent: {since}. It holds {}; a collector frees them",
                        foreign(&row.component),
                        count(row.works, "work", "works")
                    ),
                    format!("bmdb session show {}", row.session),
                )
            }
            Thing::StuckWork(row) | Thing::LongWork(row) => {
                let name = name_of(row.machine, row.provider_id.as_deref());
                let asked = row.stop_requested.as_ref();
                let asked = asked.map(|reason| format!(", and was asked to stop: {}", brief(reason)));
                let what = format!(
                    "{} holds slot {} of {name} for {}{}",
                    foreign(&row.component),
                    foreign(&row.slot),
                    span(row.age()),
                    asked.unwrap_or_default()
                );
                (what, format!("bmdb work show {}", row.work))
            }
            Thing::Unrun { process, eligible } => {
                let eligible = eligible.map_or_else(
                    || "how many machines are eligible is not known".to_owned(),
                    |many| format!("{} machines are eligible", grouped(many)),
                );
                (
                    format!("nobody runs {}: {eligible}", foreign(process)),
                    format!("start a component that runs it; bmdb process show {}", quoted(process)),
                )
            }
            Thing::Parked(failures) => (
                format!(
                    "{} parked for {}: {}",
                    these(failures),
                    foreign(&failures.process),
                    brief(&failures.cause)
                ),
                match failures.machines {
                    1 => format!(
                        "bmdb backoff clear {} {} --reason '…'",
                        failures.name.pasted,
                        quoted(&failures.process)
                    ),
                    _ => format!("bmdb backoff ls --parked --process {}", quoted(&failures.process)),
                },
            ),
            Thing::FailsOften(failures) => (
                format!(
                    "{} failing again and again, {OFTEN} times or more, for {}: {}",
                    these(failures),
                    foreign(&failures.process),
                    brief(&failures.cause)
                ),
                format!("bmdb machine show {}", failures.name.pasted),
            ),
            Thing::HeldForLong { hold, name } => (
                format!(
                    "{name} is held by {} for {}: {}",
                    foreign(&hold.placed_by),
                    span(now - hold.placed_at),
                    brief(&hold.reason)
                ),
                format!("bmdb machine show {}", name.pasted),
            ),
            Thing::PausedForLong(pause) => (
                format!("{} is {}", foreign(&pause.process), pauses::said(pause, now)),
                format!("bmdb process resume {} --reason '…'", quoted(&pause.process)),
            ),
        };
        Self {
            urgency: thing.urgency(),
            kind: thing.kind(),
            what,
            next,
        }
    }

    fn as_json(&self) -> Value {
        json!({"urgency": heading(self.urgency), "kind": self.kind, "what": self.what, "next": self.next})
    }
}

fn these(failures: &Failures) -> String {
    match failures.machines {
        1 => format!("{} is", failures.name),
        many => format!("{} machines, {} among them, are", grouped(many as u64), failures.name),
    }
}
