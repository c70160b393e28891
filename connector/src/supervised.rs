//! Background tasks that a panic does not end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures_util::FutureExt;

use crate::runner::panic_text;

/// How long a task that panicked waits before it begins anew: one that panics at once must not use the processor up.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs what `begin` makes until it comes to its end. A panic is logged with the task's name, and the task begins anew.
pub(crate) async fn supervised<F: Future<Output = ()>>(task: &'static str, mut begin: impl FnMut() -> F) {
    while let Err(panic) = AssertUnwindSafe(async { begin().await }).catch_unwind().await {
        // It may be the log's own.
        let _unlogged = catch_unwind(AssertUnwindSafe(|| {
            tracing::error!(
                task,
                panic = panic_text(panic.as_ref()),
                "a task panicked; it begins anew"
            );
        }));
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_begins_anew_until_it_comes_to_its_end() {
        let mut times = 0;
        let task = supervised("a test's", || {
            times += 1;
            assert!(times != 1, "a test's panic as it begins");
            async move {
                tokio::task::yield_now().await;
                assert!(times > 2, "a test's panic later");
            }
        });
        task.await;
        assert_eq!(times, 3);
    }
}
