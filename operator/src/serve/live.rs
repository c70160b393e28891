//! Pages while they are looked at: each is read once for all who look at it, and only the parts that have changed are sent.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use futures_util::stream;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::failure::{Failure, Kind};
use crate::serve::console::Console;
use crate::serve::page::Page;
use crate::serve::pages;
use crate::serve::view::Part;

/// Reading a page takes at most this part of the time.
const SHARE: u32 = 10;
/// A beat tells who looks that what they see is still so.
const BEAT: Duration = Duration::from_secs(5);
/// A stream that lasts for longer ends, and its browser opens another: so that who has signed out sees no more.
const LONGEST: Duration = Duration::from_secs(300);
/// Browsers that look at once. More are refused, and say that they are stale.
const MOST: usize = 500;

/// The pages that somebody looks at.
#[derive(Default)]
pub(super) struct Hub(Mutex<Watched>);

#[derive(Default)]
struct Watched {
    /// By page, and by whether acts are offered on it.
    pages: HashMap<(Page, bool), watch::Receiver<Arc<Frame>>>,
    readers: JoinSet<()>,
    streams: usize,
}

/// What was read of a page.
struct Frame {
    parts: Result<Vec<Part>, Failure>,
    at: Option<DateTime<Utc>>,
    /// For how long it is what is so, as far as anybody can say.
    good_for: Duration,
}

/// A page that is read more seldom is told to be late.
const LATE: Duration = Duration::from_secs(60);

/// How often a page is read.
pub(super) fn period(page: &Page) -> Duration {
    Duration::from_secs(match page {
        Page::Machine { .. } | Page::Work(_) | Page::Works(_) => 1,
        Page::History(_) | Page::Schema => 15,
        _ => 2,
    })
}

impl Hub {
    fn all(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is read of a page from now on; somebody begins to read it if nobody does.
    fn watch(&self, console: &Arc<Console>, page: Page, may_write: bool) -> watch::Receiver<Arc<Frame>> {
        let mut all = self.all();
        let key = (page, may_write);
        if let Some(frames) = all.pages.get(&key) {
            return frames.clone();
        }
        let empty = Frame {
            parts: Ok(Vec::new()),
            at: None,
            good_for: LATE,
        };
        let (sender, frames) = watch::channel(Arc::new(empty));
        all.pages.insert(key.clone(), frames.clone());
        all.readers.spawn(read(Arc::clone(console), key, sender));
        // Those that have ended are forgotten.
        while all.readers.try_join_next().is_some() {}
        frames
    }

    /// Waits until nobody reads.
    pub(super) async fn end(&self) {
        let mut readers = std::mem::take(&mut self.all().readers);
        readers.shutdown().await;
    }
}

/// Reads a page as long as somebody looks at it.
async fn read(console: Arc<Console>, key: (Page, bool), sender: watch::Sender<Arc<Frame>>) {
    let (page, may_write) = &key;
    loop {
        let began = Instant::now();
        let read = pages::read(&console, page, *may_write).await;
        let pause = period(page).max(began.elapsed() * (SHARE - 1));
        // Until the next has come, which takes as long to read.
        let good_for = pause.min(LATE) + began.elapsed() + 2 * BEAT;
        let (at, parts) = match read {
            Ok(view) => (Some(view.at), Ok(view.parts)),
            Err(failure) => (None, Err(failure)),
        };
        sender.send_replace(Arc::new(Frame { parts, at, good_for }));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = console.stop.cancelled() => return,
        }
        let mut all = console.live.all();
        // One receiver is the hub's.
        if sender.receiver_count() <= 1 {
            all.pages.remove(&key);
            return;
        }
    }
}

/// Somebody who looks.
struct Looking {
    console: Arc<Console>,
    frames: watch::Receiver<Arc<Frame>>,
    /// The digests of what was sent.
    sent: HashMap<&'static str, String>,
    waiting: Vec<Event>,
    /// Until when what was sent is taken for new, though nothing newer has come.
    fresh_until: Option<Instant>,
    ends: Instant,
    has_ended: bool,
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.console.live.all().streams -= 1;
    }
}

/// A stream of what changes on a page.
pub(super) fn stream(console: &Arc<Console>, page: Page, may_write: bool) -> Response {
    {
        let mut all = console.live.all();
        if all.streams >= MOST {
            let failure = Failure::new(Kind::Unreachable, "too many browsers look at once");
            return (axum::http::StatusCode::SERVICE_UNAVAILABLE, failure.text).into_response();
        }
        all.streams += 1;
    }
    let frames = console.live.watch(console, page, may_write);
    let looking = Looking {
        console: Arc::clone(console),
        frames,
        sent: HashMap::new(),
        waiting: Vec::new(),
        fresh_until: None,
        ends: Instant::now() + LONGEST,
        has_ended: false,
    };
    let events = stream::unfold(looking, |mut looking| async move {
        let event = looking.next().await?;
        Some((Ok::<_, Infallible>(event), looking))
    });
    Sse::new(events).into_response()
}

impl Looking {
    async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.waiting.pop() {
            return Some(event);
        }
        if self.has_ended || Instant::now() >= self.ends {
            return None;
        }
        let stop = self.console.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                self.has_ended = true;
                Some(Event::default().event("bye").data("the console ends"))
            }
            changed = self.frames.changed() => {
                changed.ok()?;
                let frame = Arc::clone(&self.frames.borrow_and_update());
                self.take(&frame);
                // The beat stands below the parts, so that it is sent last.
                self.waiting.pop()
            }
            () = tokio::time::sleep(BEAT) => Some(match self.fresh_until {
                Some(until) if Instant::now() < until => Event::default().event("still").data(""),
                // Nothing true can be said of now: a read has failed, or takes too long.
                _ => Event::default().event("late").data("the page is read slowly, or not at all"),
            }),
        }
    }

    /// What this frame has that was not sent.
    fn take(&mut self, frame: &Frame) {
        let parts = match &frame.parts {
            Ok(parts) => parts,
            Err(failure) => {
                self.fresh_until = None;
                let text = crate::serve::parts::text::prose(&failure.text);
                self.waiting.push(Event::default().event("trouble").data(text));
                return;
            }
        };
        self.fresh_until = Some(Instant::now() + frame.good_for);
        let beat = json!({"at": frame.at.map(|at| at.to_rfc3339()), "attention": self.console.counts.attention()});
        self.waiting.push(Event::default().event("beat").data(beat.to_string()));
        for part in parts.iter().rev() {
            let last = self.sent.insert(part.id, part.digest.clone());
            if last.as_ref() != Some(&part.digest) {
                let said = json!({"id": part.id, "digest": part.digest, "html": part.inner()});
                self.waiting.push(Event::default().event("part").data(said.to_string()));
            }
        }
    }
}
