//! What the suites stand on: throw-away databases of both kinds, and bounded waiting.
//!
//! Every test runs against the real thing. A [`TestDatabase`] is a new PostgreSQL database or a new SQLite file with the whole schema; tests
//! share nothing and may run side by side. PostgreSQL itself is started once per test process and ends with it.

mod cluster;
mod database;
mod folder;
mod history;
mod mine;
mod on_each_backend;
mod operator;
mod postgres;
mod processes;
mod proxy;
mod small_disk;
mod until;

pub use database::{Backend, NOT_DURABLE, TestDatabase, literal};
pub use history::{Snapshot, Told, check_history};
pub use mine::Mine;
#[doc(hidden)]
pub use on_each_backend::bounded;
pub use operator::ada;
pub use postgres::{Certificates, Clock, OwnServer, Stop, TlsServer, cpu_time, kill};
pub use processes::{AgentRecovery, AgentStart, Connected, Rivet, Survey, Weld, of};
pub use proxy::{Bound, Fate, Fault, Passing, Proxy};
pub use small_disk::SmallDisk;
pub use until::{ACQUIRE, NOISE, PATIENCE, until};

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
