//! A session: the liveness of one component incarnation.

use sea_orm::entity::prelude::*;

use crate::SessionId;

/// One session. The row is never updated: transactions lock it and works refer to it.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "session")]
pub struct Model {
    /// The session.
    #[sea_orm(primary_key, auto_increment = false)]
    pub session_id: SessionId,
    /// Which component this is; a restart has the same name and another session.
    #[sea_orm(column_type = "Text")]
    pub component_name: String,
    /// Version, host and process of the incarnation, for people.
    #[sea_orm(column_type = "Text")]
    pub runtime_info: String,
    /// When it was started, by the database's clock.
    pub created_at: DateTimeUtc,
    /// How long one heartbeat keeps the session alive, in milliseconds.
    pub interval_ms: i64,
}

impl ActiveModelBehavior for ActiveModel {}
