//! The rows of the Bare Metal Database, as stored: SeaORM 2 entities, typed ids, and the traits that let a tag of your own join in.
//!
//! | table | one row is |
//! |---|---|
//! | [`machine`] | a machine, with the counter that its claims raise |
//! | [`session`], [`session_lease`] | one component incarnation, and until when it may not be expired |
//! | [`session_sighting`] | for how long collectors have seen a dead session's lease stand |
//! | [`work`] | one live lock: a machine × slot that a session holds |
//! | [`work_history`] | one event in the life of a work; append-only |
//! | [`work_backoff`] | until when one process leaves one machine alone |
//! | [`work_hold`] | until when nobody touches a machine or one of its slots |
//! | [`work_candidate`], [`work_retrieval`] | hints at eligible machines, and whose turn it is to search for more |
//! | [`process`], [`process_rule`] | a process that some component has registered, and which machines it is for |
//! | `machine_*` | a tag: a fact about one machine, at most one row per machine |
//!
//! There is no I/O here. Rows are written by the crate `bmdb`, which knows the protocol; the tables are made by `bmdb-migration`, which never
//! looks at these types, so that its history stays what it was.

mod id;
mod tag;
mod text;

pub mod machine;
pub mod machine_agent_heartbeat;
pub mod machine_agent_started;
pub mod machine_hardware_report;
pub mod machine_os_installation_report;
pub mod machine_os_installation_request;
pub mod machine_provided;
pub mod process;
pub mod process_rule;
pub mod session;
pub mod session_lease;
pub mod session_sighting;
pub mod work;
pub mod work_backoff;
pub mod work_candidate;
pub mod work_history;
pub mod work_hold;
pub mod work_retrieval;

pub use id::{Fence, MachineId, SessionId, WorkId};
pub use tag::{Generation, MachineRow, Tag};
