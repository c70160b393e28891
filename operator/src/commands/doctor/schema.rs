//! The schema: its steps, what they have made, and who may use it.

use bmdb_migration::State;

use super::{Checked, Finding, Patient};
use crate::failure::Failure;

/// Steps that are pending, and steps of a newer build.
pub(super) async fn steps(patient: &Patient<'_>) -> Result<Checked, Failure> {
    let steps = bmdb_migration::status(patient.url).await?;
    let in_state = |state| steps.iter().filter(move |step| step.state == state);
    let pending = in_state(State::Pending).map(|step| Finding {
        what: format!("step {} is pending: no component of this build starts", step.name),
        mend: "bmdb migrate up".to_owned(),
    });
    let unknown = in_state(State::Unknown).map(|step| Finding {
        what: format!("step {} was applied by a newer build than this", step.name),
        mend: "use the bmdb of that build, which alone knows what it changed".to_owned(),
    });
    Ok(Checked::Found(pending.chain(unknown).collect()))
}

/// What the applied steps have made and is not there.
pub(super) async fn drift(patient: &Patient<'_>) -> Result<Checked, Failure> {
    let drift = bmdb_migration::drift(patient.url).await?;
    let found = drift.into_iter().map(|drift| Finding {
        what: match drift.missing.as_str() {
            "table" => format!("there is no table {}", drift.table),
            part => format!("table {} has no {part}", drift.table),
        },
        mend: match drift.statement {
            Some(statement) => format!("as the owner of the table: {statement}"),
            None => "nothing makes it again with what it held: put a backup back (docs/backups.md)".to_owned(),
        },
    });
    Ok(Checked::Found(found.collect()))
}

/// What the roles lack.
pub(super) async fn rights(patient: &Patient<'_>) -> Result<Checked, Failure> {
    if patient.url.starts_with("sqlite:") {
        return Ok(Checked::Nothing("SQLite knows no rights but those of the file"));
    }
    let grants = bmdb_migration::missing_grants(patient.url).await?;
    let found = grants.into_iter().map(|grant| Finding {
        what: format!("a role lacks what this would give it: {grant}"),
        mend: "as bmdb_migrator or an administrator: bmdb migrate up".to_owned(),
    });
    Ok(Checked::Found(found.collect()))
}
