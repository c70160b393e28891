//! Waiting for what a test cannot command.

use std::time::{Duration, Instant};

/// Waits until `condition` holds, asking every 10 ms.
///
/// # Panics
/// Panics with `what` if it does not hold within `limit`.
pub async fn until(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < limit, "waited {limit:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
