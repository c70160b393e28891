//! Sessions: which components are alive.

use bmdb::SessionStatus;
use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::facts::pages::{Read, read_all};
use crate::failure::Failure;
use crate::source::Source;

/// All of them, silent ones first, then by component.
pub(crate) async fn read(source: &Source) -> Result<Read<SessionStatus>, Failure> {
    let mut sessions = read_all(|| source.bmdb.sessions().limit(10_000)).await?;
    sessions
        .rows
        .sort_by(|a, b| (!is_silent(a), &a.component, a.started_at).cmp(&(!is_silent(b), &b.component, b.started_at)));
    Ok(sessions)
}

/// The one with this id.
pub(crate) async fn find(source: &Source, session: bmdb::SessionId) -> Result<SessionStatus, Failure> {
    let sessions = read(source).await?;
    let found = sessions.rows.into_iter().find(|row| row.session == session);
    found.ok_or_else(|| gone(session))
}

/// It was closed, or has expired.
pub(crate) fn gone(session: bmdb::SessionId) -> Failure {
    Failure::not_found(format!(
        "there is no session {session}: it was closed or has expired. `bmdb machine history` says what it held"
    ))
}

/// Its deadline has passed, or it has none: collectors expire it once they have seen that for an interval.
pub(crate) fn is_silent(session: &SessionStatus) -> bool {
    session.left().is_none_or(|left| left <= TimeDelta::zero())
}

pub(crate) fn as_json(session: &SessionStatus) -> Value {
    json!({
        "session": session.session.to_string(), "component": session.component, "runtime_info": session.runtime_info,
        "started_at": session.started_at.to_rfc3339(), "interval_ms": session.interval.as_millis().to_string(),
        "deadline": session.deadline.map(|at| at.to_rfc3339()), "as_of": session.as_of.to_rfc3339(), "works": session.works.to_string(),
        "silent": is_silent(session),
    })
}
