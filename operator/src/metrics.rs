//! What a monitoring system reads: what the library records in this process, and how the fleet stands by the database, as text in Prometheus' classic format.
//!
//! Names, units and labels are [`bmdb::metrics::METRICS`]; `docs/metrics.md` tells of them to people. Nothing is counted while somebody scrapes: the fleet is
//! counted in the background, at most every [`PERIOD`] and for at most a tenth of the time, and each count says when it was made.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bmdb::metrics::{self, Kind, METRICS, Metric};
use bmdb::{Bmdb, CancellationToken, MachineId};
use chrono::{DateTime, TimeDelta, Utc};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

use crate::answer::words::foreign;
use crate::facts::attention::{self, Attention, Thing};
use crate::facts::process::{self, Processes, Row};
use crate::failure::{Failure, Kind as Fault};
use crate::source::Source;

/// How long lies between two counts, at least.
pub const PERIOD: Duration = Duration::from_secs(15);
/// Counting takes at most this part of the time: the larger the fleet, the rarer.
const SHARE: u32 = 10;
/// Of so many eligible machines of a rule it is remembered since when they are: as long as there are no more, of all.
const WATCHED: u32 = 1000;
/// Work that is held for longer needs a person, as for the console.
const LONG: TimeDelta = TimeDelta::hours(1);
/// How long all counts together may take. Each alone is bounded by the library.
const LONGEST: Duration = Duration::from_secs(120);
/// After so long, what is not recorded any more is told no more, such as the machines of a process that is gone.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// The recorder of this process, and its text.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
    oldest: Arc<Mutex<Oldest>>,
}

