//! Fail-overs: to a replica that has not got the last claim, to one that has, and from a server that stays up.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use bmdb::{Bmdb, CancellationToken, Config, Error, Fence, Unfinished, Work, agent_started};
use bmdb_entity::work_history;
use futures_util::future::join_all;
use harness::{OwnServer, Proxy, Stop, bounded, check_history, of, until};
use sea_orm::{EntityTrait, PaginatorTrait};

use super::{NOISE, Scene, claim, sees_a_heartbeat, takes_over};
use crate::world::{AgentStart, LONG, Survey, events, host_of, works};

/// The session outlives the fail-over.
const INTERVAL: Duration = Duration::from_secs(20);

/// What fences are for: it takes a machine's commands from the latest holder only.
struct Resource(Fence);

impl Resource {
    fn takes(&mut self, work: &Work<AgentStart>) -> bool {
        self.0 = self.0.max(work.fence());
        self.0 == work.fence()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_a_fail_over_forgot_is_refused_and_its_fence_is_not_given_out_again() {
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

        primary.stop(Stop::Immediate).await;
        standby.promote(false).await;
        name.redirect(standby.database().url());
        name.cut();
        sees_a_heartbeat(&copy, &holder).await;
        assert!(!holder.lost().is_cancelled(), "its session was not forgotten");
        let other = connect().await.start_session().await.unwrap();
        let next = claim(&other).await;
        assert_eq!(next.machine(), machine);
        assert!(next.fence() > forgotten.fence(), "not granted a second time");
        let mut resource = Resource(forgotten.fence());
        assert!(resource.takes(&forgotten));
        assert!(resource.takes(&next));
        assert!(!resource.takes(&forgotten));

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

        next.finish(async |tx| agent_started::set(tx, machine, *b"key").await)
            .await
            .unwrap();
        let found = events(&copy, machine).await;
        assert_eq!(found, ["started", "canceled", "started", "finished"]);
        assert_eq!(check_history(&copy).await, Vec::<String>::new());
        other.close().await.unwrap();
        holder.close().await.unwrap();
    })
    .await;
}

/// A server, those that follow it, and the name that leads to whoever takes writes. No commit is answered that none of those has got who follow.
struct Servers {
    primary: OwnServer,
    standbys: Vec<OwnServer>,
    name: Proxy,
}

impl Servers {
    async fn start(standbys: usize) -> Self {
        let primary = OwnServer::start().await;
        let standbys = join_all((0..standbys).map(|_| primary.standby())).await;
        primary.wait_for_a_standby(standbys.len()).await;
        let name = Proxy::to(primary.database().url()).await;
        Self {
            primary,
            standbys,
            name,
        }
    }

    async fn connect(&self, interval: Duration) -> Bmdb {
        Self::connect_to(self.name.url(), interval).await
    }

    async fn connect_to(url: &str, interval: Duration) -> Bmdb {
        let config = Config::new(url, "test", bmdb::runtime_info!()).interval(interval);
        Bmdb::connect(config).await.unwrap()
    }

    /// All by their own addresses, those that take no writes first.
    fn list(&self) -> String {
        let primary = self.primary.database();
        let all = self.standbys.iter().chain([&self.primary]);
        let hosts: Vec<String> = all.map(|server| host_of(server.database().url()).to_owned()).collect();
        primary.url().replace(host_of(primary.url()), &hosts.join(","))
    }

    /// The standby that has received most takes over, the others follow it, and the name leads to it. Connections to the first that are open stay open.
    async fn switch(&self) -> &OwnServer {
        // What the old one writes meanwhile nobody has got when the new one begins.
        join_all(self.standbys.iter().map(OwnServer::cut_replication)).await;
        let received = join_all(self.standbys.iter().map(OwnServer::received)).await;
        let furthest = (0..received.len())
            .max_by_key(|nth| received[*nth])
            .expect("one follows");
        let new = &self.standbys[furthest];
        let others: Vec<_> = (0..received.len()).filter(|nth| *nth != furthest).collect();
        new.promote(!others.is_empty()).await;
        for other in &others {
            self.standbys[*other].follow(new).await;
        }
        if !others.is_empty() {
            new.wait_for_a_standby(others.len()).await;
        }
        self.name.redirect(new.database().url());
        new
    }
}

