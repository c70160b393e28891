//! Sessions: which components are alive.

use bmdb::{SessionStatus, WorksOf};
use chrono::TimeDelta;
use serde_json::json;

use crate::answer::words::{brief, count, foreign, span, when};
use crate::answer::{Answer, Table};
use crate::cli::Session;
use crate::commands::work;
use crate::facts::pages::read_all;
use crate::facts::session::{as_json, find, gone, is_silent, read};
use crate::facts::work::as_json as work_json;
use crate::failure::Failure;
use crate::source::Source;

pub(super) async fn run(source: &Source, verb: Session) -> Result<Answer, Failure> {
    let bmdb = &source.bmdb;
    match verb {
        Session::Ls { silent } => {
            let mut sessions = read(source).await?;
            let dead = sessions.rows.iter().filter(|session| is_silent(session)).count() as u64;
            let alive = sessions.rows.len() as u64 - dead;
            if silent {
                sessions.rows.retain(is_silent);
            }
            let sentence = format!(
                "{}; {}.",
                count(alive, "session is alive", "sessions are alive"),
                silent_ones(dead)
            );
            Answer::new(
                sentence,
                json!({"sessions": sessions.rows.iter().map(as_json).collect::<Vec<_>>()}),
            )
            .table(table(&sessions.rows))
            .unreadable(&sessions.unreadable)
            .from(bmdb)
            .await
        }
        Session::Show { session } => {
            let found = find(source, session).await?;
            let works = read_all(|| bmdb.works(WorksOf::Session(session))).await?;
            let sentence = format!(
                "{} is {}; it holds {}.",
                foreign(&found.component),
                liveness(&found),
                count(found.works, "work", "works")
            );
            let mut lines = vec![
                format!("session   {}", found.session),
                format!("runs as   {}", foreign(&found.runtime_info)),
                format!("started   {}", when(found.started_at, found.as_of)),
                format!("interval  {} s", found.interval.as_secs_f64()),
            ];
            if let Some(reason) = &found.drain_requested {
                lines.push(format!("⊘ it takes no new work, for it is drained: {}", brief(reason)));
            }
            let next = format!("next: bmdb session expire {session} --yes {} --reason '…'", found.works);
            let mut json = as_json(&found);
            json["held"] = works.rows.iter().map(work_json).collect();
            Ok(Answer::new(sentence, json)
                .lines(lines)
                .table(work::table(&works.rows))
                .lines(vec![next])
                .unreadable(&works.unreadable)
                .read_at(bmdb, found.as_of))
        }
        Session::Drain { session, reason } => {
            let operator = source.operator(&reason)?;
            let held = operator.drain_session(session).await?.ok_or_else(|| gone(session))?;
            let sentence = format!(
                "{} takes no new work from its next heartbeat on. It holds {}.",
                foreign(&held.component_name),
                count(held.works.len() as u64, "work", "works")
            );
            let json = json!({"session": session.to_string(), "component": held.component_name, "works": held.works.len().to_string()});
            Answer::new(sentence, json)
                .lines(vec![
                    format!("next: bmdb session show {session}"),
                    "There is no way back but to restart the component.".to_owned(),
                ])
                .from(bmdb)
                .await
        }
        Session::Expire { session, yes, reason } => {
            let operator = source.operator(&reason)?;
            let found = find(source, session).await?;
            if found.works != yes {
                return Err(Failure::changed(format!(
                    "nothing was done: session {session} of {} holds {} by now, not {yes}. Look again, and say --yes {}",
                    foreign(&found.component),
                    count(found.works, "work", "works"),
                    found.works
                )));
            }
            if is_silent(&found) {
                return Err(Failure::changed(format!(
                    "nothing was done: session {session} of {} is silent already. A collector frees what it holds: bmdb collect",
                    foreign(&found.component)
                )));
            }
            let held = operator.break_session(session).await?.ok_or_else(|| gone(session))?;
            work::broken(&held).from(bmdb).await
        }
    }
}

fn silent_ones(dead: u64) -> String {
    match dead {
        0 => "none is silent".to_owned(),
        _ => count(dead, "is silent", "are silent"),
    }
}

fn liveness(session: &SessionStatus) -> String {
    match session.left() {
        Some(left) if left > TimeDelta::zero() => format!("alive, with {} until its deadline", span(left)),
        Some(left) => format!("silent: its deadline passed {} ago", span(left)),
        None => "without a lease, and will be expired".to_owned(),
    }
}

fn table(sessions: &[SessionStatus]) -> Table {
    let mut table = Table::new(&[
        "component",
        "state",
        "deadline",
        "started",
        ">interval",
        ">works",
        "session",
        "runs as",
    ]);
    for session in sessions {
        let deadline = session.deadline.map(|deadline| when(deadline, session.as_of));
        table.row([
            brief(&session.component),
            match &session.drain_requested {
                _ if is_silent(session) => "✕ silent",
                Some(_) => "⊘ draining",
                None => "alive",
            }
            .to_owned(),
            deadline.unwrap_or_else(|| "none".to_owned()),
            when(session.started_at, session.as_of),
            format!("{} s", session.interval.as_secs_f64()),
            session.works.to_string(),
            session.session.to_string(),
            brief(&session.runtime_info),
        ]);
    }
    table
}
