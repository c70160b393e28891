//! What is too much to be read for each request: counted in the background, for all who look, and only while somebody does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bmdb::CancellationToken;
use bmdb::entity::machine;
use bmdb::sea_orm::{EntityTrait, PaginatorTrait};
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::facts::{attention, process};
use crate::failure::{Failure, Kind};
use crate::serve::console::Console;

/// How long counts are good for.
pub(super) const PERIOD: Duration = Duration::from_secs(15);
/// Counting takes at most this part of the time: the larger the fleet, the rarer.
const SHARE: u32 = 10;
/// How long a page waits for the first counts.
const FIRST: Duration = Duration::from_secs(10);
/// After so long without anybody who looks, nothing is counted.
const IDLE: Duration = Duration::from_secs(300);
/// Work that is held for longer is told of.
pub(super) const LONG: TimeDelta = TimeDelta::hours(1);

/// What was counted.
pub(super) struct Counts {
    pub(super) processes: process::Processes,
    pub(super) machines: u64,
    /// How many things need a person.
    pub(super) attention: usize,
    /// When, by the database's clock.
    pub(super) at: DateTime<Utc>,
    /// How long that took.
    pub(super) took: Duration,
}

/// The last counts, and whether anybody wants the next.
pub(super) struct Cache {
    last: watch::Sender<Option<Result<Arc<Counts>, Failure>>>,
    looked: Mutex<Instant>,
    wanted: tokio::sync::Notify,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            last: watch::Sender::new(None),
            looked: Mutex::new(Instant::now()),
            wanted: tokio::sync::Notify::new(),
        }
    }
}

impl Cache {
    /// The last counts. They may be old where nobody has looked for a while; the first ones are waited for, but not for long.
    pub(super) async fn get(&self) -> Result<Arc<Counts>, Failure> {
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.wanted.notify_one();
        let mut last = self.last.subscribe();
        let first = tokio::time::timeout(FIRST, last.wait_for(Option::is_some)).await;
        let counted = first.ok().and_then(Result::ok).and_then(|last| last.clone());
        counted.unwrap_or_else(|| {
            let text = "the machines of each process are being counted for the first time since the console started, and that takes long. Machines, works and \
                sessions can be looked at meanwhile";
            Err(Failure::new(Kind::Unreachable, text))
        })
    }

    /// How many things needed a person when that was last counted, if it ever was. Every page tells it, so who looks at any wants it counted.
    pub(super) fn attention(&self) -> Option<usize> {
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.wanted.notify_one();
        let last = self.last.borrow();
        last.as_ref()?.as_ref().ok().map(|counts| counts.attention)
    }

    fn is_idle(&self) -> bool {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > IDLE
    }
}

/// Counts until it is told to stop.
pub(super) async fn keep(console: Arc<Console>, stop: CancellationToken) {
    let work = async {
        loop {
            let began = Instant::now();
            let counted = count(&console, began).await;
            let failed = counted.is_err();
            // Counts that were good are shown on, with their age.
            console.counts.last.send_if_modified(|last| {
                let keeps = failed && matches!(last, Some(Ok(_)));
                if !keeps {
                    *last = Some(counted.map(Arc::new));
                }
                !keeps
            });
            tokio::time::sleep(PERIOD.max(began.elapsed() * (SHARE - 1))).await;
            // Who scrapes is always looking.
            while console.metrics.is_none() && console.counts.is_idle() {
                console.counts.wanted.notified().await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

async fn count(console: &Console, began: Instant) -> Result<Counts, Failure> {
    let bmdb = &console.source.bmdb;
    let processes = process::read(&console.source).await?;
    let machines = machine::Entity::find().count(bmdb.reads()).await;
    let machines = machines.map_err(bmdb::Error::from)?;
    let found = attention::read(&console.source, &processes, LONG).await?;
    if let Some(exporter) = &console.metrics {
        exporter.tell(&processes, &found).await;
    }
    Ok(Counts {
        processes,
        machines,
        attention: found.things.len(),
        at: found.at,
        took: began.elapsed(),
    })
}
