//! What needs a person: one thing for each cause, however many machines it hits.

use std::collections::BTreeMap;

use bmdb::entity::{process_pause, work_hold};
use bmdb::{MachineId, SessionStatus, Unreadable, WorkStatus, WorksOf};
use chrono::{DateTime, TimeDelta, Utc};

use crate::facts::name::{Name, names};
use crate::facts::pages::read_all;
use crate::facts::process::Processes;
use crate::facts::{session, work};
use crate::failure::Failure;
use crate::source::Source;

/// How bad it is: what is locked or gets worse first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    Now,
    Decision,
    Later,
}

/// Something that needs a person.
pub(crate) enum Thing {
    /// Nobody has heard from it in time.
    SilentSession(SessionStatus),
    /// It was asked to stop, and goes on.
    StuckWork(WorkStatus),
    /// It has gone on for longer than was asked about.
    LongWork(WorkStatus),
    /// There is something to do, and nobody does it. How many machines are eligible, where that is known.
    Unrun { process: String, eligible: Option<u64> },
    /// Machines that wait for a person.
    Parked(Failures),
    /// Machines that fail, and are tried again, and fail.
    FailsOften(Failures),
    /// A hold without an end that may have been forgotten.
    HeldForLong { hold: work_hold::Model, name: Name },
    /// A pause without an end that may have been forgotten.
    PausedForLong(process_pause::Model),
}

/// Machines on which one process failed by one cause.
pub(crate) struct Failures {
    pub(crate) process: String,
    pub(crate) cause: String,
    pub(crate) machines: usize,
    /// One of them.
    pub(crate) first: MachineId,
    pub(crate) name: Name,
}

/// All that was found.
pub(crate) struct Attention {
    /// The most urgent first.
    pub(crate) things: Vec<Thing>,
    pub(crate) unreadable: Vec<Unreadable>,
    /// How many sessions there are, silent ones among them.
    pub(crate) sessions: usize,
    /// How many works were asked to stop, or are of a silent session.
    pub(crate) stuck: usize,
    pub(crate) at: DateTime<Utc>,
}

/// As often, a failure is a pattern.
pub(crate) const OFTEN: i64 = 3;
/// A hold or a pause without an end that is older may have been forgotten.
const FORGOTTEN: TimeDelta = TimeDelta::hours(24);

impl Thing {
    pub(crate) fn urgency(&self) -> Urgency {
        match self {
            Self::SilentSession(_) | Self::StuckWork(_) => Urgency::Now,
            Self::Unrun { .. } | Self::Parked(_) => Urgency::Decision,
            Self::LongWork(_) | Self::FailsOften(_) | Self::HeldForLong { .. } | Self::PausedForLong(_) => {
                Urgency::Later
            }
        }
    }

    /// Each [`kind`](Self::kind).
    pub(crate) const KINDS: [&str; 8] = [
        "silent session",
        "stuck work",
        "long work",
        "nobody runs it",
        "parked",
        "fails again and again",
        "held for long",
        "paused for long",
    ];

    /// What kind of thing it is, in few words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::SilentSession(_) => "silent session",
            Self::StuckWork(_) => "stuck work",
            Self::LongWork(_) => "long work",
            Self::Unrun { .. } => "nobody runs it",
            Self::Parked(_) => "parked",
            Self::FailsOften(_) => "fails again and again",
            Self::HeldForLong { .. } => "held for long",
            Self::PausedForLong(_) => "paused for long",
        }
    }
}

/// Looks for all of it. `longest`: work held for longer is told of. The processes are the caller's, who knows how old their counts may be.
pub(crate) async fn read(source: &Source, processes: &Processes, longest: TimeDelta) -> Result<Attention, Failure> {
    let bmdb = &source.bmdb;
    let works = read_all(|| bmdb.works(WorksOf::All).limit(10_000)).await?;
    let sessions = session::read(source).await?;
    let backoffs = read_all(|| bmdb.backoffs(None).limit(10_000)).await?;
    let holds = read_all(|| bmdb.holds(None).limit(10_000)).await?;
    let now = bmdb.now().await?;

    let stuck = works.rows.iter().filter(|row| work::is_stuck(row)).count();
    let alive_or_silent = sessions.rows.len();
    let silent = sessions.rows.into_iter().filter(session::is_silent);
    let mut things: Vec<_> = silent.map(Thing::SilentSession).collect();
    things.extend(works.rows.into_iter().filter_map(|row| match &row.stop_requested {
        _ if work::is_silent(&row) => None,
        Some(_) => Some(Thing::StuckWork(row)),
        None if row.age() > longest => Some(Thing::LongWork(row)),
        None => None,
    }));
    things.extend(
        processes
            .rows
            .iter()
            .filter(|row| row.is_idle())
            .map(|row| Thing::Unrun {
                process: row.status.process.clone(),
                eligible: row.eligible(),
            }),
    );
    let mut parked: BTreeMap<(String, String), Vec<MachineId>> = BTreeMap::new();
    let mut often: BTreeMap<(String, String), Vec<MachineId>> = BTreeMap::new();
    for row in backoffs.rows {
        let group = (row.process, row.cause);
        match row.until {
            None => parked.entry(group).or_default().push(row.machine_id),
            Some(until) if until > now && row.attempts >= OFTEN => often.entry(group).or_default().push(row.machine_id),
            Some(_) => {}
        }
    }
    let held = holds.rows.into_iter();
    let held: Vec<_> = held
        .filter(|hold| hold.until.is_none() && now - hold.placed_at > FORGOTTEN)
        .collect();
    let firsts = parked.values().chain(often.values()).map(|machines| machines[0]);
    let named = firsts.chain(held.iter().map(|hold| hold.machine_id));
    let name = names(bmdb, named.collect::<Vec<_>>()).await?;
    let failures = |((process, cause), machines): ((String, String), Vec<MachineId>)| Failures {
        process,
        cause,
        machines: machines.len(),
        first: machines[0],
        name: name(machines[0]),
    };
    things.extend(parked.into_iter().map(failures).map(Thing::Parked));
    things.extend(often.into_iter().map(failures).map(Thing::FailsOften));
    things.extend(held.into_iter().map(|hold| {
        let name = name(hold.machine_id);
        Thing::HeldForLong { hold, name }
    }));
    let pauses = processes.rows.iter().filter_map(|row| row.status.pause.clone());
    let forgotten = pauses.filter(|pause| pause.until.is_none() && now - pause.paused_at > FORGOTTEN);
    things.extend(forgotten.map(Thing::PausedForLong));
    things.sort_by_key(Thing::urgency);
    let unreadable = works.unreadable.into_iter().chain(sessions.unreadable);
    let unreadable = unreadable.chain(backoffs.unreadable).chain(holds.unreadable);
    Ok(Attention {
        things,
        unreadable: unreadable.collect(),
        sessions: alive_or_silent,
        stuck,
        at: now,
    })
}
