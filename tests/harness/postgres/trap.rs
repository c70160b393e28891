//! A trap for schema changes that CockroachDB cannot do: `trap.sql`.

use super::run;

/// Sets it in a database, for whoever connects there without [`OFF`], and in copies of that database.
pub(super) async fn set(url: &str) {
    let set = run(&format!("{url}{OFF}"), include_str!("trap.sql")).await;
    set.unwrap_or_else(|error| panic!("the trap cannot be set: {error}"));
}

/// What a URL says to go free.
pub(crate) const OFF: &str = "?options[bmdb.trap]=off";
