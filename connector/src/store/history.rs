//! The append-only audit: every claim has one start and, once ended, one end.

use bmdb_entity::SessionId;
use bmdb_entity::work_history::Event;
use sea_orm::DbErr;

use crate::db::sql::SqlBuilder;
use crate::db::tx::Tx;
use crate::rules::work_key::WorkKey;
use crate::store::writer::Author;

/// One event of each work, with its cause, on SQLite. The key (machine, fence, event) refuses a second one of a kind.
pub(crate) fn put<'a>(
    text: &mut SqlBuilder,
    by: &Author<'_>,
    works: impl Iterator<Item = (WorkKey, Option<&'a str>)>,
    event: Event,
) {
    const RECORD: &str = "INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, \
                          at, cause) VALUES ";
    let row = |(key, cause): (WorkKey, Option<&str>)| {
        [
            key.machine.into(),
            key.fence.into(),
            event.to_string().into(),
            key.work.into(),
            key.process().into(),
            key.slot.into(),
            by.session.into(),
            by.component.into(),
            by.runtime_info.into(),
            cause.into(),
        ]
    };
    text.another()
        .put(RECORD, [])
        .each(works, "($1, $2, $3, $4, $5, $6, $7, $8, $9, {now}, $10)", row);
}

/// Sessions as a list in SQL.
pub(crate) struct Sessions(Vec<SessionId>);

impl Sessions {
    pub(crate) fn new(sessions: impl IntoIterator<Item = SessionId>) -> Self {
        Self(sessions.into_iter().collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = SessionId> {
        self.0.iter().copied()
    }

    /// In parentheses. The last one is repeated up to a power of two, so that there are few such statements for a connection to prepare.
    pub(crate) fn put<'t>(&self, text: &'t mut SqlBuilder) -> &'t mut SqlBuilder {
        let last = self.0.last().copied();
        let many = self.0.len().next_power_of_two();
        let padded = self
            .iter()
            .chain(std::iter::repeat_n(last, many - self.0.len()).flatten());
        text.put("(", [])
            .each(padded, "$1", |session| [session.into()])
            .put(")", [])
    }
}

/// Ends every work of a session with the same event, and deletes the session. The caller holds the session's row.
///
/// The works are locked before their history is written: a work that its holder ends at this moment is not ended twice.
pub(crate) async fn end_session(tx: &Tx, session: SessionId, event: Event, cause: Option<&str>) -> Result<(), DbErr> {
    const LOCK: &str = "SELECT machine_id FROM work WHERE session_id = $1 {lock}";
    tx.query_text(LOCK, [session.into()]).await?;
    end_sessions(tx, &Sessions::new([session]), event, cause).await
}

/// Ends every work of these sessions with the same event, and deletes the sessions. The caller holds their rows and those of their works.
pub(crate) async fn end_sessions(tx: &Tx, sessions: &Sessions, event: Event, cause: Option<&str>) -> Result<(), DbErr> {
    const RECORD: &str = "
        INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at, cause)
        SELECT w.machine_id, w.fence, CAST($1 AS TEXT), w.work_id, w.process, w.slot, w.session_id, s.component_name, s.runtime_info,
               {now}, CAST($2 AS TEXT)
        FROM work w JOIN session s ON s.session_id = w.session_id
        WHERE w.session_id IN ";
    const COOL_DOWN: &str = "
        INSERT INTO work_hold (machine_id, slot, until, reason, placed_by, placed_at)
        SELECT w.machine_id, w.slot, {after p.cool_down_ms}, CAST($1 AS TEXT) || {id w.session_id}, CAST($2 AS TEXT), {now}
        FROM work w JOIN process p ON p.name = w.process
        WHERE p.cool_down_ms > 0 AND w.session_id IN ";
    /// A cool-down does not shorten a hold, and does not take over one that lasts longer.
    const NOT_SHORTER: &str = "
        ON CONFLICT (machine_id, slot) DO UPDATE
        SET until = excluded.until, reason = excluded.reason, placed_by = excluded.placed_by, placed_at = excluded.placed_at, ticket = NULL
        WHERE work_hold.until < excluded.until";
    let text = || SqlBuilder::new(tx.dialect());
    let mut record = text();
    sessions.put(record.put(RECORD, [event.to_string().into(), cause.into()]));
    let ended = tx.write(record).await?;
    if ended > 0 {
        if event == Event::Expired {
            let reason = "cool-down after the expiry of session ";
            let mut cool_down = text();
            sessions
                .put(cool_down.put(COOL_DOWN, [reason.into(), COLLECTOR.into()]))
                .put(NOT_SHORTER, []);
            tx.write(cool_down).await?;
        }
        let mut works = text();
        sessions.put(works.put("DELETE FROM work WHERE session_id IN ", []));
        is_all(ended, tx.write(works).await?)?;
    }
    let mut rows = text();
    sessions.put(rows.put("DELETE FROM session WHERE session_id IN ", []));
    is_all(sessions.0.len() as u64, tx.write(rows).await?)
}

/// What was locked is there.
fn is_all(locked: u64, deleted: u64) -> Result<(), DbErr> {
    if locked == deleted {
        return Ok(());
    }
    let text = format!("of {locked} rows that were locked {deleted} were there to be deleted");
    Err(DbErr::Custom(text))
}

/// Who placed a cool-down.
const COLLECTOR: &str = "collector";
