//! What can go wrong, told apart by what the reader has to do.

use std::path::PathBuf;

use bmdb_address::UrlError;
use sea_orm_migration::DbErr;
use sea_orm_migration::sea_orm::sqlx;

/// Why a verb did not do what it was asked to. No text of it holds a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL cannot be used.
    #[error("the database URL is not usable: {reason}; expected sqlite://FILE or postgres://USER@HOST:PORT/DATABASE")]
    Url {
        /// What is wrong with it. The URL itself stays out, for it may hold a password.
        reason: &'static str,
    },
    /// The URL has a parameter that we do not take.
    #[error("the database URL has the parameter {name:?}, which is none of those that the driver takes")]
    Parameter {
        /// Its name.
        name: String,
    },
    /// The SQLite file, or the folder that it shall stand in, does not exist.
    #[error("there is no {what} {}; check the path{hint}", path.display())]
    Missing {
        /// `file` or `folder`.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// What else helps.
        hint: &'static str,
    },
    /// Components may have the SQLite file open without sharing its locks with us; nothing was changed.
    #[error("the file {} cannot be used: {reason}", path.display())]
    UnsafeFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Something on the way to the server, such as a pooler, has dropped a setting that we gave it; nothing was changed.
    #[error(
        "the connection does not have {setting} as we set it: a pooler on the way drops start-up options (pgbouncer's ignore_startup_parameters); nothing was \
         changed. Connect to the server itself"
    )]
    Dropped {
        /// The setting.
        setting: String,
    },
    /// The database did not let us in.
    #[error("cannot open the database {database}: check that it runs, that the URL is right and that we may log in")]
    Open {
        /// Where it is.
        database: String,
        /// What the driver said.
        source: sqlx::Error,
    },
    /// The database has steps that this build does not have, so its steps cannot be taken from here.
    #[error(
        "the database has steps that this build does not know: {}; use the bmdb-migration that applied them. \
         (If they are another crate's, that crate needs a migration table of its own.)",
        steps.join(", ")
    )]
    UnknownSteps {
        /// Their names.
        steps: Vec<String>,
    },
    /// The role that we log in as lacks rights; nothing was changed.
    #[error(
        "the role {role} may not {}; nothing was changed. Log in as the role that owns the schema (bmdb_migrator, if `bmdb-migration \
         make-roles` made it), or have an administrator of the database run `bmdb-migration make-roles`",
        what.join(", nor ")
    )]
    NotAllowed {
        /// The role.
        role: String,
        /// What it may not, each as `read the table seaql_migrations`.
        what: Vec<String>,
    },
    /// Tables or views of others refer to tables that would be dropped; none of BMDB's steps was undone.
    #[error(
        "these would be dropped, and {}; nothing of BMDB was changed. Undo the steps that made them first: a migrator of your own \
         that runs through `bmdb_migration::cli::main_with` does it in this order",
        refer(references)
    )]
    Referenced {
        /// Who refers to which of our tables.
        references: Vec<(String, String)>,
    },
    /// A migrator of your own keeps its steps in the record of BMDB's.
    #[error(
        "your migrator keeps its steps in {record}, which has BMDB's: give it a `migration_table_name` of its own, or the two take each \
         other's steps for those of a newer build"
    )]
    SharedRecord {
        /// The record.
        record: String,
    },
    /// Rows would be lost, and nobody has said that they may be.
    #[error(
        "this would destroy {}, and the database is not marked as a development one; nothing was changed. \
         Pass --yes-destroy-data to destroy them, or run `bmdb-migration mark-development` once if they never matter",
        list(tables)
    )]
    WouldDestroy {
        /// The tables that hold rows, and how many.
        tables: Vec<(String, i64)>,
    },
    /// Rows point to rows that do not exist; everything was rolled back (SQLite only).
    #[error(
        "the table {table} would be left with rows that refer to missing rows of {parent}; nothing was changed. \
         Delete those rows first"
    )]
    Dangling {
        /// The table that refers.
        table: String,
        /// The table referred to.
        parent: String,
    },
    /// The database refused a statement or stopped answering. Run the verb again: what was applied stays applied.
    #[error("could not {doing}")]
    Database {
        /// What we were about to do.
        doing: &'static str,
        /// What the database said.
        source: DbErr,
    },
}

impl Error {
    pub(crate) fn database(doing: &'static str) -> impl FnOnce(DbErr) -> Self {
        move |source| Self::Database { doing, source }
    }
}

impl From<UrlError> for Error {
    fn from(error: UrlError) -> Self {
        match error {
            UrlError::Malformed(reason) => Self::Url { reason },
            UrlError::Parameter(name) => Self::Parameter { name },
            UrlError::InMemory => Self::Url {
                reason: "a database in memory is gone when the migrator ends",
            },
        }
    }
}

fn list(tables: &[(String, i64)]) -> String {
    let one = |(table, rows): &(String, i64)| match rows {
        1 => format!("{table} (1 row)"),
        rows => format!("{table} ({rows} rows)"),
    };
    tables.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn refer(references: &[(String, String)]) -> String {
    let one = |(table, parent): &(String, String)| format!("{table} refers to {parent}");
    references.iter().map(one).collect::<Vec<_>>().join(", ")
}
