//! The two loops that keep a session honest: one renews it, one ends the trust in it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bmdb_entity::WorkId;
use sea_orm::sea_query::Value;
use sea_orm::{ConnectionTrait, DbErr, QueryResult};

use crate::db::timeout::timed_out;
use crate::metrics::{self, StatementKind};
use crate::runtime::lease::BootInstant;
use crate::session::held::StopReason;
use crate::session::shared::{Phase, Shared};

/// Heartbeats every third of the interval until the session is over, and sooner for who needs more trust than is left. A heartbeat that fails is tried
/// again at once, with growing pauses, for as long as there is trust.
pub(crate) async fn beat(shared: Arc<Shared>) {
    let interval = shared.database.config.interval;
    let mut failures = 0;
    let mut last = BootInstant::now();
    loop {
        let asked = async {
            shared.beat_now.notified().await;
            // However many ask, one heartbeat in a tenth of the interval serves them all.
            let passed = BootInstant::now().since(last);
            tokio::time::sleep((interval / 10).saturating_sub(passed)).await;
        };
        // From when the last was sent, not from its answer: that may have been slow, and trust does not wait for it.
        let passed = if failures == 0 {
            shared.lease.age(BootInstant::now())
        } else {
            Duration::ZERO
        };
        tokio::select! {
            () = shared.over() => return,
            () = asked => {}
            () = tokio::time::sleep(pause(interval, failures).saturating_sub(passed)) => {}
        }
        let stalled = shared.ticks.age();
        if stalled > shared.database.config.stall_limit_or_default() {
            return shared.lose(&format!(
                "its runtime ran nothing for {stalled:?}: the process was blocked"
            ));
        }
        let sent = BootInstant::now();
        last = sent;
        let left = shared.lease.remaining(sent);
        let limit = (interval / 3).min(left);
        let renewed = tokio::select! {
            () = shared.over() => return,
            renewed = tokio::time::timeout(limit, renew(&shared)) => renewed,
        };
        let error = match renewed.unwrap_or_else(|_elapsed| Err(timed_out())) {
            Ok(None) => return shared.lose("its deadline has passed or its row is gone"),
            Ok(Some(asked)) => {
                shared.lease.renewed(sent);
                shared.renewed.notify_waiters();
                metrics::beat_answered(BootInstant::now().since(sent), left);
                failures = 0;
                if let Some(reason) = asked.drain {
                    shared.drain_for(&reason);
                }
                for (work, reason) in asked.stops {
                    if let Some(held) = shared.held().get(&work) {
                        held.stop(StopReason::Requested(reason));
                    }
                }
                None
            }
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            failures += 1;
            metrics::beat_failed();
            tracing::warn!(session = %shared.id, failures, %error, "heartbeat failed");
            // What is found wrong with the file ends the session below.
            drop(shared.database.check_answer(&error));
        }
        if let Err(error) = shared.database.check_file() {
            return shared.lose(&error.to_string());
        }
    }
}

/// How long it waits before the next heartbeat, after so many that failed.
fn pause(interval: Duration, failures: u32) -> Duration {
    match failures {
        // A tenth of jitter, so that components that started together do not beat together.
        0 => (interval / 3).mul_f64(0.9 + 0.1 * fastrand::f64()),
        failures => (interval / 100).saturating_mul(failures).min(interval / 10),
    }
}

/// What operators have asked of a session.
#[derive(Default)]
struct AskedOf {
    /// To take no new work, and why.
    drain: Option<String>,
    /// Works that are to stop, and why.
    stops: Vec<(WorkId, String)>,
}

/// One renewal, and what operators have asked of the session. `None`: it is gone.
///
/// The deadline never moves back, and moves by a millisecond at least: when the database's clock has jumped back, collectors still see that the
/// session lives. One that could not move so, because somebody has written `infinity` or a text that is no time, begins anew from now.
async fn renew(shared: &Shared) -> Result<Option<AskedOf>, DbErr> {
    const ASKED: &str = "
        SELECT w.work_id, w.stop_requested, l.drain_requested FROM session_lease l
        LEFT JOIN work w ON w.session_id = l.session_id AND w.stop_requested IS NOT NULL
        WHERE l.session_id = $1";
    let database = &shared.database;
    let interval_ms =
        i64::try_from(database.config.interval.as_millis()).expect("BUG: the interval is at most an hour");
    let values: [Value; 2] = [shared.id.into(), interval_ms.into()];
    let rows = match &database.autocommit {
        None => {
            let renewal = "
                UPDATE session_lease SET deadline = max(ifnull(strftime('%Y-%m-%d %H:%M:%f', deadline, '+0.001 seconds'), ''), {after $2})
                WHERE session_id = $1 AND deadline > {now}";
            let renewal = database.dialect.statement(renewal, values);
            let sent = metrics::now();
            let renewed = database.heartbeats.execute_raw(renewal).await;
            metrics::statement_ended(StatementKind::Heartbeat, sent);
            if renewed?.rows_affected() != 1 {
                return Ok(None);
            }
            database
                .heartbeats
                .query_all_raw(database.dialect.statement(ASKED, [shared.id.into()]))
                .await?
        }
        Some(pools) => {
            // One statement, one round trip. No row: nothing was renewed.
            let renewal = "
                WITH beat AS (
                    UPDATE session_lease SET deadline = greatest(NULLIF(deadline, 'infinity') + INTERVAL '1 millisecond', {after $2})
                    WHERE session_id = $1 AND deadline > {now} RETURNING session_id, drain_requested
                )
                SELECT w.work_id, w.stop_requested, beat.drain_requested FROM beat
                LEFT JOIN work w ON w.session_id = beat.session_id AND w.stop_requested IS NOT NULL";
            let renewal = database.dialect.statement(renewal, values);
            let rows = pools.heartbeats.query(StatementKind::Heartbeat, &renewal).await?;
            if rows.is_empty() {
                return Ok(None);
            }
            rows
        }
    };
    // It was renewed, whatever somebody has written there.
    let reason = |row: &QueryResult, column| {
        let reason = row.try_get_by_index::<Option<String>>(column);
        reason.unwrap_or_else(|_odd| Some("for a reason that cannot be read".to_owned()))
    };
    let mut asked = AskedOf::default();
    for row in &rows {
        let work: Option<WorkId> = row.try_get_by_index(0)?;
        asked.stops.extend(work.zip(reason(row, 1)));
        asked.drain = reason(row, 2);
    }
    Ok(Some(asked))
}

