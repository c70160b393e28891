//! What makes an entity a tag, here or in a crate of your own.

use sea_orm::{EntityTrait, PrimaryKeyTrait};

use crate::MachineId;

/// An entity whose primary key is the machine: at most one row per machine, which is what a work guard can carry.
///
/// Implemented by [`machine`](crate::machine) itself and by every [`Tag`].
pub trait MachineRow: EntityTrait<PrimaryKey: PrimaryKeyTrait<ValueType = MachineId>> {
    /// The column that names the machine.
    const MACHINE_ID: Self::Column;
}

/// A row of its own table, at most one per machine, that states a fact about it.
///
/// Write the entity, its migration, and one line:
///
/// ```
/// mod machine_rack {
///     use sea_orm::entity::prelude::*;
///
///     #[sea_orm::model]
///     #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
///     #[sea_orm(table_name = "machine_rack")]
///     pub struct Model {
///         #[sea_orm(primary_key, auto_increment = false)]
///         pub machine_id: bmdb_entity::MachineId,
///         pub rack: String,
///     }
///     impl ActiveModelBehavior for ActiveModel {}
///
///     bmdb_entity::tag!();
/// }
/// # use bmdb_entity::Tag;
/// assert_eq!(machine_rack::Entity::name(), "machine_rack");
/// ```
///
/// The table: `machine_id` is its whole primary key and refers to `machine`, without `ON DELETE`, and columns are of types that every database has: UUID,
/// text, 64-bit integers, double precision, booleans, times with a time zone, bytes, JSON. In a migrator of your own, run by
/// `bmdb_migration::cli::main_with`:
///
/// ```text
/// CREATE TABLE IF NOT EXISTS machine_rack (
///     machine_id UUID PRIMARY KEY REFERENCES machine (machine_id),    -- on SQLite uuid_text, as SeaORM's pk_uuid makes it
///     rack TEXT NOT NULL
/// )
/// ```
///
/// A column that is added later has a default or takes NULL, so that components of the day before can write the row. On SQLite a time is text in the form
/// `2026-11-30 12:00:00.000`, as `timestamp_with_time_zone` and [`STATED_AT`](Self::STATED_AT) write it.
///
/// A key that is not the machine is refused by the compiler, because then a machine could have two:
///
/// ```compile_fail
/// mod machine_disk {
///     use sea_orm::entity::prelude::*;
///
///     #[sea_orm::model]
///     #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
///     #[sea_orm(table_name = "machine_disk")]
///     pub struct Model {
///         #[sea_orm(primary_key, auto_increment = false)]
///         pub disk_id: i64,
///         pub machine_id: bmdb_entity::MachineId,
///     }
///     impl ActiveModelBehavior for ActiveModel {}
///
///     bmdb_entity::tag!();
/// }
/// ```
pub trait Tag: MachineRow {
    /// The column that says when the fact was stated, if there is one. The database's clock fills it on every write: what SQL compares with
    /// `now()` must not come from a component's clock.
    const STATED_AT: Option<Self::Column>;

    /// The tag's name, which is its table's.
    #[must_use]
    fn name() -> &'static str {
        Self::default().table_name()
    }
}

/// A tag with a generation: the desired side or the observed side of a pair, such as an installation request and its report.
///
/// ```
/// mod machine_firmware_request {
///     use sea_orm::entity::prelude::*;
///
///     #[sea_orm::model]
///     #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
///     #[sea_orm(table_name = "machine_firmware_request")]
///     pub struct Model {
///         #[sea_orm(primary_key, auto_increment = false)]
///         pub machine_id: bmdb_entity::MachineId,
///         pub generation: i64,
///         #[sea_orm(column_type = "Text")]
///         pub version: String,
///     }
///     impl ActiveModelBehavior for ActiveModel {}
///
///     bmdb_entity::tag!();
///
///     impl bmdb_entity::Generation for Entity {
///         const GENERATION: Column = Column::Generation;
///     }
/// }
/// ```
pub trait Generation: Tag {
    /// The column that holds the generation. A desire is met when the observation carries the same generation.
    const GENERATION: Self::Column;
}

/// Makes the entity of the enclosing module a [`Tag`]. Its table name is its name and its key column is `machine_id`.
///
/// `tag!(SeenAt)` also names the column, by SeaORM's name, that the database's clock fills on each write. [`Tag`] says how the table must look.
///
/// ```
/// mod machine_power {
///     use sea_orm::entity::prelude::*;
///
///     #[sea_orm::model]
///     #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
///     #[sea_orm(table_name = "machine_power")]
///     pub struct Model {
///         #[sea_orm(primary_key, auto_increment = false)]
///         pub machine_id: bmdb_entity::MachineId,
///         pub is_on: bool,
///         pub seen_at: DateTimeUtc,
///     }
///     impl ActiveModelBehavior for ActiveModel {}
///
///     bmdb_entity::tag!(SeenAt);
/// }
/// ```
#[macro_export]
macro_rules! tag {
    (@impl $stated_at:expr) => {
        impl $crate::MachineRow for Entity {
            const MACHINE_ID: Column = Column::MachineId;
        }

        impl $crate::Tag for Entity {
            const STATED_AT: Option<Column> = $stated_at;
        }
    };
    () => { $crate::tag!(@impl None); };
    ($stated_at:ident) => { $crate::tag!(@impl Some(Column::$stated_at)); };
}
