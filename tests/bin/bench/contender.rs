//! Who takes part.

use std::time::Duration;

use clap::ValueEnum;

use crate::Failure;
use crate::fleet::Fleet;
use crate::limit::Limit;
use crate::ours::{Ours, Style};
use crate::steps::Steps;

/// A way of claiming and finishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Kind {
    /// The smallest transactions that write the same rows, for a machine that the client knows.
    Limit,
    /// The original's sequence: a statement per step, SERIALIZABLE, whole transactions run again.
    Steps,
    /// The connector's public API: a claim, and a finish whose body states a fact.
    Ours,
    /// A claim, and a failure: an end without a body.
    OursFail,
    /// An end with the next claim.
    OursFused,
    /// Ten claimed at once, and ended at once.
    OursTen,
}

impl Kind {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [
            Self::Limit,
            Self::Steps,
            Self::Ours,
            Self::OursFail,
            Self::OursFused,
            Self::OursTen,
        ]
        .into_iter()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Steps => "statement per step",
            Self::Ours => "bmdb, finish",
            Self::OursFail => "bmdb, fail",
            Self::OursFused => "bmdb, fused",
            Self::OursTen => "bmdb, 10 at once",
        }
    }

    pub(crate) fn goes_by_hints(self) -> bool {
        matches!(self, Self::Ours | Self::OursFail | Self::OursFused | Self::OursTen)
    }

    pub(crate) fn runs_on_sqlite(self) -> bool {
        self != Self::Steps
    }
}

/// How one claim and one finish went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cycle {
    /// How many machines were claimed and finished.
    pub(crate) machines: u32,
    /// How long the claim took.
    pub(crate) claim: Duration,
    /// How often a transaction ran again.
    pub(crate) retries: u32,
}

/// One contender, shared by all its workers.
pub(crate) enum Contender {
    Limit(Limit),
    Steps(Steps),
    Ours(Ours),
}

impl Contender {
    pub(crate) async fn enter(kind: Kind, url: &str, workers: usize) -> Result<Self, Failure> {
        Ok(match kind {
            Kind::Limit => Self::Limit(Limit::connect(url, workers).await?),
            Kind::Steps => Self::Steps(Steps::connect(url, workers).await?),
            Kind::Ours => Self::Ours(Ours::connect(url, workers, Style::Finish).await?),
            Kind::OursFail => Self::Ours(Ours::connect(url, workers, Style::Fail).await?),
            Kind::OursFused => Self::Ours(Ours::connect(url, workers, Style::FailThenClaim).await?),
            Kind::OursTen => Self::Ours(Ours::connect(url, workers, Style::Ten).await?),
        })
    }

    /// One cycle of one worker; `None`: there was nothing to claim.
    pub(crate) async fn cycle(&self, worker: usize, fleet: &Fleet) -> Result<Option<Cycle>, Failure> {
        match self {
            Self::Limit(limit) => limit.cycle(worker, fleet).await,
            Self::Steps(steps) => steps.cycle(worker, fleet).await,
            Self::Ours(ours) => ours.cycle(worker, fleet).await,
        }
    }

    pub(crate) async fn leave(self) -> Result<(), Failure> {
        match self {
            Self::Limit(limit) => limit.leave().await,
            Self::Steps(steps) => steps.leave().await,
            Self::Ours(ours) => ours.leave().await,
        }
    }
}
