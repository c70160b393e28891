//! The operator's side of the Bare Metal Database, as one command: `bmdb`.
//!
//! It answers, for people: what is going on, why a machine is not worked on, and what needs somebody. And it acts for them: holds, drains, asks to stop,
//! breaks sessions, each act with a reason that is kept.
//!
//! # How it is built
//! One way: [`cli`] is what may be said, `commands` read and write through the crate `bmdb` and make an [`answer`], which is written as tables or as JSON;
//! what goes wrong is a [`failure`], in the words of who typed the command. [`metrics`] tells monitoring systems what the commands read. Nothing here writes a table by itself, and no write compiles without
//! [`bmdb::Operator`], which is made of a name and a reason.

pub mod answer;
pub mod cli;
mod commands;
mod demo;
mod facts;
pub mod failure;
pub mod metrics;
mod serve;
mod source;

use std::process::ExitCode;

use crate::cli::Cli;

/// Reads the command line, does what it says, and answers how that went.
pub async fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => return failure::unparsed(&error),
    };
    log_to_stderr();
    let output = cli.global.format();
    match commands::run(cli).await {
        Ok(answer) => answer.print(output),
        Err(failure) => failure.print(output),
    }
}

/// What the library has to say, where somebody asks for it with `RUST_LOG`.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    if let Ok(filter) = filter {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
    }
}
