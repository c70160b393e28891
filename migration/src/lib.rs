//! The schema of the Bare Metal Database, step by step, and the verbs that move a database along the steps.
//!
//! [`up`], [`down`], [`fresh`], [`reset`] and [`status`] take a URL and are safe to run in any number of processes at once. The steps name
//! tables and columns as text and never look at today's entities: what a step did stays what it did.
//!
//! # Rules of a step
//! - A step is one change in one statement that can run twice (`IF [NOT] EXISTS`), outside a transaction: CockroachDB has no others.
//! - A step that has been released never changes. A correction is another step.
//! - Expand, then contract. A step may add what older components do not need. A step that removes or tightens what some released component
//!   still uses has `_contract_` in its name and comes a release after the last component that used it: a component refuses to start on a
//!   `_contract_` step that it does not know, and ignores every other one that it does not know.
//! - `create_<table>` makes a table, `add_<table>_<column>` a column that may be null, `index_<table>_<name>` an index, `tune_<what>` a setting. These
//!   words say what `down` destroys.
//!
//! # Roles
//! On a server, `bmdb-migration make-roles` ([`make_roles`]), run once by an administrator, makes `bmdb_migrator`, `bmdb_component` and
//! `bmdb_console`; from then on `up` is run as `bmdb_migrator`, owns what it makes, and gives the other two their rights on it, also on what
//! later steps make. Login roles of your own may be members of these. Grant your own tables in your own steps:
//! `GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE rack TO bmdb_component`.
//!
//! # Tables of your own
//! A crate with tables of its own in the same database has a migrator of its own, with a record of its own, and runs it together with BMDB's:
//! one guard, BMDB's steps first, and undone last.
//!
//! ```no_run
//! use bmdb_migration::{MigrationTrait, MigratorTrait};
//! use sea_orm_migration::sea_orm::DynIden;
//!
//! struct Mine;
//!
//! impl MigratorTrait for Mine {
//!     fn migrations() -> Vec<Box<dyn MigrationTrait>> {
//!         vec![/* your steps, whose tables refer to `machine` */]
//!     }
//!
//!     fn migration_table_name() -> DynIden {
//!         "my_migrations".into()
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     bmdb_migration::cli::main_with::<Mine>() // or `bmdb_migration::up_with::<Mine>(url).await` from code
//! }
//! ```
//!
//! Do not hand such a migrator to SeaORM's own command line, as `sea_orm_migration::cli::run_cli(Mine)`: its `fresh` **drops every table of the
//! database**, BMDB's among them, with no question asked, before it applies the steps of `Mine` alone. And `up` of `Mine` before BMDB's fails on a
//! server, since there is no `machine` to refer to, while on SQLite it makes tables that refer to nothing. `main_with` takes the same words, so
//! `sea-orm-cli migrate -d your/folder fresh` runs it and is safe.

#![allow(
    unreachable_pub,
    reason = "`sea-orm-cli migrate generate` writes `pub struct` into private modules"
)]

mod catalogue;
#[cfg(feature = "cli")]
pub mod cli;
mod destroy;
mod drift;
mod error;
mod guard;
mod migrations;
mod rights;
mod target;
mod verbs;

mod m20261122_000001_create_machine;
mod m20261122_000002_create_session;
mod m20261122_000003_create_session_lease;
mod m20261122_000004_create_work;
mod m20261122_000005_index_work_work_id;
mod m20261122_000006_index_work_session_id;
mod m20261122_000007_create_work_history;
mod m20261122_000008_create_work_backoff;
mod m20261122_000009_create_work_hold;
mod m20261122_000010_create_process;
mod m20261122_000011_create_machine_provided;
mod m20261122_000012_index_machine_provided_identity;
mod m20261122_000013_create_machine_agent_started;
mod m20261122_000014_create_machine_agent_heartbeat;
mod m20261122_000015_create_machine_hardware_report;
mod m20261122_000016_create_machine_os_installation_request;
mod m20261122_000017_create_machine_os_installation_report;
mod m20261122_000018_tune_fillfactor;
mod m20261123_000019_create_work_candidate;
mod m20261123_000020_create_work_retrieval;
mod m20261130_000021_create_session_sighting;
mod m20261130_000022_create_process_rule;
mod m20261130_000023_create_operation;
mod m20261130_000024_index_operation_machine_id;
mod m20261130_000025_add_work_hold_ticket;
mod m20261130_000026_index_machine_provided_provider_id;
mod m20261130_000027_index_machine_provided_address;
mod m20261201_000028_create_process_pause;
mod m20261201_000029_add_session_lease_drain_requested;

pub use destroy::Destroy;
pub use drift::Drift;
pub use error::Error;
pub use migrations::{State, Step};
pub use sea_orm_migration::{MigrationTrait, MigratorTrait};
pub use verbs::{
    down, drift, fresh, make_roles, mark_development, missing_grants, reset, status, unmark_development, up, up_with,
};

/// The steps, in order.
///
/// Its own `up` and `down` are SeaORM's and take no guard; the functions of this crate do.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261122_000001_create_machine::Migration),
            Box::new(m20261122_000002_create_session::Migration),
            Box::new(m20261122_000003_create_session_lease::Migration),
            Box::new(m20261122_000004_create_work::Migration),
            Box::new(m20261122_000005_index_work_work_id::Migration),
            Box::new(m20261122_000006_index_work_session_id::Migration),
            Box::new(m20261122_000007_create_work_history::Migration),
            Box::new(m20261122_000008_create_work_backoff::Migration),
            Box::new(m20261122_000009_create_work_hold::Migration),
            Box::new(m20261122_000010_create_process::Migration),
            Box::new(m20261122_000011_create_machine_provided::Migration),
            Box::new(m20261122_000012_index_machine_provided_identity::Migration),
            Box::new(m20261122_000013_create_machine_agent_started::Migration),
            Box::new(m20261122_000014_create_machine_agent_heartbeat::Migration),
            Box::new(m20261122_000015_create_machine_hardware_report::Migration),
            Box::new(m20261122_000016_create_machine_os_installation_request::Migration),
            Box::new(m20261122_000017_create_machine_os_installation_report::Migration),
            Box::new(m20261122_000018_tune_fillfactor::Migration),
            Box::new(m20261123_000019_create_work_candidate::Migration),
            Box::new(m20261123_000020_create_work_retrieval::Migration),
            Box::new(m20261130_000021_create_session_sighting::Migration),
            Box::new(m20261130_000022_create_process_rule::Migration),
            Box::new(m20261130_000023_create_operation::Migration),
            Box::new(m20261130_000024_index_operation_machine_id::Migration),
            Box::new(m20261130_000025_add_work_hold_ticket::Migration),
            Box::new(m20261130_000026_index_machine_provided_provider_id::Migration),
            Box::new(m20261130_000027_index_machine_provided_address::Migration),
            Box::new(m20261201_000028_create_process_pause::Migration),
            Box::new(m20261201_000029_add_session_lease_drain_requested::Migration),
        ]
    }
}
