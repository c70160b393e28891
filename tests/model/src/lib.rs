//! The protocol of BMDB as a model whose every reachable state is looked at.
//!
//! A test of the real library sees the schedules that happen; this sees all of them, for a small fleet: see `README.md` for what it covers and
//! what it found. [`Protocol`] is the model of one [`Config`]; [`search`] looks at all its states; [`Mechanism`] is what can be switched off to
//! see that the search would notice.

pub mod action;
pub mod catalog;
pub mod config;
mod mechanism;
pub mod property;
mod protocol;
mod recovery;
mod search;
pub mod state;
mod step;
mod symmetry;
mod witness;

pub use config::Config;
pub use mechanism::Mechanism;
pub use protocol::Protocol;
pub use search::{Broken, Report, Until, search};
pub use witness::{Witness, Witnesses};
