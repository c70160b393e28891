//! The machines of the demo, and what is known of them before anything happens.

use bmdb::machine::NewMachine;
use bmdb::sea_orm::ActiveValue::{NotSet, Set};
use bmdb::sea_orm::EntityTrait;
use bmdb::{
    Bmdb, Facts, MachineId, Observation, Session, agent_heartbeat, agent_started, hardware_report, machine,
    os_installation_request, provided,
};

use crate::demo::processes::installed;
use crate::failure::{Failure, Kind};

/// The machine whose management controller lets nobody in.
pub(super) const UNREACHABLE: &str = "OAK-4107";
/// The machine that is held.
pub(super) const HELD: &str = "ELM-4160";

/// Providers, where their machines stand, and the start of their addresses, which are those that are kept for documents.
const PROVIDERS: [(&str, &str, &str); 4] = [
    ("oak", "fra2", "192.0.2."),
    ("elm", "ams1", "198.51.100."),
    ("yew", "osl3", "203.0.113."),
    ("ash", "waw1", "2001:db8:a5::"),
];
/// How many of each provider there are at the start.
const EACH: u32 = 75;
/// How many machines there can be: a provider has no more addresses.
pub(super) const MOST: u32 = 4 * 250;
/// So many of each wait for an agent, and so many after them have one.
const FRESH: u32 = 4;
const STARTED: u32 = 8;
/// How many machines one transaction brings in.
pub(super) const AT_FIRST: u32 = 4 * EACH;

/// The machine with this number.
pub(super) fn invented(number: u32) -> NewMachine {
    let (provider, place, network) = PROVIDERS[number as usize % PROVIDERS.len()];
    let nth = number / 4;
    NewMachine::new(provider, format!("{}-{}", provider.to_uppercase(), 4100 + nth))
        .address(format!("{network}{}", nth + 1))
        .location(format!("{place}/r{:02}/u{}", 1 + nth / 20, 1 + 2 * (nth % 20)))
        .reservation(format!("{place}-{:06x}", 0x5e_1a7 + 7919 * number))
}

/// Brings in those of the start, each with what happened to it before, and answers those that are installed.
///
/// # Errors
/// The database's.
pub(super) async fn bring_in(bmdb: &Bmdb, session: &Session) -> Result<Vec<MachineId>, Failure> {
    let machines: Vec<_> = (0..AT_FIRST).map(invented).collect();
    session
        .transact(async |tx| machine::import(tx, &machines).await)
        .await?;
    let mut ready = Vec::new();
    let mut known = Vec::new();
    for row in provided(bmdb).await? {
        let nth = row
            .provider_id
            .rsplit('-')
            .next()
            .and_then(|number| number.parse::<u32>().ok());
        let nth = nth.unwrap_or_default().saturating_sub(4100);
        let facts = if nth < FRESH {
            Facts::from(asked_for(1))
        } else if nth < FRESH + STARTED {
            let started = Facts::from(asked_for(1))
                .and(surveyed())
                .and(agent_started::row(row.provider_id.as_bytes()));
            if row.provider_id == UNREACHABLE {
                started
            } else {
                started.and(agent_heartbeat::row())
            }
        } else {
            ready.push(row.machine_id);
            let report = installed(row.machine_id, 1);
            Facts::from(asked_for(1)).and(surveyed()).and(report)
        };
        known.push(Observation::new(row.machine_id, facts));
    }
    session.state(known).await?;
    Ok(ready)
}

/// Adds one that has just been delivered.
///
/// # Errors
/// The database's.
pub(super) async fn deliver(bmdb: &Bmdb, session: &Session, number: u32) -> Result<(), Failure> {
    let new = [invented(number)];
    session.transact(async |tx| machine::import(tx, &new).await).await?;
    let machine = find(bmdb, &new[0].provider, &new[0].provider_id).await?;
    session.state([Observation::new(machine, asked_for(1))]).await?;
    Ok(())
}

/// The machine with this name.
///
/// # Errors
/// The database's, or that somebody has removed it.
pub(super) async fn find(bmdb: &Bmdb, provider: &str, provider_id: &str) -> Result<MachineId, Failure> {
    let found = machine::find(bmdb.reads(), provider, provider_id).await?;
    found.ok_or_else(|| Failure::not_found(format!("{provider_id} is not in the demo's database any more")))
}

async fn provided(bmdb: &Bmdb) -> Result<Vec<provided::Model>, Failure> {
    let read = provided::Entity::find().all(bmdb.reads()).await;
    read.map_err(|_unread| Failure::new(Kind::Unreachable, "the demo's machines cannot be read"))
}

/// The system of this generation is asked for.
pub(super) fn asked_for(generation: i64) -> os_installation_request::ActiveModel {
    os_installation_request::ActiveModel {
        machine_id: NotSet,
        generation: Set(generation),
        raw: Set(b"example-os 1.0".to_vec()),
    }
}

fn surveyed() -> hardware_report::ActiveModel {
    hardware_report::ActiveModel {
        machine_id: NotSet,
        raw: Set(br#"{"cpus":2,"disks":4,"memory_gib":256}"#.to_vec()),
    }
}
