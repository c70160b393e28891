//! What is done to processes, connections and rows.

use std::time::Duration;

use bmdb::{Bmdb, MachineId};
use harness::{ada, literal};
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseConnection, DbErr, EntityTrait, SqliteTransactionMode,
    TransactionOptions, TransactionTrait,
};

/// What happens to processes and connections, and how often on average.
pub(crate) const DEEDS: [(Deed, Duration); 6] = [
    (Deed::Kill, Duration::from_secs(6)),
    (Deed::Freeze, Duration::from_secs(11)),
    (Deed::Cut, Duration::from_secs(5)),
    (Deed::EndBackend, Duration::from_secs(2)),
    (Deed::Break, Duration::from_secs(17)),
    (Deed::Tamper, Duration::from_secs(13)),
];

#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    Kill,
    Freeze,
    /// All connections of a component, or on SQLite the file is locked for a while.
    Cut,
    EndBackend,
    Break,
    /// Somebody writes `infinity` into a deadline.
    Tamper,
}

/// Writes a time into machines that is none.
pub(crate) async fn make_odd(raw: &DatabaseConnection, machines: &[MachineId]) -> Result<(), DbErr> {
    for machine in machines {
        let id = literal(raw, machine.0);
        let odd = format!("UPDATE machine SET created_at = 'infinity' WHERE machine_id = {id}");
        raw.execute_unprepared(&odd).await?;
    }
    Ok(())
}

/// Makes the deadline of one session infinite, so far down the list of them. Only of one whose last heartbeat is not old: to who died before that it
/// would give another interval.
pub(crate) async fn tamper_with_one(raw: DatabaseConnection, interval: Duration, chosen: f64) {
    let sessions = bmdb_entity::session::Entity::find().all(&raw).await;
    let Ok(sessions) = sessions else { return };
    let nth = (chosen * sessions.len() as f64) as usize;
    let Some(session) = sessions.get(nth) else { return };
    let seconds = interval.as_secs_f64() * 2.0 / 3.0;
    let id = literal(&raw, session.session_id.0);
    let soon = match raw.get_database_backend() {
        DatabaseBackend::Sqlite => format!("strftime('%Y-%m-%d %H:%M:%f', 'now', '+{seconds:.3} seconds')"),
        _ => format!("now() + INTERVAL '{seconds:.3} seconds'"),
    };
    let tamper =
        format!("UPDATE session_lease SET deadline = 'infinity' WHERE session_id = {id} AND deadline > {soon}");
    if let Err(error) = raw.execute_unprepared(&tamper).await {
        eprintln!("soak: a deadline was not tampered with: {error}");
    }
}

/// An operator breaks a session of a component, so far down the list of them.
pub(crate) async fn break_one(bmdb: Bmdb, raw: DatabaseConnection, chosen: f64) {
    let sessions = bmdb_entity::session::Entity::find().all(&raw).await;
    let Ok(sessions) = sessions else { return };
    let nth = (chosen * sessions.len() as f64) as usize;
    if let Some(session) = sessions.get(nth) {
        let broken = ada(&bmdb).break_session(session.session_id).await;
        if let Err(error) = broken {
            eprintln!("soak: a session was not broken: {error}");
        }
    }
}

/// Keeps everybody from writing for so long.
pub(crate) async fn lock_file(raw: DatabaseConnection, time: Duration) {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    if let Ok(tx) = raw.begin_with_options(options).await {
        tokio::time::sleep(time).await;
        if let Err(error) = tx.commit().await {
            eprintln!("soak: the file's lock did not end: {error}");
        }
    }
}
