//! The rows of the Bare Metal Database, as stored: SeaORM 2 entities, typed ids, and the traits that let a tag of your own join in.
//!
//! | table | one row is |
//! |---|---|
//! | [`machine`] | a machine, with the fence that its claims raise |
//! | [`session`], [`session_lease`] | one component incarnation, and until when it may not be expired |
//! | [`session_sighting`] | for how long collectors have seen a dead session's lease stand |
//! | [`work`] | one live lock: a machine × slot that a session holds |
//! | [`work_history`] | one event in the life of a work; append-only |
//! | [`work_backoff`] | until when one process leaves one machine alone |
//! | [`work_hold`] | until when nobody touches a machine or one of its slots |
//! | [`work_candidate`], [`work_retrieval`] | hints at eligible machines, and the leases of those who search for more |
//! | [`process`], [`process_rule`] | a process that some component has registered, and which machines it is for |
//! | [`process_pause`] | until when no component claims for a process |
//! | [`operation`] | one act of an operator, with its reason; append-only |
//! | `machine_*` | a tag: a fact about one machine, at most one row per machine |
//!
//! There is no I/O here. Rows are written by the crate `bmdb`, which knows the protocol; the tables are made by `bmdb-migration`, which never
//! looks at these types, so that its history stays what it was.

mod id;
mod rows;
mod tag;
mod text;

/// A module for each table: its row and, of what SeaORM makes beside it, what queries are written with.
macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident $({ $own:ident })?)*) => { $(
        $(#[$doc])*
        pub mod $name {
            /// How a row is written: SeaORM's `Set` for each value that is to be.
            pub use crate::rows::$name::ActiveModel;
            /// The columns, for conditions and orders.
            pub use crate::rows::$name::Column;
            /// The table, for queries: `Entity::find()`.
            pub use crate::rows::$name::Entity;
            pub use crate::rows::$name::Model;
            /// The columns of the primary key.
            pub use crate::rows::$name::PrimaryKey;
            $(pub use crate::rows::$name::$own;)?
            // The rest of what SeaORM makes: relations, loaders and the like.
            #[doc(hidden)]
            pub use crate::rows::$name::*;
        }
    )* };
}

tables! {
    /// A machine: the thing worked on.
    machine
    /// Tag: the agent on this machine was heard.
    machine_agent_heartbeat
    /// Tag: an agent was started on this machine.
    machine_agent_started
    /// Tag: what hardware this machine is made of.
    machine_hardware_report
    /// Tag: what came of an installation.
    machine_os_installation_report { Outcome }
    /// Tag: an operating system shall be installed on this machine.
    machine_os_installation_request
    /// Tag: a provider gave us this machine.
    machine_provided { Status }
    /// What operators have done, append-only.
    operation
    /// A process that some component has registered.
    process
    /// Until when no component claims for a process, and why.
    process_pause
    /// Which machines a process is for, as a component said it.
    process_rule
    /// A session: the liveness of one component incarnation.
    session
    /// Until when a session may not be expired.
    session_lease
    /// For how long a lease has been seen to stand unchanged.
    session_sighting
    /// A work: a machine that a session holds for one process.
    work
    /// Until when a process leaves a machine alone after failures.
    work_backoff
    /// Hints: which machines are believed to be eligible.
    work_candidate
    /// The audit of all work, append-only.
    work_history { Event }
    /// Until when nobody touches a machine, and why.
    work_hold { ALL_SLOTS }
    /// The searches of the fleet for each rule, and until when somebody has the search lease.
    work_retrieval
}

pub use id::{Fence, MachineId, SessionId, WorkId};
pub use tag::{Generation, MachineRow, Tag};
