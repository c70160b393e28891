//! What a caller gets when a work did not end as asked.

use std::fmt;

use crate::error::Error;
use crate::rules::process::Process;
use crate::session::work::Work;

/// Why a work did not end as asked.
///
/// ```no_run
/// # use bmdb::{Unfinished, Work};
/// # use bmdb::{Eligible, Process, provided};
/// # struct AgentStart;
/// # impl Process for AgentStart {
/// #     const NAME: &'static str = "agent-start";
/// #     type Item = provided::Model;
/// #     fn eligible(&self, machines: Eligible) -> Eligible { machines }
/// # }
/// # async fn example(work: Work<AgentStart>) -> Result<(), bmdb::Error> {
/// match work.done().await {
///     Ok(()) => println!("done"),
///     // The machine is still ours: what was done is not lost, so say it again.
///     Err(Unfinished::NotCommitted { work, .. } | Unfinished::Unknown { work, .. }) => work.done().await?,
///     Err(Unfinished::Over(error)) => println!("somebody else may work on it by now: {error}"),
///     Err(other) => return Err(other.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
pub enum Unfinished<P: Process, E = Error> {
    /// Nothing was written; the guard comes back, so that the end can be tried again or another chosen.
    NotCommitted {
        /// The guard.
        work: Work<P>,
        /// Why.
        error: E,
    },
    /// COMMIT was not answered, and the outcome could not be read in time. The guard is returned: try again, and history resolves it; dropping it is
    /// safe.
    Unknown {
        /// The guard.
        work: Work<P>,
        /// What is known.
        error: Error,
    },
    /// There is no such work any more: it was lost ([`Error::WorkLost`], [`Error::SessionExpired`]), or an earlier attempt of unknown outcome did
    /// end it ([`Error::AlreadyFinished`]). Nothing of this call was written.
    Over(Error),
}

impl<P: Process, E> Unfinished<P, E> {
    /// The guard, if there is still a work to end.
    #[must_use]
    pub fn into_work(self) -> Option<Work<P>> {
        match self {
            Self::NotCommitted { work, .. } | Self::Unknown { work, .. } => Some(work),
            Self::Over(_) => None,
        }
    }
}

impl<P: Process> Unfinished<P, Error> {
    /// Why, without the guard, which is dropped.
    #[must_use]
    pub fn into_error(self) -> Error {
        match self {
            Self::NotCommitted { error, .. } | Self::Unknown { error, .. } | Self::Over(error) => error,
        }
    }
}

/// Lets `?` be used on an end. The guard, if it came back, is dropped: the work is canceled.
impl<P: Process> From<Unfinished<P, Error>> for Error {
    fn from(unfinished: Unfinished<P, Error>) -> Self {
        unfinished.into_error()
    }
}

impl<P: Process, E: fmt::Debug> fmt::Debug for Unfinished<P, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCommitted { work, error } => f
                .debug_struct("NotCommitted")
                .field("work", work)
                .field("error", error)
                .finish(),
            Self::Unknown { work, error } => f
                .debug_struct("Unknown")
                .field("work", work)
                .field("error", error)
                .finish(),
            Self::Over(error) => f.debug_tuple("Over").field(error).finish(),
        }
    }
}

impl<P: Process, E> fmt::Display for Unfinished<P, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCommitted { .. } => f.write_str("the work is still held: its end was not committed"),
            Self::Unknown { .. } => f.write_str("whether the work has ended is unknown"),
            Self::Over(_) => f.write_str("the work is not ours any more"),
        }
    }
}

impl<P: Process, E: std::error::Error + 'static> std::error::Error for Unfinished<P, E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotCommitted { error, .. } => Some(error),
            Self::Unknown { error, .. } | Self::Over(error) => Some(error),
        }
    }
}
