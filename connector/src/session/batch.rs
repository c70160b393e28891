//! Requests of one kind that come while others are under way wait, and are served together: one statement for many.
//!
//! Who asks alone is served at once and where it is, in a statement of its own. The busier a component is, the more each of its statements does, as in
//! the group commit of databases' logs.
//!
//! What serves those who wait runs in a task of the session's, so that nobody ever waits for a future that its caller may not poll. Who is given up
//! while it waits is not served.

use std::any::{Any, TypeId};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::task::TaskTracker;

use crate::db::dialect::Dialect;
use crate::rules::work_key::RuleKey;
use crate::runtime::detach::Detach;
use crate::store::end::EndShape;

/// So many statements of a kind are under way at once in a session before requests wait. With one alone, whoever comes would wait for as long as a
/// statement takes, and the server would have nothing to do between two.
const AT_ONCE: usize = 2;

/// For how many works a statement serves those who ask together, at most; and how many of them. Only those who ask for the same number of works do,
/// and a power of two of them, so that there are few statements to prepare.
const MOST_WORKS: usize = 320;
const MOST: usize = 32;

/// For how many works a statement is served in place, at most: its answer must fit into what lies between a server and a client that does not read.
const MOST_IN_PLACE: usize = 32;

type Kind = (TypeId, usize, Option<EndShape>, Option<RuleKey>);

/// What can be asked for together.
pub(crate) trait Batchable: Send + Sized + 'static {
    type Answer: Send + 'static;

    /// For how many works it asks, the shape in which works are to end, and the rule by which it claims. Only the like are served together.
    fn kind(&self) -> (usize, Option<EndShape>, Option<RuleKey>);

    /// The call that may be given up while this waits. `None`: what is asked for is to be done whoever waits for it.
    fn detach(&self) -> Option<&Detach>;

    /// Answers them in their order.
    fn run(these: Vec<Self>) -> impl Future<Output = Vec<Self::Answer>> + Send;
}

/// A session's queues of requests, by what they ask for.
pub(crate) struct Batcher {
    at_once: usize,
    tasks: TaskTracker,
    runtime: Handle,
    in_place: Arc<Semaphore>,
    /// Who writes alone on SQLite waits here: one writes at a time, and who waits for the file cannot be told to give up.
    pub(crate) alone: Semaphore,
    /// By what they ask for and are answered, and by its kind.
    queues: Mutex<HashMap<Kind, Arc<dyn Any + Send + Sync>>>,
}

impl Batcher {
    /// Their statements run in `tasks` on this runtime, or have a permit to run in place: a connection is theirs until their callers poll them.
    pub(crate) fn new(dialect: Dialect, tasks: &TaskTracker, in_place: &Arc<Semaphore>) -> Self {
        let at_once = match dialect {
            // One writes at a time.
            Dialect::Sqlite => 1,
            Dialect::Postgres | Dialect::Cockroach => AT_ONCE,
        };
        Self {
            at_once,
            tasks: tasks.clone(),
            runtime: Handle::current(),
            in_place: Arc::clone(in_place),
            alone: Semaphore::new(1),
            queues: Mutex::default(),
        }
    }

    /// Has a request served, alone or with others. `None`: it was given up before; or whoever served it panicked, and nobody knows how far it got.
    ///
    /// # Cancel safety
    /// None: for what [`run_detachable`](crate::runtime::detach::run_detachable) runs, which is not dropped with its caller.
    pub(crate) async fn ask<R: Batchable>(&self, request: R) -> Option<R::Answer> {
        self.of(&request).ask(request).await
    }

    fn of<R: Batchable>(&self, request: &R) -> Arc<Queue<R>> {
        let (works, shape, rule) = request.kind();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || -> Arc<dyn Any + Send + Sync> {
            Arc::new(Queue::<R> {
                at_once: self.at_once,
                most: MOST_WORKS.checked_div(works).unwrap_or(MOST).clamp(1, MOST),
                tasks: self.tasks.clone(),
                runtime: self.runtime.clone(),
                in_place: (works <= MOST_IN_PLACE).then(|| Arc::clone(&self.in_place)),
                state: Mutex::new(State {
                    in_place: 0,
                    in_tasks: 0,
                    waiting: VecDeque::new(),
                }),
            })
        };
        let queue = queues
            .entry((TypeId::of::<R>(), works, shape, rule))
            .or_insert_with(new);
        Arc::clone(queue).downcast().expect("BUG: it is kept by its type")
    }
}

