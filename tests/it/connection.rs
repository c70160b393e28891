//! The way to the database: URLs, settings, pools, transactions, and the one file of SQLite.

mod connections;
mod one_file;
mod overload;
mod settings;
mod tls;
pub(crate) mod transact;
mod url;
