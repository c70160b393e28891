//! Works: who holds which machine.

use bmdb::{Bmdb, Fence, HeldBySession, WorkId, WorkStatus, WorksOf};
use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::answer::words::{brief, count, foreign, span, time};
use crate::answer::{Answer, Table};
use crate::cli::Work;
use crate::facts::name::name_of;
use crate::facts::pages::read_all;
use crate::facts::process;
use crate::facts::work::{as_json, find, gone, is_silent, is_stuck};
use crate::failure::Failure;
use crate::source::Source;

pub(super) async fn run(source: &Source, verb: Work) -> Result<Answer, Failure> {
    let bmdb = &source.bmdb;
    match verb {
        Work::Ls {
            process,
            session,
            longer_than,
            stuck: only_stuck,
            limit,
        } => {
            if let Some(process) = &process {
                process::check(bmdb, process).await?;
            }
            let of = match (process, session) {
                (Some(process), _) => WorksOf::Process(process),
                (None, Some(session)) => WorksOf::Session(session),
                (None, None) => WorksOf::All,
            };
            let mut works = read_all(|| bmdb.works(of.clone()).limit(10_000)).await?;
            let least = longer_than.map_or(TimeDelta::zero(), |span| {
                TimeDelta::from_std(span.0).unwrap_or(TimeDelta::MAX)
            });
            works
                .rows
                .retain(|work| work.age() >= least && (!only_stuck || is_stuck(work)));
            let all = works.rows.len() as u64;
            let stuck = works.rows.iter().filter(|work| is_stuck(work)).count() as u64;
            works.rows.sort_by_key(|work| (!is_stuck(work), work.claimed_at));
            works.rows.truncate(limit.limit as usize);
            let asked = longer_than.is_some() || only_stuck || !matches!(of, WorksOf::All);
            let sentence = match all {
                0 if asked => "No such work goes on.".to_owned(),
                0 => "No work goes on.".to_owned(),
                _ => format!("{}; {}.", count(all, "work goes on", "works go on"), stuck_ones(stuck)),
            };
            let mut answer = Answer::new(
                sentence,
                json!({"works": works.rows.iter().map(as_json).collect::<Vec<_>>()}),
            )
            .table(table(&works.rows))
            .unreadable(&works.unreadable);
            if all > works.rows.len() as u64 {
                answer = answer.note(format!("{} are shown of {all}: --limit shows more", works.rows.len()));
            }
            answer.from(bmdb).await
        }
        Work::Show { work } => show(bmdb, work).await,
        Work::AskToStop { work, reason } => {
            let operator = source.operator(&reason)?;
            if !operator.ask_to_stop(work).await? {
                return Err(gone(work));
            }
            let sentence =
                format!("Work {work} is asked to stop: its holder learns it with its next heartbeat, and decides.");
            Answer::new(sentence, json!({"asked": work.to_string()}))
                .lines(vec![format!("next: bmdb work show {work}")])
                .from(bmdb)
                .await
        }
        Work::Break {
            work,
            expect_fence,
            reason,
        } => {
            let operator = source.operator(&reason)?;
            let Some(held) = operator.break_holder(work, Fence(expect_fence)).await? else {
                // Not there at all, it is not found.
                let fence = find(bmdb, work).await?.fence;
                return Err(Failure::changed(format!(
                    "nothing was done: work {work} is not held with fence {expect_fence}; its fence is {fence}"
                )));
            };
            broken(&held).from(bmdb).await
        }
    }
}

/// What breaking a session did.
pub(super) fn broken(held: &HeldBySession) -> Answer {
    let sentence = format!(
        "The session of {} is broken. It learns so at its next heartbeat, or when its trust ends; a collector then frees {}.",
        foreign(&held.component_name),
        count(held.works.len() as u64, "work", "works")
    );
    let works = held
        .works
        .iter()
        .map(|(machine, process)| json!({"machine": machine.to_string(), "process": process}));
    let lines = held
        .works
        .iter()
        .map(|(machine, process)| format!("{machine}  {process}"));
    Answer::new(
        sentence,
        json!({"component": held.component_name, "runtime_info": held.runtime_info, "works": works.collect::<Vec<_>>()}),
    )
    .lines(lines.collect())
    .lines(vec!["A command that is already on its way to a machine still arrives.".to_owned()])
}

