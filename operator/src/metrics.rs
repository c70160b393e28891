//! What a monitoring system reads: what the library records in this process, and how the fleet stands by the database, as text in Prometheus' classic format.
//!
//! Names, units and labels are [`bmdb::metrics::METRICS`]; `docs/metrics.md` tells of them to people. Nothing is counted while somebody scrapes: the fleet is
//! counted in the background, at most every [`PERIOD`] and for at most a tenth of the time, and each count says when it was made.

use std::time::Duration;

use bmdb::metrics::{self, Kind, METRICS, Metric};
use bmdb::{Bmdb, CancellationToken, WorksOf};
use chrono::{DateTime, Utc};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

use crate::answer::words::foreign;
use crate::facts::{pages, process, session, work};
use crate::failure::{Failure, Kind as Fault};
use crate::source::Source;

/// How long lies between two counts, at least.
pub const PERIOD: Duration = Duration::from_secs(15);
/// Counting takes at most this part of the time: the larger the fleet, the rarer.
const SHARE: u32 = 10;
/// How long all counts together may take. Each alone is bounded by the library.
const LONGEST: Duration = Duration::from_secs(120);
/// After so long, what is not recorded any more is told no more, such as the machines of a process that is gone.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// The recorder of this process, and its text.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
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
        Ok(Self { handle })
    }

    /// All that was recorded, in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
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
                Ok(Ok(())) => told = false,
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
            self.handle.run_upkeep();
            let pause = PERIOD.max(began.elapsed() * (SHARE - 1));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// Counts once, by what the commands read.
async fn count(source: &Source) -> Result<(), Failure> {
    let sessions = session::read(source).await?.rows;
    let silent = sessions.iter().filter(|row| session::is_silent(row)).count();
    set(metrics::SESSIONS_SILENT, silent as u64);
    set(metrics::SESSIONS_ALIVE, (sessions.len() - silent) as u64);
    let works = || source.bmdb.works(WorksOf::All).limit(10_000);
    let stuck = pages::read(works, usize::MAX, work::is_stuck).await?;
    set(metrics::STUCK, stuck.rows.len() as u64);
    for row in process::read(source).await?.rows {
        let status = &row.status;
        let of = |metric, many| set_of(metric, &status.process, many as f64);
        of(metrics::IN_WORK, status.in_work);
        of(metrics::BACKING_OFF, status.backing_off);
        of(metrics::PARKED, status.parked);
        of(metrics::HELD, status.held);
        of(metrics::UNRUN, u64::from(row.is_unrun()));
        // What could not be asked stays as it was, with the time when it was so.
        if let Some(eligible) = row.eligible() {
            of(metrics::ELIGIBLE, eligible);
            set_of(metrics::ELIGIBLE_TIMESTAMP, &status.process, seconds(Utc::now()));
        }
    }
    ::metrics::gauge!(metrics::LOOP_SUCCESS.name, "loop" => "counts").set(seconds(Utc::now()));
    Ok(())
}

fn set(metric: Metric, many: u64) {
    ::metrics::gauge!(metric.name).set(many as f64);
}

/// Of a process, whose name others have written.
fn set_of(metric: Metric, process: &str, value: f64) {
    ::metrics::gauge!(metric.name, "process" => foreign(process)).set(value);
}

fn seconds(moment: DateTime<Utc>) -> f64 {
    moment.timestamp_millis() as f64 / 1e3
}
