//! Expires the sessions of dead components, as any component's collector does.

use std::time::Duration;

use serde_json::json;

use crate::answer::Answer;
use crate::answer::words::{count, foreign};
use crate::facts::session;
use crate::failure::{Failure, Kind};
use crate::source::Source;

pub(super) async fn run(source: &Source, once: bool, dry_run: bool) -> Result<Answer, Failure> {
    if dry_run {
        return dry(source).await;
    }
    let bmdb = &source.bmdb;
    let stop = bmdb::CancellationToken::new();
    let mut collector = bmdb.collector();
    if !once {
        tokio::select! {
            () = collector.run(stop.clone()) => {}
            signal = stopped() => signal?,
        }
        return Answer::new("The collector has ended.", json!({"ended": true}))
            .from(bmdb)
            .await;
    }
    // One look is never enough to call a session dead: it must have stood still for its interval.
    let sessions = session::read(source).await?.rows;
    let longest = sessions
        .iter()
        .filter(|row| session::is_silent(row))
        .map(|row| row.interval)
        .max();
    let (mut expired, mut freed) = (Vec::new(), 0);
    let until =
        tokio::time::Instant::now() + longest.map_or(Duration::ZERO, |longest| 2 * longest + Duration::from_secs(1));
    if let Some(longest) = longest {
        let most = count(2 * longest.as_secs() + 1, "second", "seconds");
        crate::answer::err(&format!(
            "waits until they have stood still for their interval: at most {most}"
        ));
    }
    let (braked, left) = loop {
        let sweep = collector.sweep().await?;
        expired.extend(sweep.expired);
        freed += sweep.freed;
        let silent = session::read(source)
            .await?
            .rows
            .iter()
            .filter(|row| session::is_silent(row))
            .count();
        if silent == 0 || tokio::time::Instant::now() >= until {
            break (sweep.braked, silent);
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(250)) => {}
            signal = stopped() => { signal?; break (sweep.braked, silent) }
        }
    };
    let sentence = format!(
        "{} expired, which freed {}.",
        count(expired.len() as u64, "session is", "sessions are"),
        count(freed, "work", "works")
    );
    let ids: Vec<_> = expired.iter().map(ToString::to_string).collect();
    let mut answer = Answer::new(
        sentence,
        json!({"expired": ids, "freed": freed.to_string(), "braked": braked}),
    )
    .lines(ids)
    .found(left > 0);
    if left > 0 {
        answer = answer.note(format!(
            "still silent: {left}. They are expired once a collector has seen them stand still for their interval"
        ));
    }
    if braked {
        answer = answer.note("most sessions look dead at once: a fault here is likelier than the death of a fleet, so they are given an interval more");
    }
    answer.from(bmdb).await
}

/// Ctrl-C, or what a service manager sends.
pub(super) async fn stopped() -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = || signal(SignalKind::terminate());
    let mut terminate =
        listen().map_err(|error| Failure::new(Kind::Unreachable, format!("cannot listen for signals: {error}")))?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

async fn dry(source: &Source) -> Result<Answer, Failure> {
    let sessions = session::read(source).await?;
    let silent: Vec<_> = sessions.rows.iter().filter(|row| session::is_silent(row)).collect();
    let works: u64 = silent.iter().map(|row| row.works).sum();
    let sentence = format!(
        "{} would be expired once a collector has seen for an interval that nothing comes, which would free {}.",
        count(silent.len() as u64, "session", "sessions"),
        count(works, "work", "works")
    );
    let lines = silent
        .iter()
        .map(|row| format!("{}  {}  {} works", row.session, foreign(&row.component), row.works));
    let json = json!({"silent": silent.iter().map(|row| session::as_json(row)).collect::<Vec<_>>(), "works": works.to_string()});
    Answer::new(sentence, json)
        .lines(lines.collect())
        .unreadable(&sessions.unreadable)
        .from(&source.bmdb)
        .await
}
