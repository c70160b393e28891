//! What is measured: every name with its unit, its labels and its meaning, and the calls by which the other rooms record it.
//!
//! A component installs a recorder of the facade [`metrics`](https://docs.rs/metrics) and calls `start`; until then nothing is recorded, and each call costs
//! the look at one flag. Without the feature `metrics` there is no such call at all. [`METRICS`] is there in either case: exporters take buckets from it, and
//! `docs/metrics.md` its table.
//!
//! No label is without bound: `process` is one of the registered processes, `cause`, `loop`, `kind` and `what` are words of lists in the code.

#![cfg_attr(
    not(feature = "metrics"),
    allow(unused_variables, reason = "nothing is recorded then")
)]

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name, with its unit at the end.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// What it counts in.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Who records it.
    pub by: By,
    /// What it says.
    pub help: &'static str,
}

/// What kind a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// It only rises.
    Counter,
    /// It is what it was when it was last looked at.
    Gauge,
    /// How often which values came, by these upper bounds.
    Histogram(&'static [f64]),
}

/// What a metric counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Seconds.
    Seconds,
    /// A moment: seconds since 1970, by the clock of who records it.
    Timestamp,
}

/// Who records a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Each component, of itself.
    Component,
    /// The exporter of the command `bmdb`, of the database. One is enough; of several, each says the same.
    Exporter,
}

/// The names of the loops whose last success is told in [`LOOP_SUCCESS`].
pub const LOOPS: [&str; 4] = ["collector", "counts", "heartbeats", "ticks"];

/// The kinds of statements that [`STATEMENT_SECONDS`] tells apart.
pub const STATEMENT_KINDS: [&str; 9] = [
    "body",
    "claim",
    "collect",
    "commit",
    "end",
    "heartbeat",
    "other",
    "read",
    "search",
];

/// What a statement is for: the label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatementKind {
    /// In the body of a user's transaction.
    Body,
    /// Takes machines that were found before.
    Claim,
    /// A collector's.
    Collect,
    /// COMMIT, of any transaction.
    Commit,
    /// Ends works.
    End,
    /// Renews a session.
    Heartbeat,
    /// What the lists above and below have no word for, such as what an operator does.
    Other,
    /// Only reads: lists, counts, explanations.
    Read,
    /// Looks for eligible machines in the fleet.
    Search,
}

#[cfg(feature = "metrics")]
impl StatementKind {
    fn word(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Claim => "claim",
            Self::Collect => "collect",
            Self::Commit => "commit",
            Self::End => "end",
            Self::Heartbeat => "heartbeat",
            Self::Other => "other",
            Self::Read => "read",
            Self::Search => "search",
        }
    }
}

/// From half a millisecond, a statement over a local socket, up to ten seconds, after which a claim gives up.
const ROUND_TRIPS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// From a tenth of a second, a look at a machine, up to a day, an installation that nobody stopped.
const HOLDS: &[f64] = &[
    0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 86400.0,
];
/// Trust is at most four fifths of the interval. Close together where little is left, which is what is asked for.
const TRUST: &[f64] = &[
    0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0, 30.0, 60.0, 300.0, 1800.0,
];

const fn component(
    name: &'static str,
    kind: Kind,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        unit,
        labels,
        by: By::Component,
        help,
    }
}

const fn exporter(name: &'static str, unit: Unit, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric {
        by: By::Exporter,
        ..component(name, Kind::Gauge, unit, labels, help)
    }
}

