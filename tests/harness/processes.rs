//! The processes that the suites and their component claim for: those of the original, and some that exclude each other or do not.

use std::time::Duration;

use bmdb::{
    Backoff, Bmdb, Eligible, Process, Registered, Session, agent_heartbeat, agent_started, machine,
    os_installation_report, os_installation_request, provided,
};
use sea_orm::ColumnTrait;

/// Agent start of the original: provided, no agent, and no fulfilled installation request.
#[derive(Debug, Default)]
pub struct AgentStart;

impl Process for AgentStart {
    const NAME: &'static str = "agent-start";
    const SLOT: &'static str = "agent";
    const BACKOFF: Backoff = Backoff::exponential(Duration::from_secs(300), 1.2, Duration::from_secs(4 * 3600));
    const COOL_DOWN: Duration = Duration::from_millis(300);
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines
            .has::<provided::Entity>()
            .lacks::<agent_started::Entity>()
            .unmet::<os_installation_request::Entity, os_installation_report::Entity>()
    }
}

/// Agent recovery of the original: started 30 minutes ago and never heard, or heard 10 minutes ago, unless the installation that is asked for
/// succeeded.
#[derive(Debug, Default)]
pub struct AgentRecovery;

impl Process for AgentRecovery {
    const NAME: &'static str = "agent-recovery";
    const SLOT: &'static str = "agent";
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        const NEVER_HEARD: Duration = Duration::from_secs(30 * 60);
        const NOT_HEARD: Duration = Duration::from_secs(10 * 60);
        machines
            .has::<agent_started::Entity>()
            .either(
                |one| {
                    one.lacks::<agent_heartbeat::Entity>()
                        .stale::<agent_started::Entity>(agent_started::Column::At, NEVER_HEARD)
                },
                |other| other.stale::<agent_heartbeat::Entity>(agent_heartbeat::Column::At, NOT_HEARD),
            )
            .unmet_where::<os_installation_request::Entity, os_installation_report::Entity>(
                "the installation that is asked for has not succeeded",
                os_installation_report::Column::Result.eq(os_installation_report::Outcome::Success),
            )
    }
}

/// A process in a slot of its own that every machine is always fit for.
#[derive(Debug, Default)]
pub struct Survey;

impl Process for Survey {
    const NAME: &'static str = "survey";
    const BACKOFF: Backoff = Backoff::NONE;
    const COOL_DOWN: Duration = Duration::ZERO;
    type Item = machine::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines
    }
}

/// Shares its slot with [`Rivet`]; every machine is always fit for it.
#[derive(Debug, Default)]
pub struct Weld;

impl Process for Weld {
    const NAME: &'static str = "weld";
    const SLOT: &'static str = "joint";
    type Item = machine::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines
    }
}

/// Shares its slot with [`Weld`].
#[derive(Debug, Default)]
pub struct Rivet;

impl Process for Rivet {
    const NAME: &'static str = "rivet";
    const SLOT: &'static str = "joint";
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines
    }
}

/// What processes can be registered on.
pub trait Connected {
    /// The connection.
    fn connection(&self) -> &Bmdb;
}

impl Connected for Bmdb {
    fn connection(&self) -> &Bmdb {
        self
    }
}

impl Connected for Session {
    fn connection(&self) -> &Bmdb {
        self.bmdb()
    }
}

impl<T: Connected> Connected for &T {
    fn connection(&self) -> &Bmdb {
        (*self).connection()
    }
}

/// The handle of a process that has one value: registered at the first call, and known from then on.
///
/// # Panics
/// If it cannot be registered: not for components that run beside faults.
pub async fn of<P: Process + Default>(connected: &impl Connected) -> Registered<P> {
    let registered = connected.connection().register(P::default()).await;
    registered.unwrap_or_else(|error| panic!("{} cannot be registered: {error}", P::NAME))
}
