//! The command line of `bmdb-migration`, for tests that need it as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    bmdb_migration::cli::main()
}
