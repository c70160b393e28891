//! `bmdb demo`: a fleet to look at. It fills a SQLite file of its own with machines and runs components on it, among them one that dies and one that
//! does not let go, and serves the web console, until it is told to stop.
//!
//! What stands here is a show. How components are written, `examples/fleet` says.

mod account;
mod components;
mod console;
mod events;
mod machines;
mod place;
mod processes;

use std::sync::Arc;
use std::time::Duration;

use bmdb::CancellationToken;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::answer::Answer;
use crate::answer::words::{count, quoted};
use crate::cli::{Demo, Global};
use crate::demo::account::Account;
use crate::demo::components::{FILE, MORTAL, Reception, TASKS, connect};
use crate::demo::place::Place;
use crate::failure::{Failure, Kind};

/// How long the parts have to end once told to.
const ENDS_WITHIN: Duration = Duration::from_secs(4);

/// Runs until Ctrl-C, or for as long as was asked for.
///
/// # Errors
/// A file that cannot be made, or what a part of the demo cannot go on without.
pub(crate) async fn run(global: &Global, demo: &Demo) -> Result<Answer, Failure> {
    let stop = CancellationToken::new();
    if demo.component.is_some() {
        return be_mortal(stop).await;
    }
    let place = Arc::new(Place::new(demo.keep.as_deref())?);
    let mut listening = JoinSet::new();
    listening.spawn(listen(stop.clone(), Arc::clone(&place)));
    let account = Account::new(global.format(), stop.clone());
    let shown = show(&place, &account, demo, &stop).await;
    listening.shutdown().await;
    place.remove();
    shown?;
    let file = place.file.display().to_string();
    let sentence = if place.is_temporary() {
        "The demo has ended, and its file is removed.".to_owned()
    } else {
        format!("The demo has ended. Its file is {file}.")
    };
    let kept = (!place.is_temporary()).then_some(file);
    Ok(Answer::new(sentence, json!({"ended": true, "kept": kept})))
}

/// Fills the file and runs the parts.
async fn show(place: &Place, account: &Account, demo: &Demo, stop: &CancellationToken) -> Result<(), Failure> {
    let url = place.url();
    account.line(&format!("The demo's database is {}", place.file.display()));
    let mut parts = JoinSet::new();
    let console = async {
        bmdb_migration::up(&format!("{url}?mode=rwc"), None).await?;
        console::listen(&url, account).await
    };
    let (server, bmdb) = tokio::select! {
        console = console => console?,
        () = stop.cancelled() => return Ok(()),
    };
    parts.spawn(console::serve(server, bmdb, stop.clone()));
    account.line("Or in a second terminal:");
    account.line(&format!("  export BMDB_DATABASE_URL={}", quoted(&url)));
    for command in [
        "bmdb status",
        "bmdb attention",
        "bmdb machine show OAK-4107",
        "bmdb machine why OAK-4107 agent-recovery",
        "bmdb work ls",
    ] {
        account.line(&format!("  {command}"));
    }
    account.line("Ctrl-C ends it.");
    account.line("");
    let ends = async {
        match demo.span {
            Some(span) => tokio::time::sleep(span.0).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(ends);
    let started = tokio::select! {
        started = start(&url, account, stop, &mut parts) => started,
        () = stop.cancelled() => Ok(()),
        () = &mut ends => Ok(()),
    };
    let ended = match started {
        Err(failure) => Err(failure),
        Ok(()) => tokio::select! {
            ended = first_failure(&mut parts) => ended,
            () = stop.cancelled() => Ok(()),
            () = &mut ends => Ok(()),
        },
    };
    stop.cancel();
    account.say("the demo", "ends");
    // What fails now has nobody left who needs it; what has not ended in time is dropped, and lets go of what it holds.
    let _ended = tokio::time::timeout(ENDS_WITHIN, async { while parts.join_next().await.is_some() {} }).await;
    ended
}

/// Fills the file, and starts all who take part.
async fn start(
    url: &str,
    account: &Account,
    stop: &CancellationToken,
    parts: &mut JoinSet<Result<(), Failure>>,
) -> Result<(), Failure> {
    let bmdb = connect(url, "reception").await?;
    let session = bmdb.start_session().await?;
    let installed = machines::bring_in(&bmdb, &session).await?;
    let all = count(u64::from(machines::AT_FIRST), "machine", "machines");
    let ready = count(installed.len() as u64, "of them is installed", "of them are installed");
    account.say("reception", &format!("brings in {all} of 4 providers, {ready}"));
    let reception = Reception {
        bmdb,
        session,
        installed,
    };
    parts.spawn(reception.run(stop.clone()));
    for name in TASKS {
        parts.spawn(components::run(url.to_owned(), name.to_owned(), stop.clone()));
    }
    account.say("components", &format!("{} and {MORTAL} start", TASKS.join(", ")));
    account.say("nobody", "runs firmware-update: bmdb process show firmware-update. Once that has been so for 2 h, bmdb attention tells of it");
    let bmdb = connect(url, "bmdb").await?;
    parts.spawn(events::death(
        bmdb.clone(),
        url.to_owned(),
        account.clone(),
        stop.clone(),
    ));
    parts.spawn(events::ada(bmdb.clone(), account.clone(), stop.clone()));
    parts.spawn(account.clone().count(bmdb, stop.clone()));
    Ok(())
}

/// Waits until a part fails. Parts that end well, or all of them, are nothing to end for.
async fn first_failure(parts: &mut JoinSet<Result<(), Failure>>) -> Result<(), Failure> {
    while let Some(ended) = parts.join_next().await {
        ended.map_err(|error| Failure::new(Kind::Unreachable, format!("a part of the demo has ended: {error}")))??;
    }
    std::future::pending().await
}

/// The component that dies, in a process of its own.
async fn be_mortal(stop: CancellationToken) -> Result<Answer, Failure> {
    let url = std::env::var(FILE).ok().filter(|url| url.starts_with("sqlite:"));
    let Some(url) = url else {
        return Err(Failure::usage(
            "only the demo itself starts its components: run bmdb demo",
        ));
    };
    components::stop_with_parent(stop.clone());
    // A terminal sends Ctrl-C to all who run in it: the demo says when to end.
    let _deaf = signal(SignalKind::interrupt());
    components::run(url, MORTAL.to_owned(), stop).await?;
    Ok(Answer::new("It has ended.", json!({"ended": true})))
}

/// The first Ctrl-C, or what a service manager sends, ends the demo; the second at once.
async fn listen(stop: CancellationToken, place: Arc<Place>) {
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    ) else {
        return;
    };
    for told in 1.. {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            // The terminal was closed.
            _ = hangup.recv() => {}
        }
        if told > 1 {
            place.remove();
            std::process::exit(130);
        }
        stop.cancel();
    }
}
