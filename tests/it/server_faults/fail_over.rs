//! A fail-over to a replica that has not got the last claim.

use std::collections::HashMap;
use std::time::Duration;

use bmdb::{Bmdb, Config, Error, Fence, MachineId, Unfinished, Work, WorkId, agent_started};
use harness::{OwnServer, Proxy, Stop, bounded, check_history, until};
use sea_orm::EntityTrait;

use super::{Scene, claim, sees_a_heartbeat};
use crate::world::{AgentStart, LONG, events};

/// The session outlives the fail-over.
const INTERVAL: Duration = Duration::from_secs(20);

/// What fences are for: it takes a machine's commands from the latest holder only, and from one holder only.
#[derive(Default)]
struct Resource(HashMap<MachineId, (Fence, WorkId)>);

impl Resource {
    fn takes(&mut self, work: &Work<AgentStart>) -> bool {
        let (fence, id) = (work.fence(), work.id());
        let seen = self.0.entry(work.machine()).or_insert((fence, id));
        if fence > seen.0 {
            *seen = (fence, id);
        }
        *seen == (fence, id)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_a_fail_over_forgot_is_refused_and_its_equal_fence_too() {
    bounded(async {
        let primary = OwnServer::start().await;
        let standby = primary.standby().await;
        // The name that leads to whoever is the server.
        let name = Proxy::to(primary.database().url()).await;
        let connect = async || {
            let config = Config::new(name.url(), "test", bmdb::runtime_info!()).interval(INTERVAL);
            Bmdb::connect(config).await.unwrap()
        };
        let scene = Scene::on(&primary.database(), INTERVAL, 1).await;
        let machine = scene.machines[0];
        let holder = connect().await.start_session().await.unwrap();
        claim(&holder).await.cancel().await.unwrap();
        let copy = standby.database().raw().await;
        until("the replica has all that", LONG, async || {
            events(&copy, machine).await.len() == 2
        })
        .await;
        standby.cut_replication().await;
        let forgotten = claim(&holder).await;
        assert_eq!(forgotten.fence(), Fence(2));

        primary.stop(Stop::Immediate).await;
        standby.promote().await;
        name.redirect(standby.database().url());
        name.cut();
        sees_a_heartbeat(&copy, &holder).await;
        assert!(!holder.lost().is_cancelled(), "its session was not forgotten");
        let other = connect().await.start_session().await.unwrap();
        let equal = claim(&other).await;
        assert_eq!(
            (equal.machine(), equal.fence()),
            (machine, Fence(2)),
            "the same fence was granted again"
        );
        assert_ne!(equal.id(), forgotten.id());

        // A resource that remembers the holder beside the fence takes commands from one of the two, whoever came first.
        let mut resource = Resource::default();
        assert!(resource.takes(&forgotten));
        assert!(!resource.takes(&equal));
        assert!(resource.takes(&forgotten));

        // In the database the forgotten one can do nothing.
        let late = async |tx: &bmdb::Tx| agent_started::set(tx, machine, *b"late").await;
        let refused = forgotten.transact(late).await;
        assert!(matches!(refused, Err(Error::WorkLost { .. })), "{refused:?}");
        let refused = forgotten.progress(&"late").await;
        assert!(matches!(refused, Err(Error::WorkLost { .. })), "{refused:?}");
        let refused = forgotten.finish(late).await;
        assert!(
            matches!(refused, Err(Unfinished::Over(Error::WorkLost { .. }))),
            "{refused:?}"
        );
        assert_eq!(agent_started::Entity::find().one(&copy).await.unwrap(), None);

        // The other claims once more, and then nobody else has its fence.
        equal.cancel().await.unwrap();
        let higher = claim(&other).await;
        assert_eq!(higher.fence(), Fence(3));
        assert!(resource.takes(&higher));
        higher
            .finish(async |tx| agent_started::set(tx, machine, *b"key").await)
            .await
            .unwrap();
        let found = events(&copy, machine).await;
        assert_eq!(
            found,
            ["started", "canceled", "started", "canceled", "started", "finished"]
        );
        assert_eq!(check_history(&copy).await, Vec::<String>::new());
        other.close().await.unwrap();
        holder.close().await.unwrap();
    })
    .await;
}
