//! Holds: until when nobody touches a machine, and why.

use bmdb_entity::{MachineId, WorkId, work_hold};
use sea_orm::DbErr;
use sea_orm::sea_query::Value;

use crate::admin::operator::{Act, Operator};
use crate::admin::page::{HOLD_COLUMNS, of_machines};
use crate::admin::until::Until;
use crate::db::database::Database;
use crate::db::sql::SqlBuilder;
use crate::db::tx::Tx;
use crate::error::Error;
use crate::rules::check::check_name;
use crate::store::exclusion::exclude_claims;
use crate::store::process::known_slots;

/// A hold to be placed: nobody claims the machine, or one slot of it, until it ends. Work that is going on is not touched; [drain the
/// machine](Operator::drain_machine) to have it asked to stop as well.
///
/// ```no_run
/// # async fn example(bmdb: bmdb::Bmdb, machine: bmdb::MachineId) -> Result<(), bmdb::Error> {
/// use bmdb::{Hold, Until};
/// use std::time::Duration;
///
/// let ada = bmdb.operator("ada", "replacing a disk")?;
/// ada.place_hold(machine, Hold::new().slot("agent").until(Until::For(Duration::from_secs(3600)))).await?;
/// ada.lift_hold(machine, Some("agent")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Hold {
    slot: Option<String>,
    until: Until,
}

impl Hold {
    /// An open-ended hold on the whole machine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Holds only this slot.
    #[must_use]
    pub fn slot(mut self, slot: impl Into<String>) -> Self {
        self.slot = Some(slot.into());
        self
    }

    /// Ends by itself.
    #[must_use]
    pub fn until(mut self, until: Until) -> Self {
        self.until = until;
        self
    }

    async fn check(&self, database: &Database) -> Result<(), Error> {
        self.until.check(END)?;
        match &self.slot {
            None => Ok(()),
            Some(slot) => check_slot(database, slot).await,
        }
    }
}

const END: &str = "the end of a hold";

/// A hold on a slot that no process has would hold nothing.
async fn check_slot(database: &Database, slot: &str) -> Result<(), Error> {
    check_name("the name of a slot", slot)?;
    let known = known_slots(database).await?;
    if known.iter().any(|name| name == slot) {
        Ok(())
    } else {
        Err(Error::UnknownSlot {
            slot: slot.to_owned(),
            known,
        })
    }
}

impl Hold {
    fn slot_name(&self) -> &str {
        self.slot.as_deref().unwrap_or(work_hold::ALL_SLOTS)
    }

    /// A claim that read the fence before the hold was placed loses: once its transaction is over, nothing new starts.
    /// `false`: one stands that lasts as long or longer.
    async fn place(&self, tx: &Tx, machine: MachineId, operator: &Operator) -> Result<bool, Error> {
        let (until, value) = self.until.value("$3");
        let text = format!(
            "INSERT INTO work_hold (machine_id, slot, until, reason, placed_by, placed_at, ticket) VALUES ($1, $2, {until}, $4, $5, {{now}}, $6) \
             ON CONFLICT (machine_id, slot) DO UPDATE SET until = excluded.until, reason = excluded.reason, \
             placed_by = excluded.placed_by, placed_at = excluded.placed_at, ticket = excluded.ticket \
             WHERE work_hold.until <= {{now}} OR (work_hold.until IS NOT NULL AND (excluded.until IS NULL OR excluded.until > work_hold.until))"
        );
        let values: [Value; 6] = [
            machine.into(),
            self.slot_name().into(),
            value,
            operator.reason.as_str().into(),
            operator.by.as_str().into(),
            operator.ticket.as_deref().into(),
        ];
        exclude_claims(tx, machine).await?;
        self.until.check_to_come(tx, END).await?;
        Ok(tx.execute_text(&text, values).await? == 1)
    }

    /// The hold that stands in the way of this one.
    async fn standing(&self, tx: &Tx, machine: MachineId) -> Result<Error, Error> {
        const STANDING: &str =
            "SELECT placed_by, reason, {until until} FROM work_hold WHERE machine_id = $1 AND slot = $2";
        let rows = tx
            .query_text(STANDING, [machine.into(), self.slot_name().into()])
            .await?;
        let row = rows.first().ok_or(DbErr::RecordNotFound("a hold".to_owned()))?;
        Ok(Error::AlreadyHeld {
            machine,
            placed_by: row.try_get_by_index(0)?,
            reason: row.try_get_by_index(1)?,
            until: row.try_get_by_index(2)?,
        })
    }
}

