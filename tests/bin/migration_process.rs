//! The command line of `bmdb-migration`, for tests that need it as a process of its own; with `WITH_MINE` set, that of a crate with tables of its
//! own.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os("WITH_MINE").is_some() {
        bmdb_migration::cli::main_with::<harness::Mine>()
    } else {
        bmdb_migration::cli::main()
    }
}
