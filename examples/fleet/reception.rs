//! Where agents report in: writes what they say as facts about their machines. It needs a session, but no work.

use std::time::Duration;

use bmdb::{
    CancellationToken, Error, Facts, MachineId, Observation, Session, agent_heartbeat, agent_started,
    os_installation_report,
};
use sea_orm::ActiveValue::{NotSet, Set};

use crate::processes::GENERATION;
use crate::show::provider::{Beat, World};

/// How often it listens.
const LISTENS_EVERY: Duration = Duration::from_millis(250);

/// Hears agents until told to stop.
///
/// # Errors
/// When the session is lost, or the database cannot be written.
pub(crate) async fn run(session: &Session, world: &World, stop: &CancellationToken) -> Result<(), Error> {
    loop {
        let beats: Vec<_> = world
            .beats()
            .into_iter()
            .filter_map(|beat| Some((observation(&beat)?, beat)))
            .collect();
        let observations = beats.iter().map(|(observation, _)| observation.clone());
        let heard = session.state(observations).await?;
        for ((_, beat), heard) in beats.iter().zip(heard) {
            if heard && beat.installed {
                world.retire(beat);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LISTENS_EVERY) => {}
        }
    }
}

/// What an agent says, if its key is the one that was stored at its start: whatever else runs on a machine was started by somebody who lost it, and is
/// not heard.
fn observation(beat: &Beat) -> Option<Observation> {
    let machine: MachineId = beat.machine.parse().ok()?;
    let mut facts = Facts::from(agent_heartbeat::row());
    if beat.installed {
        facts = facts.and(os_installation_report::ActiveModel {
            machine_id: NotSet,
            generation: Set(GENERATION),
            result: Set(os_installation_report::Outcome::Success),
            raw: Set(Vec::new()),
        });
    }
    Some(Observation::new(machine, facts).only_if(agent_started::row(beat.key.as_bytes())))
}
