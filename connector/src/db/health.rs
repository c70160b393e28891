//! What a component has learned about its connections, so that no bad one is used again.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sea_orm::DbErr;

use crate::db::connect::{CheckError, is_time_out};
use crate::db::hosts::Hosts;
use crate::db::timeout::unanswered_because;
use crate::error::fault::Fault;
use crate::runtime::lock::locked;

#[derive(Default)]
pub(crate) struct Health {
    /// Connections that are older fail for ever: their prepared statements are older than the schema, or their server goes down or takes no writes.
    stale_before: Mutex<Option<Instant>>,
    /// When a BEGIN was last given up. Its connection goes back to the pool and may be inside the transaction (launchbadge/sqlx#4393).
    begin_given_up: Mutex<Option<Instant>>,
    /// What was wrong with the last new connection, until one is good.
    refusal: Mutex<Option<String>>,
    /// Where to ask why no connection was to be had, and who is told of doubt; none for SQLite.
    hosts: Option<Arc<Hosts>>,
}

/// A connection that goes back to the pool is checked for no longer than this.
pub(crate) const PROBE_LIMIT: Duration = Duration::from_secs(5);

impl Health {
    pub(crate) fn with(hosts: Arc<Hosts>) -> Self {
        Self {
            hosts: Some(hosts),
            ..Self::default()
        }
    }

    /// What an error means. Notes what older connections would meet too, so that what runs again gets a new one.
    pub(crate) fn learn(&self, error: &DbErr) -> Fault {
        let fault = Fault::of(error);
        if fault.is_of_older_connections() {
            self.all_are_stale();
        }
        if matches!(fault, Fault::Disconnected | Fault::GoesDown | Fault::ReadOnly) {
            self.doubt();
        }
        fault
    }

    /// Whatever is open now is not to be used again.
    pub(crate) fn all_are_stale(&self) {
        note(&self.stale_before);
    }

    fn doubt(&self) {
        if let Some(hosts) = &self.hosts {
            hosts.doubt();
        }
    }

    /// A new connection was good.
    pub(crate) fn let_in(&self) {
        *locked(&self.refusal) = None;
    }

    /// A new connection was not.
    pub(crate) fn refused(&self, error: &CheckError) {
        *locked(&self.refusal) = Some(error.to_string());
        self.doubt();
    }

    /// The answer; if no connection was to be had in time, with the reason.
    pub(crate) async fn told<T>(&self, answer: Result<T, DbErr>) -> Result<T, DbErr> {
        match (answer, &self.hosts) {
            (Err(error), Some(hosts)) if is_time_out(&error) => {
                let refusal = locked(&self.refusal).clone();
                Err(match refusal {
                    Some(refusal) => unanswered_because(refusal),
                    None => hosts.door().why().await,
                })
            }
            (answer, _) => answer,
        }
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
        since(&self.begin_given_up).is_some_and(|passed| passed < 2 * PROBE_LIMIT)
    }
}

fn note(moment: &Mutex<Option<Instant>>) {
    *locked(moment) = Some(Instant::now());
}

fn since(moment: &Mutex<Option<Instant>>) -> Option<Duration> {
    let moment = *locked(moment);
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
        assert_eq!(health.learn(&crate::db::timeout::timed_out()), Fault::Disconnected);
        assert_eq!(health.learn(&DbErr::Custom("a test".into())), Fault::Other);
        assert!(!health.is_stale(Duration::MAX));
    }

    #[test]
    fn a_begin_that_was_given_up_is_remembered_for_as_long_as_its_connection_may_be_looked_at() {
        let health = Health::default();
        assert!(!health.begin_was_given_up());
        health.give_up_begin();
        assert!(health.begin_was_given_up());
        let ago = |passed| *health.begin_given_up.lock().unwrap() = Instant::now().checked_sub(passed);
        ago(PROBE_LIMIT);
        assert!(health.begin_was_given_up());
        ago(2 * PROBE_LIMIT);
        assert!(!health.begin_was_given_up());
    }
}
