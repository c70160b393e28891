//! The suites. Each test says in its name what must hold.

mod collect;
mod eligible;
mod migration;
mod session;
mod transact;
mod unknown;
mod work;
mod world;
