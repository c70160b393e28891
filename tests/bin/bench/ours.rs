//! The connector, as its users call it.

use std::time::Instant;

use bmdb::{Bmdb, Config, Error, Session, agent_started};
use harness::AgentStart;

use crate::Failure;
use crate::contender::Cycle;
use crate::fleet::Fleet;

pub(crate) struct Ours {
    bmdb: Bmdb,
    session: Session,
    at_once: u32,
}

impl Ours {
    pub(crate) async fn connect(url: &str, workers: usize, at_once: u32) -> Result<Self, Failure> {
        let config = Config::new(url, "bench", bmdb::runtime_info!());
        let connections = u32::try_from(workers)?.clamp(1, 16);
        let bmdb = Bmdb::connect(config.max_connections(connections)).await?;
        let session = bmdb.start_session().await?;
        Ok(Self { bmdb, session, at_once })
    }

    pub(crate) async fn cycle(&self, fleet: &Fleet) -> Result<Option<Cycle>, Failure> {
        let began = Instant::now();
        let works = match self.at_once {
            1 => self.session.claim::<AgentStart>().await?.into_iter().collect(),
            count => self.session.claim_many::<AgentStart>(count).await?,
        };
        let claim = began.elapsed();
        if works.is_empty() {
            return Ok(None);
        }
        let machines = u32::try_from(works.len())?;
        for work in works {
            let machine = work.machine();
            fleet.claimed(machine);
            fleet.finishing(machine);
            work.finish(async |tx| agent_started::set(tx, machine, *b"key").await)
                .await
                .map_err(Error::from)?;
            fleet.finished(machine);
        }
        Ok(Some(Cycle {
            machines,
            claim,
            retries: 0,
        }))
    }

    pub(crate) async fn leave(self) -> Result<(), Failure> {
        self.session.close().await?;
        self.bmdb.close().await;
        Ok(())
    }
}
