//! What the components of the demo do to a machine. Nothing is outside: a command to a machine is some seconds of waiting, and how it goes is decided by
//! the machine's name and the number of the claim.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bmdb::sea_orm::ActiveValue::{NotSet, Set};
use bmdb::{
    Backoff, Eligible, Error, Facts, MachineId, Process, Tx, Work, Worker, agent_heartbeat, agent_started,
    hardware_report, os_installation_report, os_installation_request, provided, tag,
};
use serde_json::json;

use crate::demo::machines::UNREACHABLE;

/// How long a started agent may stay unheard. Half an hour in a fleet.
const NEVER_HEARD: Duration = Duration::from_secs(4);
/// How long an agent that was heard may be silent. Ten minutes in a fleet.
const SILENT: Duration = Duration::from_secs(15);
/// How long the machines of a dead component are left alone. 15 seconds in a fleet.
const COOL_DOWN: Duration = Duration::from_secs(1);
/// After the third failure in a row a person is needed.
const BACKOFF: Backoff = Backoff::exponential(Duration::from_secs(1), 2.0, Duration::from_secs(8)).max_attempts(3);

/// Starts an agent on a machine that shall be installed.
pub(super) struct AgentStart;

impl Process for AgentStart {
    const NAME: &'static str = "agent-start";
    const SLOT: &'static str = "agent";
    const DESCRIPTION: &'static str = "starts an agent on a machine that shall be installed and has none";
    const BACKOFF: Backoff = BACKOFF;
    const COOL_DOWN: Duration = COOL_DOWN;
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines
            .has::<os_installation_request::Entity>()
            .unmet::<os_installation_request::Entity, os_installation_report::Entity>()
            .lacks::<agent_started::Entity>()
    }
}

/// Power-cycles a machine whose agent is not heard, and forgets that it was started.
pub(super) struct AgentRecovery;

impl Process for AgentRecovery {
    const NAME: &'static str = "agent-recovery";
    const SLOT: &'static str = AgentStart::SLOT;
    const DESCRIPTION: &'static str = "power-cycles a machine whose agent is not heard";
    const BACKOFF: Backoff = BACKOFF;
    const COOL_DOWN: Duration = COOL_DOWN;
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines.has::<agent_started::Entity>().either(
            |machines| {
                machines
                    .lacks::<agent_heartbeat::Entity>()
                    .stale::<agent_started::Entity>(agent_started::Column::At, NEVER_HEARD)
            },
            |machines| machines.stale::<agent_heartbeat::Entity>(agent_heartbeat::Column::At, SILENT),
        )
    }
}

/// Has an agent install the system that was asked for.
pub(super) struct OsInstall;

impl Process for OsInstall {
    const NAME: &'static str = "os-install";
    const SLOT: &'static str = "os";
    const DESCRIPTION: &'static str = "has the agent install the system that was asked for";
    const BACKOFF: Backoff = BACKOFF;
    const COOL_DOWN: Duration = COOL_DOWN;
    type Item = os_installation_request::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines
            .has::<agent_heartbeat::Entity>()
            .unmet::<os_installation_request::Entity, os_installation_report::Entity>()
    }
}

/// Reads out what a machine is made of.
pub(super) struct HardwareSurvey;

impl Process for HardwareSurvey {
    const NAME: &'static str = "hardware-survey";
    const SLOT: &'static str = "hardware";
    const DESCRIPTION: &'static str = "reads out what a machine is made of";
    const BACKOFF: Backoff = BACKOFF;
    const COOL_DOWN: Duration = COOL_DOWN;
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines.lacks::<hardware_report::Entity>()
    }
}

/// Flashes firmware, if anybody ran it.
pub(super) struct FirmwareUpdate;

impl Process for FirmwareUpdate {
    const NAME: &'static str = "firmware-update";
    const SLOT: &'static str = HardwareSurvey::SLOT;
    const DESCRIPTION: &'static str = "flashes firmware that is too old";
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines.has::<hardware_report::Entity>()
    }
}

/// Works for [`AgentStart`].
pub(super) struct Starter;

impl Worker for Starter {
    type Process = AgentStart;
    type Outcome = String;

