//! The whole life of work on a small fleet, in one command: `cargo run -p bmdb-examples --bin fleet`.
//!
//! It migrates a database, imports an inventory, and runs components as OS processes on a simulated provider: some machines fail at first, some
//! agents die, and one component is killed while it holds work. What it prints at the end is read from the database.
//!
//! Where to look: [`processes`] is what a component author writes, [`component`] how it is run; [`import`] brings machines in; [`show::watch`] and
//! [`show::report`] read. The rest is the simulation: [`show::provider`] plays the outside world, [`reception`] hears its agents, [`show`] directs.

mod cli;
mod component;
mod import;
mod processes;
mod reception;
mod show;
mod talk;

use std::error::Error;
use std::process::ExitCode;

use bmdb::{CancellationToken, Config, runtime_info};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use cli::Cli;
use talk::Talk;

/// What goes wrong, for people: the text of its chain is printed in one line.
type Failure = Box<dyn Error + Send + Sync>;

/// How a run ended that did not fail.
enum Ended {
    Done,
    Stopped,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let talk = Talk::new();
    let stop = CancellationToken::new();
    let mut signals = JoinSet::new();
    signals.spawn(stop_on_signal(stop.clone()));
    match run(cli, &talk, &stop).await {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Stopped) => ExitCode::from(130),
        Err(failure) => {
            talk.say(&format!("fleet: {}", one_line(&*failure)));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli, talk: &Talk, stop: &CancellationToken) -> Result<Ended, Failure> {
    if let Some(kind) = cli.component {
        component::run(kind, &cli, stop).await?;
        return Ok(Ended::Done);
    }
    // Checked before anything connects: a migrator does not ask whether the way to the host is safe.
    let config = Config::new(&cli.database, "fleet", runtime_info!());
    config.check()?;
    show::migrate(&cli, talk).await?;
    let bmdb = bmdb::Bmdb::connect(config).await?;
    let imported = import::run(&bmdb, &cli, talk, stop).await;
    let ended = match imported {
        Ok(()) if stop.is_cancelled() => Ok(Ended::Stopped),
        Ok(()) if cli.import_only => Ok(Ended::Done),
        Ok(()) => show::run(&bmdb, &cli, talk, stop).await,
        Err(failure) => Err(failure),
    };
    bmdb.close().await;
    ended
}

/// The first Ctrl-C or SIGTERM asks for a clean end; the second does not ask. Components notice that we are gone.
async fn stop_on_signal(stop: CancellationToken) {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return;
    };
    for code in [None, Some(130)] {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        if let Some(code) = code {
            std::process::exit(code);
        }
        stop.cancel();
    }
}

/// An error with everything that led to it. Sources that repeat what was said are left out.
fn one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
