//! Which connections a database has.

use sea_orm::DatabaseConnection;

use crate::db::autocommit_pool::AutocommitPool;

/// Those of all kinds, as they were opened.
pub(crate) struct Pools {
    pub(crate) bodies: DatabaseConnection,
    pub(crate) library: DatabaseConnection,
    pub(crate) reads: DatabaseConnection,
    pub(crate) heartbeats: DatabaseConnection,
    /// None on SQLite, whose one writer is not to be had for one statement more cheaply than for a transaction.
    pub(crate) autocommit: Option<AutocommitPools>,
}

/// Statements that are transactions of their own.
pub(crate) struct AutocommitPools {
    /// Claims by hints, and ends.
    pub(crate) by_keys: AutocommitPool,
    /// Claims that search the fleet.
    pub(crate) searches: AutocommitPool,
    /// On the connections for heartbeats.
    pub(crate) heartbeats: AutocommitPool,
}
