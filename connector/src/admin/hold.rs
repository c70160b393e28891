//! Holds: until when nobody touches a machine, and why.

use std::time::Duration;

use bmdb_entity::{MachineId, work_hold};
use chrono::{DateTime, Datelike, Utc};
use sea_orm::sea_query::Value;

use crate::admin::page::{HOLD_COLUMNS, of_machines};
use crate::bmdb::Bmdb;
use crate::db::database::Database;
use crate::db::dialect::{LONGEST, milliseconds};
use crate::db::sql::SqlBuilder;
use crate::db::tx::Tx;
use crate::error::Error;
use crate::rules::check::{check_name, check_text};
use crate::store::machine::exclude_claims;
use crate::store::process::known_slots;

/// A hold to be placed: nobody claims the machine, or one slot of it, until it ends. Work that is going on is not touched; ask it to stop.
///
/// ```no_run
/// # async fn example(bmdb: bmdb::Bmdb, machine: bmdb::MachineId) -> Result<(), bmdb::Error> {
/// use bmdb::{Hold, Until};
///
/// bmdb.place_hold(machine, Hold::new("replacing a disk", "ada").until(Until::Open)).await?;
/// bmdb.lift_hold(machine, None).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Hold {
    slot: Option<String>,
    until: Until,
    reason: String,
    placed_by: String,
}

/// Until when something lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Until {
    /// Until it is lifted.
    Open,
    /// For so long from now, by the database's clock; at most a century.
    For(Duration),
    /// Until this time, by the database's clock, in the years 1 to 9999.
    Time(DateTime<Utc>),
}

impl Until {
    /// What the one database cannot hold, the other takes for no end.
    fn check(self) -> Result<(), Error> {
        let is_good = match self {
            Self::Open => true,
            Self::For(time) => time <= LONGEST,
            Self::Time(time) => (1..=9999).contains(&time.year()),
        };
        if is_good {
            return Ok(());
        }
        let expected = "at most a century from now, or a time in the years 1 to 9999; or Until::Open";
        Err(Error::invalid("the end of a hold", &format!("{self:?}"), expected))
    }
}

impl Hold {
    /// An open-ended hold on the whole machine. `reason` is what people will read at 3 a.m.; `placed_by` is whom they will ask.
    pub fn new(reason: impl Into<String>, placed_by: impl Into<String>) -> Self {
        Self {
            slot: None,
            until: Until::Open,
            reason: reason.into(),
            placed_by: placed_by.into(),
        }
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
        if self.reason.trim().is_empty() {
            return Err(Error::invalid("the reason of a hold", &self.reason, "a reason"));
        }
        if self.placed_by.trim().is_empty() {
            return Err(Error::invalid("the author of a hold", &self.placed_by, "a name"));
        }
        check_text("the reason of a hold", &self.reason, 4096)?;
        check_text("the author of a hold", &self.placed_by, 4096)?;
        self.until.check()?;
        match &self.slot {
            None => Ok(()),
            Some(slot) => check_slot(database, slot).await,
        }
    }
}

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

impl Bmdb {
    /// Holds a machine, or one slot of it: nobody claims it until the hold ends. It replaces a hold on the same slot. Work that is going on goes
    /// on; see [`ask_to_stop`](Self::ask_to_stop).
    ///
    /// # Errors
    /// [`Error::Invalid`] without a reason or an author and for an end that lies too far away, [`Error::UnknownSlot`], [`Error::UnknownMachine`]: nothing was written.
    ///
    /// # Cancel safety
    /// Dropping the future places the hold or does not.
    pub async fn place_hold(&self, machine: MachineId, hold: Hold) -> Result<(), Error> {
        let database = self.database();
        hold.check(database).await?;
        let slot = hold.slot.as_deref().unwrap_or(work_hold::ALL_SLOTS);
        let (until, value): (&str, Value) = match hold.until {
            Until::Open => ("{time $3}", None::<DateTime<Utc>>.into()),
            Until::For(time) => ("{after $3}", milliseconds(time).into()),
            Until::Time(time) => ("{time $3}", time.into()),
        };
        let text = format!(
            "INSERT INTO work_hold (machine_id, slot, until, reason, placed_by, placed_at) VALUES ($1, $2, {until}, $4, $5, {{now}}) \
             ON CONFLICT (machine_id, slot) DO UPDATE SET until = excluded.until, reason = excluded.reason, \
             placed_by = excluded.placed_by, placed_at = excluded.placed_at"
        );
        let values: [Value; 5] = [
            machine.into(),
            slot.into(),
            value,
            hold.reason.clone().into(),
            hold.placed_by.clone().into(),
        ];
        let runner = database.runner("place a hold");
        let place = async |tx: &Tx| {
            // A claim that read the fence before the hold was placed loses: once this has returned, nothing new starts.
            exclude_claims(tx, machine).await?;
            tx.execute_text(&text, values.clone()).await?;
            Ok(())
        };
        runner.run_or_error(place).await
    }

    /// Lifts the hold on a slot, or with `None` the one on the whole machine. `false`: there was none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what names no slot, or when the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future lifts the hold or does not.
    pub async fn lift_hold(&self, machine: MachineId, slot: Option<&str>) -> Result<bool, Error> {
        let database = self.database();
        const LIFT: &str = "DELETE FROM work_hold WHERE machine_id = $1 AND slot = $2";
        if let Some(slot) = slot {
            check_name("the name of a slot", slot)?;
        }
        let slot = slot.unwrap_or(work_hold::ALL_SLOTS);
        let runner = database.runner("lift a hold");
        let lift = async |tx: &Tx| Ok::<_, Error>(tx.execute_text(LIFT, [machine.into(), slot.into()]).await?);
        Ok(runner.run_or_error(lift).await? == 1)
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
