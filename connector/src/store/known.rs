//! What a component remembers of its processes.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::watch;

use crate::db::dialect::Dialect;
use crate::error::Error;
use crate::rules::hint_refresh::HintRefresh;
use crate::store::candidate::ClaimSqls;

/// The row of a process: its slot, and the component that registered it.
pub(crate) type Row = (String, String);

/// A registration under way, for all who wait for it: what came of it, once it is there.
pub(crate) type Registering = watch::Receiver<Option<Result<Row, Error>>>;

/// What a component knows of the row of a process.
pub(crate) enum Registration {
    /// It has made sure of it, with this slot.
    Registered(&'static str),
    UnderWay(Registering),
}

/// What a component remembers of its processes, all of its sessions together.
pub(crate) struct Known {
    /// Those that it has registered, or just registers.
    pub(crate) registered: Mutex<HashMap<&'static str, Registration>>,
    /// What is the same in all of a process's claims.
    pub(crate) sql: ClaimSqls,
    /// When to look after hints.
    pub(crate) refresh: HintRefresh,
}

impl Known {
    pub(crate) fn nothing(dialect: Dialect) -> Self {
        Self {
            registered: Mutex::default(),
            sql: ClaimSqls::new(dialect),
            refresh: HintRefresh::default(),
        }
    }
}
