//! Why a process works on a machine, or does not: by the very rule that claims use, clause by clause.

use bmdb::entity::{work_backoff, work_hold};
use bmdb::{Error, Explanation, Holder, MachineStatus, Obstacles, StoredRule};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::answer::words::{brief, foreign, quoted, span, until, when};
use crate::answer::{Answer, Table};
use crate::commands::name::{Name, name_of};
use crate::commands::process::unasked;
use crate::failure::Failure;
use crate::source::Source;

/// One thing that must be so.
struct Line {
    met: bool,
    /// Ends by itself.
    by_itself: bool,
    what: String,
    evidence: String,
    ends: String,
}

pub(super) async fn why(source: &Source, machine: &MachineStatus, process: &str) -> Result<Answer, Failure> {
    let rules = source.reader().rules(process).await?;
    let mut explained: Vec<(StoredRule, Explanation)> = Vec::new();
    let mut unread = Vec::new();
    for rule in rules {
        match rule.explain(machine.machine).await {
            Ok(explanation) => explained.push((rule, explanation)),
            Err(error @ Error::UnknownMachine { .. }) => return Err(error.into()),
            Err(error) => unread.push(unasked(&error)),
        }
    }
    // Where no rule could be asked, BMDB's own reasons are all that can be said.
    let obstacles = source.bmdb.obstacles(process, machine.machine).await?;
    let now = source.bmdb.now().await?;
    let name = name_of(machine.machine, machine.provider_id.as_deref());
    // By several rules, as in a rolling update, it is eligible if it is by one.
    explained.sort_by_key(|(_, explanation)| (!explanation.eligible, unmet(explanation)));
    let own = own_lines(&obstacles, &name, now);
    let Some((rule, explanation)) = explained.first() else {
        let blocked = own.iter().filter(|line| !line.met).count();
        let why_unread = unread.first().cloned();
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
    let clauses: Vec<_> = explanation.clauses.iter().map(clause_line).collect();
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
    for (other, explanation) in &explained[1..] {
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
    for why in unread {
        answer = answer.note(why);
    }
    Ok(answer.read_at(&source.bmdb, explanation.at))
}

fn unmet(explanation: &Explanation) -> usize {
    explanation.clauses.iter().filter(|clause| !clause.met).count()
}

fn clause_line(clause: &bmdb::ClauseState) -> Line {
    Line {
        met: clause.met,
        by_itself: false,
        what: foreign(&clause.clause),
        evidence: String::new(),
        ends: String::new(),
    }
}

/// BMDB's own clauses: who works in the slot, the backoff, the holds.
fn own_lines(obstacles: &Obstacles, name: &Name, now: DateTime<Utc>) -> Vec<Line> {
    let slot = foreign(&obstacles.slot);
    let mut lines = vec![holder_line(&slot, obstacles.holder.as_ref(), now)];
    lines.push(backoff_line(obstacles.backoff.as_ref(), &obstacles.process, name, now));
    if obstacles.holds.is_empty() {
        lines.push(met(format!("no hold on slot {slot} or on the machine")));
    }
    lines.extend(obstacles.holds.iter().map(|hold| hold_line(hold, name, now)));
    lines
}

fn met(what: String) -> Line {
    Line {
        met: true,
        by_itself: false,
        what,
        evidence: String::new(),
        ends: String::new(),
    }
}

fn holder_line(slot: &str, holder: Option<&Holder>, now: DateTime<Utc>) -> Line {
    let what = format!("nobody works in slot {slot}");
    let Some(holder) = holder else {
        return met(what);
    };
    let since = span(now - holder.claimed_at);
    let asked = holder
        .stop_requested
        .as_ref()
        .map(|reason| format!("; asked to stop: {}", brief(reason)));
    Line {
        met: false,
        by_itself: false,
        what,
        evidence: format!(
            "{} by {} for {since}, fence {}{}",
            foreign(&holder.process),
            foreign(&holder.component_name),
            holder.fence,
            asked.unwrap_or_default()
        ),
        ends: format!("when it ends: bmdb session show {}", holder.session),
    }
}

fn backoff_line(backoff: Option<&work_backoff::Model>, process: &str, name: &Name, now: DateTime<Utc>) -> Line {
    let Some(backoff) = backoff else {
        return met("no backoff".to_owned());
    };
    let failures = format!("{} failures, the last: {}", backoff.attempts, brief(&backoff.cause));
    match backoff.until {
        Some(end) => Line {
            met: false,
            by_itself: true,
            what: "no backoff".to_owned(),
            evidence: format!("{}; {failures}", until(Some(end), now, "")),
            ends: format!("by itself {}", when(end, now)),
        },
        None => Line {
            met: false,
            by_itself: false,
            what: "it is not parked".to_owned(),
            evidence: failures,
            ends: format!(
                "a person: bmdb backoff clear {} {} --reason '…'",
                name.pasted,
                quoted(process)
            ),
        },
    }
}

fn hold_line(hold: &work_hold::Model, name: &Name, now: DateTime<Utc>) -> Line {
    let is_whole = hold.slot == "*";
    let on = if is_whole {
        "on the machine".to_owned()
    } else {
        format!("on slot {}", foreign(&hold.slot))
    };
    let ticket = hold
        .ticket
        .as_ref()
        .map(|ticket| format!(", {}", brief(ticket)))
        .unwrap_or_default();
    let slot = if is_whole {
        String::new()
    } else {
        format!(" --slot {}", quoted(&hold.slot))
    };
    Line {
        met: false,
        by_itself: hold.until.is_some(),
        what: format!("no hold {on}"),
        evidence: format!("{}{ticket}: {}", foreign(&hold.placed_by), brief(&hold.reason)),
        ends: match hold.until {
            Some(end) => format!("by itself {}", when(end, now)),
            None => format!("a person: bmdb machine release-hold {}{slot} --reason '…'", name.pasted),
        },
    }
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
