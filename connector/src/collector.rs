//! Who expires dead sessions and frees their work.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bmdb_entity::SessionId;
use bmdb_entity::work_history::Event;
use chrono::{DateTime, Utc};
use sea_orm::{DbErr, QueryResult};
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::error::Error;
use crate::history;
use crate::lease::Moment;
use crate::pause::pause_after;
use crate::tx::Tx;

/// Expires sessions whose deadline has passed: frees their work, writes their history, leaves a cool-down.
///
/// Any number may run at once, in any component; [`Runner`](crate::Runner) runs one by default. A session is expired only when its deadline has
/// passed by the database's clock *and* this collector has seen its lease unchanged for one interval on its own clock, so that no jump of the
/// database's clock expires the living. A deadline further ahead than a heartbeat can put it counts as passed: the clock has jumped back, and the
/// dead would hold what they held for as long as it jumped. Sessions of this process are left alone. When most sessions look dead at once, or the database's clock
/// jumped, it waits one interval more: that is rather a fault of ours or of the clock than the death of a fleet.
///
/// A dead component's machine is claimable again within interval + two periods + cool-down, and one interval more if this collector has only just
/// started or brakes.
pub struct Collector {
    database: Arc<Database>,
    period: Duration,
    sightings: Sightings,
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

/// One session's lease as read.
#[derive(Clone)]
struct Lease {
    session: SessionId,
    deadline: Option<DateTime<Utc>>,
    interval: Duration,
    /// Whether the deadline has passed, or lies further ahead than a heartbeat can put it: then the database's clock has jumped back.
    past: bool,
}

/// What this collector has seen so far, on its own clock. Pure.
#[derive(Default)]
struct Sightings {
    leases: HashMap<SessionId, (Option<DateTime<Utc>>, Moment)>,
    /// Since when most sessions have looked dead.
    mass_death: Option<Moment>,
    /// Our clock and the database's at the last sweep.
    clocks: Option<(Moment, DateTime<Utc>)>,
}

/// How far the database's clock may drift from ours between two sweeps.
const JUMP: Duration = Duration::from_secs(1);

impl Sightings {
    /// Takes in what a sweep has read and says which sessions are dead, and whether the brake holds some back.
    fn judge(&mut self, now: Moment, database_now: DateTime<Utc>, leases: &[Lease]) -> (Vec<Lease>, bool) {
        let jumped = self.clocks.is_some_and(|(then, database_then)| {
            let ours = now.since(then).as_secs_f64();
            let theirs = (database_now - database_then).as_seconds_f64();
            (ours - theirs).abs() > JUMP.as_secs_f64()
        });
        self.clocks = Some((now, database_now));
        if jumped {
            // Every lease is watched anew, for one whole interval.
            self.leases.clear();
        }
        self.leases
            .retain(|session, _| leases.iter().any(|lease| lease.session == *session));
        let mut dead = Vec::new();
        for lease in leases {
            let (deadline, since) = self.leases.entry(lease.session).or_insert((lease.deadline, now));
            if *deadline != lease.deadline {
                (*deadline, *since) = (lease.deadline, now);
            }
            if lease.past && now.since(*since) >= lease.interval {
                dead.push(lease);
            }
        }
        let most = dead.len() * 2 > leases.len();
        if !most {
            self.mass_death = None;
            return (dead.into_iter().cloned().collect(), jumped);
        }
        let since = *self.mass_death.get_or_insert(now);
        let longest = dead.iter().map(|lease| lease.interval).max().unwrap_or_default();
        if now.since(since) < longest {
            return (Vec::new(), true);
        }
        (dead.into_iter().cloned().collect(), jumped)
    }
}

impl Collector {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        let period = database.config.interval / 4;
        Self {
            database,
            period,
            sightings: Sightings::default(),
        }
    }

    /// How long it waits between sweeps. Default: a quarter of the configured interval.
    #[must_use]
    pub fn period(mut self, period: Duration) -> Self {
        self.period = period;
        self
    }