/// Shows the heartbeats, which run on a thread of their own, that the runtime in which the session was started still runs tasks; and that it has ended,
/// which drops this.
pub(crate) async fn tick(runs: Arc<Runs>) {
    let shared = &runs.0;
    let config = &shared.database.config;
    let period = (config.interval / 3).min(config.stall_limit_or_default() / 4);
    loop {
        shared.ticks.tick();
        metrics::ticked(config.interval, config.margin_or_default());
        if let Some(pools) = &shared.database.autocommit {
            // A component that does nothing keeps no connections that it does not need.
            pools.by_keys.give_back_old();
            pools.searches.give_back_old();
        }
        tokio::select! {
            () = shared.over() => return,
            () = tokio::time::sleep(period) => {}
        }
    }
}

/// Its drop is the end of the session, or of the runtime, which may come before the first poll of what it is given to.
pub(crate) struct Runs(pub(crate) Arc<Shared>);

impl Drop for Runs {
    fn drop(&mut self) {
        if !self.0.is_at(Phase::Ended) {
            self.0.lose("the runtime that it was started in has ended");
            // Also in the middle of closing it, with which nobody goes on.
            self.0.advance(Phase::Ended);
        }
    }
}

/// How long the watch sleeps at most. A timer does not count suspend, so trust is checked anew after waking.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Whether a work may be over before the watch, which sleeps, has seen it.
pub(crate) fn is_short(max_run: Option<Duration>) -> bool {
    max_run.is_some_and(|limit| limit < LONGEST_SLEEP)
}

/// Fires the session's token when trust has run out or SQLite's file is not what it was, and a work's when it has run for too long.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut wrong = pin!(shared.database.file_is_wrong());
    let mut late = Duration::ZERO;
    loop {
        let now = BootInstant::now();
        let left = shared.lease.remaining(now);
        if left.is_zero() && late > LONGEST_SLEEP {
            return shared.lose(&format!(
                "no heartbeat succeeded in time: the process was stopped for {late:?}"
            ));
        }
        if left.is_zero() {
            return shared.lose("no heartbeat succeeded in time");
        }
        let mut next = left.min(LONGEST_SLEEP);
        for held in shared.held().values() {
            match held.run_left(now) {
                Some(Duration::ZERO) => held.stop(StopReason::MaxRun),
                Some(left) => next = next.min(left),
                None => {}
            }
        }
        tokio::select! {
            () = shared.over() => return,
            () = shared.wake_watchdog.notified() => {}
            error = &mut wrong => return shared.lose(&error.to_string()),
            () = tokio::time::sleep(next) => {}
        }
        late = BootInstant::now().since(now).saturating_sub(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_works_shorter_than_its_sleep_wake_the_watch() {
        let moment = Duration::from_nanos(1);
        assert!(is_short(Some(Duration::ZERO)) && is_short(Some(LONGEST_SLEEP - moment)));
        assert!(!is_short(Some(LONGEST_SLEEP)) && !is_short(Some(LONGEST_SLEEP + moment)) && !is_short(None));
    }

    #[test]
    fn heartbeats_come_every_third_of_the_interval_and_sooner_after_failures() {
        let seconds = Duration::from_secs;
        for _ in 0..100 {
            let pause = pause(seconds(300), 0);
            assert!((seconds(90)..=seconds(100)).contains(&pause), "{pause:?}");
        }
        let pauses = [1, 2, 9, 10, 11, u32::MAX].map(|failures| pause(seconds(300), failures).as_secs());
        assert_eq!(pauses, [3, 6, 27, 30, 30, 30]);
    }
}
