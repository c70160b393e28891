//! What a component author writes.

use bmdb_entity::MachineId;

use crate::db::tx::Tx;
use crate::error::Error;
use crate::rules::facts::Facts;
use crate::rules::process::Process;
use crate::session::work::Work;

/// What a component author writes: how one machine is worked on.
///
/// A panic in any of its functions fails the work: the process backs off from the machine, with the panic as the cause. It is logged, and counted in
/// [`Counts::panicked`](crate::Counts::panicked).
///
/// ```
/// use bmdb::{Facts, Work, Worker, agent_started};
/// # use bmdb::{Eligible, Process, provided};
/// # struct AgentStart;
/// # impl Process for AgentStart {
/// #     const NAME: &'static str = "agent-start";
/// #     type Item = provided::Model;
/// #     fn eligible(&self, machines: Eligible) -> Eligible { machines.lacks::<agent_started::Entity>() }
/// # }
/// struct Starter;
///
/// impl Worker for Starter {
///     type Process = AgentStart;
///     type Outcome = Vec<u8>;
///
///     async fn run(&self, work: &Work<AgentStart>) -> Result<Vec<u8>, String> {
///         let address = work.address.as_deref().ok_or("the machine has no address")?;
///         Ok(format!("key of the agent at {address}, fence {}", work.fence()).into_bytes())
///     }
///
///     fn facts(&self, key: &Vec<u8>) -> Option<Facts> {
///         Some(agent_started::row(key.clone()).into())
///     }
/// }
/// ```
pub trait Worker: Send + Sync + 'static {
    /// The process whose machines it works on.
    type Process: Process;

    /// What the work establishes, for the commit phase.
    type Outcome: Send + Sync;

    /// The work phase, outside of any transaction, for as long as it takes. It should end soon when [`work.stop()`](Work::stop) fires.
    ///
    /// It must not block its thread: use [`spawn_blocking`](https://docs.rs/tokio/latest/tokio/task/fn.spawn_blocking.html) for what does. What blocks
    /// cannot be aborted: its machine stays held until it ends, or until the process does and the session expires.
    ///
    /// # Errors
    /// A cause, and the work fails: the process backs off from the machine. After the stop token has fired, the work is canceled instead.
    fn run(&self, work: &Work<Self::Process>) -> impl Future<Output = Result<Self::Outcome, String>> + Send;

    /// The facts, if the work establishes nothing but facts about its machine, or nothing at all: the end is then one statement, which can also carry
    /// the next claim. `None` (the default): [`commit`](Self::commit) is called instead.
    fn facts(&self, outcome: &Self::Outcome) -> Option<Facts> {
        let _not_all = outcome;
        None
    }

    /// The commit phase: writes what the work has established, in the transaction that finishes the work. It may run many times. Default: nothing.
    ///
    /// # Errors
    /// Nothing is written. An error about the database, the session or its trust is not the machine's fault: the end is tried again, with growing
    /// pauses, while the session lives. Any other error, such as one of a constraint, fails the work with that cause.
    fn commit(
        &self,
        tx: &Tx,
        machine: MachineId,
        outcome: &Self::Outcome,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        let _nothing = (tx, machine, outcome);
        std::future::ready(Ok(()))
    }
}
