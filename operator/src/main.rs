//! `bmdb`, the operator's command.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    bmdb_operator::main().await
}
