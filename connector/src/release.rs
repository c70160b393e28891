//! The session's task that lets go of what dropped guards held, and of what claims of unknown outcome may have taken.

use std::sync::Arc;
use std::time::Duration;

use bmdb_entity::WorkId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::end;
use crate::pause::pause_after;
use crate::session::Core;
use crate::work::{Key, Release};

/// A claim that may have taken effect, or still may: its statement can lie in a buffer.
struct Doubt {
    slot: &'static str,
    process: &'static str,
    works: Vec<WorkId>,
    look_at: Instant,
    pause: Duration,
}

impl Doubt {
    fn is_due(&self, now: Instant) -> bool {
        self.look_at <= now
    }

    /// Nothing can be on its way any more.
    fn is_over(&self) -> bool {
        self.pause > LAST_PAUSE
    }

    fn looked_at(mut self, now: Instant) -> Self {
        self.look_at = now + self.pause;
        self.pause *= 2;
        self
    }
}

/// The first look; each further one comes after twice the time.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Linux gives up a connection after 15.4 minutes without an acknowledgement (`tcp_retries2`, tcp(7)). By the look after this pause more than that has
/// passed, and nothing can be on its way any more.
const LAST_PAUSE: Duration = Duration::from_secs(1024);

/// Lets go of each work, in its own time. What it cannot let go of while the session lives is expired with it.
pub(crate) async fn run(core: Arc<Core>, mut queue: mpsc::UnboundedReceiver<Release>) {
    let mut doubts: Vec<Doubt> = Vec::new();
    loop {
        let next_look = doubts.iter().map(|doubt| doubt.look_at).min();
        let release = tokio::select! {
            biased;
            () = core.lost.cancelled() => return,
            () = core.ended.cancelled() => return,
            release = queue.recv() => Some(release.expect("BUG: the core holds a sender")),
            () = tokio::time::sleep_until(next_look.unwrap_or_else(Instant::now)), if next_look.is_some() => None,
        };
        match release {
            Some(Release::Work(key)) => {
                if !let_go(&core, &key).await {
                    return;
                }
            }
            Some(Release::Doubt { slot, process, works }) => doubts.push(Doubt {
                slot,
                process,
                works,
                look_at: Instant::now(),
                pause: FIRST_LOOK,
            }),
            None => {
                for doubt in std::mem::take(&mut doubts) {
                    doubts.extend(look(&core, doubt).await);
                }
            }
        }
    }
}

/// Looks whether a doubted claim has arrived, if it is time. The doubt that is left.
async fn look(core: &Arc<Core>, mut doubt: Doubt) -> Option<Doubt> {
    if !doubt.is_due(Instant::now()) {
        return Some(doubt);
    }
    match end::claimed(core, doubt.slot, doubt.process, &doubt.works).await {
        Ok(keys) => {
            for key in keys {
                let_go(core, &key).await;
                doubt.works.retain(|work| *work != key.work);
            }
            if doubt.works.is_empty() || doubt.is_over() {
                return None;
            }
        }
        Err(error) => {
            tracing::warn!(session = %core.id, process = doubt.process, %error, "what became of a claim is still not known");
        }
    }
    Some(doubt.looked_at(Instant::now()))
}

/// `false`: the session is over, and its works are ended with it.
async fn let_go(core: &Arc<Core>, key: &Key) -> bool {
    for attempts in 1_u32.. {
        let Err(error) = end::release(core, key).await else {
            break;
        };
        tracing::warn!(session = %core.id, machine = %key.machine, attempts, %error, "a dropped work is still held");
        tokio::select! {
            () = core.lost.cancelled() => return false,
            () = core.ended.cancelled() => return false,
            () = tokio::time::sleep(pause_after(attempts + 4)) => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_is_looked_at_less_and_less_often_until_nothing_can_be_on_its_way() {
        let begun = Instant::now();
        let mut doubt = Doubt {
            slot: "",
            process: "",
            works: Vec::new(),
            look_at: begun,
            pause: FIRST_LOOK,
        };
        let mut looks = Vec::new();
        loop {
            let now = doubt.look_at;
            assert!(doubt.is_due(now) && !doubt.is_due(now - Duration::from_millis(1)));
            looks.push((now - begun).as_secs());
            if doubt.is_over() {
                break;
            }
            doubt = doubt.looked_at(now);
        }
        // A connection may live for 15.4 minutes, which are 924 seconds, without an answer.
        assert_eq!(looks, [0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 2047]);
    }
}
