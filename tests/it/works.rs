//! A work from its claim to its end, whoever ends it and whatever becomes of the answer.

mod dropped;
pub(crate) mod facts;
mod logs;
mod unknown;
mod work;
