//! The one way to the database. It knows no table of ours but the record of steps.

pub(crate) mod address;
pub(crate) mod autocommit;
pub(crate) mod autocommit_pool;
pub(crate) mod config;
pub(crate) mod connect;
pub(crate) mod database;
pub(crate) mod dialect;
pub(crate) mod file;
pub(crate) mod health;
pub(crate) mod heartbeat_thread;
pub(crate) mod hosts;
pub(crate) mod literal;
pub(crate) mod pools;
pub(crate) mod savepoint;
pub(crate) mod schema;
pub(crate) mod server;
pub(crate) mod sql;
pub(crate) mod sqlite;
pub(crate) mod timeout;
pub(crate) mod transaction;
pub(crate) mod tx;
pub(crate) mod tx_error;