/// A component at this URL claims all the time while the first of three servers fails as `fails` says and another takes over; afterwards that one, and
/// who follows it, have every claim that was answered.
async fn is_promoted_under_load(url: impl FnOnce(&Servers) -> String, fails: impl AsyncFnOnce(&OwnServer)) {
    const INTERVAL: Duration = Duration::from_secs(9);
    let servers = Servers::start(2).await;
    let bmdb = Servers::connect_to(&url(&servers), INTERVAL).await;
    let scene = Scene::of(bmdb, &servers.primary.database(), 20).await;
    // Each claim that was answered, and when.
    let answered = Mutex::new(Vec::new());
    let over = CancellationToken::new();
    let load = join_all((0..4).map(|_| async {
        while !over.is_cancelled() {
            match scene.session.claim(&of::<Survey>(&scene.session).await).await {
                Ok(Some(work)) => {
                    answered
                        .lock()
                        .unwrap()
                        .push(((work.machine(), work.fence()), Instant::now()));
                    // What cannot be said now, the guard's drop goes on saying.
                    drop(work.cancel().await);
                }
                Ok(None) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }));
    let count_since = |moment: Instant| answered.lock().unwrap().iter().filter(|(_, at)| *at >= moment).count();
    let change = async {
        let began = Instant::now();
        until("there is load", LONG, async || count_since(began) > 20).await;
        fails(&servers.primary).await;
        let new = servers.switch().await;
        let switched = Instant::now();
        until("claims are answered again", LONG, async || count_since(switched) > 20).await;
        let first = answered
            .lock()
            .unwrap()
            .iter()
            .map(|(_, at)| *at)
            .filter(|at| *at >= switched)
            .min();
        over.cancel();
        (new, first.expect("there is one").duration_since(switched))
    };
    let ((), (new, out)) = tokio::join!(async { drop(load.await) }, change);
    eprintln!("claims were answered again {out:?} after the name had moved");
    assert!(out <= INTERVAL + NOISE, "{out:?}");
    assert!(!scene.session.lost().is_cancelled(), "the session goes on");
    scene.session.close().await.unwrap();
    let raw = new.database().raw().await;
    let history = work_history::Entity::find().all(&raw).await.unwrap();
    let has = |claim| history.iter().any(|row| (row.machine_id, row.fence) == claim);
    for (claim, _) in answered.into_inner().unwrap() {
        assert!(has(claim), "the claim {claim:?} was answered and is not there");
    }
    for standby in &servers.standbys {
        let copy = standby.database().raw().await;
        until("all who follow have all of it", LONG, async || {
            work_history::Entity::find().count(&copy).await.unwrap() == history.len() as u64
        })
        .await;
    }
    assert_eq!(works(&raw).await, 0);
    assert_eq!(check_history(&raw).await, Vec::<String>::new());
}

/// An address of ours that is moved.
fn name(servers: &Servers) -> String {
    servers.name.url().to_owned()
}

async fn crashes(primary: &OwnServer) {
    primary.stop(Stop::Immediate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answered_claim_is_lost_when_the_server_crashes_under_load() {
    bounded(is_promoted_under_load(name, crashes)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_becomes_read_only_and_stays_up_is_left_under_load() {
    bounded(is_promoted_under_load(name, OwnServer::make_read_only)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answered_claim_is_lost_when_a_server_of_a_list_crashes_under_load() {
    bounded(is_promoted_under_load(Servers::list, crashes)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_a_list_that_becomes_read_only_and_stays_up_is_left_under_load() {
    bounded(is_promoted_under_load(Servers::list, OwnServer::make_read_only)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_which_none_takes_writes_is_refused_with_what_each_said() {
    bounded(async {
        let servers = Servers::start(1).await;
        let list = servers.list();
        // The standby is the first, and passed over.
        let steps = bmdb_migration::up(&list, None).await.unwrap();
        assert_eq!(steps, Vec::<String>::new());
        servers.primary.stop(Stop::Fast).await;
        let config = Config::new(&list, "test", "");
        let refused = Bmdb::connect(config).await.unwrap_err();
        let said = format!(
            "{refused} {}",
            std::error::Error::source(&refused).expect("it has a cause")
        );
        let (primary, standby) = (servers.primary.database(), servers.standbys[0].database());
        for words in [host_of(primary.url()), host_of(standby.url()), "read-only", "refused"] {
            assert!(said.contains(words), "{words}: {said}");
        }
        let migrator = bmdb_migration::up(&list, None).await.unwrap_err();
        assert!(matches!(migrator, bmdb_migration::Error::Open { .. }), "{migrator:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_bodies_leave_a_server_that_became_read_only() {
    bounded(async {
        let servers = Servers::start(1).await;
        let scene = Scene::of(servers.connect(INTERVAL).await, &servers.primary.database(), 1).await;
        let work = claim(&scene.session).await;
        // A connection of each kind is open and idle.
        let bodies = (0..4).map(|_| scene.session.transact(async |_tx| Ok::<_, Error>(())));
        for body in join_all(bodies).await {
            body.unwrap();
        }
        scene.bmdb.start_session().await.unwrap().close().await.unwrap();
        servers.primary.make_read_only().await;
        servers.switch().await;
        let began = Instant::now();
        let second = scene.bmdb.start_session().await.unwrap();
        scene.session.transact(async |_tx| Ok::<_, Error>(())).await.unwrap();
        let machine = work.machine();
        work.finish(async |tx| agent_started::set(tx, machine, *b"key").await)
            .await
            .unwrap();
        let took = began.elapsed();
        eprintln!("a session and two bodies took {took:?}");
        assert!(took < Duration::from_secs(5) + NOISE, "{took:?}");
        let raw = servers.standbys[0].database().raw().await;
        assert_eq!(agent_started::Entity::find().count(&raw).await.unwrap(), 1);
        second.close().await.unwrap();
        scene.session.close().await.unwrap();
    })
    .await;
}

/// A body's only connection is to the old server, and whatever connection the pool opens next is to the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_leaves_a_server_that_became_read_only_though_others_have_left_it() {
    bounded(async {
        let servers = Servers::start(1).await;
        let scene = Scene::of(servers.connect(INTERVAL).await, &servers.primary.database(), 1).await;
        let work = claim(&scene.session).await;
        scene.session.transact(async |_tx| Ok::<_, Error>(())).await.unwrap();
        servers.primary.make_read_only().await;
        servers.switch().await;
        let machine = work.machine();
        work.finish(async |tx| agent_started::set(tx, machine, *b"key").await)
            .await
            .unwrap();
        scene.session.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_only_beats_leaves_a_server_that_became_read_only() {
    bounded(async {
        let servers = Servers::start(1).await;
        let scene = Scene::of(
            servers.connect(Duration::from_secs(9)).await,
            &servers.primary.database(),
            1,
        )
        .await;
        scene.sees_a_heartbeat().await;
        servers.primary.make_read_only().await;
        servers.switch().await;
        sees_a_heartbeat(&servers.standbys[0].database().raw().await, &scene.session).await;
        assert!(!scene.session.lost().is_cancelled());
        scene.session.close().await.unwrap();
    })
    .await;
}

/// Heartbeats must wait for the standby as claims do: a holder whose heartbeats the old server alone took would believe for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_left_on_the_old_server_stops_before_the_new_one_lets_another_start() {
    const INTERVAL: Duration = Duration::from_secs(3);
    bounded(async {
        let servers = Servers::start(1).await;
        let scene = Scene::on(&servers.primary.database(), INTERVAL, 1).await;
        let work = claim(&scene.session).await;
        // Nobody fences the old one: the network between the two is gone, and it takes writes.
        servers.standbys[0].cut_replication().await;
        servers.switch().await;
        let bmdb = servers.connect(INTERVAL).await;
        let shutdown = CancellationToken::new();
        let mut collector = tokio::task::JoinSet::new();
        collector.spawn(bmdb.collector().run(shutdown.clone()));
        let other = bmdb.start_session().await.unwrap();
        let taken = takes_over(&other, INTERVAL * 6).await;
        assert!(
            scene.session.lost().is_cancelled(),
            "two believe that they hold the machine"
        );
        assert!(work.stop().is_cancelled());
        assert!(taken.fence() > work.fence());
        taken.cancel().await.unwrap();
        shutdown.cancel();
        collector.join_all().await;
        other.close().await.unwrap();
        // What it still has to say there nobody hears.
        servers.primary.stop(Stop::Immediate).await;
        drop(work);
    })
    .await;
}
