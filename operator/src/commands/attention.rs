//! What needs a person: one line for each cause, however many machines it hits, and the command for the next step.

use std::collections::BTreeMap;

use bmdb::WorksOf;
use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::answer::words::{brief, count, foreign, grouped, quoted, span};
use crate::cli::values::Span;
use crate::commands::name::{Name, name_of, names};
use crate::commands::pages::read_all;
use crate::commands::{process, session, work};
use crate::failure::Failure;
use crate::source::Source;

/// How bad it is: what is locked or gets worse first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    Now,
    Decision,
    Later,
}

impl Urgency {
    fn heading(self) -> &'static str {
        match self {
            Self::Now => "now: it is locked, or gets worse",
            Self::Decision => "a decision: nothing goes on without one",
            Self::Later => "when there is time",
        }
    }
}

struct Thing {
    urgency: Urgency,
    kind: &'static str,
    what: String,
    next: String,
}

/// As often, a failure is a pattern.
const OFTEN: i64 = 3;
/// A hold without an end that is older may have been forgotten.
const FORGOTTEN: TimeDelta = TimeDelta::hours(24);

pub(super) async fn run(source: &Source, longer_than: Span) -> Result<Answer, Failure> {
    let bmdb = &source.bmdb;
    let longest = TimeDelta::from_std(longer_than.0).unwrap_or(TimeDelta::MAX);
    let mut things = Vec::new();
    let works = read_all(|| bmdb.works(WorksOf::All).limit(10_000)).await?;
    let sessions = session::read(source).await?;
    let backoffs = read_all(|| bmdb.backoffs(None).limit(10_000)).await?;
    let holds = read_all(|| bmdb.holds(None).limit(10_000)).await?;
    let processes = process::read(source).await?;
    let now = bmdb.now().await?;

    for row in &sessions.rows {
        if session::is_silent(row) {
            let since = row.left().map_or_else(
                || "it has no lease".to_owned(),
                |left| format!("its deadline passed {} ago", span(left)),
            );
            things.push(Thing {
                urgency: Urgency::Now,
                kind: "silent session",
                what: format!(
                    "{} is silent: {since}. It holds {}; a collector frees them",
                    foreign(&row.component),
                    count(row.works, "work", "works")
                ),
                next: format!("bmdb session show {}", row.session),
            });
        }
    }
    for row in &works.rows {
        let name = name_of(row.machine, row.provider_id.as_deref());
        let holds = format!(
            "{} holds slot {} of {name} for {}",
            foreign(&row.component),
            foreign(&row.slot),
            span(row.age())
        );
        let (urgency, kind, what) = match &row.stop_requested {
            _ if work::is_silent(row) => continue,
            Some(reason) => (
                Urgency::Now,
                "stuck work",
                format!("{holds}, and was asked to stop: {}", brief(reason)),
            ),
            None if row.age() > longest => (Urgency::Later, "long work", holds),
            None => continue,
        };
        things.push(Thing {
            urgency,
            kind,
            what,
            next: format!("bmdb work show {}", row.work),
        });
    }
    for row in processes.rows.iter().filter(|row| row.is_idle()) {
        let process = &row.status.process;
        things.push(Thing {
            urgency: Urgency::Decision,
            kind: "nobody runs it",
            what: format!(
                "nobody runs {}: {}",
                foreign(process),
                row.eligible().map_or_else(
                    || "how many machines are eligible is not known".to_owned(),
                    |many| format!("{} machines are eligible", grouped(many))
                )
            ),
            next: format!("start a component that runs it; bmdb process show {}", quoted(process)),
        });
    }
    let mut parked: BTreeMap<(&str, &str), Vec<bmdb::MachineId>> = BTreeMap::new();
    let mut often: BTreeMap<(&str, &str), Vec<bmdb::MachineId>> = BTreeMap::new();
    for row in &backoffs.rows {
        let group = (row.process.as_str(), row.cause.as_str());
        match row.until {
            None => parked.entry(group).or_default().push(row.machine_id),
            Some(until) if until > now && row.attempts >= OFTEN => often.entry(group).or_default().push(row.machine_id),
            Some(_) => {}
        }
    }
    let firsts = parked
        .values()
        .chain(often.values())
        .filter_map(|machines| machines.first().copied());
    let name = names(
        bmdb,
        firsts
            .chain(holds.rows.iter().map(|hold| hold.machine_id))
            .collect::<Vec<_>>(),
    )
    .await?;
    for ((process, cause), machines) in &parked {
        let first = name(machines[0]);
        things.push(Thing {
            urgency: Urgency::Decision,
            kind: "parked",
            what: format!(
                "{} parked for {}: {}",
                these(machines, &first),
                foreign(process),
                brief(cause)
            ),
            next: match machines.len() {
                1 => format!("bmdb backoff clear {} {} --reason '…'", first.pasted, quoted(process)),
                _ => format!("bmdb backoff ls --parked --process {}", quoted(process)),
            },
        });
    }
    for ((process, cause), machines) in &often {
        let first = name(machines[0]);
        things.push(Thing {
            urgency: Urgency::Later,
            kind: "fails again and again",
            what: format!(
                "{} failing again and again, {OFTEN} times or more, for {}: {}",
                these(machines, &first),
                foreign(process),
                brief(cause)
            ),
            next: format!("bmdb machine show {}", first.pasted),
        });
    }
    for hold in &holds.rows {
        if hold.until.is_none() && now - hold.placed_at > FORGOTTEN {
            let name = name(hold.machine_id);
            things.push(Thing {
                urgency: Urgency::Later,
                kind: "held for long",
                what: format!(
                    "{name} is held by {} for {}: {}",
                    foreign(&hold.placed_by),
                    span(now - hold.placed_at),
                    brief(&hold.reason)
                ),
                next: format!("bmdb machine show {}", name.pasted),
            });
        }
    }
    let has_unreadable = [
        &works.unreadable,
        &sessions.unreadable,
        &backoffs.unreadable,
        &holds.unreadable,
    ]
    .iter()
    .any(|rows| !rows.is_empty());
    things.sort_by_key(|thing| thing.urgency);
    let sentence = match things.len() as u64 {
        0 if has_unreadable => "Rows that nobody can read need a person.".to_owned(),
        0 => "Nothing needs a person.".to_owned(),
        many => format!("{} a person.", count(many, "thing needs", "things need")),
    };
    let json = things.iter().map(as_json).collect::<Vec<_>>();
    let mut answer = Answer::new(sentence, json!({"attention": json})).found(!things.is_empty() || has_unreadable);
    for urgency in [Urgency::Now, Urgency::Decision, Urgency::Later] {
        let mut lines: Vec<_> = things
            .iter()
            .filter(|thing| thing.urgency == urgency)
            .flat_map(|thing| [format!("  {}", thing.what), format!("    next: {}", thing.next)])
            .collect();
        if !lines.is_empty() {
            lines.insert(0, urgency.heading().to_owned());
        }
        answer = answer.lines(lines);
    }
    for why in &processes.unread {
        answer = answer.note(why.clone());
    }
    let unreadable = [
        &works.unreadable,
        &sessions.unreadable,
        &backoffs.unreadable,
        &holds.unreadable,
    ];
    Ok(unreadable
        .into_iter()
        .fold(answer, |answer, rows| answer.unreadable(rows))
        .read_at(bmdb, now))
}

fn these(machines: &[bmdb::MachineId], first: &Name) -> String {
    match machines.len() {
        1 => format!("{first} is"),
        many => format!("{} machines, {first} among them, are", grouped(many as u64)),
    }
}

fn as_json(thing: &Thing) -> Value {
    json!({"urgency": thing.urgency.heading(), "kind": thing.kind, "what": thing.what, "next": thing.next})
}
