//! Two components that claim by rules of their own: what it costs that they share a name, and that one of them has another version of the rule.

use std::time::Instant;

use bmdb::{Bmdb, Config, Eligible, Error, Process, Registered, Session, agent_started, provided};
use harness::AgentStart;
use sea_orm::ColumnTrait;
use tokio::sync::Mutex;

use crate::Failure;
use crate::contender::Cycle;
use crate::fleet::Fleet;

/// How the rules of the two differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    /// A provider each, and a name each.
    Names,
    /// A provider each, and one name.
    Values,
    /// One name and one rule.
    Same,
    /// One name, and two versions of a rule which both find all machines.
    Versions,
}

/// The providers, each of half of the machines.
pub(crate) const PROVIDERS: [&str; 2] = ["north", "south"];

fn of_provider(machines: Eligible, provider: &str) -> Eligible {
    machines
        .when("is of our provider", provided::Column::Provider.eq(provider))
        .lacks::<agent_started::Entity>()
}

struct North;

impl Process for North {
    const NAME: &'static str = PROVIDERS[0];
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        of_provider(machines, PROVIDERS[0])
    }
}

struct South;

impl Process for South {
    const NAME: &'static str = PROVIDERS[1];
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        of_provider(machines, PROVIDERS[1])
    }
}

struct Of(&'static str);

impl Process for Of {
    const NAME: &'static str = "of";
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        of_provider(machines, self.0)
    }
}

/// A later version of [`AgentStart`].
struct Later;

impl Process for Later {
    const NAME: &'static str = AgentStart::NAME;
    const SLOT: &'static str = AgentStart::SLOT;
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        AgentStart
            .eligible(machines)
            .when("has a provider", provided::Column::Provider.ne(""))
    }
}

/// A component, whatever its rule.
#[async_trait::async_trait]
trait Component: Send + Sync {
    async fn cycle(&self, worker: usize, fleet: &Fleet) -> Result<Option<Cycle>, Failure>;
    async fn leave(self: Box<Self>) -> Result<(), Failure>;
}

struct Worked<P: Process> {
    bmdb: Bmdb,
    session: Session,
    process: Registered<P>,
    /// What each worker has claimed with its last end.
    next: Vec<Mutex<Option<bmdb::Work<P>>>>,
}

pub(crate) struct Two([Box<dyn Component>; 2]);

impl Two {
    pub(crate) async fn connect(url: &str, workers: usize, rules: Rules, fleet: &Fleet) -> Result<Self, Failure> {
        fleet.forget_rules().await?;
        let [north, south] = PROVIDERS;
        Ok(Self(match rules {
            Rules::Names => [begin(url, workers, North).await?, begin(url, workers, South).await?],
            Rules::Values => [
                begin(url, workers, Of(north)).await?,
                begin(url, workers, Of(south)).await?,
            ],
            Rules::Same => [
                begin(url, workers, AgentStart).await?,
                begin(url, workers, AgentStart).await?,
            ],
            Rules::Versions => [
                begin(url, workers, AgentStart).await?,
                begin(url, workers, Later).await?,
            ],
        }))
    }

    pub(crate) async fn cycle(&self, worker: usize, fleet: &Fleet) -> Result<Option<Cycle>, Failure> {
        self.0[worker % 2].cycle(worker, fleet).await
    }

    pub(crate) async fn leave(self) -> Result<(), Failure> {
        for component in self.0 {
            component.leave().await?;
        }
        Ok(())
    }
}

async fn begin<P: Process>(url: &str, workers: usize, process: P) -> Result<Box<dyn Component>, Failure> {
    let config = Config::new(url, "bench", bmdb::runtime_info!());
    let connections = u32::try_from(workers)?.clamp(2, 16);
    let bmdb = Bmdb::connect(config.max_connections(connections)).await?;
    Ok(Box::new(Worked {
        session: bmdb.start_session().await?,
        process: bmdb.register(process).await?,
        bmdb,
        next: (0..workers).map(|_| Mutex::default()).collect(),
    }))
}

#[async_trait::async_trait]
impl<P: Process> Component for Worked<P> {
    async fn cycle(&self, worker: usize, fleet: &Fleet) -> Result<Option<Cycle>, Failure> {
        let began = Instant::now();
        let kept = self.next[worker].lock().await.take();
        let (work, was_kept) = match kept {
            Some(work) => (work, true),
            None => match self.session.claim(&self.process).await? {
                Some(work) => (work, false),
                None => return Ok(None),
            },
        };
        let machine = work.machine();
        if !was_kept {
            fleet.claimed(machine);
        }
        fleet.finishing(machine);
        let end = work.done().stating(agent_started::row(*b"key"));
        let next = end
            .then(self.session.claim(&self.process))
            .await
            .map_err(Error::from)??;
        let claim = began.elapsed();
        if let Some(next) = &next {
            fleet.claimed(bmdb::Work::<P>::machine(next));
        }
        *self.next[worker].lock().await = next;
        fleet.finished(machine);
        Ok(Some(Cycle {
            machines: 1,
            claim,
            retries: 0,
        }))
    }

    async fn leave(self: Box<Self>) -> Result<(), Failure> {
        drop(self.next);
        self.session.close().await?;
        self.bmdb.close().await;
        Ok(())
    }
}
