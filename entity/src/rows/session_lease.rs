//! Until when a session may not be expired.

use sea_orm::entity::prelude::*;

use crate::SessionId;

/// The only row that a heartbeat writes, so that no transaction collides with its own heartbeat.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "session_lease")]
pub struct Model {
    /// The session.
    #[sea_orm(primary_key, auto_increment = false)]
    pub session_id: SessionId,
    /// Database time after which the session may be expired.
    pub deadline: DateTimeUtc,
    /// Why an operator asked it to take no new work; its next heartbeat tells it.
    #[sea_orm(column_type = "Text", nullable)]
    pub drain_requested: Option<String>,
    /// The session's row.
    #[sea_orm(belongs_to, from = "session_id", to = "session_id", on_delete = "Cascade")]
    pub session: BelongsTo<super::session::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
