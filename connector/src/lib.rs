//! The Bare Metal Database: sessions and work locks for the control plane of a fleet of machines.
//!
//! One SQL schema about a fleet, and the library through which every component of its control plane connects to it: CockroachDB where a fleet
//! outgrows one server, PostgreSQL for one, SQLite embedded. Two mechanisms, both plain rows that any query can see:
//!
//! - A [`Session`] is a component's liveness, kept by heartbeats. A session that is not renewed is expired by the [`Collector`] of any other.
//! - A [`Work`] is a machine that a session holds for one [`Process`], over many transactions, so that nobody else does conflicting work on it.
//!   Its [`fence`](Work::fence) goes along with every effect outside the database.
//!
//! The database decides; a process only decides when to stop believing. A component [connects](Bmdb::connect), [starts a
//! session](Bmdb::start_session), [claims](Session::claim), works, and [finishes](Work::finish), [fails](Work::fail) or
//! [cancels](Work::cancel); or hands a [`Worker`] to the [`Runner`], which does all that.
//!
//! # What a component depends on
//! On this crate, on `tokio`, and on SeaORM 2, which is [re-exported](sea_orm) so that the versions agree: with `use bmdb::sea_orm;` in a module, its
//! macros find it there. An entity of your own needs no feature of SeaORM's that this crate does not turn on: `macros`, `with-chrono`, `with-json`, `with-uuid`,
//! and the drivers of PostgreSQL and SQLite with `runtime-tokio-rustls`. The schema is made by `bmdb-migration`, before the component starts.

mod address;
mod attempt;
mod awake;
mod backoff;
mod backoffs;
mod bmdb;
mod call;
mod candidate;
mod claim;
mod collector;
mod config;
mod connect;
mod crowd;
mod database;
mod dialect;
mod doubt;
mod eligible;
mod end;
mod ending;
mod error;
mod expiry;
mod explain;
mod fact;
mod failure;
mod fault;
mod file;
mod goes_on;
mod health;
mod heartbeat_thread;
mod history;
mod hold;
mod hosts;
mod lane;
mod lease;
mod leave;
mod limit;
mod liveness;
mod lock;
mod looking;
pub mod machine;
mod observation;
mod once;
mod operator;
mod page;
mod pause;
mod plain;
mod process;
mod release;
mod restore;
mod runner;
mod savepoint;
mod schema;
mod seen;
mod select;
mod server;
mod session;
mod sightings;
mod single;
mod singles;
mod source;
mod sqlite;
mod stepwise;
mod supervised;
pub mod tag;
mod tally;
mod text;
mod tx;
mod unfinished;
mod verdict;
mod work;
mod worker;

pub use backoff::{Backoff, BackoffError};
pub use bmdb::Bmdb;
/// The rows as stored, for queries of your own: [SeaORM](sea_orm)'s entities. What is the library's own business is not among them.
pub mod entity {
    pub use bmdb_entity::{
        machine, machine_agent_heartbeat, machine_agent_started, machine_hardware_report,
        machine_os_installation_report, machine_os_installation_request, machine_provided, process, session,
        session_lease, work, work_backoff, work_history, work_hold,
    };
}
pub use bmdb_entity::{Fence, Generation, MachineId, MachineRow, SessionId, WorkId, tag as impl_tag};
pub use claim::{Claim, ClaimMany};
pub use collector::{Collector, Sweep};
pub use config::{Config, ConfigError, Synchronous, runtime_info_of};
pub use dialect::Dialect;
pub use eligible::Eligible;
pub use ending::{End, EndMany, fit_cause};
pub use error::Error;
pub use explain::{ClauseState, Explanation, Holder};
pub use fact::Facts;
pub use hold::{Hold, Until};
pub use observation::Observation;
pub use operator::HeldBySession;
pub use page::{List, Listed, Page, Unreadable};
pub use process::Process;
pub use restore::Restored;
pub use runner::Runner;
pub use savepoint::Savepoint;
pub use schema::MIGRATIONS;
/// The version that this crate is built with.
pub use sea_orm;
pub use select::MachineSelect;
pub use session::{Drained, Session};
pub use tag::{
    agent_heartbeat, agent_started, hardware_report, os_installation_report, os_installation_request, provided,
};
pub use tally::Counts;
pub use tokio_util::sync::CancellationToken;
pub use tx::{Tx, TxClosure, TxFnOnce};
pub use unfinished::Unfinished;
pub use work::{HeldWork, StopReason, Work};
pub use worker::Worker;
