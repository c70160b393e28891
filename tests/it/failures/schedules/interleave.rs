//! The scheduler: lets one statement pass at a time.

use std::any::Any;
use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, Statement, TransactionTrait};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::scene::Arrival;
use crate::claims::stress::waiting_for_a_lock;

pub(super) enum State {
    /// Let pass and not seen since: the server works on it, or it waits for a lock.
    Running,
    Waiting(Arrival),
    AtGate,
    Done,
}

/// What came of one schedule.
pub(super) struct Run {
    /// Who went when.
    pub(super) order: Vec<usize>,
    /// Which participants were done, and with success, when each one's last COMMIT was let pass.
    pub(super) before_commit: Vec<Vec<bool>>,
    pub(super) succeeded: Vec<bool>,
}

/// Who it was, whether it did what it wanted, and what must not be dropped before the schedule is over, because it would send statements.
pub(super) type Answer = (usize, bool, Box<dyn Any + Send>);

/// Runs the tasks, one statement at a time. A task's answer says whether it did what it wanted.
pub(super) async fn interleave(
    raw: &DatabaseConnection,
    random: &mut fastrand::Rng,
    mut arrivals: mpsc::UnboundedReceiver<Arrival>,
    mut tasks: JoinSet<Answer>,
    calm_down: impl FnOnce(),
) -> Run {
    let count = tasks.len();
    // Some are quick and some are slow, so that one overtakes another by many statements as often as by one.
    let weights: Vec<u32> = (0..count).map(|_| 4_u32.pow(random.u32(0..4))).collect();
    let gates = Gates::closed(raw, count).await;
    let mut kept = Vec::new();
    // Who has no more to say: it is done, or its caller is gone, and what it has begun goes on.
    let mut ended = vec![false; count];
    let mut states: Vec<State> = (0..count).map(|_| State::Running).collect();
    let mut run = Run {
        order: Vec::new(),
        before_commit: vec![vec![false; count]; count],
        succeeded: vec![false; count],
    };
    loop {
        // Until everybody waits, is done, or waits for a lock that another one holds.
        let mut looked = 0;
        while states.iter().any(|state| matches!(state, State::Running)) {
            tokio::select! {
                biased;
                arrival = arrivals.recv() => {
                    let arrival = arrival.expect("the proxies hold senders");
                    let place = arrival.participant;
                    // What the session's own tasks send when the participant is done passes: its end is dropped.
                    if !ended[place] {
                        states[place] = State::Waiting(arrival);
                    }
                }
                Some(answer) = tasks.join_next() => {
                    let (place, succeeded, keep) = answer.expect("no participant panics");
                    kept.push(keep);
                    states[place] = State::Done;
                    ended[place] = true;
                    run.succeeded[place] = succeeded;
                }
                () = tokio::time::sleep(Duration::from_millis(2)) => {
                    looked += 1;
                    for place in gates.waiting(raw).await {
                        states[place] = State::AtGate;
                    }
                    let running = states.iter().filter(|state| matches!(state, State::Running)).count();
                    let others = states.iter().any(|state| matches!(state, State::Waiting(_) | State::AtGate));
                    if others && waiting_for_a_lock(raw).await >= running {
                        break;
                    }
                    if looked > 5000 {
                        panic!("a schedule does not go on: {:?}; {}", run.order, activity(raw).await);
                    }
                }
            }
        }
        let waiting: Vec<usize> = (0..count)
            .filter(|place| matches!(states[*place], State::Waiting(_) | State::AtGate))
            .collect();
        if waiting.is_empty() {
            gates.open().await;
            // Before what was kept is dropped.
            calm_down();
            return run;
        }
        let next = chosen(random, &waiting, &weights);
        run.order.push(next);
        let goes_on = if ended[next] { State::Done } else { State::Running };
        match std::mem::replace(&mut states[next], goes_on) {
            State::Waiting(arrival) => {
                if arrival.commits {
                    run.before_commit[next] = run.succeeded.clone();
                }
                // Its connection may have ended meanwhile.
                let _passed = arrival.pass.send(());
            }
            State::AtGate => gates.pass(next).await,
            State::Running | State::Done => unreachable!("it was chosen among those that wait"),
        }
    }
}

pub(super) fn chosen(random: &mut fastrand::Rng, waiting: &[usize], weights: &[u32]) -> usize {
    let all: u32 = waiting.iter().map(|place| weights[*place]).sum();
    let mut left = random.u32(..all);
    for place in waiting {
        match left.checked_sub(weights[*place]) {
            Some(rest) => left = rest,
            None => return *place,
        }
    }
    unreachable!("the weights add up")
}

/// Locks that are no one's but the scheduler's: who waits for one is inside a statement.
pub(super) struct Gates {
    connection: DatabaseTransaction,
}

impl Gates {
    async fn closed(raw: &DatabaseConnection, count: usize) -> Self {
        let gates = Self {
            connection: raw.begin().await.unwrap(),
        };
        for place in 0..count {
            gates.run(&format!("SELECT pg_advisory_lock({place})")).await;
        }
        gates
    }

    async fn run(&self, sql: &str) {
        self.connection.execute_unprepared(sql).await.unwrap();
    }

    async fn waiting(&self, raw: &DatabaseConnection) -> Vec<usize> {
        let at_gates = "SELECT CAST(objid AS BIGINT) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let statement = Statement::from_string(raw.get_database_backend(), at_gates);
        let place = |row: &sea_orm::QueryResult| usize::try_from(row.try_get_by_index::<i64>(0).unwrap()).unwrap();
        raw.query_all_raw(statement).await.unwrap().iter().map(place).collect()
    }

    /// Opens one, and closes it behind who waited there.
    async fn pass(&self, place: usize) {
        self.run(&format!("SELECT pg_advisory_unlock({place})")).await;
        self.run(&format!("SELECT pg_advisory_lock({place})")).await;
    }

    async fn open(self) {
        self.run("SELECT pg_advisory_unlock_all()").await;
        self.connection.commit().await.unwrap();
    }
}

/// What the server is doing, for the message of a failure.
pub(super) async fn activity(raw: &DatabaseConnection) -> String {
    let sessions = "SELECT string_agg(concat_ws(' | ', state, wait_event_type, wait_event, left(query, 200)), '\n') FROM pg_stat_activity \
        WHERE datname = current_database()";
    let statement = Statement::from_string(raw.get_database_backend(), sessions);
    let row = raw
        .query_one_raw(statement)
        .await
        .unwrap()
        .expect("an aggregate has a row");
    row.try_get_by_index(0).unwrap()
}
