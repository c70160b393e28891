//! What must come to its end whoever waits for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// A future that runs where it is awaited, as any other; dropped half-way, it goes on in a task of the runtime that it was made in. A task from the
/// beginning would be one more thread to wake for each statement.
pub(crate) struct SpawnOnDrop<F: Future<Output: Send> + Send + 'static> {
    /// `None`: it has come to its end.
    future: Option<Pin<Box<F>>>,
    tasks: TaskTracker,
    runtime: Option<Handle>,
}

impl<F: Future<Output: Send> + Send + 'static> SpawnOnDrop<F> {
    pub(crate) fn new(tasks: &TaskTracker, future: F) -> Self {
        Self {
            future: Some(Box::pin(future)),
            tasks: tasks.clone(),
            runtime: Handle::try_current().ok(),
        }
    }

    /// Drops it, and it does not go on.
    pub(crate) fn stop(mut self) {
        self.future = None;
    }
}

impl<F: Future<Output: Send + 'static> + Send + 'static> SpawnOnDrop<F> {
    /// Has it go on in a task from here. `None`: it has come to its end, or there is no runtime.
    pub(crate) fn into_task(mut self) -> Option<JoinHandle<F::Output>> {
        Some(self.tasks.spawn_on(self.future.take()?, self.runtime.as_ref()?))
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for SpawnOnDrop<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let future = self.future.as_mut().expect("BUG: polled after its end");
        let output = std::task::ready!(future.as_mut().poll(context));
        self.future = None;
        Poll::Ready(output)
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for SpawnOnDrop<F> {
    fn drop(&mut self) {
        // Without a runtime nothing can go on.
        if let (Some(future), Some(runtime)) = (self.future.take(), &self.runtime) {
            drop(self.tasks.spawn_on(future, runtime));
        }
    }
}

/// What a task answered; its panic goes on in the caller. `None`: the runtime is shutting down.
pub(crate) async fn answer_of<T>(task: JoinHandle<T>) -> Option<T> {
    match task.await {
        Ok(answer) => Some(answer),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_shut_down) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_awaited_is_answered() {
        let tasks = TaskTracker::new();
        assert_eq!(SpawnOnDrop::new(&tasks, async { 7 }).await, 7);
        assert!(tasks.is_empty(), "in no task");
    }

    #[tokio::test]
    async fn what_is_dropped_half_way_comes_to_its_end() {
        let tasks = TaskTracker::new();
        let (ask, asked) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let mut half_way = Box::pin(SpawnOnDrop::new(&tasks, async {
            tell.send(asked.await).unwrap();
        }));
        assert!(
            tokio::time::timeout(Duration::ZERO, half_way.as_mut()).await.is_err(),
            "it waits to be asked"
        );
        drop(half_way);
        ask.send("a question").unwrap();
        assert_eq!(told.await, Ok(Ok("a question")));
    }

    #[tokio::test]
    async fn what_is_dropped_outside_of_its_runtime_goes_on_in_it() {
        let tasks = TaskTracker::new();
        let (tell, told) = oneshot::channel();
        let goes_on = SpawnOnDrop::new(&tasks, async { tell.send(()) });
        std::thread::spawn(move || drop(goes_on)).join().unwrap();
        assert_eq!(told.await, Ok(()));
    }

    #[test]
    fn what_is_dropped_without_a_runtime_is_gone() {
        let tasks = TaskTracker::new();
        let (tell, mut told) = oneshot::channel();
        drop(SpawnOnDrop::new(&tasks, async { tell.send(()) }));
        assert!(told.try_recv().is_err() && tasks.is_empty());
    }
}
