//! Which machines a process is for, as a component said it.

use sea_orm::entity::prelude::*;

/// The rule of a registered value of a process: what its claims ask of a machine.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "process_rule")]
pub struct Model {
    /// The process.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub process: String,
    /// What names it among the rules of its process: 16 hexadecimal digits.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub digest: String,
    /// The table of the process's item, quoted.
    #[sea_orm(column_type = "Text")]
    pub item: String,
    /// Its column of machine ids.
    #[sea_orm(column_type = "Text")]
    pub item_machine_id: String,
    /// Each clause: its words (`why`) and its SQL with values (`sql`). Whoever can write this column can have SQL run by whoever reads the rule.
    #[sea_orm(column_type = "JsonBinary")]
    pub clauses: Json,
    /// The component that used it last.
    #[sea_orm(column_type = "Text")]
    pub component: String,
    /// When that was, to the hour.
    pub used_at: DateTimeUtc,
    /// The process's row.
    #[sea_orm(belongs_to, from = "process", to = "name", on_delete = "Cascade")]
    pub of_process: BelongsTo<super::process::Entity>,
}

impl ActiveModelBehavior for ActiveModel {}