    /// Sweeps every period, with a tenth of jitter, until `shutdown` fires. A sweep that fails is logged and tried again.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let swept = tokio::select! {
                () = shutdown.cancelled() => return,
                swept = self.sweep() => swept,
            };
            if let Err(error) = swept {
                tracing::warn!(error = &error as &dyn std::error::Error, "a sweep failed");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.period.mul_f64(0.9 + 0.1 * fastrand::f64())) => {}
            }
        }
    }

    /// Looks at every session once and expires those that are dead. One look is never enough to call a session dead, so the first sweep of a
    /// collector expires nobody.
    ///
    /// # Errors
    /// When the sessions cannot be read. A session that cannot be expired is logged and left to the next sweep.
    ///
    /// # Cancel safety
    /// Each session is expired in a transaction of its own; dropping the future leaves the rest to the next sweep.
    pub async fn sweep(&mut self) -> Result<Sweep, Error> {
        let (database_now, leases) = self.read_leases().await?;
        let (dead, braked) = self.sightings.judge(Moment::now(), database_now, &leases);
        let mut sweep = Sweep {
            braked,
            ..Sweep::default()
        };
        if braked {
            tracing::warn!(
                sessions = leases.len(),
                "collector brakes: most sessions look dead or the database's clock jumped"
            );
        }
        let own = self.database.own_sessions().clone();
        for lease in dead.into_iter().filter(|lease| !own.contains(&lease.session)) {
            let session = lease.session;
            match self.expire(&lease).await {
                Ok(Some(freed)) => {
                    tracing::info!(%session, freed, "session expired");
                    sweep.expired.push(session);
                    sweep.freed += freed;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%session, error = &error as &dyn std::error::Error, "a session was not expired")
                }
            }
        }
        Ok(sweep)
    }

    async fn read_leases(&self) -> Result<(DateTime<Utc>, Vec<Lease>), Error> {
        const READ: &str = "
            SELECT s.session_id, s.interval_ms, l.deadline,
                CAST(CASE WHEN l.deadline BETWEEN {now} AND {after s.interval_ms} THEN 0 ELSE 1 END AS BIGINT), {now}
            FROM session s LEFT JOIN session_lease l ON l.session_id = s.session_id";
        const NOW: &str = "SELECT {now}";
        const DOING: &str = "read the sessions";
        let mut database_now = Utc::now();
        let mut leases = Vec::new();
        for row in self.database.read(DOING, READ, []).await? {
            let read = || {
                let past: i64 = row.try_get_by_index(3)?;
                let interval: i64 = row.try_get_by_index(1)?;
                let lease = Lease {
                    session: row.try_get_by_index(0)?,
                    deadline: row.try_get_by_index(2)?,
                    interval: Duration::from_millis(interval.unsigned_abs()),
                    past: past == 1,
                };
                Ok::<_, DbErr>((lease, row.try_get_by_index::<DateTime<Utc>>(4)?))
            };
            let (lease, now) = read().map_err(Error::database(DOING))?;
            database_now = now;
            leases.push(lease);
        }
        if leases.is_empty() {
            let rows = self.database.read(DOING, NOW, []).await?;
            let row = rows.first().expect("BUG: SELECT now() has one row");
            database_now = row.try_get_by_index(0).map_err(Error::database(DOING))?;
        }
        Ok((database_now, leases))
    }

    /// One transaction. Both rows are locked before the deadline is read again, and it must be the very one that the sweep saw: a heartbeat that
    /// is on its way wins, and so does one that came while the database's clock stood elsewhere. `None`: the session lives, or another collector
    /// was faster.
    async fn expire(&self, dead: &Lease) -> Result<Option<u64>, Error> {
        const LOCK: &str = "SELECT session_id FROM session WHERE session_id = $1 {lock}";
        const LEASE: &str = "
            SELECT deadline, CAST(CASE WHEN deadline BETWEEN {now} AND {after $2} THEN 1 ELSE 0 END AS BIGINT)
            FROM session_lease WHERE session_id = $1 {lock}";
        let session = dead.session;
        let interval = i64::try_from(dead.interval.as_millis()).unwrap_or(i64::MAX);
        let scope = self.database.scope("expire a session");
        let cause = "the session's deadline passed";
        for attempt in 1..=3 {
            let expiring = scope.run(async |tx: &Tx| {
                if tx.query_text(LOCK, [session.into()]).await?.is_empty() {
                    return Ok(None);
                }
                let read = |row: &QueryResult| Ok::<_, DbErr>((row.try_get_by_index(0)?, row.try_get_by_index(1)?));
                let lease: Option<(DateTime<Utc>, i64)> = tx
                    .query_text(LEASE, [session.into(), interval.into()])
                    .await?
                    .first()
                    .map(read)
                    .transpose()?;
                let renewed = lease.map(|(now, _)| now) != dead.deadline;
                if renewed || lease.is_some_and(|(_, lives)| lives == 1) {
                    return Ok(None);
                }
                Ok::<_, Error>(Some(
                    history::end_session(tx, session, Event::Expired, Some(cause)).await?,
                ))
            });
            match expiring.await {
                Ok(freed) => return Ok(freed),
                Err(crate::tx::Failure::NotCommitted(error)) => return Err(error),
                // Run again, it finds the session gone if it did take effect.
                Err(crate::tx::Failure::Unknown { .. }) => tokio::time::sleep(pause_after(attempt)).await,
            }
        }
        Err(Error::CommitUnknown {
            doing: scope.doing,
            source: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    struct Scene {
        sightings: Sightings,
        start: Moment,
        sessions: Vec<SessionId>,
    }

    impl Scene {
        fn of(sessions: usize) -> Self {
            Self {
                sightings: Sightings::default(),
                start: Moment::now(),
                sessions: (0..sessions).map(|_| SessionId::random()).collect(),
            }
        }

        /// A sweep `ours` seconds after the start, with the database's clock `ahead` of ours; `deadlines` are in seconds of the database's.
        fn sweep(&mut self, ours: i64, ahead: i64, deadlines: &[i64]) -> (Vec<usize>, bool) {
            let at = |seconds: i64| DateTime::UNIX_EPOCH + chrono::Duration::seconds(1_000_000 + seconds);
            let leases: Vec<Lease> = std::iter::zip(&self.sessions, deadlines)
                .map(|(session, deadline)| Lease {
                    session: *session,
                    deadline: Some(at(*deadline)),
                    interval: INTERVAL,
                    past: !(ours + ahead..=ours + ahead + 10).contains(deadline),
                })
                .collect();
            let now = self.start.plus(Duration::from_secs(ours.unsigned_abs()));
            let (dead, braked) = self.sightings.judge(now, at(ours + ahead), &leases);
            let place = |session| {
                self.sessions
                    .iter()
                    .position(|one| *one == session)
                    .expect("is one of ours")
            };
            (dead.into_iter().map(|dead| place(dead.session)).collect(), braked)
        }
    }

    #[test]
    fn one_look_is_not_enough() {
        let mut scene = Scene::of(3);
        assert_eq!(scene.sweep(0, 0, &[-100, 10, 10]), (vec![], false));
        assert_eq!(scene.sweep(5, 0, &[-100, 12, 12]), (vec![], false));
        assert_eq!(scene.sweep(10, 0, &[-100, 18, 18]), (vec![0], false));
    }

    #[test]
    fn a_renewed_lease_is_watched_anew() {
        let mut scene = Scene::of(3);
        scene.sweep(0, 0, &[5, 10, 10]);
        scene.sweep(6, 0, &[7, 15, 15]);
        assert_eq!(scene.sweep(10, 0, &[7, 19, 19]), (vec![], false));
        assert_eq!(scene.sweep(16, 0, &[7, 25, 25]), (vec![0], false));
    }

    #[test]
    fn a_clock_that_jumps_ahead_expires_nobody_who_beats() {
        let mut scene = Scene::of(2);
        scene.sweep(0, 0, &[10, 10]);
        // The database's clock is an hour ahead: every deadline is past.
        assert_eq!(scene.sweep(9, 3600, &[10, 10]), (vec![], true));
        // One beats again; the other does not, and is found dead an interval after the jump.
        assert_eq!(scene.sweep(12, 3600, &[3622, 10]), (vec![], false));
        assert_eq!(scene.sweep(19, 3600, &[3629, 10]), (vec![1], false));
    }

    #[test]
    fn a_clock_that_jumps_back_does_not_keep_the_dead() {
        let mut scene = Scene::of(2);
        scene.sweep(0, 0, &[10, 10]);
        // The database's clock is an hour behind: every deadline is an hour ahead. One goes on beating.
        assert_eq!(scene.sweep(1, -3600, &[10, 11]), (vec![], true));
        assert_eq!(scene.sweep(10, -3600, &[10, 12]), (vec![], false));
        assert_eq!(scene.sweep(11, -3600, &[10, 13]), (vec![0], false));
    }

    #[test]
    fn a_drift_of_a_second_is_no_jump() {
        let mut scene = Scene::of(1);
        scene.sweep(0, 0, &[10]);
        assert_eq!(scene.sweep(3, 1, &[13]), (vec![], false));
        assert_eq!(scene.sweep(6, 3, &[17]), (vec![], true));
    }

    #[test]
    fn half_of_the_sessions_are_no_mass_death() {
        let mut scene = Scene::of(2);
        scene.sweep(0, 0, &[-5, 10]);
        assert_eq!(scene.sweep(10, 0, &[-5, 20]), (vec![0], false));
    }

    #[test]
    fn mass_death_waits_one_interval_more() {
        let mut scene = Scene::of(3);
        scene.sweep(0, 0, &[-5, -5, 10]);
        assert_eq!(scene.sweep(10, 0, &[-5, -5, 20]), (vec![], true));
        assert_eq!(scene.sweep(19, 0, &[-5, -5, 29]), (vec![], true));
        assert_eq!(scene.sweep(20, 0, &[-5, -5, 30]), (vec![0, 1], false));
    }

    #[test]
    fn a_session_that_is_gone_is_forgotten() {
        let mut scene = Scene::of(2);
        scene.sweep(0, 0, &[5, 100]);
        scene.sessions.remove(0);
        scene.sweep(1, 0, &[100]);
        assert_eq!(scene.sightings.leases.len(), 1);
    }
}
