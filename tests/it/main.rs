//! The suites. Each test says in its name what must hold.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod claims;
mod connection;
mod failures;
mod house;
mod input;
mod liveness;
mod machines;
mod runner;
mod schema;
mod statements;
mod works;
mod world;
