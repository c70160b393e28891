//! Until when no component claims for a process, and why.

use sea_orm::entity::prelude::*;

/// An operator's pause of a process.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "process_pause")]
pub struct Model {
    /// The process.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub process: String,
    /// Until when; `None`: until somebody resumes it.
    pub until: Option<DateTimeUtc>,
    /// Why.
    #[sea_orm(column_type = "Text")]
    pub reason: String,
    /// Who paused it.
    #[sea_orm(column_type = "Text")]
    pub paused_by: String,
    /// When it was paused, by the database's clock.
    pub paused_at: DateTimeUtc,
    /// Where people can read more, such as the name of a ticket.
    #[sea_orm(column_type = "Text", nullable)]
    pub ticket: Option<String>,
    /// The process's row.
    #[sea_orm(belongs_to, from = "process", to = "name")]
    pub of: BelongsTo<super::process::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
