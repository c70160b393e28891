//! One test body, every database.

use std::time::Duration;

use crate::until::PATIENCE;

/// For a test that waits for some things in vain.
const LIMIT: Duration = PATIENCE.saturating_mul(3);

/// Makes each function a module of three tests, which hand it a new database with the schema: `sqlite`, `postgres`, and `cockroach_text`, where
/// PostgreSQL is sent CockroachDB's text at its isolation.
///
/// ```text
/// on_each_backend! {
///     async fn a_machine_can_be_registered(db: TestDatabase) {
///         // ..
///     }
/// }
/// ```
///
/// Each test fails after some minutes, so that a deadlock has a name.
#[macro_export]
macro_rules! on_each_backend {
    ($($(#[$attribute:meta])* async fn $name:ident($db:ident: $database:ty) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports, reason = "a body may need nothing from its module")]
            use super::*;

            $(#[$attribute])*
            async fn body($db: $crate::TestDatabase) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                $crate::bounded(async { body($crate::TestDatabase::migrated($crate::Backend::Sqlite).await).await }).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                $crate::bounded(async { body($crate::TestDatabase::migrated($crate::Backend::Postgres).await).await }).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn cockroach_text() {
                $crate::bounded(async { body($crate::TestDatabase::with_cockroach_text().await).await }).await;
            }
        }
    )*};
}

/// As [`on_each_backend!`], for what only a server can do: lose a commit's answer, be killed, wait for a row.
#[macro_export]
macro_rules! on_postgres {
    ($($(#[$attribute:meta])* async fn $name:ident($db:ident: $database:ty) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports, reason = "a body may need nothing from its module")]
            use super::*;

            $(#[$attribute])*
            async fn body($db: $crate::TestDatabase) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                $crate::bounded(async { body($crate::TestDatabase::migrated($crate::Backend::Postgres).await).await }).await;
            }
        }
    )*};
}

#[doc(hidden)]
pub async fn bounded(test: impl Future<Output = ()>) {
    let ended = tokio::time::timeout(LIMIT, test).await;
    assert!(ended.is_ok(), "the test did not end within {LIMIT:?}");
}
