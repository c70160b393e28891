//! Keeps a runtime going one of whose threads is blocked.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::runtime::Handle;

/// One of Tokio's threads waits for I/O and timers, for all. If what it runs next blocks it, the others sleep on, and nothing goes on, until one of them
/// is woken from outside and waits in its stead. For as long as this lives, a thread of its own wakes one now and then.
pub(crate) struct Awake(#[expect(dead_code, reason = "its drop ends the thread")] Option<Sender<()>>);

impl Awake {
    const EVERY: Duration = Duration::from_millis(100);

    /// # Panics
    /// Outside of a runtime.
    pub(crate) fn begin() -> Self {
        let runtime = Handle::current();
        let (over, until) = channel();
        let wakes = move || {
            while until.recv_timeout(Self::EVERY) == Err(RecvTimeoutError::Timeout) {
                drop(runtime.spawn(std::future::ready(())));
            }
        };
        let thread = std::thread::Builder::new().name("bmdb-awake".to_owned()).spawn(wakes);
        if let Err(error) = &thread {
            tracing::warn!(%error, "no thread can be started: work that blocks one stops all");
        }
        Self(thread.is_ok().then_some(over))
    }
}