macro_rules! table {
    ($($name:ident = $made:ident($called:literal, $($what:expr),+; $help:literal);)*) => {
        $(#[doc = $help] pub const $name: Metric = $made($called, $($what),+, $help);)*
        /// All of them, by who records them.
        pub const METRICS: &[Metric] = &[$($name),*];
    };
}

use Kind::{Counter, Gauge, Histogram};
use Unit::{Count, Seconds, Timestamp};

table! {
    CLAIMS = component("bmdb_claims_total", Counter, Count, &["process"]; "Machines that were claimed.");
    CLAIMS_EMPTY = component("bmdb_claims_empty_total", Counter, Count, &["process"]; "Claims that found nothing eligible. They are no failures.");
    CLAIMS_FAILED = component("bmdb_claims_failed_total", Counter, Count, &["process"]; "Claims that were answered with an error.");
    RACES_LOST = component("bmdb_claim_races_lost_total", Counter, Count, &["process"]; "Attempts to claim that took nothing because others were faster; each is tried again.");
    CLAIM_SECONDS = component("bmdb_claim_seconds", Histogram(ROUND_TRIPS), Seconds, &["process"]; "How long a claim took that was answered with a machine, from when it was awaited; with the end before it, if one statement did both.");
    CLAIMS_UNKNOWN = component("bmdb_claims_unknown_total", Counter, Count, &["process"]; "Attempts to claim whose outcome was not known when they ended; what they took is found, or released. They are no lost races.");
    ENDS = component("bmdb_ends_total", Counter, Count, &["process", "cause"]; "Works that ended as their holder asked. Cause: finished, failed, canceled.");
    HELD_SECONDS = component("bmdb_work_held_seconds", Histogram(HOLDS), Seconds, &["process"]; "For how long a component had a work, however it ended.");
    RETRIES = component("bmdb_retries_total", Counter, Count, &[]; "Transactions and statements that ran again, because the database refused them for others or was not reached.");
    COMMITS_UNKNOWN = component("bmdb_commits_unknown_total", Counter, Count, &[]; "Commits whose answer never came, before it was found out what became of them.");
    SESSIONS_LOST = component("bmdb_sessions_lost_total", Counter, Count, &[]; "Sessions of this component that were lost: what they held is lost with them.");
    SESSIONS_EXPIRED = component("bmdb_sessions_expired_total", Counter, Count, &[]; "Sessions of others that the collector in this component expired.");
    WORKS_EXPIRED = component("bmdb_works_expired_total", Counter, Count, &[]; "Works that were freed because their session was expired by the collector in this component.");
    HEARTBEAT_SECONDS = component("bmdb_heartbeat_seconds", Histogram(ROUND_TRIPS), Seconds, &[]; "Round trip of a heartbeat that was answered.");
    HEARTBEATS_FAILED = component("bmdb_heartbeats_failed_total", Counter, Count, &[]; "Heartbeats that failed or were not answered in time; each is tried again as long as there is trust.");
    TRUST_LEFT_SECONDS = component("bmdb_trust_left_seconds", Histogram(TRUST), Seconds, &[]; "How much trust was left when a heartbeat was answered, before it counted.");
    TRUST_AT_USE_SECONDS = component("bmdb_trust_at_use_seconds", Histogram(TRUST), Seconds, &[]; "How much trust was left when a session was about to write: before a statement, a transaction or a COMMIT was sent. None: it was not sent.");
    STATEMENT_SECONDS = component("bmdb_statement_seconds", Histogram(ROUND_TRIPS), Seconds, &["kind"]; "How long a statement took that has ended, answered or not; without the wait for its connection, except for reads outside transactions. Kind: body, claim, collect, commit, end, heartbeat, other, read, search. Not those of savepoints, nor those that a component sends itself beside the library's transactions.");
    CONNECTION_WAIT_SECONDS = component("bmdb_connection_wait_seconds", Histogram(ROUND_TRIPS), Seconds, &["kind"]; "How long a statement waited for a connection of the library's, or a transaction until it had begun on one. Kind: as of statements.");
    TRUST_MARGIN_SECONDS = component("bmdb_trust_margin_seconds", Gauge, Seconds, &[]; "How much earlier than the database this component stops believing in its session, as configured.");
    INTERVAL_SECONDS = component("bmdb_interval_seconds", Gauge, Seconds, &[]; "How long a heartbeat of this component keeps its session alive, as configured.");
    CLOCK_DIFFERENCE_SECONDS = component("bmdb_clock_difference_seconds", Gauge, Seconds, &[]; "By how much this host's clock is ahead of the database's, at the last sweep of the collector in this component; off by the time of one read. No decision depends on it.");
    LOOP_SUCCESS = component("bmdb_loop_success_timestamp_seconds", Gauge, Timestamp, &["loop"]; "When a background loop last did what it is there for. Loop: collector, heartbeats, ticks; of the exporter also counts.");
    ELIGIBLE = exporter("bmdb_machines_eligible", Count, &["process"]; "Machines that could be claimed, by the rules of the process; of several rules, the sum. Missing: the exporter's login may not ask.");
    ELIGIBLE_TIMESTAMP = exporter("bmdb_machines_eligible_timestamp_seconds", Timestamp, &["process"]; "When the eligible machines of the process were last counted.");
    IN_WORK = exporter("bmdb_machines_in_work", Count, &["process"]; "Machines that somebody works on.");
    BACKING_OFF = exporter("bmdb_machines_backing_off", Count, &["process"]; "Machines that the process leaves alone for a time, because it failed on them.");
    PARKED = exporter("bmdb_machines_parked", Count, &["process"]; "Machines on which the process failed so often that a person must look.");
    HELD = exporter("bmdb_machines_held", Count, &["process"]; "Machines that a person keeps from the slot of the process.");
    PAUSED = exporter("bmdb_process_paused", Count, &["process"]; "1 if a person has paused the process, so that no component claims for it; else 0.");
    ELIGIBLE_OLDEST_SECONDS = exporter("bmdb_machines_eligible_oldest_seconds", Seconds, &["process"]; "For how long, at least, the machine has been eligible that has waited longest: this exporter has found it at each of its counts since, of which it remembers some, for so long as it runs. 0: none is eligible. Of more than 1000 eligible machines, the 1000 with the smallest ids are watched. Missing: the exporter's login may not ask.");
    UNRUN = exporter("bmdb_process_unrun", Count, &["process"]; "1 if nobody has used a rule of the process for two hours and nobody works for it; else 0.");
    STUCK = exporter("bmdb_works_stuck", Count, &[]; "Works that need a person: they were asked to stop and go on, or their session is silent.");
    ATTENTION = exporter("bmdb_attention", Count, &["what"]; "Things that need a person, as `bmdb attention` lists them. What: silent session, stuck work, long work, nobody runs it, parked, fails again and again, held for long, paused for long.");
    SESSIONS_ALIVE = exporter("bmdb_sessions_alive", Count, &[]; "Sessions whose deadline lies ahead.");
    SESSIONS_SILENT = exporter("bmdb_sessions_silent", Count, &[]; "Sessions whose deadline has passed and that no collector has expired yet.");
}

#[cfg(feature = "metrics")]
mod recording {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, SystemTime};

    use super::{Kind, LOOP_SUCCESS, METRICS, Metric, Unit};

    /// Somebody wants to know.
    static ON: AtomicBool = AtomicBool::new(false);

    /// Describes all metrics to the recorder of this process, and records from now on. To be called once, after the recorder was installed; without, the
    /// library records nothing, so that it costs nobody anything who did not ask.
    pub fn start() {
        for metric in METRICS {
            let unit = match metric.unit {
                Unit::Count => ::metrics::Unit::Count,
                Unit::Seconds | Unit::Timestamp => ::metrics::Unit::Seconds,
            };
            match metric.kind {
                Kind::Counter => ::metrics::describe_counter!(metric.name, unit, metric.help),
                Kind::Gauge => ::metrics::describe_gauge!(metric.name, unit, metric.help),
                Kind::Histogram(_) => ::metrics::describe_histogram!(metric.name, unit, metric.help),
            }
            // From nought, so that the first that is counted is seen to rise.
            if metric.kind == Kind::Counter && metric.labels.is_empty() {
                ::metrics::counter!(metric.name).absolute(0);
            }
        }
        ON.store(true, Ordering::Release);
    }

    pub(super) fn is_on() -> bool {
        ON.load(Ordering::Acquire)
    }

    /// Seconds since 1970, by the clock of this host: nothing depends on it.
    pub(super) fn now() -> f64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0.0, |since| since.as_secs_f64())
    }

    pub(super) fn succeeded(name: &'static str) {
        ::metrics::gauge!(LOOP_SUCCESS.name, "loop" => name).set(now());
    }

    pub(super) fn add(metric: Metric, process: Option<&'static str>, many: u64) {
        match process {
            Some(process) => ::metrics::counter!(metric.name, "process" => process).increment(many),
            None => ::metrics::counter!(metric.name).increment(many),
        }
    }

    pub(super) fn observe_kind(metric: Metric, kind: &'static str, time: Duration) {
        ::metrics::histogram!(metric.name, "kind" => kind).record(time.as_secs_f64());
    }

    pub(super) fn observe(metric: Metric, process: Option<&'static str>, time: Duration) {
        let seconds = time.as_secs_f64();
        match process {
            Some(process) => ::metrics::histogram!(metric.name, "process" => process).record(seconds),
            None => ::metrics::histogram!(metric.name).record(seconds),
        }
    }
}

