//! The commands as processes, as their users run them.

mod canary;
mod import;
mod postgres;
