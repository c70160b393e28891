//! Which sessions a collector calls dead, from what it has seen so far. Pure.

use std::collections::HashMap;
use std::time::Duration;

use bmdb_entity::SessionId;
use chrono::{DateTime, Utc};

use crate::runtime::lease::BootInstant;

/// One session's lease as a sweep has read it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) session: SessionId,
    /// Its deadline as text, which is compared and never understood: whatever somebody wrote there, a heartbeat changes it. `None`: the row is gone.
    pub(crate) deadline: Option<String>,
    pub(crate) interval: Duration,
    /// Whether the deadline has passed, or lies further ahead than a heartbeat can put it: then the database's clock has jumped back.
    pub(crate) past: bool,
    /// For how long it has stood at least: what collectors before have written down, and then what this one knows.
    pub(crate) age: Duration,
}

/// When a sweep read, on the collector's clock and on the database's. The database's lies somewhere between the two moments.
#[derive(Clone, Copy)]
pub(crate) struct Clocks {
    pub(crate) asked: BootInstant,
    pub(crate) answered: BootInstant,
    pub(crate) database: DateTime<Utc>,
}

impl Clocks {
    /// Whether the database's clock went otherwise than ours since `earlier`. However slow the answers were, that alone is no jump.
    fn jumped_since(&self, earlier: &Self) -> bool {
        let least = self.asked.since(earlier.answered).as_secs_f64();
        let most = self.answered.since(earlier.asked).as_secs_f64();
        let theirs = (self.database - earlier.database).as_seconds_f64();
        theirs < least - JUMP || theirs > most + JUMP
    }
}

/// How far the database's clock may drift from ours between two sweeps, in seconds.
const JUMP: f64 = 1.0;

/// How long a lease has stood at least.
struct Standing {
    deadline: Option<String>,
    /// So long at least at that moment.
    age: Duration,
    at: BootInstant,
}

/// What a sweep concludes.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) dead: Vec<Seen>,
    /// Whose deadlines have passed, and who have not been watched for long enough.
    pub(crate) waiting: Vec<Seen>,
    /// Whether sessions that look dead are given more time.
    pub(crate) braked: bool,
}

/// What this collector has seen so far, on its own clock.
#[derive(Default)]
pub(crate) struct Sightings {
    leases: HashMap<SessionId, Standing>,
    clocks: Option<Clocks>,
}