#[cfg(feature = "metrics")]
pub use recording::start;

/// Runs it if somebody wants to know.
macro_rules! record {
    ($($body:tt)*) => {
        #[cfg(feature = "metrics")]
        if recording::is_on() {
            $($body)*
        }
    };
}

/// A claim was answered that began then.
pub(crate) fn claim_answered<Work, Error>(process: &'static str, begun: Instant, answer: &Result<Vec<Work>, Error>) {
    record! {
        match answer {
            Ok(works) if works.is_empty() => recording::add(CLAIMS_EMPTY, Some(process), 1),
            Ok(works) => {
                recording::add(CLAIMS, Some(process), works.len() as u64);
                recording::observe(CLAIM_SECONDS, Some(process), begun.elapsed());
            }
            Err(_) => recording::add(CLAIMS_FAILED, Some(process), 1),
        }
    }
}

/// An attempt to claim took nothing, because others were faster.
pub(crate) fn race_lost(process: &'static str) {
    record!(recording::add(RACES_LOST, Some(process), 1));
}

/// Nobody knows what became of an attempt to claim.
pub(crate) fn claim_unknown(process: &'static str) {
    record!(recording::add(CLAIMS_UNKNOWN, Some(process), 1));
}

/// When this is, if somebody wants to know.
pub(crate) fn now() -> Option<Instant> {
    record!(return Some(Instant::now()););
    None
}

