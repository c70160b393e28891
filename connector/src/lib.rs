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

mod admin;
mod bmdb;
mod claim;
mod collector;
mod db;
mod end;
mod error;
mod rules;
mod runner;
mod runtime;
mod session;
mod store;

pub use bmdb::Bmdb;
pub use bmdb::registered::Registered;
pub use error::backoff_error::BackoffError;
pub use error::config_error::ConfigError;
pub use rules::backoff::Backoff;
pub use store::{machine, tag};
/// The rows as stored, for queries of your own: [SeaORM](sea_orm)'s entities. What is the library's own business is not among them.
pub mod entity {
    pub use bmdb_entity::{
        machine, machine_agent_heartbeat, machine_agent_started, machine_hardware_report,
        machine_os_installation_report, machine_os_installation_request, machine_provided, process, session,
        session_lease, work, work_backoff, work_history, work_hold,
    };
}
pub use admin::explain::{ClauseState, Explanation};
pub use admin::hold::{Hold, Until};
pub use admin::interrupt::HeldBySession;
pub use admin::obstacles::{Holder, Obstacles};
pub use admin::page::{List, Listed, Page, Unreadable};
pub use admin::restore::Restored;
pub use admin::rules::StoredRule;
pub use bmdb_entity::{Fence, Generation, MachineId, MachineRow, SessionId, WorkId, tag as impl_tag};
pub use claim::{Claim, ClaimMany};
pub use collector::{Collector, Sweep};
pub use db::config::{Config, Synchronous, runtime_info_of};
pub use db::dialect::Dialect;
pub use db::savepoint::Savepoint;
pub use db::schema::MIGRATIONS;
pub use db::transaction::{Tx, TxClosure, TxFnOnce};
pub use end::unfinished::Unfinished;
pub use end::{End, EndMany};
pub use error::Error;
pub use rules::check::fit_cause;
pub use rules::eligible::Eligible;
pub use rules::facts::Facts;
pub use rules::process::Process;
pub use rules::select::MachineSelect;
pub use runner::Runner;
pub use runner::lane::WorkerOptions;
pub use runner::tally::Counts;
pub use runner::worker::Worker;
/// The version that this crate is built with.
pub use sea_orm;
pub use session::held::{HeldWork, StopReason};
pub use session::observation::Observation;
pub use session::work::Work;
pub use session::{Drained, Session};
pub use store::tag::{
    agent_heartbeat, agent_started, hardware_report, os_installation_report, os_installation_request, provided,
};
pub use tokio_util::sync::CancellationToken;
