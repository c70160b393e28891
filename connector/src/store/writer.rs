//! Who writes, and how its transactions run.

use bmdb_entity::SessionId;
use tokio_util::task::TaskTracker;

use crate::db::database::Database;
use crate::db::transaction::TxRunner;
use crate::runtime::lease::Lease;

/// Who writes: what history keeps of a session.
pub(crate) struct Author<'a> {
    pub(crate) session: SessionId,
    pub(crate) component: &'a str,
    pub(crate) runtime_info: &'a str,
}

/// A session, as its statements need it.
pub(crate) struct Writer<'a> {
    pub(crate) database: &'a Database,
    pub(crate) author: Author<'a>,
    /// Its trust bounds what it writes.
    pub(crate) lease: &'a Lease,
    /// In which its transactions go on when their caller is gone.
    pub(crate) tasks: &'a TaskTracker,
}

impl<'a> Writer<'a> {
    /// What runs the library's own transactions.
    pub(crate) fn runner(&self, doing: &'static str) -> TxRunner<'a> {
        TxRunner {
            tasks: self.tasks,
            trust: Some((self.author.session, self.lease)),
            ..self.database.runner(doing)
        }
    }
}
