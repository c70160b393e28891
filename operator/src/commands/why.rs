//! Why a process works on a machine, or does not: by the very rule that claims use, clause by clause.

use bmdb::MachineStatus;
use bmdb::entity::{work_backoff, work_hold};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::answer::words::{brief, foreign, quoted, span, until, when};
use crate::answer::{Answer, Table};
use crate::facts::name::{Name, name_of};
use crate::facts::why::{self, Clause};
use crate::failure::Failure;
use crate::source::Source;

/// One thing that must be so, in words.
struct Line {
    met: bool,
    /// Ends by itself.
    by_itself: bool,
    what: String,
    evidence: String,
    ends: String,
}

pub(super) async fn why(source: &Source, machine: &MachineStatus, process: &str) -> Result<Answer, Failure> {
    let asked = why::read(source, machine.machine, process).await?;
    let now = asked.at;
    let name = name_of(machine.machine, machine.provider_id.as_deref());
    let said = |clause: &Clause<'_>| Line::of(clause, &asked.obstacles.slot, process, &name, now);
    let own: Vec<_> = asked.of_bmdb().iter().map(said).collect();
    let Some((rule, explanation)) = asked.best() else {
        let blocked = own.iter().filter(|line| !line.met).count();
        let why_unread = asked.unread.first().cloned();
        let sentence = match blocked {
            0 => format!("Nothing of BMDB's own keeps {name} from {process}; what its rule asks is not known here."),
            blocked => format!(
                "{name} is not eligible for {process}: {blocked} of BMDB's own {} clauses stand in the way.",
                own.len()
            ),
        };
        let unasked = why_unread.unwrap_or_else(|| "the process has no rule: nobody has used it for a day".to_owned());
        let json = json!({"machine": machine.machine.to_string(), "process": process, "eligible": Value::Null, "clauses": own.iter().map(as_json).collect::<Vec<_>>()});
        return Ok(Answer::new(sentence, json)
            .lines(vec!["slot, backoff, holds".to_owned()])
            .table(table(&own))
            .note(unasked)
            .read_at(&source.bmdb, now));
    };
    let clauses: Vec<_> = asked.of_rule().iter().map(said).collect();
    let all = clauses.len() + own.len();
    let lines = || clauses.iter().chain(&own);
    let blocked = lines().filter(|line| !line.met).count();
    let sentence = match (explanation.eligible, &explanation.holder) {
        (true, _) => format!("{name} is eligible for {process}: nothing stands in the way."),
        (false, Some(holder)) if holder.process == process => format!(
            "{} has worked on {name} for {process} for {}.",
            foreign(&holder.component_name),
            span(now - holder.claimed_at)
        ),
        (false, _) => {
            let earliest = match explanation.earliest {
                Some(earliest) => format!("At the earliest {}.", when(earliest, now)),
                None => "No earliest time.".to_owned(),
            };
            let stand = if blocked == 1 {
                "clauses stands"
            } else {
                "clauses stand"
            };
            format!("{name} is not eligible for {process}: {blocked} of {all} {stand} in the way. {earliest}")
        }
    };
    let json = json!({
        "machine": machine.machine.to_string(), "provider_id": machine.provider_id, "process": process, "slot": explanation.slot,
        "eligible": explanation.eligible, "earliest": explanation.earliest.map(|at| at.to_rfc3339()), "rule": rule.digest,
        "at": explanation.at.to_rfc3339(), "clauses": lines().map(as_json).collect::<Vec<_>>(),
    });
    let mut answer = Answer::new(sentence, json)
        .lines(vec![format!("its rule {}", rule.digest)])
        .table(table(&clauses))
        .lines(vec!["slot, backoff, holds".to_owned()])
        .table(table(&own));
    for (other, explanation) in &asked.explained[1..] {
        let verdict = if explanation.eligible {
            "eligible"
        } else {
            "not eligible"
        };
        answer = answer.note(format!(
            "by another rule, {} of {}, it is {verdict}",
            other.digest,
            foreign(&other.component)
        ));
    }
    for why in &asked.unread {
        answer = answer.note(why.clone());
    }
    Ok(answer.read_at(&source.bmdb, explanation.at))
}

