//! Who takes part in a schedule, and in which database.

use std::time::Duration;

use bmdb::{Bmdb, Collector, MachineId, Session, SessionId, machine};
use harness::{Backend, Fate, Passing, Proxy, TestDatabase};
use sea_orm::DatabaseConnection;
use tokio::sync::{mpsc, oneshot};

use super::ablation::{Ablation, with_gate};
use crate::world::{config, tamper};

/// Longer than any schedule takes, so that no heartbeat tells anybody what has happened.
pub(super) const INTERVAL: Duration = Duration::from_secs(120);

/// A component whose statements wait to be let pass.
pub(super) struct Participant {
    pub(super) bmdb: Bmdb,
    pub(super) proxy: Proxy,
}

/// A statement that waits.
pub(super) struct Arrival {
    pub(super) participant: usize,
    pub(super) commits: bool,
    pub(super) pass: oneshot::Sender<()>,
}

impl Participant {
    pub(super) async fn of(db: &TestDatabase, place: usize, ablation: Ablation) -> Self {
        let proxy = Proxy::to(db.url()).await;
        proxy.rewrite(move |sql| {
            let ablated = match ablation {
                Ablation::Statements(ablate) => ablate(sql),
                Ablation::None | Ablation::Schema(_) => None,
            };
            with_gate(ablated.as_deref().unwrap_or(sql), place).or(ablated)
        });
        let config = bmdb::Config::new(proxy.url(), "scheduled", "")
            .interval(INTERVAL)
            .statement_timeout(INTERVAL / 4)
            .retry_budget(INTERVAL / 2);
        let bmdb = Bmdb::connect(config).await.expect("the proxy lets it pass");
        Self { bmdb, proxy }
    }

    pub(super) fn keep_back(&self, participant: usize, arrivals: &mpsc::UnboundedSender<Arrival>) {
        let arrivals = arrivals.clone();
        self.proxy.decide(move |passing: &Passing<'_>| {
            if passing.sql.contains("SQLx ping") || passing.sql.contains("UPDATE session_lease") {
                return Fate::Pass;
            }
            let (pass, waits) = oneshot::channel();
            let commits = passing.commits;
            match arrivals.send(Arrival {
                participant,
                commits,
                pass,
            }) {
                Ok(()) => Fate::Wait(waits),
                Err(_over) => Fate::Pass,
            }
        });
    }
}
pub(super) async fn new_machine(session: &Session, provider_id: String) -> MachineId {
    let new = machine::NewMachine::new("test", provider_id);
    let provide = async |tx: &bmdb::Tx| machine::provide(tx, new.clone()).await;
    session.transact(provide).await.expect("nothing is kept back")
}

/// The scene of one database: who takes part, and one session that nobody disturbs.
pub(super) struct Scene {
    pub(super) db: TestDatabase,
    pub(super) raw: DatabaseConnection,
    pub(super) participants: Vec<Participant>,
    pub(super) calm: Session,
}

impl Scene {
    pub(super) async fn of(count: usize, ablation: Ablation) -> Self {
        let db = TestDatabase::migrated(Backend::Postgres).await;
        if let Ablation::Schema(ablate) = ablation {
            tamper(&db.raw().await, ablate).await;
        }
        let mut participants = Vec::new();
        for place in 0..count {
            participants.push(Participant::of(&db, place, ablation).await);
        }
        let calm = Bmdb::connect(config(&db).interval(INTERVAL)).await.unwrap();
        Self {
            raw: db.raw().await,
            calm: calm.start_session().await.unwrap(),
            participants,
            db,
        }
    }

    pub(super) fn keep_back(&self) -> mpsc::UnboundedReceiver<Arrival> {
        let (sender, arrivals) = mpsc::unbounded_channel();
        for (place, participant) in self.participants.iter().enumerate() {
            participant.keep_back(place, &sender);
        }
        arrivals
    }

    pub(super) fn calm_down(&self) {
        self.participants
            .iter()
            .for_each(|participant| participant.proxy.calm());
    }
}

/// A session whose deadline is long past, and a collector that has seen it so.
pub(super) async fn dies(scene: &Scene, dead: &Session, collector: &Participant) -> (SessionId, Collector) {
    let id = dead.id();
    tamper(
        &scene.raw,
        &format!("UPDATE session_lease SET deadline = now() - INTERVAL '1 hour' WHERE session_id = '{id}'"),
    )
    .await;
    tamper(
        &scene.raw,
        &format!("UPDATE session SET interval_ms = 1 WHERE session_id = '{id}'"),
    )
    .await;
    let mut collecting = collector.bmdb.collector();
    assert!(
        collecting.sweep().await.unwrap().expired.is_empty(),
        "one look is not enough"
    );
    tokio::time::sleep(Duration::from_millis(2)).await;
    (id, collecting)
}
