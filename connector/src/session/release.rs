//! The session's task that releases what dropped guards held, and of what claims of unknown outcome may have taken.

use std::sync::Arc;
use std::time::Duration;

use bmdb_entity::WorkId;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use crate::rules::work_key::RuleKey;
use crate::runtime::detach::Detach;
use crate::runtime::retry::pause_after;
use crate::session::ends::{Ends, Patience, end};
use crate::session::held::Release;
use crate::session::shared::Shared;
use crate::store::end::{EndRequest, EndShape};
use crate::store::resolve::claimed;

/// What dropped guards leave to the task.
pub(crate) type Queue = Mutex<mpsc::UnboundedReceiver<Release>>;

/// A claim that may have taken effect, or still may: its statement can lie in a buffer.
struct PendingRelease {
    slot: &'static str,
    rule: RuleKey,
    works: Vec<WorkId>,
    check_at: Instant,
    pause: Duration,
}

impl PendingRelease {
    fn is_due(&self, now: Instant) -> bool {
        self.check_at <= now
    }

    /// What is left of it when these have arrived.
    fn without(mut self, arrived: &[WorkId]) -> Option<Self> {
        self.works.retain(|work| !arrived.contains(work));
        // After the last pause nothing can be on its way any more.
        (!self.works.is_empty() && self.pause <= LAST_PAUSE).then_some(self)
    }

    fn checked_at(mut self, now: Instant) -> Self {
        self.check_at = now + self.pause;
        self.pause *= 2;
        self
    }
}

/// The first check; each further one comes after twice the time.
const FIRST_CHECK: Duration = Duration::from_secs(1);
/// Linux gives up a connection after 15.4 minutes without an acknowledgement (`tcp_retries2`, tcp(7)). By the check after this pause more than that has
/// passed, and nothing can be on its way any more.
const LAST_PAUSE: Duration = Duration::from_secs(1024);

/// Releases works, many in one statement, in its own time. What it cannot release while the session lives is expired with it.
pub(crate) async fn run(shared: Arc<Shared>, queue: Arc<Queue>) {
    let mut queue = queue.lock().await;
    let (mut doubts, mut stuck): (Vec<PendingRelease>, Vec<Stuck>) = Default::default();
    let mut releases = Vec::new();
    loop {
        let checks = doubts.iter().map(|doubt| doubt.check_at);
        let next_check = checks.chain(stuck.iter().map(|stuck| stuck.again_at)).min();
        tokio::select! {
            biased;
            () = shared.over() => return,
            _many = queue.recv_many(&mut releases, MOST) => {}
            () = tokio::time::sleep_until(next_check.unwrap_or_else(Instant::now)), if next_check.is_some() => {}
        }
        let now = Instant::now();
        let mut works = Vec::new();
        for release in releases.drain(..) {
            match release {
                Release::Work(to_end) => works.push(Stuck::new(to_end, now)),
                Release::InDoubt { slot, rule, works } => doubts.push(PendingRelease {
                    slot,
                    rule,
                    works,
                    check_at: now,
                    pause: FIRST_CHECK,
                }),
            }
        }
        works.extend(stuck.extract_if(.., |stuck| stuck.again_at <= now));
        for doubt in std::mem::take(&mut doubts) {
            doubts.extend(check(&shared, doubt, &mut works).await);
        }
        stuck.extend(release_all(&shared, works).await);
    }
}

/// Checks whether a doubted claim has arrived, if it is time. The doubt that is left.
async fn check(shared: &Arc<Shared>, doubt: PendingRelease, works: &mut Vec<Stuck>) -> Option<PendingRelease> {
    let now = Instant::now();
    if !doubt.is_due(now) {
        return Some(doubt);
    }
    let left = match claimed(&shared.writer(), doubt.slot, doubt.rule, &doubt.works).await {
        Ok(keys) => {
            works.extend(keys.iter().map(|key| Stuck::new(EndRequest::canceled(*key), now)));
            let arrived: Vec<WorkId> = keys.iter().map(|key| key.work).collect();
            doubt.without(&arrived)?
        }
        Err(error) => {
            tracing::warn!(session = %shared.id, process = doubt.rule.process, %error, "what became of a claim is still not known");
            doubt
        }
    };
    Some(left.checked_at(Instant::now()))
}

/// So many are released in one statement, at most.
const MOST: usize = 512;

/// What is to be released, and has been tried so often.
struct Stuck {
    to_end: EndRequest,
    attempts: u32,
    again_at: Instant,
}

impl Stuck {
    fn new(to_end: EndRequest, again_at: Instant) -> Self {
        Self {
            to_end,
            attempts: 0,
            again_at,
        }
    }
}

/// Answers those that it could not release, to be tried again.
async fn release_all(shared: &Arc<Shared>, works: Vec<Stuck>) -> Vec<Stuck> {
    let mut shapes: Vec<(EndShape, Vec<Stuck>)> = Vec::new();
    for work in works {
        let shape = work.to_end.shape();
        match shapes.iter_mut().find(|(same, _)| *same == shape) {
            Some((_, works)) => works.push(work),
            None => shapes.push((shape, vec![work])),
        }
    }
    let mut stuck = Vec::new();
    for (_, mut works) in shapes {
        // A power of two, so that there are few statements to prepare.
        while let Some(power) = works.len().min(MOST).checked_ilog2() {
            let these: Vec<Stuck> = works.drain(..1 << power).collect();
            let to_end = these.iter().map(|stuck| stuck.to_end.clone()).collect();
            // No row: the work has ended some other way, which is all that was wanted.
            let Ends { ended, rest } = end(shared, to_end, Patience::Short, &Detach::in_a_task()).await;
            for Stuck { to_end, .. } in these.iter().filter(|stuck| ended.contains(&stuck.to_end.key.work)) {
                to_end.ending.log(&to_end.key);
            }
            for (to_end, error) in rest {
                let before = these.iter().find(|stuck| stuck.to_end.key == to_end.key);
                let attempts = 1 + before.map_or(0, |stuck| stuck.attempts);
                let machine = to_end.key.machine;
                tracing::warn!(session = %shared.id, %machine, attempts, %error, "a dropped work is still held");
                stuck.push(Stuck {
                    to_end,
                    attempts,
                    again_at: Instant::now() + pause_after(attempts + 4),
                });
            }
        }
    }
    stuck
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubt(works: Vec<WorkId>, check_at: Instant) -> PendingRelease {
        PendingRelease {
            slot: "",
            rule: RuleKey { process: "", digest: 0 },
            works,
            check_at,
            pause: FIRST_CHECK,
        }
    }

    #[test]
    fn what_has_arrived_is_in_doubt_no_more() {
        let works = [WorkId::random(), WorkId::random(), WorkId::random()];
        let left = doubt(works.to_vec(), Instant::now())
            .without(&works[1..2])
            .expect("two are left");
        assert_eq!(left.works, [works[0], works[2]]);
        assert!(left.without(&works).is_none());
    }

    #[test]
    fn a_doubt_is_checked_less_and_less_often_until_nothing_can_be_on_its_way() {
        let begun = Instant::now();
        let mut left = Some(doubt(vec![WorkId::random()], begun));
        let mut checks = Vec::new();
        while let Some(doubt) = left {
            let now = doubt.check_at;
            assert!(doubt.is_due(now) && !doubt.is_due(now - Duration::from_millis(1)));
            checks.push((now - begun).as_secs());
            left = doubt.without(&[]).map(|left| left.checked_at(now));
        }
        // A connection may live for 15.4 minutes, which are 924 seconds, without an answer.
        assert_eq!(checks, [0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 2047]);
    }
}
