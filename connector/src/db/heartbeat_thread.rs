//! The thread on which a component's heartbeats run, whatever else its threads do.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;
use tracing::Dispatch;
use tracing::subscriber::NoSubscriber;

use crate::error::Error;

/// A thread with a runtime of its own, for everything that keeps sessions alive: user code that blocks its own threads costs no session.
///
/// What runs there belongs there: a connection is made, used and given back on the runtime whose reactor it is registered with, or it stands still
/// when another does. The thread ends with this.
pub(crate) struct HeartbeatThread {
    runtime: Handle,
    end: CancellationToken,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl HeartbeatThread {
    /// Starts it. Its log goes where the log of who starts it goes.
    pub(crate) fn start() -> Result<Self, Error> {
        let failed = |source: io::Error| Error::Thread {
            source: Arc::new(source),
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (handle, end) = (runtime.handle().clone(), CancellationToken::new());
        let log = tracing::dispatcher::get_default(Dispatch::clone);
        let ends = end.clone();
        let thread = thread::Builder::new()
            .name("bmdb-heartbeats".to_owned())
            .spawn(move || run(runtime, &ends, &log))
            .map_err(failed)?;
        Ok(Self {
            runtime: handle,
            end,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Makes something that spawns tasks, such as a pool: they run there.
    pub(crate) fn make<T>(&self, make: impl FnOnce() -> T) -> T {
        let _entered = self.runtime.enter();
        make()
    }

    /// Runs a future there. `None`: the thread has ended.
    ///
    /// # Cancel safety
    /// Dropping the future drops the other.
    pub(crate) async fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let mut task = tokio::task::JoinSet::new();
        task.spawn_on(future, &self.runtime);
        task.join_next().await?.ok()
    }

    /// Ends the thread and waits for that.
    pub(crate) async fn join(&self) {
        self.end.cancel();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It is told already, and ends as soon as its tasks are dropped.
            let _ended = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// Without waiting: it may be the thread itself that drops this, or one that must not block.
impl Drop for HeartbeatThread {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

fn run(runtime: Runtime, end: &CancellationToken, log: &Dispatch) {
    let run = || runtime.block_on(end.cancelled());
    // Where there was none, the process may set its own later.
    if log.is::<NoSubscriber>() {
        run();
    } else {
        tracing::dispatcher::with_default(log, run);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_runs_while_others_block_and_ends_when_it_is_joined() {
        let heartbeats = HeartbeatThread::start().expect("a thread can be started");
        let (tell, told) = std::sync::mpsc::channel();
        heartbeats.runtime().spawn(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            tell.send(thread::current().name().map(str::to_owned))
                .expect("somebody waits");
        });
        // This blocks the only thread of the test's runtime.
        assert_eq!(told.recv().expect("it is told").as_deref(), Some("bmdb-heartbeats"));
        assert_eq!(heartbeats.run(async { 7 }).await, Some(7));
        heartbeats.join().await;
        assert_eq!(heartbeats.run(async { 7 }).await, None);
        heartbeats.join().await;
    }

    #[tokio::test]
    async fn it_may_drop_itself() {
        let heartbeats = Arc::new(HeartbeatThread::start().expect("a thread can be started"));
        let thread = heartbeats.thread.lock().unwrap().take().expect("it has one");
        let (own, runtime) = (Arc::clone(&heartbeats), heartbeats.runtime().clone());
        drop(heartbeats);
        runtime.spawn(async move { drop(own) });
        let joined = tokio::task::spawn_blocking(move || thread.join());
        joined.await.expect("it is joined").expect("it did not panic");
    }
}
