//! What a process is.

use std::time::Duration;

use bmdb_entity::MachineRow;
use sea_orm::{FromQueryResult, ModelTrait};

use crate::db::dialect::LONGEST;
use crate::error::Error;
use crate::rules::backoff::Backoff;
use crate::rules::check::{check_name, check_text};
use crate::rules::eligible::Eligible;

/// A kind of work: a name, and the rule by which machines are fit for it. [Register](crate::Bmdb::register) a value of it once, and claim with the handle.
///
/// The value can say more than the type: here, whose machines it is about. Each value's rule has hints and statements of its own.
///
/// ```
/// use bmdb::{Backoff, Eligible, Process, agent_started, provided};
/// use sea_orm::ColumnTrait;
/// use std::time::Duration;
///
/// pub struct AgentStart {
///     pub provider: String,
/// }
///
/// impl Process for AgentStart {
///     const NAME: &'static str = "agent-start";
///     const SLOT: &'static str = "agent";
///     const BACKOFF: Backoff = Backoff::exponential(Duration::from_secs(300), 1.2, Duration::from_secs(4 * 3600));
///     type Item = provided::Model;
///
///     fn eligible(&self, machines: Eligible) -> Eligible {
///         let own = provided::Column::Provider.eq(&self.provider);
///         machines.when("is of our provider", own).lacks::<agent_started::Entity>()
///     }
/// }
/// ```
pub trait Process: Sized + Send + Sync + 'static {
    /// Its name, `[A-Za-z0-9_.-]{1,64}`. Names are for ever: history and backoffs keep them.
    const NAME: &'static str;

    /// What it occupies on a machine. Two processes with one slot exclude each other.
    const SLOT: &'static str = Self::NAME;

    /// What it does, for people.
    const DESCRIPTION: &'static str = "";

    /// How it backs off from a machine on which it failed.
    const BACKOFF: Backoff = Backoff::NONE;

    /// How long a machine is left alone after its holder died: time for effects that are still on their way to arrive. At most a century.
    const COOL_DOWN: Duration = Duration::from_secs(15);

    /// The longest a work may run before its stop token fires; a century at most. `None`: as long as its session lives.
    const MAX_RUN: Option<Duration> = None;

    /// The row that the guard carries: a machine's, or that of a tag that every machine of this process has.
    type Item: ModelTrait<Entity: MachineRow> + FromQueryResult + Sync + 'static;

    /// Which machines are fit. The only source for claims, counts and explanations. Machines that are held, in work on this slot or backed off
    /// from are left out by BMDB itself. It is asked once, when the process is [registered](crate::Bmdb::register).
    ///
    /// Bound values are part of the rule: a value that differs at each registration, such as the time of day, makes a new rule each time, without any
    /// hints.
    fn eligible(&self, machines: Eligible) -> Eligible;
}

/// Checks what `P` says of itself.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn check<P: Process>() -> Result<(), Error> {
    check_name("the name of a process", P::NAME)?;
    check_name("the name of a slot", P::SLOT)?;
    check_text("the description of a process", P::DESCRIPTION, 4096)?;
    check_time::<P>("COOL_DOWN", P::COOL_DOWN)?;
    check_time::<P>("MAX_RUN", P::MAX_RUN.unwrap_or_default())?;
    P::BACKOFF.check().map_err(|source| Error::InvalidBackoff {
        process: P::NAME,
        source,
    })
}

fn check_time<P: Process>(setting: &'static str, value: Duration) -> Result<(), Error> {
    if value <= LONGEST {
        return Ok(());
    }
    Err(Error::InvalidTime {
        process: P::NAME,
        setting,
        value,
        longest: LONGEST,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A process for which every machine is fit.
    pub(crate) struct Survey;

    impl Process for Survey {
        const NAME: &'static str = "survey";
        type Item = bmdb_entity::machine::Model;

        fn eligible(&self, machines: Eligible) -> Eligible {
            machines
        }
    }
}