impl Sightings {
    /// Takes in what a sweep has read.
    ///
    /// A session is dead when its deadline has passed and its lease has stood for one interval: whoever wrote that has stopped believing in it by
    /// then, whatever the database's clock did. When most sessions look dead at once, they are given one interval more.
    ///
    /// How long a lease has stood, two collectors may know together: what stood for a second when it was written down, and stands a second after it
    /// was read, has stood for two. Only what each has measured on its own clock counts.
    pub(crate) fn judge(&mut self, clocks: Option<Clocks>, leases: Vec<Seen>) -> Verdict {
        let jumped = clocks
            .zip(self.clocks)
            .is_some_and(|(now, then)| now.jumped_since(&then));
        self.clocks = clocks;
        let mut before = std::mem::take(&mut self.leases);
        let Some(Clocks { answered, .. }) = clocks else {
            return Verdict::default();
        };
        if jumped {
            // Every lease is watched anew, for one whole interval.
            before.clear();
        }
        let sessions = leases.len();
        let (mut looking_dead, mut waiting) = (Vec::new(), Vec::new());
        for mut lease in leases {
            let same = before
                .remove(&lease.session)
                .filter(|then| then.deadline == lease.deadline);
            let own = same.map_or(Duration::ZERO, |then| then.age + answered.since(then.at));
            lease.age = lease.age.max(own);
            let standing = Standing {
                deadline: lease.deadline.clone(),
                age: lease.age,
                at: answered,
            };
            self.leases.insert(lease.session, standing);
            if lease.past && lease.age >= lease.interval {
                looking_dead.push(lease);
            } else if lease.past {
                waiting.push(lease);
            }
        }
        let grace = if looking_dead.len() * 2 > sessions { 2 } else { 1 };
        let (dead, held): (Vec<_>, Vec<_>) = looking_dead
            .into_iter()
            .partition(|lease| lease.age >= lease.interval * grace);
        let braked = jumped || !held.is_empty();
        waiting.extend(held);
        Verdict { dead, waiting, braked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    struct Scene {
        sightings: Sightings,
        start: BootInstant,
        sessions: Vec<SessionId>,
        /// What is written down.
        written: HashMap<SessionId, Duration>,
    }

    impl Scene {
        fn of(sessions: usize) -> Self {
            Self {
                sightings: Sightings::default(),
                start: BootInstant::now(),
                sessions: (0..sessions).map(|_| SessionId::random()).collect(),
                written: HashMap::new(),
            }
        }

        /// A sweep `ours` seconds after the start, with the database's clock `ahead` of ours; `deadlines` are in seconds of the database's.
        fn sweep(&mut self, ours: i64, ahead: i64, deadlines: &[i64]) -> (Vec<usize>, bool) {
            self.slow_sweep(ours, ours, ours + ahead, deadlines)
        }

        /// One that asked and was answered then, when the database's clock said something in between.
        fn slow_sweep(&mut self, asked: i64, answered: i64, database: i64, deadlines: &[i64]) -> (Vec<usize>, bool) {
            let at = |seconds: i64| DateTime::UNIX_EPOCH + chrono::Duration::seconds(1_000_000 + seconds);
            let leases = std::iter::zip(&self.sessions, deadlines)
                .map(|(session, deadline)| Seen {
                    session: *session,
                    deadline: Some(deadline.to_string()),
                    interval: INTERVAL,
                    past: !(database..=database + 10).contains(deadline),
                    age: self.written.get(session).copied().unwrap_or_default(),
                })
                .collect();
            let moment = |seconds: i64| self.start.plus(Duration::from_secs(seconds.unsigned_abs()));
            let clocks = Clocks {
                asked: moment(asked),
                answered: moment(answered),
                database: at(database),
            };
            let verdict = self.sightings.judge(Some(clocks), leases);
            for waiting in verdict.waiting {
                self.written.insert(waiting.session, waiting.age);
            }
            let place = |session| {
                let place = self.sessions.iter().position(|one| *one == session);
                place.expect("is one of ours")
            };
            let dead = verdict.dead.into_iter().map(|dead| place(dead.session)).collect();
            (dead, verdict.braked)
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
    fn slow_answers_are_no_jump() {
        let mut scene = Scene::of(2);
        // The first comes at once, the second two seconds after the server read its clock, the third two seconds before it did, and so on.
        assert_eq!(scene.slow_sweep(0, 0, 0, &[-5, 10]), (vec![], false));
        assert_eq!(scene.slow_sweep(3, 5, 3, &[-5, 13]), (vec![], false));
        assert_eq!(scene.slow_sweep(6, 6, 6, &[-5, 16]), (vec![], false));
        assert_eq!(scene.slow_sweep(7, 9, 9, &[-5, 19]), (vec![], false));
        assert_eq!(scene.slow_sweep(10, 10, 10, &[-5, 20]), (vec![0], false));
        // A jump that no answer was slow enough for.
        assert_eq!(scene.slow_sweep(11, 13, 15, &[-5, 24]), (vec![], true));
        assert_eq!(scene.slow_sweep(14, 16, 12, &[-5, 22]), (vec![], true));
    }

    #[test]
    fn a_lease_has_stood_since_the_answer_that_first_had_it() {
        let mut scene = Scene::of(3);
        // Its heartbeat may have been sent at any time before that answer.
        scene.slow_sweep(0, 4, 1, &[3, 10, 10]);
        assert_eq!(scene.sweep(13, 0, &[3, 20, 20]), (vec![], false));
        assert_eq!(scene.sweep(14, 0, &[3, 20, 20]), (vec![0], false));
    }

    #[test]
    fn collectors_that_live_for_less_than_an_interval_watch_together() {
        let mut scene = Scene::of(3);
        for (begins, dead) in [(0, vec![]), (8, vec![0])] {
            // It begins to watch where the one before it stopped: 6 s and 4 s.
            scene.sightings = Sightings::default();
            assert_eq!(scene.sweep(begins, 0, &[-5, begins + 9, begins + 9]), (vec![], false));
            let at = begins + if begins == 0 { 6 } else { 4 };
            assert_eq!(scene.sweep(at, 0, &[-5, at + 9, at + 9]), (dead, false));
        }
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
        scene.sightings.judge(None, Vec::new());
        assert!(scene.sightings.leases.is_empty());
    }
}
