//! Helpers on any SeaORM `Select` of machines or of tags.

use bmdb_entity::MachineRow;
use sea_orm::sea_query::Expr;
use sea_orm::{QueryFilter, Select};

use crate::rules::claimable;
use crate::rules::eligible::KeyRange;

/// Leaves out machines that are taken, on any SeaORM [`Select`] of machines or of a tag.
///
/// ```
/// use bmdb::{MachineSelect, provided};
/// use sea_orm::EntityTrait;
///
/// let idle = provided::Entity::find().without_work("agent").without_hold("agent").without_backoff("agent-start");
/// ```
pub trait MachineSelect: Sized {
    /// Machines on whose `slot` nobody works.
    #[must_use]
    fn without_work(self, slot: &str) -> Self;

    /// Machines from which `process` does not back off. (On SQLite a backoff counts until the end of its second.)
    #[must_use]
    fn without_backoff(self, process: &str) -> Self;

    /// Machines that are not held, neither as a whole nor on `slot`. (On SQLite a hold counts until the end of its second.)
    #[must_use]
    fn without_hold(self, slot: &str) -> Self;
}

impl<E: MachineRow> MachineSelect for Select<E> {
    fn without_work(self, slot: &str) -> Self {
        self.filter(claimable::without_work(machine_of::<E>(), slot, KeyRange::All))
    }

    fn without_backoff(self, process: &str) -> Self {
        // The one form of the clock that every backend reads: a `Select` does not know yet where it will run.
        self.filter(claimable::without_backoff(
            machine_of::<E>(),
            process,
            Expr::current_timestamp(),
            KeyRange::All,
        ))
    }

    fn without_hold(self, slot: &str) -> Self {
        self.filter(claimable::without_hold(
            machine_of::<E>(),
            slot,
            Expr::current_timestamp(),
            KeyRange::All,
        ))
    }
}

fn machine_of<E: MachineRow>() -> Expr {
    Expr::col((E::default(), E::MACHINE_ID))
}
