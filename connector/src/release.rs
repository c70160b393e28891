//! The session's task that lets go of what dropped guards held, and of what claims of unknown outcome may have taken.

use std::sync::Arc;
use std::time::Duration;

use bmdb_entity::WorkId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::end;
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
async fn look(core: &Core, mut doubt: Doubt) -> Option<Doubt> {
    if doubt.look_at > Instant::now() {
        return Some(doubt);
    }
    match end::claimed(core, doubt.slot, doubt.process, &doubt.works).await {
        Ok(keys) => {
            for key in keys {
                let_go(core, &key).await;
                doubt.works.retain(|work| *work != key.work);
            }
            if doubt.works.is_empty() || doubt.pause > LAST_PAUSE {
                return None;
            }
        }
        Err(error) => {
            tracing::warn!(session = %core.id, process = doubt.process, %error, "what became of a claim is still not known");
        }
    }
    doubt.look_at = Instant::now() + doubt.pause;
    doubt.pause *= 2;
    Some(doubt)
}

/// `false`: the session is over, and its works are ended with it.
async fn let_go(core: &Core, key: &Key) -> bool {
    let mut attempts = 0;
    while let Err(error) = end::release(core, key).await {
        attempts += 1;
        tracing::warn!(session = %core.id, machine = %key.machine, attempts, %error, "a dropped work is still held");
        tokio::select! {
            () = core.lost.cancelled() => return false,
            () = core.ended.cancelled() => return false,
            () = tokio::time::sleep(crate::tx::pause_after(attempts + 4)) => {}
        }
    }
    true
}
