//! Which machines a claim finds, takes and leaves to others, and how that is explained.

mod candidates;
mod crowds;
mod eligible;
mod explain;
mod pauses;
pub(crate) mod rules;
pub(crate) mod stress;
