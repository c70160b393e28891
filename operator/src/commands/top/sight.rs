//! What is looked at, read in the background: little of it often, the counts as rarely as they are dear. A database that is away keeps what was seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bmdb::entity::{machine, process_pause, work};
use bmdb::sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect};
use bmdb::{Fence, MachineId, WorkStatus, WorksOf};
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::facts::attention::{self, Thing};
use crate::facts::pages::read_all;
use crate::facts::{process, session};
use crate::failure::{Failure, Kind};
use crate::source::Source;

/// How often what moves is read.
const PERIOD: Duration = Duration::from_secs(1);
/// How often machines are counted.
const COUNTS_PERIOD: Duration = Duration::from_secs(15);
/// Reading takes at most this part of the time: the larger the fleet, the rarer.
const SHARE: u32 = 10;
/// What was not read for longer is not live.
const STALE: Duration = Duration::from_secs(4);
/// What has not come by then does not come.
const LONGEST: Duration = Duration::from_secs(20);
/// Work that is held for longer needs a person, as `bmdb attention` says without being asked.
const LONG: TimeDelta = TimeDelta::hours(1);

/// What was seen last.
#[derive(Clone, Default)]
pub(super) struct Sight {
    pub(super) counts: Seen<Counts>,
    pub(super) moves: Seen<Moves>,
}

/// The last that could be read, and what has stood in the way since.
pub(super) struct Seen<Of> {
    pub(super) last: Option<Arc<Of>>,
    /// When it was read, by our clock.
    pub(super) read: Option<Instant>,
    /// How long that took.
    took: Duration,
    pub(super) trouble: Option<Failure>,
}

impl<Of> Default for Seen<Of> {
    fn default() -> Self {
        Self {
            last: None,
            read: None,
            took: Duration::ZERO,
            trouble: None,
        }
    }
}

impl<Of> Clone for Seen<Of> {
    fn clone(&self) -> Self {
        Self {
            last: self.last.clone(),
            read: self.read,
            took: self.took,
            trouble: self.trouble.clone(),
        }
    }
}

impl<Of> Seen<Of> {
    /// It should have been read again by now.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        let expected = STALE.max(self.took * (SHARE + 2));
        self.trouble.is_some()
            || self
                .read
                .is_none_or(|read| now.saturating_duration_since(read) > expected)
    }

    pub(super) fn take(&mut self, read: Result<Of, Failure>, took: Duration) {
        match read {
            Ok(read) => {
                self.took = took;
                self.last = Some(Arc::new(read));
                self.read = Some(Instant::now());
                self.trouble = None;
            }
            Err(trouble) => self.trouble = Some(trouble),
        }
    }
}

/// What is counted.
pub(super) struct Counts {
    pub(super) processes: process::Processes,
    pub(super) machines: u64,
    /// Works that go on, and how many of them are stuck.
    pub(super) works: u64,
    pub(super) stuck: u64,
    /// How many things need a person.
    pub(super) attention: usize,
}

/// What moves while one looks.
pub(super) struct Moves {
    /// The longest first.
    pub(super) works: Vec<WorkStatus>,
    pub(super) alive: u64,
    pub(super) silent: u64,
    pub(super) pauses: Vec<process_pause::Model>,
    pub(super) unreadable: usize,
    /// By the database's clock.
    pub(super) at: DateTime<Utc>,
}

/// What the screen asks of its readers.
pub(super) struct Wish {
    /// How many works there is room for.
    pub(super) works: AtomicUsize,
    pub(super) paused: AtomicBool,
}

/// Reads until it is dropped.
pub(super) async fn keep(source: &Source, wish: &Wish, sight: &watch::Sender<Sight>) {
    let counts = again(wish, COUNTS_PERIOD, async || {
        let began = Instant::now();
        let read = in_time(count(source)).await;
        let is_read = read.is_ok();
        sight.send_modify(|sight| sight.counts.take(read, began.elapsed()));
        is_read
    });
    let moves = again(wish, PERIOD, async || {
        let began = Instant::now();
        let read = in_time(moves(source, wish.works.load(Ordering::Relaxed))).await;
        let is_read = read.is_ok();
        sight.send_modify(|sight| sight.moves.take(read, began.elapsed()));
        is_read
    });
    tokio::join!(counts, moves);
}

async fn again(wish: &Wish, period: Duration, read: impl AsyncFn() -> bool) {
    loop {
        let began = Instant::now();
        // A database that did not answer had no work with it.
        let rest = match read().await {
            true => period.max(began.elapsed() * (SHARE - 1)),
            false => period,
        };
        tokio::time::sleep(rest).await;
        while wish.paused.load(Ordering::Relaxed) {
            tokio::time::sleep(PERIOD / 4).await;
        }
    }
}

async fn in_time<Read>(reading: impl Future<Output = Result<Read, Failure>>) -> Result<Read, Failure> {
    tokio::time::timeout(LONGEST, reading).await.unwrap_or_else(|_late| {
        let text = format!("the database has not answered for {} s", LONGEST.as_secs());
        Err(Failure::new(Kind::Unreachable, text))
    })
}

pub(super) async fn count(source: &Source) -> Result<Counts, Failure> {
    let processes = process::read(source).await?;
    let machines = machine::Entity::find().count(source.bmdb.reads()).await;
    let machines = machines.map_err(bmdb::Error::from)?;
    let found = attention::read(source, &processes, LONG).await?;
    let stuck = found.things.iter().map(|thing| match thing {
        Thing::StuckWork(_) => 1,
        Thing::SilentSession(session) => session.works,
        _ => 0,
    });
    Ok(Counts {
        works: processes.rows.iter().map(|row| row.status.in_work).sum(),
        stuck: stuck.sum(),
        machines,
        attention: found.things.len(),
        processes,
    })
}

pub(super) async fn moves(source: &Source, room: usize) -> Result<Moves, Failure> {
    let bmdb = &source.bmdb;
    let (works, unreadable) = longest(source, room).await?;
    let sessions = session::read(source).await?;
    let silent = sessions.rows.iter().filter(|row| session::is_silent(row)).count();
    Ok(Moves {
        works,
        alive: (sessions.rows.len() - silent) as u64,
        silent: silent as u64,
        pauses: bmdb.pauses().await?,
        unreadable: unreadable + sessions.unreadable.len(),
        at: bmdb.now().await?,
    })
}

/// So many works, the longest first: which they are is asked first, for the list of works is in the order of machines.
async fn longest(source: &Source, room: usize) -> Result<(Vec<WorkStatus>, usize), Failure> {
    let bmdb = &source.bmdb;
    let machines: Vec<MachineId> = work::Entity::find()
        .select_only()
        .column(work::Column::MachineId)
        .filter(work::Column::Fence.gt(Fence(0)))
        .order_by_asc(work::Column::ClaimedAt)
        .limit(room as u64)
        .into_tuple()
        .all(bmdb.reads())
        .await
        .map_err(bmdb::Error::from)?;
    if machines.is_empty() {
        return Ok((Vec::new(), 0));
    }
    // One that is worked on in two slots is there once or twice; the younger of its works may be one too many.
    let mut works = read_all(|| bmdb.works(WorksOf::Machines(machines.clone()))).await?;
    works.rows.sort_by_key(|work| work.claimed_at);
    works.rows.truncate(room);
    Ok((works.rows, works.unreadable.len()))
}