    async fn run(&self, work: &Work<AgentStart>) -> Result<String, String> {
        takes(work, 2_000, 6_000).await?;
        let (name, fence) = (&work.provider_id, work.fence());
        if chance((name, fence.0)).is_multiple_of(16) {
            let address = work.address.as_deref().unwrap_or("no address");
            return Err(format!(
                "the management controller of {name} at {address} does not answer within 5 s"
            ));
        }
        Ok(format!("agent of {name}, started with fence {fence}"))
    }

    fn facts(&self, key: &String) -> Option<Facts> {
        Some(agent_started::row(key.as_bytes()).into())
    }
}

/// Works for [`AgentRecovery`].
pub(super) struct Recoverer;

impl Worker for Recoverer {
    type Process = AgentRecovery;
    type Outcome = ();

    async fn run(&self, work: &Work<AgentRecovery>) -> Result<(), String> {
        takes(work, 1_000, 2_000).await?;
        if work.provider_id == UNREACHABLE {
            let address = work.address.as_deref().unwrap_or("no address");
            return Err(format!(
                "the management controller at {address} does not take the password of the vault: somebody has changed it by hand"
            ));
        }
        Ok(())
    }

    async fn commit(&self, tx: &Tx, machine: MachineId, _done: &()) -> Result<(), Error> {
        forget_agent(tx, machine).await
    }
}

/// Works for [`OsInstall`].
pub(super) struct Installer;

impl Worker for Installer {
    type Process = OsInstall;
    type Outcome = i64;

    async fn run(&self, work: &Work<OsInstall>) -> Result<i64, String> {
        for (step, what) in ["partitions disks", "writes the image", "configures", "boots the system"]
            .iter()
            .enumerate()
        {
            // What it says of itself is for people: not to be able to say it stops nothing.
            let _unsaid = work.progress(&json!(format!("{}/4 {what}", step + 1))).await;
            takes(work, 1_000, 5_000).await?;
        }
        Ok(work.generation)
    }

    async fn commit(&self, tx: &Tx, machine: MachineId, generation: &i64) -> Result<(), Error> {
        tag::set::<os_installation_report::Entity>(tx, installed(machine, *generation)).await?;
        // What runs now is the system.
        forget_agent(tx, machine).await
    }
}

/// Works for [`HardwareSurvey`]. Who has begun to read out a disk cannot be stopped.
pub(super) struct Surveyor;

impl Worker for Surveyor {
    type Process = HardwareSurvey;
    type Outcome = String;

    async fn run(&self, work: &Work<HardwareSurvey>) -> Result<String, String> {
        let _unsaid = work
            .progress(&json!("reads out the disks, which cannot be stopped half-way"))
            .await;
        tokio::time::sleep(how_long((work.machine(), work.fence().0), 12_000, 20_000)).await;
        let disks = 2 + chance(&work.provider_id) % 11;
        Ok(json!({"cpus": 2, "disks": disks, "memory_gib": 256}).to_string())
    }

    fn facts(&self, report: &String) -> Option<Facts> {
        let report = hardware_report::ActiveModel {
            machine_id: NotSet,
            raw: Set(report.clone().into_bytes()),
        };
        Some(report.into())
    }
}

/// Whether an agent is alive: some die before they are heard.
pub(super) fn is_heard(key: &[u8]) -> bool {
    !chance(key).is_multiple_of(12)
}

/// That the system of this generation is on a machine.
pub(super) fn installed(machine: MachineId, generation: i64) -> os_installation_report::ActiveModel {
    os_installation_report::ActiveModel {
        machine_id: Set(machine),
        generation: Set(generation),
        result: Set(os_installation_report::Outcome::Success),
        raw: Set(Vec::new()),
    }
}

async fn forget_agent(tx: &Tx, machine: MachineId) -> Result<(), Error> {
    tag::delete::<agent_heartbeat::Entity>(tx, machine).await?;
    tag::delete::<agent_started::Entity>(tx, machine).await?;
    Ok(())
}

/// The machine is busy with it for so many milliseconds, unless the work is told to stop.
async fn takes<P: Process>(work: &Work<P>, least: u64, most: u64) -> Result<(), String> {
    let stop = work.stop();
    tokio::select! {
        () = tokio::time::sleep(how_long((work.machine(), work.fence().0), least, most)) => Ok(()),
        () = stop.cancelled() => Err("told to stop".to_owned()),
    }
}

fn how_long(of: impl Hash, least: u64, most: u64) -> Duration {
    Duration::from_millis(least + chance(of) % (most - least))
}

/// Some number that is always the same for the same thing.
fn chance(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}
