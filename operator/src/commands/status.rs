//! What goes on, on one page.

use bmdb::{MachineFilter, MachineState};
use chrono::TimeDelta;
use serde_json::json;

use crate::answer::Answer;
use crate::answer::words::{count, span};
use crate::commands::process::table;
use crate::facts::pages::read_all;
use crate::facts::{process, session, work};
use crate::failure::Failure;
use crate::source::Source;

pub(super) async fn run(source: &Source) -> Result<Answer, Failure> {
    let bmdb = &source.bmdb;
    let sessions = session::read(source).await?;
    let silent = sessions
        .rows
        .iter()
        .filter(|session| session::is_silent(session))
        .count() as u64;
    let works = read_all(|| bmdb.works(bmdb::WorksOf::All).limit(10_000)).await?;
    let stuck = works.rows.iter().filter(|row| work::is_stuck(row)).count() as u64;
    let oldest = works
        .rows
        .iter()
        .map(bmdb::WorkStatus::age)
        .max()
        .unwrap_or(TimeDelta::zero());
    let held = read_all(|| {
        bmdb.machines(MachineFilter::new().state(MachineState::Held))
            .limit(10_000)
    })
    .await?;
    let processes = process::read(source).await?;
    let in_work = works.rows.len() as u64;
    let sentence = format!(
        "{}{}; {}; {}.",
        count(in_work, "work goes on", "works go on"),
        if in_work == 0 {
            String::new()
        } else {
            format!(", the longest for {}", span(oldest))
        },
        count(
            sessions.rows.len() as u64 - silent,
            "session is alive",
            "sessions are alive"
        ),
        count(held.rows.len() as u64, "machine is held", "machines are held"),
    );
    let mut lines = Vec::new();
    if silent > 0 {
        let silent = count(silent, "session is silent", "sessions are silent");
        lines.push(format!("✕ {silent}. next: bmdb session ls --silent"));
    }
    if stuck > 0 {
        let stuck = count(stuck, "work is stuck", "works are stuck");
        lines.push(format!("✕ {stuck}. next: bmdb work ls --stuck"));
    }
    lines.extend(processes.unread.clone());
    let json = json!({
        "works": in_work.to_string(), "stuck": stuck.to_string(), "sessions": sessions.rows.len().to_string(), "silent": silent.to_string(),
        "held": held.rows.len().to_string(), "processes": processes.json(),
    });
    Answer::new(sentence, json)
        .table(table(&processes))
        .lines(lines)
        .unreadable(&sessions.unreadable)
        .unreadable(&works.unreadable)
        .unreadable(&held.unreadable)
        .from(bmdb)
        .await
}
