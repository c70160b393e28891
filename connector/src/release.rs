//! The session's task that lets go of what dropped guards held.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::end;
use crate::session::Core;
use crate::work::Release;

/// Lets go of each work, in its own time. What it cannot let go of while the session lives is expired with it.
pub(crate) async fn run(core: Arc<Core>, mut queue: mpsc::UnboundedReceiver<Release>) {
    loop {
        let release = tokio::select! {
            biased;
            () = core.lost.cancelled() => return,
            () = core.ended.cancelled() => return,
            release = queue.recv() => release.expect("BUG: the core holds a sender"),
        };
        let mut attempts = 0;
        while let Err(error) = end::release(&core, &release).await {
            attempts += 1;
            tracing::warn!(session = %core.id, machine = %release.machine(), attempts, %error, "a dropped work is still held");
            tokio::select! {
                () = core.lost.cancelled() => return,
                () = core.ended.cancelled() => return,
                () = tokio::time::sleep(crate::tx::pause_after(attempts + 4)) => {}
            }
        }
    }
}
