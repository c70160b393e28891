//! What a component has learned about its connections, so that no bad one is used again.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use sea_orm::DbErr;

use crate::error::Fault;

#[derive(Default)]
pub(crate) struct Health {
    /// A schema change makes the prepared statements of connections that are older fail for ever.
    stale_before: Mutex<Option<Instant>>,
    /// When a BEGIN was last given up. Its connection goes back to the pool and may be inside the transaction (launchbadge/sqlx#4393).
    begin_given_up: Mutex<Option<Instant>>,
}

/// A connection that goes back to the pool is looked at for no longer than this.
pub(crate) const LOOK: Duration = Duration::from_secs(5);

impl Health {
    /// Whether the transaction or read that met this fault may be run again. Notes a stale plan, so that it then gets a new connection.
    pub(crate) fn is_transient(&self, error: &DbErr) -> bool {
        let fault = Fault::of(error);
        if fault == Fault::StalePlan {
            note(&self.stale_before);
        }
        fault.is_transient()
    }

    /// Whether a connection of this age is too old.
    pub(crate) fn is_stale(&self, age: Duration) -> bool {
        since(&self.stale_before).is_some_and(|passed| age >= passed)
    }

    /// To be called before the BEGIN is dropped.
    pub(crate) fn give_up_begin(&self) {
        note(&self.begin_given_up);
    }

    /// Whether a connection that goes back to the pool now may be inside a transaction.
    pub(crate) fn begin_was_given_up(&self) -> bool {
        since(&self.begin_given_up).is_some_and(|passed| passed < 2 * LOOK)
    }
}

fn note(moment: &Mutex<Option<Instant>>) {
    *moment.lock().expect("BUG: nothing panics while it holds this lock") = Some(Instant::now());
}

fn since(moment: &Mutex<Option<Instant>>) -> Option<Duration> {
    let moment = *moment.lock().expect("BUG: nothing panics while it holds this lock");
    moment.map(|moment| moment.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_schema_change_older_connections_are_stale() {
        let health = Health::default();
        assert!(!health.is_stale(Duration::MAX));
        note(&health.stale_before);
        assert!(health.is_stale(Duration::from_secs(3600)) && !health.is_stale(Duration::ZERO));
    }

    #[test]
    fn a_broken_connection_is_transient_and_makes_no_other_one_stale() {
        let health = Health::default();
        assert!(health.is_transient(&crate::limit::unanswered()) && !health.is_stale(Duration::MAX));
        assert!(!health.is_transient(&DbErr::Custom("a test".into())));
    }

    #[test]
    fn a_begin_that_was_given_up_is_remembered_for_as_long_as_its_connection_may_be_looked_at() {
        let health = Health::default();
        assert!(!health.begin_was_given_up());
        health.give_up_begin();
        assert!(health.begin_was_given_up());
        let ago = |passed| *health.begin_given_up.lock().unwrap() = Instant::now().checked_sub(passed);
        ago(LOOK);
        assert!(health.begin_was_given_up());
        ago(2 * LOOK);
        assert!(!health.begin_was_given_up());
    }
}
