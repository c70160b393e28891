//! How a transaction is ordered against claims.

use bmdb_entity::{MachineId, machine};
use sea_orm::EntityTrait;

use crate::db::tx::Tx;
use crate::error::Error;

/// Orders this transaction against claims on the machine, by raising its fence: a claim that read the fence before this commits loses and tries
/// again; if a claim committed after this transaction began, the body runs again.
///
/// For a body that decides by what is *not* there: before it writes that a machine is gone because nobody works on it, say.
///
/// # Errors
/// [`Error::UnknownMachine`].
///
/// # Cancel safety
/// Dropping the future half-way spoils the transaction: it rolls back, and a body that returns `Ok` gets [`Error::Poisoned`].
pub async fn exclude_claims(tx: &Tx, machine: MachineId) -> Result<(), Error> {
    const RAISE: &str = "UPDATE machine SET fence = {fence} WHERE machine_id = $1 AND fence < $2";
    let raised = tx.execute_text(RAISE, [machine.into(), i64::MAX.into()]).await;
    let is_raised = raised.map_err(Error::database("order against claims"))? == 1;
    // One whose fence cannot rise is one that nobody can claim.
    let is_known = async || {
        let row = machine::Entity::find_by_id(machine).one(tx).await;
        row.map_err(Error::database("find a machine"))
    };
    if is_raised || is_known().await?.is_some() {
        Ok(())
    } else {
        Err(Error::UnknownMachine { machine })
    }
}
