//! What others give us: arguments, texts, rows and secrets.

mod any_input;
mod bad_input;
mod canary;
pub(crate) mod hostile;
mod odd_items;
mod odd_rows;
