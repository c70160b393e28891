//! For how long a lease has been seen to stand unchanged.

use sea_orm::entity::prelude::*;

use crate::SessionId;

/// What collectors have seen of a lease whose deadline has passed: each adds what it has watched on its own clock, and the next one goes on from there.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "session_sighting")]
pub struct Model {
    /// The session.
    #[sea_orm(primary_key, auto_increment = false)]
    pub session_id: SessionId,
    /// The deadline that was seen, as text. If the lease has another one, this row is void.
    #[sea_orm(column_type = "Text")]
    pub deadline: String,
    /// For how long at least it had stood by then, in milliseconds, by clocks that do not jump.
    pub age_ms: i64,
    /// The session's row.
    #[sea_orm(belongs_to, from = "session_id", to = "session_id", on_delete = "Cascade")]
    pub session: BelongsTo<super::session::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
