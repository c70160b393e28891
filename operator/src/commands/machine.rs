//! Machines: found, shown, held, drained, added.

mod claims;
mod holds;

use bmdb::entity::work_hold;
use bmdb::machine::NewMachine;
use bmdb::{Bmdb, MachineFilter, MachineId, MachineState, MachineStatus};
use chrono::{DateTime, Utc};
use serde_json::json;

use crate::answer::words::{brief, count, foreign, span, until, when};
use crate::answer::{Answer, Table};
use crate::cli::{Machine, State};
use crate::commands::{backoff, operation, why};
use crate::facts::claims::{event_json, events, latest};
use crate::facts::machine::{Standing, as_json, hold_json, is_on, standing};
use crate::facts::name::{find, name_of};
use crate::facts::{self, process, work};
use crate::failure::Failure;
use crate::source::Source;

pub(super) async fn run(source: &Source, verb: Machine) -> Result<Answer, Failure> {
    let bmdb = &source.bmdb;
    match verb {
        Machine::Ls {
            state,
            process,
            provider,
            after,
            limit,
        } => {
            if let Some(process) = &process {
                process::check(bmdb, process).await?;
            }
            list(
                bmdb,
                filter(state, process, provider),
                after.map(MachineId),
                limit.limit,
            )
            .await
        }
        Machine::Show { machine } => show(bmdb, &find(bmdb, &machine.machine).await?).await,
        Machine::Why { machine, process } => why::why(source, &find(bmdb, &machine.machine).await?, &process).await,
        Machine::History { machine, limit } => {
            claims::history(bmdb, &find(bmdb, &machine.machine).await?, limit.limit as usize).await
        }
        Machine::Hold { machine, hold, reason } => holds::place(source, &machine, &hold, &reason).await,
        Machine::ReleaseHold { machine, slot, reason } => {
            holds::release(source, &machine, slot.as_deref(), &reason).await
        }
        Machine::Drain { machine, hold, reason } => holds::drain(source, &machine, &hold, &reason).await,
        Machine::Add {
            provider,
            provider_id,
            address,
            location,
            reservation,
        } => {
            let mut new = NewMachine::new(provider, provider_id);
            (new.address, new.location, new.reservation) = (address, location, reservation);
            let session = bmdb.start_session().await?;
            let added = session
                .transact(async |tx| bmdb::machine::provide(tx, new.clone()).await)
                .await;
            let machine = added?;
            session.close().await?;
            let sentence = format!("{} is machine {machine}.", foreign(&new.provider_id));
            Answer::new(
                sentence,
                json!({"machine": machine.to_string(), "provider_id": new.provider_id}),
            )
            .from(bmdb)
            .await
        }
    }
}

fn filter(state: Option<State>, process: Option<String>, provider: Option<String>) -> MachineFilter {
    let mut filter = MachineFilter::new();
    if let Some(state) = state {
        filter = filter.state(match state {
            State::InWork => MachineState::InWork,
            State::BackingOff => MachineState::BackingOff,
            State::Parked => MachineState::Parked,
            State::Held => MachineState::Held,
        });
    }
    if let Some(process) = process {
        filter = filter.process(process);
    }
    if let Some(provider) = provider {
        filter = filter.provider(provider);
    }
    filter
}

async fn list(bmdb: &Bmdb, filter: MachineFilter, after: Option<MachineId>, limit: u32) -> Result<Answer, Failure> {
    let list = bmdb.machines(filter).limit(limit);
    let page = match after {
        Some(machine) => list.after(machine).await?,
        None => list.await?,
    };
    let ids: Vec<_> = page.rows.iter().map(|row| row.machine).collect();
    let standing = standing(bmdb, &ids).await?;
    let mut table = Table::new(&["machine", "provider", "address", "location", "states", "id"]);
    let mut rows = Vec::with_capacity(page.rows.len());
    for row in &page.rows {
        let states = states(&standing, row.machine, row.as_of);
        table.row([
            brief(&name_of(row.machine, row.provider_id.as_deref()).shown),
            row.provider.as_deref().map(brief).unwrap_or_default(),
            row.address.as_deref().map(brief).unwrap_or_default(),
            row.location.as_deref().map(brief).unwrap_or_default(),
            states.join(", "),
            row.machine.to_string(),
        ]);
        rows.push(as_json(row, &states));
    }
    let shown = count(page.rows.len() as u64, "machine", "machines");
    let sentence = match (page.next.is_some(), after) {
        (true, None) => format!("The first {shown}; there are more."),
        (true, Some(_)) => format!("{shown} more; there are others."),
        (false, None) => format!("{shown} in all."),
        (false, Some(_)) => format!("The last {shown}."),
    };
    let mut answer = Answer::new(
        sentence,
        json!({"machines": rows, "next": page.next.map(|id| id.to_string())}),
    )
    .table(table)
    .unreadable(&page.unreadable)
    .unreadable(&standing.unreadable);
    if let Some(next) = page.next {
        answer = answer.note(format!("the next page: --after {next}"));
    }
    answer.from(bmdb).await
}