impl Exporter {
    /// Makes itself the recorder of this process, of which there can be one, and has the library record.
    ///
    /// # Errors
    /// When this process has a recorder already.
    pub fn install() -> Result<Self, Failure> {
        let cannot = |error: &dyn std::error::Error| {
            let text = format!("metrics cannot be recorded: {error}");
            Failure::new(Fault::Usage, text)
        };
        let mut builder = PrometheusBuilder::new().idle_timeout(MetricKindMask::GAUGE, Some(FORGOTTEN));
        for metric in METRICS {
            if let Kind::Histogram(buckets) = metric.kind {
                let named = Matcher::Full(metric.name.to_owned());
                builder = builder
                    .set_buckets_for_metric(named, buckets)
                    .map_err(|error| cannot(&error))?;
            }
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        ::metrics::set_global_recorder(recorder).map_err(|error| cannot(&error))?;
        metrics::start();
        let oldest = Arc::default();
        Ok(Self { handle, oldest })
    }

    /// All that was recorded, in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Tells of the fleet as it was counted just now, by whoever counts it.
    pub(crate) async fn tell(&self, processes: &Processes, found: &Attention) {
        let things = |kind: &str| found.things.iter().filter(|thing| thing.kind() == kind).count();
        for kind in Thing::KINDS {
            ::metrics::gauge!(metrics::ATTENTION.name, "what" => kind).set(things(kind) as f64);
        }
        let silent = found.things.iter();
        let silent = silent.filter(|thing| matches!(thing, Thing::SilentSession(_))).count();
        set(metrics::SESSIONS_SILENT, silent);
        set(metrics::SESSIONS_ALIVE, found.sessions - silent);
        set(metrics::STUCK, found.stuck);
        for row in &processes.rows {
            let status = &row.status;
            let of = |metric, many| set_of(metric, &status.process, many as f64);
            of(metrics::IN_WORK, status.in_work);
            of(metrics::BACKING_OFF, status.backing_off);
            of(metrics::PARKED, status.parked);
            of(metrics::HELD, status.held);
            of(metrics::PAUSED, u64::from(status.pause.is_some()));
            of(metrics::UNRUN, u64::from(row.is_unrun()));
            // What could not be asked stays as it was, with the time when it was so.
            if let Some(eligible) = row.eligible() {
                of(metrics::ELIGIBLE, eligible);
                set_of(metrics::ELIGIBLE_TIMESTAMP, &status.process, seconds(Utc::now()));
            }
            if let Some(some) = some_eligible(row).await {
                let oldest = self.oldest().watch(&status.process, &some, Instant::now());
                set_of(metrics::ELIGIBLE_OLDEST_SECONDS, &status.process, oldest.as_secs_f64());
            }
        }
        ::metrics::gauge!(metrics::LOOP_SUCCESS.name, "loop" => "counts").set(seconds(Utc::now()));
        self.handle.run_upkeep();
    }

    fn oldest(&self) -> MutexGuard<'_, Oldest> {
        self.oldest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts how the fleet stands, again and again, until `stop` fires. `reader`: a login that can only read, on which rules may be asked; without, no
    /// eligible machines are told where `bmdb` can do more.
    ///
    /// # Cancel safety
    /// Dropping the future ends it between two reads.
    pub async fn keep(&self, bmdb: Bmdb, reader: Option<Bmdb>, stop: CancellationToken) {
        let source = Source { bmdb, reader };
        let mut told = false;
        loop {
            let began = tokio::time::Instant::now();
            let counted = tokio::select! {
                () = stop.cancelled() => return,
                counted = tokio::time::timeout(LONGEST, count(&source)) => counted,
            };
            match counted {
                Ok(Ok((processes, found))) => {
                    told = false;
                    self.tell(&processes, &found).await;
                }
                // Once for all: how old the last counts are is a metric.
                _failed if told => {}
                Ok(Err(failure)) => {
                    told = true;
                    crate::answer::err(&format!("the fleet was not counted for /metrics: {}", failure.text));
                }
                Err(_elapsed) => {
                    told = true;
                    crate::answer::err(&format!("the fleet was not counted for /metrics within {LONGEST:?}"));
                }
            }
            let pause = PERIOD.max(began.elapsed() * (SHARE - 1));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Counts once, by what the commands read.
async fn count(source: &Source) -> Result<(Processes, Attention), Failure> {
    let processes = process::read(source).await?;
    let found = attention::read(source, &processes, LONG).await?;
    Ok((processes, found))
}

/// Since when machines have been eligible, at least, by process.
#[derive(Default)]
struct Oldest(HashMap<String, Waiting>);

/// The machines that were eligible at the last count, and since which count each.
struct Waiting {
    counted: Instant,
    since: HashMap<MachineId, Instant>,
}

impl Oldest {
    /// These are eligible now. For how long the one has been so that has been so for longest.
    fn watch(&mut self, process: &str, eligible: &HashSet<MachineId>, now: Instant) -> Duration {
        self.0.retain(|_, waiting| now - waiting.counted < FORGOTTEN);
        let waiting = self.0.entry(process.to_owned()).or_insert_with(|| Waiting {
            counted: now,
            since: HashMap::new(),
        });
        waiting.counted = now;
        waiting.since.retain(|machine, _| eligible.contains(machine));
        for machine in eligible {
            waiting.since.entry(*machine).or_insert(now);
        }
        let first = waiting.since.values().min();
        first.map_or(Duration::ZERO, |first| now - *first)
    }
}

/// The first of those that are eligible by any rule. `None`: that could not be asked.
async fn some_eligible(row: &Row) -> Option<HashSet<MachineId>> {
    let mut some = HashSet::new();
    row.eligible()?;
    for (rule, count) in &row.rules {
        if count.as_ref().is_ok_and(|count| *count > 0) {
            some.extend(rule.eligible(WATCHED).await.ok()?);
        }
    }
    Some(some)
}

fn set(metric: Metric, many: usize) {
    ::metrics::gauge!(metric.name).set(many as f64);
}

/// Of a process, whose name others have written.
fn set_of(metric: Metric, process: &str, value: f64) {
    ::metrics::gauge!(metric.name, "process" => foreign(process)).set(value);
}

fn seconds(moment: DateTime<Utc>) -> f64 {
    moment.timestamp_millis() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_as_old_as_the_counts_that_found_it_without_a_break() {
        let [first, second] = [MachineId::random(), MachineId::random()];
        let (mut oldest, began) = (Oldest::default(), Instant::now());
        let mut at = |seconds, eligible: &[MachineId]| {
            let eligible = eligible.iter().copied().collect();
            let now = began + Duration::from_secs(seconds);
            oldest.watch("install", &eligible, now).as_secs()
        };
        assert_eq!(at(0, &[first]), 0);
        assert_eq!(at(15, &[first, second]), 15);
        assert_eq!(at(30, &[second]), 15, "the first was claimed");
        assert_eq!(at(45, &[first, second]), 30, "it is as new as any");
        assert_eq!(at(60, &[first]), 15);
        assert_eq!(at(75, &[]), 0);
        let later = began + Duration::from_secs(75) + FORGOTTEN;
        oldest.watch("survey", &HashSet::new(), later);
        assert!(!oldest.0.contains_key("install"), "it is gone");
    }
}
