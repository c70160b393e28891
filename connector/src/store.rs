//! The statements: a file owns a table or a verb.

pub(crate) mod attempt;
pub(crate) mod candidate;
pub(crate) mod claim_postgres;
pub(crate) mod claim_sqlite;
pub(crate) mod end;
pub(crate) mod exclusion;
pub(crate) mod expiry;
pub(crate) mod hints;
pub(crate) mod history;
pub(crate) mod known;
pub mod machine;
pub(crate) mod process;
pub(crate) mod removal;
pub(crate) mod resolve;
pub(crate) mod rule;
pub mod tag;
pub(crate) mod writer;
