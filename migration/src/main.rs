//! The binary `bmdb-migration`.

use std::process::ExitCode;

fn main() -> ExitCode {
    bmdb_migration::cli::main()
}
