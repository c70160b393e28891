//! What people ask and order.

pub(crate) mod backoffs;
pub(crate) mod explain;
pub(crate) mod hold;
pub(crate) mod interrupt;
pub(crate) mod machines;
pub(crate) mod obstacles;
pub(crate) mod operations;
pub(crate) mod operator;
pub(crate) mod page;
pub(crate) mod pause;
pub(crate) mod processes;
pub(crate) mod pruning;
pub(crate) mod restore;
pub(crate) mod rules;
pub(crate) mod sessions;
pub(crate) mod until;
pub(crate) mod works;
