//! Who acts on a fleet beside its components, and why. Each act is written down in its own transaction, so that there is none without its row.

use std::fmt;
use std::sync::Arc;

use bmdb_entity::{MachineId, SessionId, WorkId};
use sea_orm::DbErr;
use sea_orm::sea_query::Value;
use uuid::Uuid;

use crate::bmdb::Bmdb;
use crate::db::database::Database;
use crate::db::tx::Tx;
use crate::error::Error;
use crate::rules::check::check_text;

/// What operators may do to machines, works and sessions, for somebody and for a reason: [`Bmdb::operator`] makes it, and nothing is done without.
///
/// Each act leaves a row of [`operation`](crate::entity::operation), written in the transaction that acts. What changed nothing, such as lifting a hold that
/// is not there, leaves none.
///
/// ```no_run
/// # async fn example(bmdb: bmdb::Bmdb, machine: bmdb::MachineId) -> Result<(), bmdb::Error> {
/// use bmdb::Hold;
///
/// let ada = bmdb.operator("ada", "replacing a disk")?.ticket("OPS-4471")?;
/// let asked = ada.drain_machine(machine, Hold::new()).await?;
/// println!("{} works were asked to stop", asked.len());
/// ada.lift_hold(machine, None).await?;
/// for act in bmdb.operations(Some(machine)).await?.rows {
///     println!("{} {} {}: {}", act.at, act.done_by, act.verb, act.reason);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Operator {
    database: Arc<Database>,
    pub(super) by: String,
    pub(super) reason: String,
    pub(super) ticket: Option<String>,
}

/// What was done, and to what.
#[derive(Default)]
pub(super) struct Act<'a> {
    pub(super) verb: &'static str,
    pub(super) machine: Option<MachineId>,
    pub(super) slot: Option<&'a str>,
    pub(super) process: Option<&'a str>,
    pub(super) work: Option<WorkId>,
    pub(super) session: Option<SessionId>,
    pub(super) detail: Option<String>,
}

const LONGEST: usize = 4096;

impl Bmdb {
    /// Somebody who acts: `by` is whom people will ask, `reason` what they will read at 3 a.m.
    ///
    /// # Errors
    /// [`Error::Invalid`] without a name or a reason, and for texts with NUL or over 4 kB.
    pub fn operator(&self, by: impl Into<String>, reason: impl Into<String>) -> Result<Operator, Error> {
        let (by, reason) = (by.into(), reason.into());
        check_said("the name of an operator", &by, "a name")?;
        check_said("the reason of an operator", &reason, "a reason")?;
        Ok(Operator {
            database: Arc::clone(self.database()),
            by,
            reason,
            ticket: None,
        })
    }
}

fn check_said(what: &'static str, text: &str, expected: &'static str) -> Result<(), Error> {
    if text.trim().is_empty() {
        return Err(Error::invalid(what, text, expected));
    }
    check_text(what, text, LONGEST)
}

impl Operator {
    /// Where people can read more, such as the name of a ticket.
    ///
    /// # Errors
    /// [`Error::Invalid`] for none, and for one with NUL or over 4 kB.
    pub fn ticket(mut self, ticket: impl Into<String>) -> Result<Self, Error> {
        let ticket = ticket.into();
        check_said("a ticket", &ticket, "the name of a ticket")?;
        self.ticket = Some(ticket);
        Ok(self)
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// Writes an act down. In the transaction of the act.
    pub(super) async fn record(&self, tx: &Tx, act: Act<'_>) -> Result<(), DbErr> {
        const RECORD: &str = "
            INSERT INTO operation (operation_id, at, done_by, component, verb, machine_id, slot, process, work_id, session_id, detail, reason, ticket)
            VALUES ($1, {now}, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
        let values: [Value; 12] = [
            Uuid::new_v4().into(),
            self.by.as_str().into(),
            self.database.config.component.as_str().into(),
            act.verb.into(),
            act.machine.into(),
            act.slot.into(),
            act.process.into(),
            act.work.into(),
            act.session.into(),
            act.detail.into(),
            self.reason.as_str().into(),
            self.ticket.as_deref().into(),
        ];
        tx.execute_text(RECORD, values).await.map(drop)
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator")
            .field("database", &self.database.name)
            .field("by", &self.by)
            .field("reason", &self.reason)
            .field("ticket", &self.ticket)
            .finish()
    }
}