impl Line {
    fn of(clause: &Clause<'_>, slot: &str, process: &str, name: &Name, now: DateTime<Utc>) -> Self {
        let slot = foreign(slot);
        let (what, evidence, ends) = match clause {
            Clause::OfRule { what, .. } => (foreign(what), String::new(), String::new()),
            Clause::Slot(None) => (format!("nobody works in slot {slot}"), String::new(), String::new()),
            Clause::Slot(Some(holder)) => {
                let asked = holder.stop_requested.as_ref();
                let asked = asked.map(|reason| format!("; asked to stop: {}", brief(reason)));
                (
                    format!("nobody works in slot {slot}"),
                    format!(
                        "{} by {} for {}, fence {}{}",
                        foreign(&holder.process),
                        foreign(&holder.component_name),
                        span(now - holder.claimed_at),
                        holder.fence,
                        asked.unwrap_or_default()
                    ),
                    format!("when it ends: bmdb session show {}", holder.session),
                )
            }
            Clause::Backoff(None) => ("no backoff".to_owned(), String::new(), String::new()),
            Clause::Backoff(Some(backoff)) => said_of_backoff(backoff, process, name, now),
            Clause::NoHold => (
                format!("no hold on slot {slot} or on the machine"),
                String::new(),
                String::new(),
            ),
            Clause::Hold(hold) => said_of_hold(hold, name, now),
        };
        Self {
            met: clause.is_met(),
            by_itself: clause.ends_at().is_some(),
            what,
            evidence,
            ends,
        }
    }
}

fn said_of_backoff(
    backoff: &work_backoff::Model,
    process: &str,
    name: &Name,
    now: DateTime<Utc>,
) -> (String, String, String) {
    let failures = format!("{} failures, the last: {}", backoff.attempts, brief(&backoff.cause));
    match backoff.until {
        Some(end) => (
            "no backoff".to_owned(),
            format!("{}; {failures}", until(Some(end), now, "")),
            format!("by itself {}", when(end, now)),
        ),
        None => (
            "it is not parked".to_owned(),
            failures,
            format!(
                "a person: bmdb backoff clear {} {} --reason '…'",
                name.pasted,
                quoted(process)
            ),
        ),
    }
}

fn said_of_hold(hold: &work_hold::Model, name: &Name, now: DateTime<Utc>) -> (String, String, String) {
    let is_whole = hold.slot == "*";
    let on = if is_whole {
        "on the machine".to_owned()
    } else {
        format!("on slot {}", foreign(&hold.slot))
    };
    let ticket = hold.ticket.as_ref().map(|ticket| format!(", {}", brief(ticket)));
    let slot = if is_whole {
        String::new()
    } else {
        format!(" --slot {}", quoted(&hold.slot))
    };
    let ends = match hold.until {
        Some(end) => format!("by itself {}", when(end, now)),
        None => format!("a person: bmdb machine release-hold {}{slot} --reason '…'", name.pasted),
    };
    let evidence = format!(
        "{}{}: {}",
        foreign(&hold.placed_by),
        ticket.unwrap_or_default(),
        brief(&hold.reason)
    );
    (format!("no hold {on}"), evidence, ends)
}

fn table(lines: &[Line]) -> Table {
    let mut table = Table::new(&["", "must be so", "but", "ends"]);
    for line in lines {
        let sign = match (line.met, line.by_itself) {
            (true, _) => "✓",
            (false, true) => "⧗",
            (false, false) => "✕",
        };
        table.row([
            sign.to_owned(),
            line.what.clone(),
            line.evidence.clone(),
            line.ends.clone(),
        ]);
    }
    table
}

fn as_json(line: &Line) -> Value {
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    json!({"clause": line.what, "met": line.met, "ends_by_itself": line.by_itself, "evidence": text(&line.evidence), "ends": text(&line.ends)})
}
