//! Requests of one kind that come while others are under way wait, and are served together: one statement for many.
//!
//! Who asks alone is served at once, in a statement of its own. The busier a component is, the more each of its statements does, as in the group
//! commit of databases' logs.

use std::any::{Any, TypeId};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::dialect::Dialect;
use crate::leave::Way;

/// So many statements of a kind are under way at once in a session before requests wait. With one alone, whoever comes would wait for as long as a
/// statement takes, and the server would have nothing to do between two.
const AT_ONCE: usize = 2;

/// For how many works a statement serves those who ask together, at most; and how many of them. Only those who ask for the same number of works do,
/// and a power of two of them, so that there are few statements to prepare.
const MOST_WORKS: usize = 320;
const MOST: usize = 32;

type Kind = (TypeId, usize, Option<Way>);

/// A session's crowds.
pub(crate) struct Crowds {
    at_once: usize,
    /// By what they ask for and are answered, for how many works, and the way in which works are to end.
    crowds: Mutex<HashMap<Kind, Arc<dyn Any + Send + Sync>>>,
}

impl Crowds {
    pub(crate) fn new(dialect: Dialect) -> Self {
        let at_once = match dialect {
            // One writes at a time.
            Dialect::Sqlite => 1,
            Dialect::Postgres | Dialect::Cockroach => AT_ONCE,
        };
        Self {
            at_once,
            crowds: Mutex::default(),
        }
    }

    pub(crate) fn of<R: Send + 'static, A: Send + 'static>(&self, works: usize, way: Option<Way>) -> Arc<Crowd<R, A>> {
        let mut crowds = self.crowds.lock().unwrap_or_else(PoisonError::into_inner);
        let crowd = crowds
            .entry((TypeId::of::<Crowd<R, A>>(), works, way))
            .or_insert_with(|| {
                let most = MOST_WORKS.checked_div(works).unwrap_or(MOST);
                Crowd::<R, A>::new(self.at_once, most.clamp(1, MOST))
            });
        Arc::clone(crowd).downcast().expect("BUG: it is kept by its type")
    }
}

/// Those who ask for the same kind of thing.
pub(crate) struct Crowd<R, A> {
    /// So many are served, each alone or with others, before more wait.
    at_once: usize,
    /// So many are served together.
    most: usize,
    state: Mutex<State<R, A>>,
}

struct State<R, A> {
    served: usize,
    waiting: VecDeque<Waiting<R, A>>,
}

struct Waiting<R, A> {
    request: R,
    tell: oneshot::Sender<Told<R, A>>,
}

enum Told<R, A> {
    Answer(A),
    /// It serves itself, and these with it.
    Serve(R, Vec<Waiting<R, A>>),
}

impl<R, A> Crowd<R, A> {
    fn new(at_once: usize, most: usize) -> Arc<Self> {
        Arc::new(Self {
            at_once,
            most,
            state: Mutex::new(State {
                served: 0,
                waiting: VecDeque::new(),
            }),
        })
    }

    /// Has a request served, by `serve` or by another's, which answers requests in their order. `None`: whoever served it panicked, and nobody knows
    /// how far it got.
    ///
    /// # Cancel safety
    /// None: call it in a task of the session's, which is not dropped with its caller.
    pub(crate) async fn ask<F>(&self, request: R, serve: impl FnOnce(Vec<R>) -> F) -> Option<A>
    where
        F: Future<Output = Vec<A>>,
    {
        let (request, others) = match self.come(request) {
            Ok(request) => (request, Vec::new()),
            Err(told) => match told.await.ok()? {
                Told::Answer(answer) => return Some(answer),
                Told::Serve(request, others) => (request, others),
            },
        };
        let next = Next(self);
        let (others, tell): (Vec<R>, Vec<_>) = others
            .into_iter()
            .map(|Waiting { request, tell }| (request, tell))
            .unzip();
        let requests = std::iter::once(request).chain(others).collect();
        let mut answers = serve(requests).await.into_iter();
        drop(next);
        let own = answers.next();
        for (tell, answer) in tell.into_iter().zip(answers) {
            // Who does not hear it is gone with the runtime.
            let _unheard = tell.send(Told::Answer(answer));
        }
        own
    }

