//! The command as a process, as operators run it.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod acts;
mod console;
mod demo;
mod deploy;
mod doctor;
mod help;
mod kept;
mod mistakes;
mod rig;
mod rules;
mod settings;
mod story;
mod texts;
