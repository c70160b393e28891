//! The suites. Each test says in its name what must hold.

mod bad_input;
mod collect;
mod eligible;
mod migration;
mod runner;
mod session;
mod transact;
mod unknown;
mod work;
mod world;
