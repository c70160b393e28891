//! The Bare Metal Database: sessions and work locks for the control plane of a fleet of machines.
//!
//! One SQL schema about a fleet, and the library through which every component of its control plane connects to it: CockroachDB where a fleet
//! outgrows one server, PostgreSQL for one, SQLite embedded. It answers one question: who may touch this machine now?
//!
//! # The model
//! **The database decides; a process only decides when to stop believing.** All of it is rows that any query can see.
//!
//! - A *machine* is a row; a *tag* is a fact about it in a table of its own ([`provided`], [`agent_started`], or [yours](impl_tag)).
//! - A *process* is a kind of work, a value that implements [`Process`]. It occupies a *slot* of a machine: two processes with one slot exclude each other. Its *rule*,
//!   [`Eligible`], says which machines are fit. A component [registers](Bmdb::register) it once, and is told there whatever is wrong with it.
//! - A [`Session`] is a component's liveness. Heartbeats move its *deadline*, until when the database keeps it. *Trust* is until when the process believes in it, and
//!   always ends earlier: so a holder stops before another can start.
//! - A [`Work`] is a machine that a session holds for one process, over many transactions: [claimed](Session::claim) in one, [finished](Work::finish),
//!   [failed](Work::fail) or [canceled](Work::cancel) in another. Dropping it cancels it. At most one is alive for a machine and slot, by a key.
//! - The [*fence*](Work::fence) of a work is a number that rises with each claim on its machine. A claim takes a machine only if its fence still is what the claim saw,
//!   and every effect outside the database carries it, so that the receiver can refuse who comes late. [`guarded`](Work::guarded) starts no effect that could
//!   arrive after trust has ended.
//! - A [`Collector`], in any component, expires sessions whose deadline has passed and whose lease nobody has moved for an interval. What they held is free after
//!   the process's *cool-down*, in which a command on its way may still arrive.
//! - A *backoff* keeps one process from a machine on which it failed; a [*hold*](Hold) keeps everybody from it; the *history* has one start and one end of each work,
//!   whatever crashed. People act as [`Operator`]s, who have a name and a reason; what they did stays as well.
//! - *Hints* say where a claim looks first, so that it costs the same in a fleet of a million. They promise nothing: each claim verifies by the whole rule, the one
//!   that [`count`](Registered::count) and [`explain`](Registered::explain) use.
//!
//! A component does this itself, or hands a [`Worker`] to the [`Runner`].
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
pub mod metrics;
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
/// The rows as stored, for your own queries: [SeaORM](sea_orm) entities. Tables internal to the library are left out.
pub mod entity {
    pub use bmdb_entity::{
        machine, machine_agent_heartbeat, machine_agent_started, machine_hardware_report,
        machine_os_installation_report, machine_os_installation_request, machine_provided, operation, process,
        process_pause, session, session_lease, work, work_backoff, work_history, work_hold,
    };
}
pub use admin::explain::{ClauseState, Explanation};
pub use admin::hold::Hold;
pub use admin::interrupt::HeldBySession;
pub use admin::machines::{MachineFilter, MachineState, MachineStatus};
pub use admin::obstacles::{Holder, Obstacles};
pub use admin::operator::Operator;
pub use admin::page::{List, Listed, Page, Unreadable};
pub use admin::processes::ProcessStatus;
pub use admin::restore::Restored;
pub use admin::rules::StoredRule;
pub use admin::sessions::SessionStatus;
pub use admin::until::Until;
pub use admin::works::{WorkStatus, WorksOf};
pub use bmdb_entity::{Fence, Generation, MachineId, MachineRow, SessionId, WorkId, tag as impl_tag};
pub use claim::{Claim, ClaimMany};
pub use collector::{Collector, Sweep};
pub use db::config::{Config, Synchronous, runtime_info_of};
pub use db::dialect::Dialect;
pub use db::savepoint::Savepoint;
pub use db::schema::MIGRATIONS;
pub use db::tx::{Tx, TxClosure, TxFnOnce};
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
pub use runtime::escaped::Escaped;
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