/// Those who ask for the same kind of thing.
struct Queue<R: Batchable> {
    /// So many are served, each alone or with others, before more wait.
    at_once: usize,
    /// So many are served together.
    most: usize,
    tasks: TaskTracker,
    runtime: Handle,
    /// `None`: nobody is served in place.
    in_place: Option<Arc<Semaphore>>,
    state: Mutex<State<R>>,
}

struct State<R: Batchable> {
    in_place: usize,
    in_tasks: usize,
    waiting: VecDeque<Waiting<R>>,
}

struct Waiting<R: Batchable> {
    request: R,
    tell: oneshot::Sender<R::Answer>,
}

impl<R: Batchable> Waiting<R> {
    fn is_wanted(&self) -> bool {
        !self.request.detach().is_some_and(Detach::is_given_up)
    }
}

enum Admission<R: Batchable> {
    /// It may serve itself.
    InPlace(R, OwnedSemaphorePermit),
    Waits(oneshot::Receiver<R::Answer>),
    /// Nobody waits for its answer.
    GivenUp,
}

impl<R: Batchable> Queue<R> {
    async fn ask(self: Arc<Self>, request: R) -> Option<R::Answer> {
        match self.come(request) {
            Admission::InPlace(request, permit) => {
                let served = Served(self, Some(permit));
                let answer = R::run(vec![request]).await.pop();
                drop(served);
                answer
            }
            Admission::Waits(told) => {
                self.start();
                told.await.ok()
            }
            Admission::GivenUp => None,
        }
    }

    fn come(&self, request: R) -> Admission<R> {
        let mut state = self.state();
        // Those who came first are the first to give up: they do not pile up while nobody is served.
        while state.waiting.pop_front_if(|first| !first.is_wanted()).is_some() {}
        if state.waiting.is_empty()
            && state.in_place + state.in_tasks < self.at_once
            && let Some(in_place) = &self.in_place
            && let Ok(permit) = Arc::clone(in_place).try_acquire_owned()
        {
            state.in_place += 1;
            return Admission::InPlace(request, permit);
        }
        if let Some(detach) = request.detach() {
            detach.wait();
            if detach.is_given_up() {
                return Admission::GivenUp;
            }
        }
        let (tell, told) = oneshot::channel();
        state.waiting.push_back(Waiting { request, tell });
        Admission::Waits(told)
    }

    /// Begins to serve those who wait, as far as statements are free.
    fn start(self: &Arc<Self>) {
        while let Some(these) = self.next() {
            let served = Served(Arc::clone(self), None);
            let serving = async move {
                let (requests, tell): (Vec<R>, Vec<_>) = these
                    .into_iter()
                    .map(|Waiting { request, tell }| (request, tell))
                    .unzip();
                let answers = R::run(requests).await;
                drop(served);
                for (tell, answer) in tell.into_iter().zip(answers) {
                    // Who does not hear it is gone with the runtime.
                    let _unheard = tell.send(answer);
                }
            };
            drop(self.tasks.spawn_on(serving, &self.runtime));
        }
    }

