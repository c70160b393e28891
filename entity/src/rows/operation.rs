//! What operators have done, append-only.

use sea_orm::entity::prelude::*;

use crate::{MachineId, SessionId, WorkId};

/// One act of an operator, to one thing. It outlives what it was done to.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "operation")]
pub struct Model {
    /// Its own id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub operation_id: Uuid,
    /// When its transaction began, by the database's clock.
    pub at: DateTimeUtc,
    /// Who did it: a person, or what acts for one.
    #[sea_orm(column_type = "Text")]
    pub done_by: String,
    /// By which component's connection: a console, a command line.
    #[sea_orm(column_type = "Text")]
    pub component: String,
    /// What was done: `place-hold`, `lift-hold`, `ask-to-stop`, `drain-machine`, `break-session`, `clear-backoff`, `run-now`, `after-restore`, or a newer
    /// component's word.
    #[sea_orm(column_type = "Text")]
    pub verb: String,
    /// To which machine.
    #[sea_orm(nullable, indexed)]
    pub machine_id: Option<MachineId>,
    /// To which of its slots.
    #[sea_orm(column_type = "Text", nullable)]
    pub slot: Option<String>,
    /// For which process.
    #[sea_orm(column_type = "Text", nullable)]
    pub process: Option<String>,
    /// To which work.
    #[sea_orm(nullable)]
    pub work_id: Option<WorkId>,
    /// To which session.
    #[sea_orm(nullable)]
    pub session_id: Option<SessionId>,
    /// What else there is to say of it: until when a hold lasts, how many works a session lost.
    #[sea_orm(column_type = "Text", nullable)]
    pub detail: Option<String>,
    /// Why.
    #[sea_orm(column_type = "Text")]
    pub reason: String,
    /// Where people can read more.
    #[sea_orm(column_type = "Text", nullable)]
    pub ticket: Option<String>,
}

impl ActiveModelBehavior for ActiveModel {}