/// A statement has ended that was sent then.
pub(crate) fn statement_ended(kind: StatementKind, sent: Option<Instant>) {
    record! {
        if let Some(sent) = sent {
            recording::observe_kind(STATEMENT_SECONDS, kind.word(), sent.elapsed());
        }
    }
}

/// There is the connection that was asked for then.
pub(crate) fn connection_had(kind: StatementKind, asked: Option<Instant>) {
    record! {
        if let Some(asked) = asked {
            recording::observe_kind(CONNECTION_WAIT_SECONDS, kind.word(), asked.elapsed());
        }
    }
}

/// A session with so much trust left is about to write.
pub(crate) fn trust_used(left: Duration) {
    record!(recording::observe(TRUST_AT_USE_SECONDS, None, left));
}

/// A work has ended as was asked: finished, failed or canceled.
pub(crate) fn work_ended(process: &'static str, cause: &'static str) {
    record!(::metrics::counter!(ENDS.name, "process" => process, "cause" => cause).increment(1));
}

/// A component has a work no more, which it had for so long.
pub(crate) fn work_held(process: &'static str, held_for: Duration) {
    record!(recording::observe(HELD_SECONDS, Some(process), held_for));
}

/// A transaction or a statement runs again.
pub(crate) fn retried() {
    record!(recording::add(RETRIES, None, 1));
}

/// The answer to a commit has not come.
pub(crate) fn commit_unknown() {
    record!(recording::add(COMMITS_UNKNOWN, None, 1));
}

/// A session of this component is lost.
pub(crate) fn session_lost() {
    record!(recording::add(SESSIONS_LOST, None, 1));
}

/// A session of somebody else was expired, and had so many works.
pub(crate) fn session_expired(works: u64) {
    record! {
        recording::add(SESSIONS_EXPIRED, None, 1);
        recording::add(WORKS_EXPIRED, None, works);
    }
}

/// A heartbeat was answered after so long, which was sent with so much trust left.
pub(crate) fn beat_answered(round_trip: Duration, left_when_sent: Duration) {
    record! {
        recording::observe(HEARTBEAT_SECONDS, None, round_trip);
        recording::observe(TRUST_LEFT_SECONDS, None, left_when_sent.saturating_sub(round_trip));
        recording::succeeded("heartbeats");
    }
}

/// A heartbeat has failed.
pub(crate) fn beat_failed() {
    record!(recording::add(HEARTBEATS_FAILED, None, 1));
}

/// The runtime of a session still runs tasks. So the session is configured.
pub(crate) fn ticked(interval: Duration, margin: Duration) {
    record! {
        ::metrics::gauge!(INTERVAL_SECONDS.name).set(interval.as_secs_f64());
        ::metrics::gauge!(TRUST_MARGIN_SECONDS.name).set(margin.as_secs_f64());
        recording::succeeded("ticks");
    }
}

/// A collector has looked at all sessions.
pub(crate) fn swept(interval: Duration) {
    record! {
        ::metrics::gauge!(INTERVAL_SECONDS.name).set(interval.as_secs_f64());
        recording::succeeded("collector");
    }
}

/// The database's clock was read just now.
pub(crate) fn clock_read(database: DateTime<Utc>) {
    record! {
        let database = database.timestamp_micros() as f64 / 1e6;
        ::metrics::gauge!(CLOCK_DIFFERENCE_SECONDS.name).set(recording::now() - database);
    }
}