    /// The next who are served together. However many are served in place, some always are in a task: nobody knows when those are polled.
    fn next(&self) -> Option<Vec<Waiting<R>>> {
        let mut state = self.state();
        if state.in_tasks > 0 && state.in_place + state.in_tasks >= self.at_once {
            return None;
        }
        loop {
            let mut these: Vec<Waiting<R>> = Vec::new();
            while these.len() < self.most
                && let Some(first) = state.waiting.pop_front()
            {
                these.extend(Some(first).filter(Waiting::is_wanted));
            }
            let power = these.len().checked_ilog2()?;
            for later in these.drain(1 << power..).rev() {
                state.waiting.push_front(later);
            }
            // Hardly ever is one given up right now.
            these.retain(|waiting| waiting.request.detach().is_none_or(Detach::may_begin));
            if !these.is_empty() {
                state.in_tasks += 1;
                return Some(these);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Someone is being served, in place with a permit. When that is over, also by a panic, the next batch starts.
struct Served<R: Batchable>(Arc<Queue<R>>, Option<OwnedSemaphorePermit>);

impl<R: Batchable> Drop for Served<R> {
    fn drop(&mut self) {
        let Self(queue, permit) = self;
        let mut state = queue.state();
        match permit.take() {
            Some(_permit) => state.in_place -= 1,
            None => state.in_tasks -= 1,
        }
        drop(state);
        queue.start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::detach::run_detachable;
    use crate::runtime::detach::tests::poll_once;

    /// A request that is served as soon as it may be, and answered with its number and how many were served together.
    struct Number(u32, Arc<Semaphore>, Option<Detach>);

    impl Batchable for Number {
        type Answer = (u32, usize);

        fn kind(&self) -> (usize, Option<EndShape>, Option<RuleKey>) {
            (10, None, None)
        }

        fn detach(&self) -> Option<&Detach> {
            self.2.as_ref()
        }

        async fn run(these: Vec<Self>) -> Vec<(u32, usize)> {
            let many = these.len();
            these[0].1.acquire().await.expect("BUG: nobody closes it").forget();
            assert!(these[0].0 != PANICS, "it cannot be served");
            these.iter().map(|Self(number, ..)| (*number, many)).collect()
        }
    }

    const PANICS: u32 = 100;

    fn batcher(dialect: Dialect, in_place: usize) -> Arc<Batcher> {
        Arc::new(Batcher::new(
            dialect,
            &TaskTracker::new(),
            &Arc::new(Semaphore::new(in_place)),
        ))
    }

    /// How many are served in place, how many statements run in tasks, how many wait.
    fn counts(batcher: &Batcher) -> (usize, usize, usize) {
        let queue = batcher.of(&Number(0, Arc::new(Semaphore::new(0)), None));
        let state = queue.state();
        (state.in_place, state.in_tasks, state.waiting.len())
    }

    /// In a task.
    fn ask(batcher: &Arc<Batcher>, number: u32, may: &Arc<Semaphore>) -> tokio::task::JoinHandle<Option<(u32, usize)>> {
        let (asked, request) = (Arc::clone(batcher), Number(number, Arc::clone(may), None));
        batcher.tasks.spawn(async move { asked.ask(request).await })
    }

    #[tokio::test]
    async fn who_comes_while_others_are_served_is_served_with_others() {
        for in_place in [0, 1, 2] {
            let (batcher, may) = (batcher(Dialect::Postgres, in_place), Arc::new(Semaphore::new(0)));
            let asked: Vec<_> = (0..9).map(|number| ask(&batcher, number, &may)).collect();
            tokio::task::yield_now().await;
            assert_eq!(counts(&batcher), [(0, 2, 7), (1, 1, 7), (2, 1, 6)][in_place]);
            may.add_permits(9);
            let mut together = Vec::new();
            for (number, asked) in (0..).zip(asked) {
                let answer = asked.await.expect("no panic").expect("an answer");
                assert_eq!(answer.0, number);
                together.push(answer.1);
            }
            let expected = match in_place {
                2 => [1, 1, 1, 4, 4, 4, 4, 2, 2],
                _ => [1, 1, 4, 4, 4, 4, 2, 2, 1],
            };
            assert_eq!(together, expected, "as many as there are, in powers of two");
            assert_eq!(counts(&batcher), (0, 0, 0));
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_those_who_are_not_polled() {
        let (batcher, may) = (batcher(Dialect::Postgres, 5), Arc::new(Semaphore::new(0)));
        let mut unpolled = Vec::new();
        for number in 0..3 {
            let mut asks = Box::pin(batcher.ask(Number(number, Arc::clone(&may), None)));
            poll_once(&mut asks).await;
            unpolled.push(asks);
        }
        may.add_permits(9);
        for number in 3..9 {
            assert_eq!(ask(&batcher, number, &may).await.expect("no panic"), Some((number, 1)));
        }
        // Two were in place, and one had been served in a task.
        assert_eq!(counts(&batcher), (2, 0, 0));
        for (number, asks) in (0..).zip(unpolled) {
            assert_eq!(asks.await, Some((number, 1)));
        }
        assert_eq!(counts(&batcher), (0, 0, 0));
    }

    #[tokio::test]
    async fn sqlite_serves_one_after_the_other() {
        let (batcher, may) = (batcher(Dialect::Sqlite, 0), Arc::new(Semaphore::new(0)));
        let asked: Vec<_> = (0..3).map(|number| ask(&batcher, number, &may)).collect();
        tokio::task::yield_now().await;
        assert_eq!(counts(&batcher), (0, 1, 2));
        may.add_permits(2);
        let mut together = Vec::new();
        for asked in asked {
            together.push(asked.await.expect("no panic").expect("an answer").1);
        }
        assert_eq!(together, [1, 2, 2]);
    }

    #[tokio::test]
    async fn a_panic_leaves_those_who_were_served_with_it_without_an_answer_and_serves_the_next() {
        let (batcher, may) = (batcher(Dialect::Sqlite, 0), Arc::new(Semaphore::new(0)));
        let first = ask(&batcher, 0, &may);
        tokio::task::yield_now().await;
        let panics = ask(&batcher, PANICS, &may);
        tokio::task::yield_now().await;
        let with_it = ask(&batcher, 2, &may);
        tokio::task::yield_now().await;
        may.add_permits(3);
        assert_eq!(first.await.expect("no panic"), Some((0, 1)));
        assert_eq!(panics.await.expect("not its own"), None);
        assert_eq!(with_it.await.expect("no panic"), None);
        assert_eq!(ask(&batcher, 3, &may).await.expect("no panic"), Some((3, 1)));
    }

    #[tokio::test]
    async fn who_gives_up_while_it_waits_is_not_served_and_keeps_nothing() {
        let (batcher, may) = (batcher(Dialect::Postgres, 0), Arc::new(Semaphore::new(0)));
        let tasks = TaskTracker::new();
        let asks = |number: u32| {
            let (batcher, may) = (Arc::clone(&batcher), Arc::clone(&may));
            Box::pin(run_detachable(&tasks, move |detach| async move {
                detach.now().await;
                batcher.ask(Number(number, may, Some(detach))).await
            }))
        };
        let mut asked = Vec::new();
        for number in 0..10 {
            let mut asks = asks(number);
            poll_once(&mut asks).await;
            tokio::task::yield_now().await;
            asked.push(asks);
        }
        assert_eq!((counts(&batcher), tasks.len()), ((0, 2, 8), 10));
        // Two are being served, and go on; of the others, every second one gives up.
        let kept: Vec<_> = asked.into_iter().enumerate().filter(|(nth, _)| nth % 2 == 1).collect();
        tokio::task::yield_now().await;
        assert_eq!(tasks.len(), 6, "of those who have given up, nothing goes on");
        may.add_permits(20);
        for (nth, asks) in kept {
            let together = if nth == 1 { 1 } else { 4 };
            assert_eq!(asks.await, Some(Some((u32::try_from(nth).unwrap(), together))));
        }
        assert_eq!(may.available_permits(), 20 - 3, "so many statements");
        // However many come and give up, few wait.
        let holds = (0..2).map(|number| ask(&batcher, number, &Arc::new(Semaphore::new(0))));
        let holds: Vec<_> = holds.collect();
        tokio::task::yield_now().await;
        for number in 0..1000 {
            let mut asks = asks(number);
            poll_once(&mut asks).await;
            if number % 2 == 0 {
                tokio::task::yield_now().await;
            }
        }
        tokio::task::yield_now().await;
        assert_eq!(tasks.len(), 0);
        assert!(counts(&batcher).2 < 3, "{:?}", counts(&batcher));
        drop(holds);
    }

    #[tokio::test]
    async fn who_is_dropped_is_served_all_the_same() {
        let (batcher, may) = (batcher(Dialect::Postgres, 1), Arc::new(Semaphore::new(0)));
        let tasks = TaskTracker::new();
        let asks = |number: u32| {
            let (batcher, request) = (Arc::clone(&batcher), Number(number, Arc::clone(&may), None));
            Box::pin(run_detachable(
                &tasks,
                |_place| async move { batcher.ask(request).await },
            ))
        };
        for number in 0..4 {
            poll_once(asks(number)).await;
        }
        may.add_permits(4);
        tasks.close();
        tasks.wait().await;
        batcher.tasks.close();
        batcher.tasks.wait().await;
        assert_eq!(counts(&batcher), (0, 0, 0));
    }
}
