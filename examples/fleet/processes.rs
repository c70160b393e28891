//! The two processes, and how one machine is worked on: what the author of a component writes.

use std::net::SocketAddr;
use std::time::Duration;

use bmdb::{
    Backoff, Eligible, Error, Facts, MachineId, Process, Tx, Work, Worker, agent_heartbeat, agent_started,
    os_installation_report, os_installation_request, provided, tag,
};
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::ColumnTrait;

use crate::show::provider::{self, Command};

/// How long a started agent may stay unheard. 30 minutes in production.
pub(crate) const NEVER_HEARD: Duration = Duration::from_secs(4);

/// How long an agent that was heard may be silent. 10 minutes in production.
pub(crate) const SILENT: Duration = Duration::from_secs(5);

/// How long a dead component's machines are left alone. 15 seconds in production.
const COOL_DOWN: Duration = Duration::from_secs(1);

/// 5 minutes, growing by a fifth up to 4 hours, in production.
const BACKOFF: Backoff = Backoff::exponential(Duration::from_secs(1), 1.5, Duration::from_secs(5));

/// How much trust a command needs to be sent: the longest that it may take to arrive.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// The generation of the installation that every agent is asked for.
pub(crate) const GENERATION: i64 = 1;

/// Starts an agent on a machine that has none.
pub(crate) struct AgentStart;

impl Process for AgentStart {
    const NAME: &'static str = "agent-start";
    const SLOT: &'static str = "agent";
    const DESCRIPTION: &'static str = "starts an agent on a machine that has none";
    const BACKOFF: Backoff = BACKOFF;
    const COOL_DOWN: Duration = COOL_DOWN;
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines
            .has::<provided::Entity>()
            .lacks::<agent_started::Entity>()
            .unmet::<os_installation_request::Entity, os_installation_report::Entity>()
    }
}

/// Power-cycles a machine whose agent is silent, and forgets that it was started. It shares the slot of [`AgentStart`], so that nobody starts an
/// agent on a machine that is being power-cycled.
pub(crate) struct AgentRecovery;

impl Process for AgentRecovery {
    const NAME: &'static str = "agent-recovery";
    const SLOT: &'static str = AgentStart::SLOT;
    const DESCRIPTION: &'static str = "power-cycles a machine whose agent is silent";
    const BACKOFF: Backoff = BACKOFF;
    const COOL_DOWN: Duration = COOL_DOWN;
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        let succeeded = os_installation_report::Column::Result.eq(os_installation_report::Outcome::Success);
        machines
            .has::<agent_started::Entity>()
            .unmet_where::<os_installation_request::Entity, os_installation_report::Entity>(
                "the installation that is asked for has not succeeded",
                succeeded,
            )
            .either(
                |machines| {
                    machines
                        .lacks::<agent_heartbeat::Entity>()
                        .stale::<agent_started::Entity>(agent_started::Column::At, NEVER_HEARD)
                },
                |machines| machines.stale::<agent_heartbeat::Entity>(agent_heartbeat::Column::At, SILENT),
            )
    }
}

/// Works for [`AgentStart`].
pub(crate) struct Starter(pub(crate) SocketAddr);

impl Worker for Starter {
    type Process = AgentStart;
    type Outcome = String;

    async fn run(&self, work: &Work<AgentStart>) -> Result<String, String> {
        let command = Command::StartAgent {
            machine: work.machine().to_string(),
            name: work.provider_id.clone(),
            fence: work.fence().0,
        };
        order(self.0, work, command).await
    }

    fn facts(&self, key: &String) -> Option<Facts> {
        let request = os_installation_request::ActiveModel {
            machine_id: NotSet,
            generation: Set(GENERATION),
            raw: Set(b"example-os 1.0".to_vec()),
        };
        Some(Facts::from(agent_started::row(key.as_bytes())).and(request))
    }
}

/// Works for [`AgentRecovery`].
pub(crate) struct Recoverer(pub(crate) SocketAddr);

impl Worker for Recoverer {
    type Process = AgentRecovery;
    type Outcome = String;

    async fn run(&self, work: &Work<AgentRecovery>) -> Result<String, String> {
        let command = Command::PowerCycle {
            machine: work.machine().to_string(),
            name: work.provider_id.clone(),
            fence: work.fence().0,
        };
        order(self.0, work, command).await
    }

    async fn commit(&self, tx: &Tx, machine: MachineId, _done: &String) -> Result<(), Error> {
        tag::delete::<agent_heartbeat::Entity>(tx, machine).await?;
        tag::delete::<agent_started::Entity>(tx, machine).await?;
        Ok(())
    }
}

/// Has the provider do something, with the work's fence, for as long as we are trusted and not told to stop.
async fn order<P: Process>(provider: SocketAddr, work: &Work<P>, command: Command) -> Result<String, String> {
    let ordered = work.guarded(ON_ITS_WAY, provider::call(provider, &command));
    let stop = work.stop();
    tokio::select! {
        answer = ordered => answer.map_err(|error| error.to_string())?,
        () = stop.cancelled() => Err("told to stop".to_owned()),
    }
}
