//! The searches of the fleet for each rule, and until when somebody has the search lease.

use sea_orm::entity::prelude::*;

/// The searches for one rule.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "work_retrieval")]
pub struct Model {
    /// The rule, as `name@digest`; the bare name is an older component's.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub process: String,
    /// The number of the last search that began. A new row starts at the database's clock in milliseconds.
    pub begun: i64,
    /// The number of the last search that has ended.
    pub ended: i64,
    /// When the last one began.
    pub began_at: DateTimeUtc,
    /// Until when nobody else begins one: in the past when it has ended.
    pub until: DateTimeUtc,
}

impl ActiveModelBehavior for ActiveModel {}
