//! The command line: `cargo run -p bmdb-migration -- <verb>`, and what `sea-orm-cli migrate <verb>` runs.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use sea_orm_migration::MigratorTrait;

use crate::verbs::Schema;
use crate::{Destroy, Error};

/// Moves the schema of a Bare Metal Database along its steps.
#[derive(Parser)]
#[command(name = "bmdb-migration", version)]
struct Cli {
    /// Say more on stderr.
    #[arg(short, long, global = true)]
    verbose: bool,
    /// PostgreSQL's schema; the server's search path decides where none is given.
    #[arg(short = 's', long, global = true, env = "DATABASE_SCHEMA", hide_env_values = true)]
    database_schema: Option<String>,
    /// Where the database is: sqlite://FILE or postgres://USER@HOST:PORT/DATABASE. BMDB_DATABASE_URL is asked last.
    #[arg(short = 'u', long, global = true, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Apply pending steps; print their names.
    Up {
        /// How many; all by default.
        #[arg(short, long)]
        num: Option<u32>,
    },
    /// Undo the last steps; print their names.
    Down {
        /// How many.
        #[arg(short, long, default_value_t = 1)]
        num: u32,
        #[command(flatten)]
        consent: Consent,
    },
    /// Print each step, and whether it is applied, pending or unknown to this build. Writes nothing.
    Status,
    /// Undo every step and apply them all again. Tables that are not ours stay.
    #[command(visible_alias = "refresh")]
    Fresh {
        #[command(flatten)]
        consent: Consent,
    },
    /// Undo every step and forget them. Tables that are not ours stay.
    Reset {
        #[command(flatten)]
        consent: Consent,
    },
    /// As an administrator of a server: make the roles bmdb_migrator, bmdb_component and bmdb_console, with the least rights; print what was run.
    MakeRoles,
    /// Say that the rows of this database never matter: they are then destroyed without --yes-destroy-data.
    MarkDevelopment,
    /// Take that back.
    UnmarkDevelopment,
}

#[derive(clap::Args)]
struct Consent {
    /// Destroy rows, also in a database that is not marked as a development one.
    #[arg(long)]
    yes_destroy_data: bool,
}

impl Consent {
    fn given(&self) -> Destroy {
        if self.yes_destroy_data {
            Destroy::Anyway
        } else {
            Destroy::OnlyInDevelopment
        }
    }
}

/// Runs the command line that the process was started with. Names go to stdout, talk to stderr; 1 says that the verb failed, 2 that it was
/// not understood.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os(), Ok(Schema::bmdb()))
}

/// The same for BMDB's steps together with those of `M`, a migrator of your own with tables of your own: BMDB's are applied first and undone
/// last. See [the crate](crate#tables-of-your-own) for an example.
#[must_use]
pub fn main_with<M: MigratorTrait + 'static>() -> ExitCode {
    run(std::env::args_os(), Schema::with::<M>())
}

fn run(arguments: impl IntoIterator<Item = OsString>, schema: Result<Schema, Error>) -> ExitCode {
    let cli = Cli::parse_from(arguments);
    // Only our own talk: the drivers' can quote a URL.
    let level = if cli.verbose { "debug" } else { "warn" };
    tracing_subscriber::fmt()
        .with_env_filter(format!("off,bmdb_migration={level},sea_orm_migration={level}"))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
    let set = |url: &String| !url.is_empty();
    let url = cli
        .database_url
        .filter(set)
        .or_else(|| std::env::var("BMDB_DATABASE_URL").ok().filter(set));
    let Some(url) = url else {
        let missing = "no database is named; pass --database-url, or set DATABASE_URL or BMDB_DATABASE_URL";
        Cli::command()
            .error(clap::error::ErrorKind::MissingRequiredArgument, missing)
            .exit();
    };
    let url = cli
        .database_schema
        .filter(set)
        .map_or_else(|| url.clone(), |schema| in_schema(&url, &schema));
    let runtime = tokio::runtime::Runtime::new().expect("a process that just started can start threads");
    let done = match schema {
        Ok(schema) => runtime.block_on(obey(&schema, cli.verb, &url)),
        Err(error) => Err(error),
    };
    match done {
        Ok(lines) => print(&lines),
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn obey(schema: &Schema, verb: Verb, url: &str) -> Result<Vec<String>, Error> {
    match verb {
        Verb::Up { num } => schema.up(url, num).await,
        Verb::Down { num, consent } => schema.down(url, num, consent.given()).await,
        Verb::Status => {
            let steps = schema.status(url).await?;
            Ok(steps
                .into_iter()
                .map(|step| format!("{} {}", step.state, step.name))
                .collect())
        }
        Verb::Fresh { consent } => schema.fresh(url, consent.given()).await,
        Verb::Reset { consent } => schema.reset(url, consent.given()).await,
        Verb::MakeRoles => crate::make_roles(url).await,
        Verb::MarkDevelopment => crate::mark_development(url).await.map(|()| Vec::new()),
        Verb::UnmarkDevelopment => crate::unmark_development(url).await.map(|()| Vec::new()),
    }
}

/// SQLite has no schemas.
fn in_schema(url: &str, schema: &str) -> String {
    if !url.starts_with("postgres") {
        return url.to_owned();
    }
    // Quoted, as SeaORM has it: the server folds other names to small letters. A space as a percent sign, for a plus is a plus.
    let schema = format!("\"{}\"", schema.replace('"', "\"\""));
    let schema: String = url::form_urlencoded::byte_serialize(schema.as_bytes()).collect();
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}options[search_path]={}", schema.replace('+', "%20"))
}

fn print(lines: &[String]) -> ExitCode {
    let mut out = io::stdout().lock();
    let written = lines
        .iter()
        .try_for_each(|line| writeln!(out, "{line}"))
        .and_then(|()| out.flush());
    match written {
        // Whoever reads us has seen enough, as in `status | head -1`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: the verb is done, but its result cannot be printed: {error}");
            ExitCode::FAILURE
        }
        Ok(()) => {
            if lines.is_empty() {
                eprintln!("done");
            }
            ExitCode::SUCCESS
        }
    }
}

/// Prints the error and its causes; a cause that the text before it quotes is left out.
fn complain(error: &Error) {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let text = next.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        cause = next.source();
    }
    eprintln!("error: {said}");
}