/// How a machine stands to processes, each in two words.
fn states(standing: &Standing, machine: MachineId, now: DateTime<Utc>) -> Vec<String> {
    let works = standing.works.get(&machine).into_iter().flatten();
    let works = works.map(|row| match work::is_silent(row) {
        true => format!("✕ silent {}", foreign(&row.process)),
        false => format!("▶ {}", foreign(&row.process)),
    });
    let backoffs = standing.backoffs.get(&machine).into_iter().flatten();
    let backoffs = backoffs.filter_map(|backoff| match backoff.until {
        None => Some(format!("■ parked {}", foreign(&backoff.process))),
        Some(until) if until > now => Some(format!("⧗ {}", foreign(&backoff.process))),
        Some(_) => None,
    });
    let holds = standing.holds.get(&machine).into_iter().flatten();
    let holds = holds
        .filter(|hold| is_on(hold, now))
        .map(|hold| match hold.slot.as_str() {
            "*" => "⊘ held".to_owned(),
            slot => format!("⊘ {} held", foreign(slot)),
        });
    works.chain(backoffs).chain(holds).collect()
}

async fn show(bmdb: &Bmdb, machine: &MachineStatus) -> Result<Answer, Failure> {
    let (id, now) = (machine.machine, machine.as_of);
    let name = name_of(id, machine.provider_id.as_deref());
    let standing = standing(bmdb, &[id]).await?;
    let works = standing.works.get(&id).map(Vec::as_slice).unwrap_or_default();
    let backoffs = standing.backoffs.get(&id).map(Vec::as_slice).unwrap_or_default();
    let holds: Vec<_> = standing
        .holds
        .get(&id)
        .into_iter()
        .flatten()
        .filter(|hold| is_on(hold, now))
        .collect();
    let processes = process::registered(bmdb).await?;
    let mut slots: Vec<String> = processes.into_iter().map(|(_, slot)| slot).collect();
    slots.dedup();

    let mut who = Table::new(&["slot", "who may touch it now", "for", "fence", "work"]);
    for slot in &slots {
        let on_slot = |hold: &&&work_hold::Model| hold.slot == "*" || hold.slot == *slot;
        let (may, held_for, fence, id) =
            match (works.iter().find(|work| work.slot == *slot), holds.iter().find(on_slot)) {
                (Some(work), _) => (
                    format!("▶ {} by {}", foreign(&work.process), foreign(&work.component)),
                    span(work.age()),
                    work.fence.to_string(),
                    work.work.to_string(),
                ),
                (None, Some(hold)) => (
                    format!("⊘ nobody: held by {}", brief(&hold.placed_by)),
                    span(now - hold.placed_at),
                    String::new(),
                    String::new(),
                ),
                (None, None) => (
                    "○ whoever claims it first".to_owned(),
                    String::new(),
                    String::new(),
                    String::new(),
                ),
            };
        who.row([foreign(slot), may, held_for, fence, id]);
    }
    let mut held = Table::new(&["⊘ held", "by", "until", "ticket", "reason"]);
    for hold in &holds {
        held.row([
            if hold.slot == "*" {
                "the whole machine".to_owned()
            } else {
                format!("slot {}", foreign(&hold.slot))
            },
            brief(&hold.placed_by),
            until(hold.until, now, "until lifted"),
            hold.ticket.as_deref().map(brief).unwrap_or_default(),
            brief(&hold.reason),
        ]);
    }
    let events = events(bmdb, id).await?;
    let latest = latest(&events, 10);
    let acts = bmdb.operations(Some(id)).limit(5).await?;
    let facts = [
        ("id", Some(id.to_string())),
        ("provider", machine.provider.as_deref().map(foreign)),
        ("address", machine.address.as_deref().map(foreign)),
        ("location", machine.location.as_deref().map(foreign)),
        ("fence", Some(machine.fence.to_string())),
        ("came", Some(when(machine.created_at, now))),
    ];
    let facts = facts
        .into_iter()
        .filter_map(|(what, value)| Some(format!("{what:10}{}", value?)));
    let sentence = match (works.len() as u64, holds.len() as u64) {
        (0, 0) => format!("Nobody works on {name}, and nothing holds it."),
        (0, _) => format!("Nobody works on {name}: it is held."),
        (works, 0) => format!("{} at {name}.", count(works, "work goes on", "works go on")),
        (works, _) => format!(
            "{} at {name}, which is held.",
            count(works, "work goes on", "works go on")
        ),
    };
    let json = json!({
        "machine": as_json(machine, &states(&standing, id, now)), "works": works.iter().map(work::as_json).collect::<Vec<_>>(),
        "backoffs": backoffs.iter().map(facts::backoff::as_json).collect::<Vec<_>>(), "holds": holds.iter().map(|hold| hold_json(hold)).collect::<Vec<_>>(),
        "history": latest.iter().rev().map(event_json).collect::<Vec<_>>(),
        "operations": acts.rows.iter().map(facts::operation::as_json).collect::<Vec<_>>(),
    });
    Ok(Answer::new(sentence, json)
        .lines(facts.collect())
        .table(who)
        .table(held)
        .table(backoff::table(backoffs, now, |_| name.clone()))
        .table(claims::table(latest, now))
        .table(operation::table(&acts.rows, now, |_| name.clone()))
        .lines(vec![format!("next: bmdb machine why {} PROCESS", name.pasted)])
        .unreadable(&standing.unreadable)
        .read_at(bmdb, now))
}
