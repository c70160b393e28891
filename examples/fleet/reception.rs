//! Where agents report in: writes what they say as facts about their machines. It needs a session, but no work.

use std::collections::HashSet;
use std::time::Duration;

use bmdb::{
    CancellationToken, Error, MachineId, Session, Tx, agent_heartbeat, agent_started, os_installation_report, tag,
};
use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use crate::processes::GENERATION;
use crate::provider::{Beat, World};

/// How many agents are heard in one transaction.
const AT_ONCE: usize = 200;

/// How often it listens.
const LISTENS_EVERY: Duration = Duration::from_millis(250);

/// Hears agents until told to stop.
///
/// # Errors
/// When the session is lost, or the database cannot be written.
pub(crate) async fn run(session: &Session, world: &World, stop: &CancellationToken) -> Result<(), Error> {
    loop {
        for beats in world.beats().chunks(AT_ONCE) {
            let heard = session.transact(async |tx| hear(tx, beats).await).await?;
            // Outside of the transaction, which may run many times.
            for beat in beats.iter().filter(|beat| beat.installed && heard.contains(&beat.key)) {
                world.retire(beat);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LISTENS_EVERY) => {}
        }
    }
}

/// Writes down the agents whose key is the one that was stored at their start, and answers these keys. Whatever else runs on a machine was
/// started by somebody who lost it, and is not heard.
async fn hear(tx: &Tx, beats: &[Beat]) -> Result<HashSet<String>, Error> {
    let machines: Vec<MachineId> = beats.iter().filter_map(|beat| beat.machine.parse().ok()).collect();
    let started = agent_started::Entity::find()
        .filter(agent_started::Column::MachineId.is_in(machines))
        .all(tx)
        .await?;
    let mut heard = HashSet::new();
    for agent in started {
        let Some(beat) = beats.iter().find(|beat| beat.key.as_bytes() == agent.public_key) else {
            continue;
        };
        agent_heartbeat::set(tx, agent.machine_id).await?;
        if beat.installed {
            let report = os_installation_report::ActiveModel {
                machine_id: Set(agent.machine_id),
                generation: Set(GENERATION),
                result: Set(os_installation_report::Outcome::Success),
                raw: Set(Vec::new()),
            };
            tag::set::<os_installation_report::Entity>(tx, report).await?;
        }
        heard.insert(beat.key.clone());
    }
    Ok(heard)
}
