//! A call of a session's: it runs where it is awaited for as long as it holds nothing that others wait for, and comes to its end once it has begun.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};

use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use crate::runtime::spawn_on_drop::{SpawnOnDrop, answer_of};

/// Where a call runs, and for whom.
#[derive(Clone)]
pub(crate) struct Detach(Arc<State>);

struct State {
    /// It runs in a task.
    is_left: AtomicBool,
    /// Nobody waits for its answer.
    is_gone: AtomicBool,
    /// [`AT_WORK`], [`WAITS`] or [`GIVEN_UP`].
    stake: AtomicU8,
}

/// What it has begun must come to its end.
const AT_WORK: u8 = 0;
/// It has begun nothing, and waits to begin.
const WAITS: u8 = 1;
/// It will never begin.
const GIVEN_UP: u8 = 2;

impl Detach {
    fn new(is_left: bool) -> Self {
        Self(Arc::new(State {
            is_left: AtomicBool::new(is_left),
            is_gone: AtomicBool::new(false),
            stake: AtomicU8::new(AT_WORK),
        }))
    }

    /// What runs in a task anyway.
    pub(crate) fn in_a_task() -> Self {
        Self::new(true)
    }

    /// Goes on in a task: what follows would keep others waiting, for a row, a permit or a connection, if the caller did not poll it.
    pub(crate) async fn now(&self) {
        if !self.0.is_left.swap(true, Ordering::AcqRel) {
            tokio::task::yield_now().await;
        }
    }

    fn is_left(&self) -> bool {
        self.0.is_left.load(Ordering::Acquire)
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.is_gone.load(Ordering::SeqCst)
    }

    /// From here on nothing is begun before [`may_begin`](Self::may_begin): who gives the call up meanwhile drops it, and it does not go on.
    pub(crate) fn wait(&self) {
        self.0.stake.store(WAITS, Ordering::SeqCst);
        if self.is_gone() {
            self.give_up();
        }
    }

    /// Whether what was waited for may begin: it has not been given up. What has begun may not be.
    pub(crate) fn may_begin(&self) -> bool {
        self.change(WAITS, AT_WORK)
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.0.stake.load(Ordering::SeqCst) == GIVEN_UP
    }

    fn give_up(&self) -> bool {
        self.change(WAITS, GIVEN_UP)
    }

    fn change(&self, from: u8, to: u8) -> bool {
        let stake = &self.0.stake;
        stake
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

/// Runs what `begin` makes, in place until it leaves. If the future of the call is dropped, it goes on in a task, unless it [waits](Detach::wait).
/// `None`: the runtime is shutting down.
pub(crate) async fn run_detachable<T, F>(tasks: &TaskTracker, begin: impl FnOnce(Detach) -> F) -> Option<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let detach = Detach::new(false);
    let mut calling = Calling {
        running: Some(SpawnOnDrop::new(tasks, begin(detach.clone()))),
        task: None,
        detach,
    };
    if let Some(answer) = (&mut calling).await {
        return Some(answer);
    }
    let task = calling.running.take()?.into_task()?;
    calling.task = Some(task.abort_handle());
    answer_of(task).await
}

/// A call, as its caller has it.
struct Calling<F: Future<Output: Send> + Send + 'static> {
    running: Option<SpawnOnDrop<F>>,
    task: Option<AbortHandle>,
    detach: Detach,
}

/// `None`: it leaves.
impl<F: Future<Output: Send + 'static> + Send + 'static> Future for Calling<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let running = self.running.as_mut().expect("BUG: it has not left");
        match Pin::new(running).poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if self.detach.is_left() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Calling<F> {
    fn drop(&mut self) {
        self.detach.0.is_gone.store(true, Ordering::SeqCst);
        if self.detach.give_up() {
            if let Some(running) = self.running.take() {
                running.stop();
            }
            if let Some(task) = self.task.take() {
                task.abort();
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::future::poll_fn;

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
        assert_eq!(run_detachable(&tasks, |_place| async { 7 }).await, Some(7));
        assert!(tasks.is_empty());
        let (tell, told) = oneshot::channel();
        let mut calls = Box::pin(run_detachable(&tasks, |detach| async move {
            tokio::task::yield_now().await;
            detach.now().await;
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
        let mut calls = Box::pin(run_detachable(&tasks, |detach| async move {
            tokio::task::yield_now().await;
            detach.now().await;
            detach.now().await;
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
        let calls = run_detachable::<(), _>(&tasks, |detach| async move {
            detach.now().await;
            panic!("its own");
        });
        assert_eq!(calls.await, None);
    }

    /// What a call has done.
    #[derive(Debug, PartialEq)]
    enum Done {
        Waited,
        Begun,
        Ended,
    }

    /// A call that waits to begin, and then for `may_end`.
    async fn waits(
        detach: Detach,
        leaves: bool,
        permit: oneshot::Receiver<()>,
        may_end: oneshot::Receiver<()>,
        tell: tokio::sync::mpsc::UnboundedSender<Done>,
    ) {
        if leaves {
            detach.now().await;
        }
        detach.wait();
        tell.send(Done::Waited).expect("somebody asks");
        let _came = permit.await;
        if detach.may_begin() {
            tell.send(Done::Begun).expect("somebody asks");
            let _may = may_end.await;
            tell.send(Done::Ended).expect("somebody asks");
        }
    }

    #[tokio::test]
    async fn a_call_that_waits_is_given_up_with_its_caller() {
        for leaves in [false, true] {
            let tasks = TaskTracker::new();
            let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
            let (come, permit) = oneshot::channel();
            let (_end, may_end) = oneshot::channel();
            let mut calls = Box::pin(run_detachable(&tasks, |detach| {
                waits(detach, leaves, permit, may_end, tell)
            }));
            poll_once(&mut calls).await;
            assert_eq!(told.recv().await, Some(Done::Waited));
            drop(calls);
            tasks.close();
            tasks.wait().await;
            assert!(come.is_closed(), "nothing is left of it");
            assert_eq!(told.recv().await, None);
        }
    }

    #[tokio::test]
    async fn a_call_that_has_begun_goes_on_without_its_caller() {
        for leaves in [false, true] {
            let tasks = TaskTracker::new();
            let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
            let (come, permit) = oneshot::channel();
            let (end, may_end) = oneshot::channel();
            let mut calls = Box::pin(run_detachable(&tasks, |detach| {
                waits(detach, leaves, permit, may_end, tell)
            }));
            poll_once(&mut calls).await;
            assert_eq!(told.recv().await, Some(Done::Waited));
            come.send(()).expect("it waits");
            poll_once(&mut calls).await;
            assert_eq!(told.recv().await, Some(Done::Begun));
            drop(calls);
            end.send(()).expect("it goes on");
            assert_eq!(told.recv().await, Some(Done::Ended));
        }
    }

    #[test]
    fn what_is_given_up_does_not_begin() {
        let detach = Detach::new(false);
        assert!(!detach.may_begin(), "it does not wait");
        detach.wait();
        assert!(detach.may_begin() && !detach.give_up());
        detach.wait();
        assert!(detach.give_up() && !detach.may_begin());
        // Its caller was gone before it came to wait.
        let detach = Detach::new(false);
        detach.0.is_gone.store(true, Ordering::SeqCst);
        detach.wait();
        assert!(!detach.may_begin());
    }
}
