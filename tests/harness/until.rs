//! Waiting for what a test cannot command. How long that may take is said here, once, for a machine whose cores others keep busy.

use std::time::{Duration, Instant};

/// How long tests wait for what must happen. That says nothing of how soon it must: a test that asserts it has a limit of its own, and adds [`NOISE`].
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What a busy machine may add to a time that a test asserts.
pub const NOISE: Duration = Duration::from_secs(10);

/// For how long components of tests wait for a connection, if the test is not about that.
pub const ACQUIRE: Duration = Duration::from_secs(30);

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
