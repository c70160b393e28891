//! The handle of a registered process.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bmdb_entity::MachineId;

use crate::bmdb::Bmdb;
use crate::db::tx::Tx;
use crate::error::Error;
use crate::rules::process::Process;
use crate::store::hints::leave_hints;
use crate::store::process::{register, write_rows};
use crate::store::rule::Rule;

/// A value of a process that a component has registered: what claims, counts and explanations are made with. Clone it freely.
///
/// ```no_run
/// # use bmdb::{Bmdb, Eligible, Process, provided};
/// # struct AgentStart { provider: String }
/// # impl Process for AgentStart {
/// #     const NAME: &'static str = "agent-start";
/// #     type Item = provided::Model;
/// #     fn eligible(&self, machines: Eligible) -> Eligible { machines }
/// # }
/// # async fn example(bmdb: Bmdb) -> Result<(), bmdb::Error> {
/// let start = bmdb.register(AgentStart { provider: "equinix".to_owned() }).await?;
/// println!("{} machines wait for an agent", start.count().await?);
/// let session = bmdb.start_session().await?;
/// while let Some(work) = session.claim(&start).await? {
///     println!("{}", start.process().provider);
///     work.cancel().await?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Registered<P> {
    bmdb: Bmdb,
    process: Arc<P>,
    rule: Arc<Rule>,
}

impl Bmdb {
    /// Registers a process: checks its value and rule, here and against the database, and stores both, so that people and consoles without its code
    /// can read them.
    ///
    /// Once for all: registering an equal value again answers at once, without asking the database. Two values of one type are two rules, each with hints and
    /// statements of its own.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name, slot, description, or a value that SQL cannot say; [`Error::InvalidBackoff`]; [`Error::InvalidTime`];
    /// [`Error::MissingTable`] for one that the rule reads; [`Error::NotAllowed`] for a role that lacks a right on these, or that may not do what
    /// components do; [`Error::RuleRefused`] when the database does not take the rule; [`Error::SlotClash`]; [`Error::Nested`] inside of a transaction's body.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the registration.
    pub async fn register<P: Process>(&self, process: P) -> Result<Registered<P>, Error> {
        let rule = register(self.database(), self.known(), &process).await?;
        Ok(Registered {
            bmdb: self.clone(),
            process: Arc::new(process),
            rule,
        })
    }
}

impl<P: Process> Registered<P> {
    /// The value that was registered.
    #[must_use]
    pub fn process(&self) -> &P {
        &self.process
    }

    /// What names the rule in the database: 16 hexadecimal digits, the same in each component whose rule finds the same.
    #[must_use]
    pub fn digest(&self) -> String {
        self.rule.key.digest()
    }

    /// Says that a machine may be eligible by this rule now, as [`machine::hint`](crate::machine::hint) says it to all rules of a process.
    ///
    /// ```no_run
    /// # async fn example<P: bmdb::Process>(tx: &bmdb::Tx, start: bmdb::Registered<P>, machine: bmdb::MachineId) -> Result<(), bmdb::Error> {
    /// bmdb::tag::delete::<bmdb::agent_started::Entity>(tx, machine).await?;
    /// start.hint(tx, machine).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the database cannot be written.
    ///
    /// # Cancel safety
    /// Dropping the future half-way spoils the transaction: it rolls back, and a body that returns `Ok` gets [`Error::Poisoned`].
    pub async fn hint(&self, tx: &Tx, machine: MachineId) -> Result<(), Error> {
        let left = leave_hints(tx, self.rule.key, &[machine]).await;
        left.map(drop).map_err(Error::database("leave a hint"))
    }

    pub(crate) fn bmdb(&self) -> &Bmdb {
        &self.bmdb
    }

    pub(crate) fn rule(&self) -> &Arc<Rule> {
        &self.rule
    }

    /// Writes its rows again from time to time, behind the caller's back: rules that nobody uses are swept, and somebody may have deleted them.
    pub(crate) fn renew(&self) {
        if !self.rule.is_to_be_renewed(Instant::now()) {
            return;
        }
        let (database, rule) = (Arc::clone(self.bmdb.database()), Arc::clone(&self.rule));
        self.bmdb.database().tasks.spawn(async move {
            if let Err(error) = write_rows(&database, &rule).await {
                tracing::warn!(
                    process = rule.key.process,
                    error = &error as &dyn std::error::Error,
                    "a process was not registered again"
                );
            }
        });
    }
}

impl<P> Clone for Registered<P> {
    fn clone(&self) -> Self {
        Self {
            bmdb: self.bmdb.clone(),
            process: Arc::clone(&self.process),
            rule: Arc::clone(&self.rule),
        }
    }
}

impl<P> fmt::Debug for Registered<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registered").field(&self.rule.key).finish()
    }
}
