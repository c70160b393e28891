//! A call of a session's: it runs where it is awaited for as long as it holds nothing that others wait for.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio_util::task::TaskTracker;

use crate::goes_on::GoesOn;
use crate::tx::answer_of;

/// Where a call runs.
#[derive(Clone)]
pub(crate) struct Place(Arc<AtomicBool>);

impl Place {
    /// What runs in a task anyway.
    pub(crate) fn in_a_task() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    fn in_place() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    /// Goes on in a task: what follows would keep others waiting, for a row, a turn or a connection, if the caller did not poll it.
    pub(crate) async fn leave(&self) {
        if !self.0.swap(true, Ordering::AcqRel) {
            tokio::task::yield_now().await;
        }
    }

    fn is_left(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Runs what `begin` makes, in place until it leaves. If the future of the call is dropped, it goes on in a task. `None`: the runtime is shutting down.
pub(crate) async fn call<T, F>(tasks: &TaskTracker, begin: impl FnOnce(Place) -> F) -> Option<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let place = Place::in_place();
    let mut running = GoesOn::new(tasks, begin(place.clone()));
    let answer = poll_fn(|context| match Pin::new(&mut running).poll(context) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending if place.is_left() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    match answer.await {
        Some(answer) => Some(answer),
        None => answer_of(running.into_task()?).await,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Polls a future once; it must not be ready.
    pub(crate) async fn poll_once<F: Future + Unpin>(mut future: F) {
        let is_pending = poll_fn(|context| Poll::Ready(Pin::new(&mut future).poll(context).is_pending()));
        assert!(is_pending.await);
    }

    #[tokio::test]
    async fn a_call_runs_in_no_task_until_it_leaves() {
        let tasks = TaskTracker::new();
        assert_eq!(call(&tasks, |_place| async { 7 }).await, Some(7));
        assert!(tasks.is_empty());
        let (tell, told) = oneshot::channel();
        let mut calls = Box::pin(call(&tasks, |place| async move {
            tokio::task::yield_now().await;
            place.leave().await;
            tell.send(()).expect("somebody asks");
            8
        }));
        poll_once(&mut calls).await;
        assert_eq!(tasks.len(), 0, "it has not left");
        poll_once(&mut calls).await;
        assert_eq!(tasks.len(), 1);
        assert_eq!(told.await, Ok(()), "without being polled by its caller");
        assert_eq!(calls.await, Some(8));
    }

    #[tokio::test]
    async fn a_call_that_is_dropped_may_leave_all_the_same() {
        let tasks = TaskTracker::new();
        let (tell, told) = oneshot::channel();
        let mut calls = Box::pin(call(&tasks, |place| async move {
            tokio::task::yield_now().await;
            place.leave().await;
            place.leave().await;
            tell.send(()).expect("somebody asks");
        }));
        poll_once(&mut calls).await;
        drop(calls);
        assert_eq!(told.await, Ok(()));
    }

    #[tokio::test]
    #[should_panic(expected = "its own")]
    async fn a_panic_after_it_left_is_the_callers() {
        let tasks = TaskTracker::new();
        let calls = call::<(), _>(&tasks, |place| async move {
            place.leave().await;
            panic!("its own");
        });
        assert_eq!(calls.await, None);
    }
}
