//! What goes on though it panics.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures_util::FutureExt;

use crate::runtime::retry::Pauses;

/// Runs what `begin` makes, to its end. If it panics, that is logged with its name, and it begins anew after a pause that grows.
pub(crate) async fn supervised<F: Future>(task: &'static str, mut begin: impl FnMut() -> F) -> F::Output {
    let mut pauses = Pauses::default();
    loop {
        let began = Instant::now();
        match AssertUnwindSafe(async { begin().await }).catch_unwind().await {
            Ok(output) => return output,
            Err(panic) => {
                let pause = pauses.after(began.elapsed());
                tracing::error!(
                    task,
                    panic = panic_text(&*panic),
                    ?pause,
                    "a task panicked and begins anew"
                );
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn what_panics_begins_anew_until_it_ends() {
        let times = Cell::new(0);
        let answer = supervised("a test's", || {
            times.set(times.get() + 1);
            assert!(times.get() > 1, "in making it");
            async {
                assert!(times.get() > 2, "in running it");
                "done"
            }
        });
        assert_eq!((answer.await, times.get()), ("done", 3));
    }

    #[test]
    fn a_panic_is_told_in_its_words() {
        let said = |panic: Box<dyn Any + Send>| panic_text(&*panic).to_owned();
        assert_eq!(said(Box::new("a text")), "a text");
        assert_eq!(said(Box::new("a string".to_owned())), "a string");
        assert_eq!(said(Box::new(7)), "without a message");
    }
}
