//! Who expires dead sessions and frees their work.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmdb_entity::SessionId;
use futures_util::FutureExt;
use sea_orm::DbErr;
use tokio_util::sync::CancellationToken;

use crate::bmdb::Bmdb;
use crate::db::database::Database;
use crate::db::transaction::TxRunner;
use crate::error::Error;
use crate::metrics::{self, StatementKind};
use crate::rules::sightings::{Seen, Sightings};
use crate::runtime::supervised::panic_text;
use crate::store::expiry;
use crate::store::process;

/// Expires sessions whose deadline has passed: frees their work, writes their history, leaves a cool-down.
///
/// Any number may run at once, in any component; [`Runner`](crate::Runner) runs one by default. A session is expired only when its deadline has
/// passed by the database's clock *and* collectors have seen its lease unchanged for one interval on their own clocks, so that no jump of the
/// database's clock expires the living. A deadline further ahead than any heartbeat can set also counts as passed: the clock has jumped back.
/// Sessions of this process are spared while it believes in them. If most sessions look dead at once, or the clock jumped, the collector waits one
/// more interval: a fault of ours is likelier than the death of a fleet.
///
/// A dead component's machine is claimable again within interval + two periods + cool-down, and one interval more if this collector has only just
/// started or brakes. A collector that stops early records how long it has watched each lease (`session_sighting`), and the next one continues from
/// there. So a crash loop shorter than the interval still expires the dead, provided each run lasts at least two sweeps.
///
/// ```no_run
/// # async fn example(bmdb: bmdb::Bmdb) {
/// // A component that does nothing else.
/// let shutdown = bmdb::CancellationToken::new();
/// tokio::spawn(bmdb.collector().run(shutdown.clone()));
/// told_to_stop().await;
/// shutdown.cancel();
/// # }
/// # async fn told_to_stop() {}
/// ```
pub struct Collector {
    database: Arc<Database>,
    period: Duration,
    sightings: Sightings,
    /// What the log has been told, so that it is told once.
    told: Told,
    /// Sessions that could not be expired. They are tried one by one, after all others.
    stuck: HashSet<SessionId>,
    /// When it next looks for rules that nobody uses.
    rules_at: Instant,
}

#[derive(Default)]
struct Told {
    braked: bool,
    unreadable: HashSet<String>,
}

/// What one sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sweep {
    /// The sessions that were expired.
    pub expired: Vec<SessionId>,
    /// How many works that freed.
    pub freed: u64,
    /// Whether the brake held dead sessions back.
    pub braked: bool,
}

impl Bmdb {
    /// A collector for this database. [`Runner`](crate::Runner) runs one by default.
    #[must_use]
    pub fn collector(&self) -> Collector {
        Collector::new(Arc::clone(self.database()))
    }
}

impl Collector {
    fn new(database: Arc<Database>) -> Self {
        let period = database.config.interval / 4;
        Self {
            database,
            period,
            sightings: Sightings::default(),
            told: Told::default(),
            stuck: HashSet::new(),
            rules_at: Instant::now(),
        }
    }

    /// How long it waits between sweeps. Default: a quarter of the configured interval.
    #[must_use]
    pub fn period(mut self, period: Duration) -> Self {
        self.period = period;
        self
    }

