//! What people ask and order.

pub(crate) mod backoffs;
pub(crate) mod explain;
pub(crate) mod hold;
pub(crate) mod interrupt;
pub(crate) mod obstacles;
pub(crate) mod page;
pub(crate) mod restore;
pub(crate) mod rules;
pub(crate) mod sessions;
