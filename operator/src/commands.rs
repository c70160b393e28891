//! What each command does: it reads, or acts, and makes an answer. A file for each noun of the command line.

mod attention;
mod backoff;
mod bundle;
mod collect;
mod doctor;
mod end;
mod machine;
mod migrate;
mod operation;
mod process;
mod prune;
mod serve;
mod session;
mod status;
mod top;
mod whatis;
mod why;
mod work;

use std::path::Path;

use clap::CommandFactory;
use serde_json::json;

use crate::answer::Answer;
use crate::cli::{Cli, Command};
use crate::failure::{Failure, Kind};
use crate::source::Source;

/// Does what the command line says.
pub(crate) async fn run(cli: Cli) -> Result<Answer, Failure> {
    let global = &cli.global;
    match cli.command {
        Command::Completions { shell } => return Ok(completions(shell)),
        Command::Man { folder } => return man(&folder),
        Command::Migrate(verb) => return migrate::run(global, verb).await,
        Command::Serve(serve) => return serve::run(global, *serve).await,
        Command::Bundle { file, with_tags } => return bundle::run(global, &file, with_tags).await,
        Command::Top => return top::run(global).await,
        Command::Doctor => return doctor::run(global).await,
        Command::Demo(demo) => return crate::demo::run(global, &demo).await,
        _ => {}
    }
    let source = Source::open(global).await?;
    let answer = match cli.command {
        Command::Status => status::run(&source).await,
        Command::Attention { longer_than } => attention::run(&source, longer_than).await,
        Command::Whatis { text } => whatis::run(&source, &text).await,
        Command::Machine(verb) => machine::run(&source, verb).await,
        Command::Work(verb) => work::run(&source, verb).await,
        Command::Session(verb) => session::run(&source, verb).await,
        Command::Process(verb) => process::run(&source, verb).await,
        Command::Backoff(verb) => backoff::run(&source, verb).await,
        Command::Operation(verb) => operation::run(&source, verb).await,
        Command::Prune {
            older_than,
            before,
            yes,
            reason,
        } => prune::run(&source, older_than, before, yes, &reason).await,
        Command::Collect { once, dry_run } => collect::run(&source, once, dry_run).await,
        Command::Completions { .. }
        | Command::Man { .. }
        | Command::Migrate(_)
        | Command::Serve(_)
        | Command::Bundle { .. }
        | Command::Top
        | Command::Doctor
        | Command::Demo(_) => {
            unreachable!("BUG: done above")
        }
    };
    source.close().await;
    answer
}

fn completions(shell: clap_complete::Shell) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "bmdb", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    Answer::new(script.trim_end(), json!({"completions": script}))
}

/// A page for each command, from the tree that makes the help.
fn man(folder: &Path) -> Result<Answer, Failure> {
    let written = clap_mangen::generate_to(Cli::command(), folder);
    written.map_err(|error| {
        let text = format!("cannot write the man pages to {}: {error}", folder.display());
        Failure::new(Kind::Usage, text)
    })?;
    let folder = folder.display().to_string();
    Ok(Answer::new(
        format!("The man pages are in {folder}."),
        json!({"folder": folder}),
    ))
}
