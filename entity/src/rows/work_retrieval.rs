//! The searches of the fleet for each process, and whose turn it is.

use sea_orm::entity::prelude::*;

/// The searches for one process.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "work_retrieval")]
pub struct Model {
    /// The process.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub process: String,
    /// The number of the search that began last; 0 before the first.
    pub begun: i64,
    /// The number of the last search that has ended.
    pub ended: i64,
    /// When the last one began.
    pub began_at: DateTimeUtc,
    /// Until when nobody else begins one: in the past when it has ended.
    pub until: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
