//! Mechanisms taken out, and claims stopped in the middle of their statement.

/// How a mechanism is taken out.
#[derive(Clone, Copy)]
pub(super) enum Ablation {
    None,
    /// From the statements of the participants.
    Statements(fn(&str) -> Option<String>),
    /// From the database, by this statement.
    Schema(&'static str),
}

/// The reference that a work holds to its session.
pub(super) const WITHOUT_REFERENCE: Ablation =
    Ablation::Schema("ALTER TABLE work DROP CONSTRAINT \"fk-work-session_id\"");

/// The lock that keeps a session's and a work's row from being deleted under a transaction.
pub(super) fn without_key_share(sql: &str) -> Option<String> {
    sql.contains("FOR KEY SHARE").then(|| sql.replace("FOR KEY SHARE", ""))
}

/// The demand that a machine's fence is still the one that the claim has seen.
pub(super) fn without_fence_compare(sql: &str) -> Option<String> {
    const COMPARE: &str = " AND machine.fence = chosen.bmdb_fence";
    sql.contains(COMPARE).then(|| sql.replace(COMPARE, ""))
}

/// A claim is one statement, so it is stopped in itself: it has its snapshot, and has not looked at anything, when it waits for its gate.
pub(super) fn with_gate(sql: &str, participant: usize) -> Option<String> {
    const CANDIDATE: &str = "WITH candidates AS (SELECT CAST($1 AS UUID) AS machine_id";
    let gate = format!(
        "{CANDIDATE} FROM pg_advisory_lock_shared({participant}) AS gate, \
         LATERAL pg_advisory_unlock_shared({participant} + num_nulls(gate)) AS passed"
    );
    sql.starts_with(CANDIDATE).then(|| sql.replace(CANDIDATE, &gate))
}
