//! The schema: its steps, and the rights of those who use it.

mod migration;
pub(crate) mod roles;