    /// Sweeps every period, with a tenth of jitter, until `shutdown` fires. A sweep that fails or panics is logged, and the next one comes all the
    /// same.
    ///
    /// # Cancel safety
    /// Dropping the future stops it between statements or in the middle of one, which takes effect or does not; the next sweep does the rest.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let swept = tokio::select! {
                () = shutdown.cancelled() => return,
                swept = AssertUnwindSafe(self.sweep_all()).catch_unwind() => swept,
            };
            match swept {
                Ok(Ok(())) => metrics::swept(self.database.config.interval),
                Ok(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "a sweep failed"),
                Err(panic) => tracing::error!(task = "collector", panic = panic_text(&*panic), "a sweep panicked"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.period.mul_f64(0.9 + 0.1 * fastrand::f64())) => {}
            }
        }
    }

    /// The sessions, and from time to time the rules.
    async fn sweep_all(&mut self) -> Result<(), Error> {
        self.sweep().await?;
        if Instant::now() >= self.rules_at {
            self.rules_at = Instant::now() + BETWEEN_RULES;
            self.forget_unused_rules().await?;
        }
        Ok(())
    }

    /// Forgets the rules of processes that nobody has used for a day, and their hints: those of a version of a component that is gone, or of a value that
    /// nobody registers any more. Answers their names. [`run`](Self::run) does so every hour.
    ///
    /// # Errors
    /// When the database cannot be read or written; what is left is forgotten the next time.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the rest to the next time.
    pub async fn forget_unused_rules(&self) -> Result<Vec<String>, Error> {
        let forgotten = process::forget_unused(&self.database).await?;
        if !forgotten.is_empty() {
            tracing::info!(
                rules = forgotten.join(", "),
                "rules that nobody has used for a day are forgotten"
            );
        }
        Ok(forgotten)
    }

    /// Looks at every session once and expires those that are dead. One look is never enough to call a session dead, so the first sweep of a
    /// collector expires nobody whom no other collector has watched.
    ///
    /// # Errors
    /// When the sessions cannot be read. A session's row that cannot be read is logged and left out, a session that cannot be expired is logged and
    /// left to the next sweep.
    ///
    /// # Cancel safety
    /// Sessions are expired in transactions of at most 128; dropping the future leaves the rest to the next sweep.
    pub async fn sweep(&mut self) -> Result<Sweep, Error> {
        let read = expiry::read(&self.database).await?;
        self.told.of_unreadable(read.unreadable);
        let sessions = read.leases.len();
        read.clocks
            .iter()
            .for_each(|clocks| metrics::clock_read(clocks.database));
        let verdict = self.sightings.judge(read.clocks, read.leases);
        self.told.of_brake(verdict.braked, sessions);
        let own = self.database.own_sessions().clone();
        let of_others = |leases: Vec<Seen>| -> Vec<Seen> {
            let others = leases.into_iter().filter(|lease| !own.contains(&lease.session));
            others.collect()
        };
        let (dead, waiting) = (of_others(verdict.dead), of_others(verdict.waiting));
        let mut sweep = Sweep {
            braked: verdict.braked,
            ..Sweep::default()
        };
        self.remember(waiting).await;
        self.expire(dead, &mut sweep).await;
        Ok(sweep)
    }

    /// So that collectors which never live for an interval expire somebody together.
    async fn remember(&self, mut waiting: Vec<Seen>) {
        waiting.retain(|lease| !lease.age.is_zero());
        // In one order, so that collectors do not wait for each other in circles.
        waiting.sort_unstable_by_key(|lease| lease.session.0);
        for some in waiting.chunks(REMEMBERED) {
            if let Err(error) = expiry::remember(&self.short_scope("note what was seen of sessions"), some).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "what was seen of sessions is not noted"
                );
            }
        }
    }

    /// For transactions that others wait for.
    fn short_scope(&self, doing: &'static str) -> TxRunner<'_> {
        TxRunner {
            kind: StatementKind::Collect,
            limit: self.database.limit.at_most(SHORT),
            budget: self.database.config.retry_budget.min(SHORT),
            ..self.database.runner(doing)
        }
    }

    /// Many at once, and those among whom one fails, one by one. Whoever fails then is stuck, and keeps only others waiting who are. What is not
    /// begun in time is left to the next sweep, which finds out first whether the database answers.
    async fn expire(&mut self, dead: Vec<Seen>, sweep: &mut Sweep) {
        let until = Instant::now() + LONG;
        let (stuck, dead): (Vec<_>, Vec<_>) = dead.into_iter().partition(|lease| self.stuck.contains(&lease.session));
        let short = self.short_scope("expire sessions");
        let (left, errors) = expire_each(&short, dead.chunks(BATCH), until, sweep).await;
        if let Some(error) = errors.first() {
            let sessions = left.len();
            tracing::warn!(
                sessions,
                error = error as &dyn std::error::Error,
                "sessions were not expired together; they are tried one by one"
            );
        }
        let (mut left, _) = expire_each(&short, left.chunks(1), until, sweep).await;
        self.stuck = stuck.iter().map(|lease| lease.session).collect();
        left.extend(stuck);
        let runner = TxRunner {
            kind: StatementKind::Collect,
            ..self.database.runner("expire a session")
        };
        let (left, errors) = expire_each(&runner, left.chunks(1), until, sweep).await;
        for (lease, error) in std::iter::zip(&left, errors) {
            tracing::warn!(session = %lease.session, error = &error as &dyn std::error::Error, "a session was not expired");
            self.stuck.insert(lease.session);
        }
        for session in &sweep.expired {
            self.stuck.remove(session);
        }
    }
}

/// How long lies between two looks for rules that nobody uses.
const BETWEEN_RULES: Duration = Duration::from_secs(3600);
/// How many sessions are expired in one transaction.
const BATCH: usize = 128;
/// How many sightings are written in one.
const REMEMBERED: usize = 1000;
/// How long a transaction may take that others wait for who are as dead.
const SHORT: Duration = Duration::from_secs(2);
/// For how long a sweep begins transactions.
const LONG: Duration = Duration::from_secs(15);

/// Expires each group in a transaction that begins before `until`. Those of groups that failed, and the error of each group.
async fn expire_each(
    runner: &TxRunner<'_>,
    groups: impl Iterator<Item = &[Seen]>,
    until: Instant,
    sweep: &mut Sweep,
) -> (Vec<Seen>, Vec<Error>) {
    let (mut left, mut errors) = (Vec::new(), Vec::new());
    for group in groups {
        if Instant::now() > until {
            break;
        }
        match expiry::expire(runner, group).await {
            Ok(expired) => {
                for (session, freed) in expired {
                    metrics::session_expired(freed);
                    tracing::info!(%session, freed, "session expired");
                    sweep.expired.push(session);
                    sweep.freed += freed;
                }
            }
            Err(error) => {
                left.extend_from_slice(group);
                errors.push(error);
            }
        }
    }
    (left, errors)
}

impl Told {
    fn of_unreadable(&mut self, unreadable: Vec<(String, DbErr)>) {
        for (session, error) in &unreadable {
            if !self.unreadable.contains(session) {
                tracing::warn!(session, %error, "a session's row cannot be read; it is not expired");
            }
        }
        self.unreadable = unreadable.into_iter().map(|(session, _)| session).collect();
    }

    fn of_brake(&mut self, braked: bool, sessions: usize) {
        match (self.braked, braked) {
            (false, true) => {
                tracing::warn!(
                    sessions,
                    "collector brakes: most sessions look dead or the database's clock jumped"
                );
            }
            (true, false) => tracing::info!(sessions, "collector brakes no more"),
            _ => {}
        }
        self.braked = braked;
    }
}
