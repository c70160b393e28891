//! The suites. Each test says in its name what must hold.

mod collect;
mod migration;
mod session;
mod transact;
mod work;
mod world;