async fn show(bmdb: &Bmdb, work: WorkId) -> Result<Answer, Failure> {
    let work = find(bmdb, work).await?;
    let machine = name_of(work.machine, work.provider_id.as_deref());
    let sentence = format!(
        "{} holds slot {} of {machine} for {}: {}.",
        foreign(&work.component),
        foreign(&work.slot),
        span(work.age()),
        state(&work)
    );
    let mut lines = vec![
        format!("process   {}", foreign(&work.process)),
        format!("fence     {}", work.fence),
        format!("since     {}", time(work.claimed_at, work.as_of)),
        format!("trust     {}", trust(&work)),
        format!("session   {}", work.session),
        format!("runs as   {}", foreign(&work.runtime_info)),
        format!("progress  {}", progress(&work)),
    ];
    if let Some(reason) = &work.stop_requested {
        lines.push(format!("asked to stop: {}", foreign(reason)));
    }
    let next = next_steps(&work);
    let as_of = work.as_of;
    Ok(Answer::new(sentence, as_json(&work))
        .lines(lines)
        .lines(next)
        .read_at(bmdb, as_of))
}

/// What may be done about it, the gentlest first.
pub(super) fn next_steps(work: &WorkStatus) -> Vec<String> {
    let mut next = vec![format!("next: bmdb work ask-to-stop {} --reason '…'", work.work)];
    if is_stuck(work) {
        next.push(format!(
            "      bmdb work break {} --expect-fence {} --reason '…'",
            work.work, work.fence
        ));
    }
    next
}

fn stuck_ones(stuck: u64) -> String {
    match stuck {
        0 => "none is stuck".to_owned(),
        _ => count(stuck, "is stuck", "are stuck"),
    }
}

fn state(work: &WorkStatus) -> &'static str {
    match (is_silent(work), work.stop_requested.is_some()) {
        (true, _) => "its session is silent",
        (false, true) => "it was asked to stop and goes on",
        (false, false) => "its session is alive",
    }
}

/// What its holder may believe in, at most: only it knows its margin.
fn trust(work: &WorkStatus) -> String {
    match work.left() {
        Some(left) if left > TimeDelta::zero() => format!("at most {}", span(left)),
        Some(left) => format!("none: its deadline passed {} ago", span(left)),
        None => "none: it has no lease that can be read".to_owned(),
    }
}

pub(super) fn progress(work: &WorkStatus) -> String {
    let said = work.progress.as_ref().map(|value| match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    });
    said.map_or_else(|| "says nothing".to_owned(), |said| brief(&said))
}

/// In a table: with its sign.
pub(super) fn sign(work: &WorkStatus) -> &'static str {
    match (is_silent(work), work.stop_requested.is_some()) {
        (true, _) => "✕ silent",
        (false, true) => "✕ asked to stop",
        (false, false) => "▶ in work",
    }
}

/// In a table: the most that its holder may still believe in.
pub(super) fn trust_left(work: &WorkStatus) -> String {
    let left = work.left().filter(|left| *left > TimeDelta::zero());
    left.map_or_else(|| "0 s".to_owned(), span)
}

pub(super) fn table(works: &[WorkStatus]) -> Table {
    let mut table = Table::new(&[
        "machine",
        "slot",
        "process",
        ">fence",
        "held for",
        "trust ≤",
        "by",
        "progress",
        "state",
        "work",
    ]);
    for work in works {
        table.row([
            brief(&name_of(work.machine, work.provider_id.as_deref()).shown),
            brief(&work.slot),
            brief(&work.process),
            work.fence.to_string(),
            span(work.age()),
            trust_left(work),
            brief(&work.component),
            work.progress.as_ref().map(|_| progress(work)).unwrap_or_default(),
            sign(work).to_owned(),
            work.work.to_string(),
        ]);
    }
    table
}
