//! A trap for schema changes that CockroachDB cannot do: `trap.sql`.

use super::{FREELY, run};

/// Sets it in a database, for whoever connects there without [`FREELY`], and in copies of that database.
pub(super) async fn set(url: &str) {
    let set = run(&format!("{url}{FREELY}"), include_str!("trap.sql")).await;
    set.unwrap_or_else(|error| panic!("the trap cannot be set: {error}"));
}
