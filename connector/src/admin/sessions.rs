//! The sessions in the database, as operators see them.

use std::time::Duration;

use bmdb_entity::SessionId;
use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::{DbErr, FromQueryResult, QueryResult};

use crate::admin::page::{List, Listed, sealed};
use crate::bmdb::Bmdb;

/// A session, whoever has it: how it stands by the database's clock, and how many machines it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStatus {
    /// The session.
    pub session: SessionId,
    /// Its component's name; a restart has the same name and another session.
    pub component: String,
    /// Version, host and process of its component, for people.
    pub runtime_info: String,
    /// When it was started.
    pub started_at: DateTime<Utc>,
    /// How long one heartbeat keeps it alive.
    pub interval: Duration,
    /// Until when it may not be expired. `None`: it has no lease, which somebody has removed; a collector expires it.
    pub deadline: Option<DateTime<Utc>>,
    /// When this was so.
    pub as_of: DateTime<Utc>,
    /// How many works it holds.
    pub works: u64,
    /// Why an operator asked it to take no new work.
    pub drain_requested: Option<String>,
}

impl SessionStatus {
    /// How long it has until its deadline, if it has one. Negative: heartbeats have not come in time, and once collectors have seen that for an interval, it
    /// is expired.
    #[must_use]
    pub fn left(&self) -> Option<TimeDelta> {
        self.deadline.map(|deadline| deadline - self.as_of)
    }
}

impl Bmdb {
    /// All sessions, in [pages](List) by their ids. What a page costs grows with the works that its sessions hold, for they are counted.
    ///
    /// ```no_run
    /// # async fn example(bmdb: bmdb::Bmdb) -> Result<(), bmdb::Error> {
    /// for session in bmdb.sessions().await?.rows {
    ///     println!("{} {}: {} works, {:?} left", session.session, session.component, session.works, session.left());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn sessions(&self) -> List<SessionStatus> {
        List::new(self.database(), ())
    }
}

impl FromQueryResult for SessionStatus {
    fn from_query_result(row: &QueryResult, prefix: &str) -> Result<Self, DbErr> {
        let milliseconds: i64 = row.try_get(prefix, "interval_ms")?;
        let works: i64 = row.try_get(prefix, "works")?;
        Ok(Self {
            session: row.try_get(prefix, "session_id")?,
            component: row.try_get(prefix, "component_name")?,
            runtime_info: row.try_get(prefix, "runtime_info")?,
            started_at: row.try_get(prefix, "created_at")?,
            // The table lets no other be.
            interval: Duration::from_millis(u64::try_from(milliseconds).unwrap_or_default()),
            deadline: row.try_get(prefix, "deadline")?,
            as_of: row.try_get(prefix, "as_of")?,
            works: works.unsigned_abs(),
            drain_requested: row.try_get(prefix, "drain_requested")?,
        })
    }
}

impl sealed::Rows for SessionStatus {}

impl Listed for SessionStatus {
    type Key = SessionId;
    type Filter = ();
    const DOING: &'static str = "list sessions";

    fn key(row: &QueryResult) -> Result<Self::Key, DbErr> {
        row.try_get("", "session_id")
    }

    fn select(text: &mut sealed::Select<'_>, _all: &(), after: Option<&Self::Key>) {
        const STATUS: &str = "
            SELECT s.session_id, s.component_name, s.runtime_info, {moment s.created_at} AS created_at, s.interval_ms, {moment l.deadline} AS deadline,
                {now} AS as_of, (SELECT CAST(count(w.work_id) AS BIGINT) FROM work w WHERE w.session_id = s.session_id) AS works,
                l.drain_requested, {id s.session_id} AS row_name
            FROM session s LEFT JOIN session_lease l ON l.session_id = s.session_id";
        let text = text.0.put(STATUS, []);
        if let Some(session) = after {
            text.put(" WHERE s.session_id > $1", [(*session).into()]);
        }
        text.put(" ORDER BY s.session_id", []);
    }
}
