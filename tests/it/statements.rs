//! The statements themselves: their text, how the server carries them out, and how often a call waits for it.

mod plans;
mod round_trips;
mod snapshots;
pub(crate) mod sql;
