//! The connector, as its users call it.

use std::time::Instant;

use bmdb::{Bmdb, Config, Error, Registered, Session, Work, agent_started};
use harness::AgentStart;
use tokio::sync::Mutex;

use crate::Failure;
use crate::contender::Cycle;
use crate::fleet::Fleet;

/// How a machine is claimed and its work ended. All but a failure write the rows that the limit writes; it leaves a backoff instead of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Finished with a body that states a fact.
    Finish,
    /// Ended with a fact.
    Done,
    /// Failed.
    Fail,
    /// Ended with a fact, and the next claimed in the same round trip.
    DoneThenClaim,
    /// Ten claimed at once, and ended at once, each with a fact.
    Ten,
}

pub(crate) struct Ours {
    bmdb: Bmdb,
    session: Session,
    start: Registered<AgentStart>,
    style: Style,
    /// What each worker has claimed with its last end.
    next: Vec<Mutex<Option<Work<AgentStart>>>>,
}

impl Ours {
    pub(crate) async fn connect(url: &str, workers: usize, style: Style) -> Result<Self, Failure> {
        let config = Config::new(url, "bench", bmdb::runtime_info!());
        // Half of them are for calls that run where they are awaited.
        let connections = u32::try_from(workers)?.clamp(2, 16);
        let bmdb = Bmdb::connect(config.max_connections(connections)).await?;
        let session = bmdb.start_session().await?;
        let start = bmdb.register(AgentStart).await?;
        let next = (0..workers).map(|_| Mutex::default()).collect();
        Ok(Self {
            bmdb,
            session,
            start,
            style,
            next,
        })
    }

    pub(crate) async fn cycle(&self, worker: usize, fleet: &Fleet) -> Result<Option<Cycle>, Failure> {
        if self.style == Style::Ten {
            return self.ten(fleet).await;
        }
        let began = Instant::now();
        let kept = self.next[worker].lock().await.take();
        let was_kept = kept.is_some();
        let work = match kept {
            Some(work) => work,
            None => match self.session.claim(&self.start).await? {
                Some(work) => work,
                None => return Ok(None),
            },
        };
        let mut claim = began.elapsed();
        let machine = work.machine();
        if !was_kept {
            fleet.claimed(machine);
        }
        fleet.finishing(machine);
        match self.style {
            Style::Finish => {
                let finished = work.finish(async |tx| agent_started::set(tx, machine, *b"key").await);
                finished.await.map_err(Error::from)?;
            }
            Style::DoneThenClaim => {
                let began = Instant::now();
                let next = work
                    .done()
                    .stating(agent_started::row(*b"key"))
                    .then(self.session.claim(&self.start))
                    .await
                    .map_err(Error::from)??;
                claim = began.elapsed();
                if let Some(next) = &next {
                    fleet.claimed(Work::<AgentStart>::machine(next));
                }
                *self.next[worker].lock().await = next;
            }
            Style::Done | Style::Ten => {
                let ended = work.done().stating(agent_started::row(*b"key"));
                ended.await.map_err(Error::from)?;
            }
            Style::Fail => work.fail("bench").await.map_err(Error::from)?,
        }
        fleet.finished(machine);
        Ok(Some(Cycle {
            machines: 1,
            claim,
            retries: 0,
        }))
    }

    async fn ten(&self, fleet: &Fleet) -> Result<Option<Cycle>, Failure> {
        let began = Instant::now();
        let works = self.session.claim_many(&self.start, 10).await?;
        let claim = began.elapsed();
        if works.is_empty() {
            return Ok(None);
        }
        let machines: Vec<_> = works.iter().map(Work::machine).collect();
        for machine in &machines {
            fleet.claimed(*machine);
            fleet.finishing(*machine);
        }
        for ended in Work::done_many(works).stating(|_| agent_started::row(*b"key")).await {
            ended.map_err(Error::from)?;
        }
        for machine in &machines {
            fleet.finished(*machine);
        }
        Ok(Some(Cycle {
            machines: u32::try_from(machines.len())?,
            claim,
            retries: 0,
        }))
    }

    pub(crate) async fn leave(self) -> Result<(), Failure> {
        // What the workers still hold ends with the session.
        drop(self.next);
        self.session.close().await?;
        self.bmdb.close().await;
        Ok(())
    }
}
