//! What is wrong with the database itself, as far as can be read from it: check by check, each with its mend. One that cannot be made stops no other.

mod room;
mod rows;
mod running;
mod schema;
mod settings;

use std::pin::Pin;

use bmdb::Bmdb;
use serde_json::{Value, json};

use crate::answer::words::count;
use crate::answer::{Answer, Table};
use crate::cli::Global;
use crate::failure::{Failure, Kind};
use crate::source::Source;

/// Something that is wrong, and what to do.
struct Finding {
    what: String,
    mend: String,
}

/// What came of a check.
enum Checked {
    /// It was made, and has found these.
    Found(Vec<Finding>),
    /// Nothing is wrong, and how it is.
    Fine(String),
    /// There is nothing to look at here, and why.
    Nothing(&'static str),
}

type Checking<'a> = Pin<Box<dyn Future<Output = Result<Checked, Failure>> + Send + 'a>>;

/// A check: its name, what it looks at, and how.
struct Check {
    name: &'static str,
    looks_at: &'static str,
    run: for<'a> fn(&'a Patient<'a>) -> Checking<'a>,
}

/// In the order in which one would mend what they find.
const CHECKS: [Check; 11] = [
    Check {
        name: "steps",
        looks_at: "steps of the schema that are pending, or that this build does not know",
        run: |patient| Box::pin(schema::steps(patient)),
    },
    Check {
        name: "schema",
        looks_at: "tables, columns, keys, references and indexes that the steps have made and that are not there",
        run: |patient| Box::pin(schema::drift(patient)),
    },
    Check {
        name: "rights",
        looks_at: "what the roles of make-roles lack",
        run: |patient| Box::pin(schema::rights(patient)),
    },
    Check {
        name: "settings",
        looks_at: "settings of the database that the guarantees rest on",
        run: |patient| Box::pin(settings::check(patient)),
    },
    Check {
        name: "clock",
        looks_at: "the database's clock against that of this host",
        run: |patient| Box::pin(running::clock(patient)),
    },
    Check {
        name: "orphans",
        looks_at: "rows that refer to a machine or a session that is not there",
        run: |patient| Box::pin(rows::orphans(patient)),
    },
    Check {
        name: "fences",
        looks_at: "fences ahead of the database's clock, or behind their history, as after a restore",
        run: |patient| Box::pin(rows::fences(patient)),
    },
    Check {
        name: "sessions",
        looks_at: "sessions that a collector would have expired by now",
        run: |patient| Box::pin(running::sessions(patient)),
    },
    Check {
        name: "rules",
        looks_at: "rules of processes that nobody uses, and that a collector would have forgotten",
        run: |patient| Box::pin(running::rules(patient)),
    },
    Check {
        name: "history",
        looks_at: "how much history there is, and how much of it is older than 90 days, by a sample",
        run: |patient| Box::pin(room::history(patient)),
    },
    Check {
        name: "snapshots",
        looks_at: "transactions that are open for long, and keep what is deleted from being cleaned up",
        run: |patient| Box::pin(room::snapshots(patient)),
    },
];

/// The database, as far as it lets us in.
struct Patient<'a> {
    url: &'a str,
    opened: Result<Source, Failure>,
}

impl Patient<'_> {
    /// What most checks read by. A schema that is too old or too new keeps components out, and us.
    fn bmdb(&self) -> Result<&Bmdb, Failure> {
        match &self.opened {
            Ok(source) => Ok(&source.bmdb),
            Err(failure) => Err(failure.clone()),
        }
    }
}

pub(super) async fn run(global: &Global) -> Result<Answer, Failure> {
    let opened = Source::open(global).await;
    let (url, opened) = match (&global.database, opened) {
        (_, Err(failure)) if failure.kind == Kind::Usage => return Err(failure),
        (Some(url), opened) => (url.as_str(), opened),
        (None, _) => unreachable!("BUG: to open none is a mistake of usage"),
    };
    let patient = Patient { url, opened };
    let mut checked = Vec::with_capacity(CHECKS.len());
    for check in &CHECKS {
        checked.push((check, (check.run)(&patient).await));
    }
    // Where nothing could be looked at, there is no answer.
    if checked
        .iter()
        .all(|(_, checked)| !matches!(checked, Ok(Checked::Found(_) | Checked::Fine(_))))
        && let Some(failure) = checked.iter().find_map(|(_, checked)| checked.as_ref().err())
    {
        return Err(failure.clone());
    }
    let answer = answer(&checked);
    let Ok(source) = patient.opened else {
        return Ok(answer);
    };
    let answer = answer.from(&source.bmdb).await;
    source.close().await;
    answer
}

fn answer(checked: &[(&Check, Result<Checked, Failure>)]) -> Answer {
    let mut table = Table::new(&["check", "found", "looks at"]);
    let (mut lines, mut notes) = (Vec::new(), Vec::new());
    let (mut found, mut unchecked) = (0, 0);
    for (check, checked) in checked {
        let said = match checked {
            Ok(Checked::Found(findings)) if findings.is_empty() => "✓ nothing".to_owned(),
            Ok(Checked::Found(findings)) => {
                found += findings.len() as u64;
                for finding in findings {
                    lines.push(format!("✕ {}: {}", check.name, finding.what));
                    lines.push(format!("    mend: {}", finding.mend));
                }
                format!("✕ {}", findings.len())
            }
            Ok(Checked::Fine(how)) => {
                lines.push(format!("✓ {}: {how}", check.name));
                "✓ nothing".to_owned()
            }
            Ok(Checked::Nothing(why)) => {
                notes.push(format!("{}: not looked at, for {why}", check.name));
                "not here".to_owned()
            }
            Err(failure) => {
                unchecked += 1;
                notes.push(format!("{}: could not be looked at: {}", check.name, failure.text));
                "not known".to_owned()
            }
        };
        table.row([check.name.to_owned(), said, check.looks_at.to_owned()]);
    }
    let sentence = match (found, unchecked) {
        (0, 0) => "Nothing is wrong, as far as can be read.".to_owned(),
        (0, unchecked) => format!(
            "Nothing was found; {} could not be made.",
            count(unchecked, "check", "checks")
        ),
        (found, 0) => format!("{} wrong.", count(found, "thing is", "things are")),
        (found, unchecked) => format!(
            "{} wrong; {} could not be made.",
            count(found, "thing is", "things are"),
            count(unchecked, "check", "checks")
        ),
    };
    let json: Vec<_> = checked.iter().map(|(check, checked)| as_json(check, checked)).collect();
    let answer = Answer::new(sentence, json!({"checks": json}))
        .lines(lines)
        .table(table)
        .found(found + unchecked > 0);
    notes.into_iter().fold(answer, Answer::note)
}

fn as_json(check: &Check, checked: &Result<Checked, Failure>) -> Value {
    let none = &[][..];
    let (findings, is, not_checked) = match checked {
        Ok(Checked::Found(findings)) => (findings.as_slice(), None, None),
        Ok(Checked::Fine(how)) => (none, Some(how.clone()), None),
        Ok(Checked::Nothing(why)) => (none, None, Some((*why).to_owned())),
        Err(failure) => (none, None, Some(failure.text.clone())),
    };
    let findings: Vec<_> = findings
        .iter()
        .map(|finding| json!({"what": finding.what, "mend": finding.mend}))
        .collect();
    json!({
        "check": check.name, "looks_at": check.looks_at, "findings": findings, "is": is, "not_checked": not_checked, "failed": checked.is_err(),
    })
}