    /// Serves at once, or waits to be told.
    fn come(&self, request: R) -> Result<R, oneshot::Receiver<Told<R, A>>> {
        let mut state = self.state();
        if state.served < self.at_once {
            state.served += 1;
            return Ok(request);
        }
        let (tell, told) = oneshot::channel();
        state.waiting.push_back(Waiting { request, tell });
        Err(told)
    }

    fn state(&self) -> MutexGuard<'_, State<R, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the first of those who wait serve as many as there are, when one has been served.
struct Next<'a, R, A>(&'a Crowd<R, A>);

impl<R, A> Drop for Next<'_, R, A> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        loop {
            let many = state.waiting.len().min(self.0.most);
            let Some(power) = many.checked_ilog2() else {
                state.served -= 1;
                return;
            };
            let mut others: Vec<_> = state.waiting.drain(..1 << power).collect();
            let Waiting { request, tell } = others.remove(0);
            let Err(Told::Serve(_gone, others)) = tell.send(Told::Serve(request, others)) else {
                return;
            };
            for waiting in others.into_iter().rev() {
                state.waiting.push_front(waiting);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::Semaphore;
    use tokio_util::task::TaskTracker;

    /// Serves as soon as it may, and answers with the request and how many were served together.
    async fn ask(crowd: Arc<Crowd<u32, (u32, usize)>>, request: u32, may: Arc<Semaphore>) -> Option<(u32, usize)> {
        crowd
            .ask(request, |requests| async move {
                may.acquire().await.expect("BUG: nobody closes it").forget();
                let many = requests.len();
                requests.into_iter().map(|request| (request, many)).collect()
            })
            .await
    }

    #[tokio::test]
    async fn who_comes_while_others_are_served_is_served_with_others() {
        let tasks = TaskTracker::new();
        let (crowd, may) = (Crowd::new(2, 4), Arc::new(Semaphore::new(0)));
        let asked: Vec<_> = (0..9)
            .map(|request| tasks.spawn(ask(Arc::clone(&crowd), request, Arc::clone(&may))))
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(crowd.state().waiting.len(), 7, "two are served, and the others wait");
        may.add_permits(9);
        let mut answers = Vec::new();
        for asked in asked {
            answers.push(asked.await.expect("no panic").expect("an answer"));
        }
        let together: Vec<usize> = answers.iter().map(|(_, many)| *many).collect();
        assert_eq!(
            answers.iter().map(|(request, _)| *request).collect::<Vec<_>>(),
            (0..9).collect::<Vec<_>>()
        );
        assert_eq!(
            together,
            [1, 1, 4, 4, 4, 4, 2, 2, 1],
            "as many as there are, in powers of two"
        );
        assert_eq!(crowd.state().served, 0);
    }

    #[tokio::test]
    async fn a_panic_leaves_those_who_were_served_with_it_without_an_answer_and_serves_the_next() {
        let tasks = TaskTracker::new();
        let (crowd, may) = (Crowd::<u32, (u32, usize)>::new(1, 4), Arc::new(Semaphore::new(0)));
        let first = tasks.spawn(ask(Arc::clone(&crowd), 0, Arc::clone(&may)));
        tokio::task::yield_now().await;
        let panics = tasks.spawn({
            let crowd = Arc::clone(&crowd);
            async move { crowd.ask(1, |_| async { panic!("it cannot be served") }).await }
        });
        tokio::task::yield_now().await;
        let with_it = tasks.spawn(ask(Arc::clone(&crowd), 2, Arc::clone(&may)));
        tokio::task::yield_now().await;
        may.add_permits(2);
        assert_eq!(first.await.expect("no panic"), Some((0, 1)));
        assert!(panics.await.is_err());
        assert_eq!(with_it.await.expect("no panic"), None);
        assert_eq!(ask(crowd, 3, may).await, Some((3, 1)));
    }
}
