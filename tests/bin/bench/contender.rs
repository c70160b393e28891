//! Who takes part.

use std::time::Duration;

use clap::ValueEnum;

use crate::Failure;
use crate::contenders::by_hand::ByHand;
use crate::contenders::install::Program;
use crate::contenders::keys::Keys;
use crate::contenders::limit::Limit;
use crate::contenders::ours::{Ours, Style};
use crate::contenders::peers::Peer;
use crate::contenders::rules::{Rules, Two};
use crate::contenders::steps::Steps;
use crate::fleet::Fleet;

/// A way of claiming and finishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Kind {
    /// The smallest transactions that write the same rows, for a machine that the client knows.
    Limit,
    /// The original's sequence: a statement per step, SERIALIZABLE, whole transactions run again.
    Steps,
    /// The connector's public API: a claim, and a finish whose body states a fact.
    Ours,
    /// A claim, and an end that states the fact itself.
    OursDone,
    /// A claim, and a failure, which leaves a backoff.
    OursFail,
    /// A failure's statements in a loop written by hand.
    Loop,
    /// An end that states a fact, with the next claim.
    OursFused,
    /// Ten claimed at once, and ended at once.
    OursTen,
    /// graphile-worker (npm), one job at a time.
    GraphileWorker,
    /// The same with its local queue and batched completion.
    GraphileWorkerBatched,
    /// pg-boss (npm), one job at a time.
    PgBoss,
    /// The same, 500 jobs at once.
    PgBossBatched,
    /// apalis-postgres (crates.io), which fetches 10 jobs at once unless it is told otherwise.
    Apalis,
    /// The same, 500 jobs at once.
    ApalisBatched,
    /// Two components with a provider each and a name each.
    TwoNames,
    /// Two components with a provider each and one name.
    TwoValues,
    /// Two components with one rule.
    OneRule,
    /// Two components of which one has a later version of the rule.
    TwoVersions,
    /// A row for each lock, and for each lock held a keep-alive of its own, all on one connection.
    Keys,
}

impl Kind {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Steps => "statement per step",
            Self::Ours => "bmdb, finish",
            Self::OursDone => "bmdb, done",
            Self::OursFail => "bmdb, fail",
            Self::Loop => "loop of fail's statements",
            Self::OursFused => "bmdb, fused",
            Self::OursTen => "bmdb, 10 at once",
            Self::GraphileWorker => "graphile-worker",
            Self::GraphileWorkerBatched => "graphile-worker, 500 at once",
            Self::PgBoss => "pg-boss",
            Self::PgBossBatched => "pg-boss, 500 at once",
            Self::Apalis => "apalis, 10 at once",
            Self::ApalisBatched => "apalis, 500 at once",
            Self::TwoNames => "two names",
            Self::TwoValues => "two values of one name",
            Self::OneRule => "one rule",
            Self::TwoVersions => "two versions of a rule",
            Self::Keys => "lock per key",
        }
    }

    pub(crate) fn goes_by_hints(self) -> bool {
        matches!(
            self,
            Self::Ours | Self::OursDone | Self::OursFail | Self::Loop | Self::OursFused | Self::OursTen
        ) || self.rules().is_some()
    }

    /// For two components with rules of their own.
    pub(crate) fn rules(self) -> Option<Rules> {
        Some(match self {
            Self::TwoNames => Rules::Names,
            Self::TwoValues => Rules::Values,
            Self::OneRule => Rules::Same,
            Self::TwoVersions => Rules::Versions,
            _ => return None,
        })
    }

    /// Somebody else's way of doing something like it.
    pub(crate) fn is_peer(self) -> bool {
        self == Self::Keys || self.peer().is_some()
    }

    /// For those that are programs of their own.
    pub(crate) fn peer(self) -> Option<Peer> {
        let (program, is_batched) = match self {
            Self::GraphileWorker => (Program::GraphileWorker, false),
            Self::GraphileWorkerBatched => (Program::GraphileWorker, true),
            Self::PgBoss => (Program::PgBoss, false),
            Self::PgBossBatched => (Program::PgBoss, true),
            Self::Apalis => (Program::Apalis, false),
            Self::ApalisBatched => (Program::Apalis, true),
            _ => return None,
        };
        Some(Peer { program, is_batched })
    }

    pub(crate) fn runs_on_sqlite(self) -> bool {
        !matches!(self, Self::Steps | Self::Loop) && !self.is_peer()
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

/// One contender of this process, shared by all its workers.
pub(crate) enum Contender {
    Limit(Limit),
    Steps(Steps),
    Ours(Ours),
    Loop(ByHand),
    Two(Two),
    Keys(Keys),
}

impl Contender {
    pub(crate) async fn enter(kind: Kind, url: &str, workers: usize, fleet: &Fleet) -> Result<Self, Failure> {
        if let Some(rules) = kind.rules() {
            return Ok(Self::Two(Two::connect(url, workers, rules, fleet).await?));
        }
        Ok(match kind {
            Kind::Limit => Self::Limit(Limit::connect(url, workers).await?),
            Kind::Steps => Self::Steps(Steps::connect(url, workers).await?),
            Kind::Ours => Self::Ours(Ours::connect(url, workers, Style::Finish).await?),
            Kind::OursFail => Self::Ours(Ours::connect(url, workers, Style::Fail).await?),
            Kind::Loop => Self::Loop(ByHand::connect(url, workers, fleet).await?),
            Kind::OursDone => Self::Ours(Ours::connect(url, workers, Style::Done).await?),
            Kind::OursFused => Self::Ours(Ours::connect(url, workers, Style::DoneThenClaim).await?),
            Kind::OursTen => Self::Ours(Ours::connect(url, workers, Style::Ten).await?),
            Kind::Keys => Self::Keys(Keys::connect(url).await?),
            _ => return Err(format!("{} is a program of its own", kind.name()).into()),
        })
    }

    /// One cycle of one worker; `None`: there was nothing to claim.
    pub(crate) async fn cycle(&self, worker: usize, fleet: &Fleet) -> Result<Option<Cycle>, Failure> {
        match self {
            Self::Limit(limit) => limit.cycle(worker, fleet).await,
            Self::Steps(steps) => steps.cycle(worker, fleet).await,
            Self::Ours(ours) => ours.cycle(worker, fleet).await,
            Self::Loop(by_hand) => by_hand.cycle(worker, fleet).await,
            Self::Two(two) => two.cycle(worker, fleet).await,
            Self::Keys(keys) => keys.cycle().await.map(Some),
        }
    }

    pub(crate) async fn leave(self) -> Result<(), Failure> {
        match self {
            Self::Limit(limit) => limit.leave().await,
            Self::Steps(steps) => steps.leave().await,
            Self::Ours(ours) => ours.leave().await,
            Self::Loop(by_hand) => by_hand.leave().await,
            Self::Two(two) => two.leave().await,
            Self::Keys(keys) => keys.leave().await,
        }
    }
}
