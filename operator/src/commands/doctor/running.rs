//! What runs beside the database: its clock, collectors, components.

use bmdb::SessionStatus;
use chrono::{DateTime, TimeDelta, Utc};

use super::{Checked, Finding, Patient};
use crate::answer::words::{count, foreign, span};
use crate::facts::pages::read_all;
use crate::facts::process;
use crate::failure::Failure;

/// How far two clocks may be apart before people read wrong ages.
const APART: TimeDelta = TimeDelta::seconds(2);
/// A component that claims by a rule says so every hour, and what nobody has used for a day, collectors forget within an hour.
const FORGOTTEN_AFTER: TimeDelta = TimeDelta::hours(26);

/// The database's clock against ours: as far as the time of the question allows to say.
pub(super) async fn clock(patient: &Patient<'_>) -> Result<Checked, Failure> {
    let bmdb = patient.bmdb()?;
    // The first question may have to open a connection.
    bmdb.now().await?;
    let asked = Utc::now();
    let theirs = bmdb.now().await?;
    let answered = Utc::now();
    Ok(Checked::Found(apart(asked, theirs, answered).into_iter().collect()))
}

/// The least by which the clocks differ, if that is too much.
fn apart(asked: DateTime<Utc>, theirs: DateTime<Utc>, answered: DateTime<Utc>) -> Option<Finding> {
    let (ahead, behind) = (theirs - answered, asked - theirs);
    let (difference, which) = if ahead > behind {
        (ahead, "ahead of")
    } else {
        (behind, "behind")
    };
    (difference > APART).then(|| Finding {
        what: format!(
            "the database's clock is at least {} {which} this host's. Fences and deadlines are by the database's alone, ages that people compute are not",
            span(difference)
        ),
        mend: "set both by NTP. Do not set back the database's while components run: fences are its milliseconds".to_owned(),
    })
}

/// Sessions that are dead for longer than collectors need.
pub(super) async fn sessions(patient: &Patient<'_>) -> Result<Checked, Failure> {
    let bmdb = patient.bmdb()?;
    let read = read_all(|| bmdb.sessions().limit(10_000)).await?;
    let dead: Vec<_> = read.rows.iter().filter(|row| is_overdue(row)).collect();
    let works: u64 = dead.iter().map(|row| row.works).sum();
    let found = dead.first().map(|first| Finding {
        what: format!(
            "{} dead and not expired, that of {} among them, and {} with them: no collector runs",
            count(dead.len() as u64, "session is", "sessions are"),
            foreign(&first.component),
            count(works, "work waits", "works wait")
        ),
        mend: "bmdb collect --once, and see that a component with a collector runs, or bmdb collect".to_owned(),
    });
    let unreadable = read.unreadable.iter().map(|row| Finding {
        what: format!(
            "the row of session {} cannot be read: {}",
            foreign(&row.row),
            foreign(&row.error.to_string())
        ),
        mend: "somebody has edited it by hand: set it right, or break the session and let a collector expire it"
            .to_owned(),
    });
    Ok(Checked::Found(found.into_iter().chain(unreadable).collect()))
}

/// Its deadline has passed for so long that even a collector that has just started, and brakes, would be done.
fn is_overdue(session: &SessionStatus) -> bool {
    let interval = TimeDelta::from_std(session.interval).unwrap_or(TimeDelta::MAX);
    // One without a lease has no deadline either.
    let overdue = session.left().map_or(session.as_of - session.started_at, |left| -left);
    overdue > interval * 3
}

/// Rules that collectors would have forgotten.
pub(super) async fn rules(patient: &Patient<'_>) -> Result<Checked, Failure> {
    let bmdb = patient.bmdb()?;
    let now = bmdb.now().await?;
    let mut found = Vec::new();
    for (name, _slot) in process::registered(bmdb).await? {
        let rules = bmdb.rules(&name).await?;
        let unused: Vec<_> = rules
            .iter()
            .filter(|rule| now - rule.used_at > FORGOTTEN_AFTER)
            .collect();
        if let Some(oldest) = unused.iter().map(|rule| rule.used_at).min() {
            found.push(Finding {
                what: format!(
                    "{} of process {} with hints, used by nobody for {} and not forgotten: no collector runs",
                    count(unused.len() as u64, "rule", "rules"),
                    foreign(&name),
                    span(now - oldest)
                ),
                mend: "run a component with a collector, or bmdb collect until Ctrl-C: it forgets them as it begins"
                    .to_owned(),
            });
        }
    }
    Ok(Checked::Found(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_differ_only_by_what_the_time_of_the_question_leaves() {
        let at =
            |milliseconds: i64| DateTime::from_timestamp_millis(1_796_000_000_000 + milliseconds).expect("it is one");
        for (theirs, answered) in [(0, 0), (50, 100), (-1_999, 100), (2_099, 100), (9_000, 10_000)] {
            assert!(apart(at(0), at(theirs), at(answered)).is_none(), "{theirs} {answered}");
        }
        for (theirs, says) in [(3_700, "at least 3 s ahead of"), (-3_700, "at least 3 s behind")] {
            let found = apart(at(0), at(theirs), at(100)).expect("it is too much");
            assert!(
                found.what.contains(says) && found.mend.contains("NTP"),
                "{}",
                found.what
            );
        }
    }
}