impl Operator {
    /// Holds a machine, or one slot of it: nobody claims it until the hold ends. It replaces a hold on the same slot that ends earlier, and never one that lasts
    /// as long: somebody, or a collector, has a reason for that one; lift it first. Work that is going on goes on; see [`drain_machine`](Self::drain_machine).
    ///
    /// # Errors
    /// [`Error::Invalid`] for an end that is past or lies too far away, [`Error::AlreadyHeld`], [`Error::UnknownSlot`], [`Error::UnknownMachine`]: nothing was
    /// written.
    ///
    /// # Cancel safety
    /// Dropping the future places the hold or does not.
    pub async fn place_hold(&self, machine: MachineId, hold: Hold) -> Result<(), Error> {
        hold.check(self.database()).await?;
        let place = async |tx: &Tx| {
            if !hold.place(tx, machine, self).await? {
                return Err(hold.standing(tx, machine).await?);
            }
            let act = Act {
                verb: "place-hold",
                machine: Some(machine),
                slot: Some(hold.slot_name()),
                detail: Some(hold.until.detail("lifted")),
                ..Act::default()
            };
            Ok(self.record(tx, act).await?)
        };
        self.database().runner("place a hold").run_or_error(place).await
    }

    /// Drains a machine, or the slot that the hold names: nothing new starts, and the works that go on are asked to stop, as by
    /// [`ask_to_stop`](Self::ask_to_stop). Answers those. The machine is drained once they have ended. A hold that lasts as long stays in place of this one.
    ///
    /// # Errors
    /// As [`place_hold`](Self::place_hold), but for [`Error::AlreadyHeld`].
    ///
    /// # Cancel safety
    /// Dropping the future does all of it or nothing.
    pub async fn drain_machine(&self, machine: MachineId, hold: Hold) -> Result<Vec<WorkId>, Error> {
        const ASK: &str =
            "UPDATE work SET stop_requested = $2 WHERE machine_id = $1 AND (slot = $3 OR $3 = $4) RETURNING work_id";
        hold.check(self.database()).await?;
        let drain = async |tx: &Tx| {
            // In this order, each statement with a snapshot of its own: a claim that was faster than the hold is seen by the last. The other way round, it would
            // go on under the hold, and nobody would have asked it.
            let is_new = hold.place(tx, machine, self).await?;
            let held = if is_new {
                hold.until.detail("lifted")
            } else {
                "held already".to_owned()
            };
            let values: [Value; 4] = [
                machine.into(),
                self.reason.as_str().into(),
                hold.slot_name().into(),
                work_hold::ALL_SLOTS.into(),
            ];
            let asked = tx.query_text(ASK, values).await?;
            let asked = asked.iter().map(|row| row.try_get_by_index(0));
            let asked: Vec<WorkId> = asked.collect::<Result<_, _>>()?;
            let act = Act {
                verb: "drain-machine",
                machine: Some(machine),
                slot: Some(hold.slot_name()),
                detail: Some(format!("{held}; works asked to stop: {}", asked.len())),
                ..Act::default()
            };
            self.record(tx, act).await?;
            Ok::<_, Error>(asked)
        };
        self.database().runner("drain a machine").run_or_error(drain).await
    }

    /// Lifts the hold on a slot, or with `None` the one on the whole machine. `false`: there was none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what names no slot, or when the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future lifts the hold or does not.
    pub async fn lift_hold(&self, machine: MachineId, slot: Option<&str>) -> Result<bool, Error> {
        const LIFT: &str = "DELETE FROM work_hold WHERE machine_id = $1 AND slot = $2";
        if let Some(slot) = slot {
            check_name("the name of a slot", slot)?;
        }
        let slot = slot.unwrap_or(work_hold::ALL_SLOTS);
        let lift = async |tx: &Tx| {
            let was_there = tx.execute_text(LIFT, [machine.into(), slot.into()]).await? == 1;
            if was_there {
                let act = Act {
                    verb: "lift-hold",
                    machine: Some(machine),
                    slot: Some(slot),
                    ..Act::default()
                };
                self.record(tx, act).await?;
            }
            Ok::<_, Error>(was_there)
        };
        self.database().runner("lift a hold").run_or_error(lift).await
    }
}

/// The holds that keep a slot of some machines from being claimed.
pub(crate) async fn on_slot(
    tx: &Tx,
    machines: &[MachineId],
    slot: &str,
) -> Result<Vec<(MachineId, Result<work_hold::Model, Error>)>, Error> {
    const DOING: &str = "read a machine's holds";
    let holds =
        format!("{HOLD_COLUMNS} WHERE slot IN ($1, $2) AND (until IS NULL OR until > {{now}}) AND machine_id IN (");
    let mut text = SqlBuilder::new(tx.dialect());
    text.put(&holds, [slot.into(), work_hold::ALL_SLOTS.into()])
        .each(machines, "$1", |machine| [(*machine).into()])
        .put(") ORDER BY machine_id, slot", []);
    of_machines(tx, text, DOING).await
}
