//! Who takes part: ours, the limit, a loop by hand, the original's way, and other people's systems.

pub(crate) mod by_hand;
pub(crate) mod clients;
pub(crate) mod install;
pub(crate) mod keys;
pub(crate) mod limit;
pub(crate) mod ours;
pub(crate) mod peers;
pub(crate) mod rules;
pub(crate) mod running;
pub(crate) mod steps;
