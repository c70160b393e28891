//! Two components, a collector and an exporter on one database, to which everything happens that is measured.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bmdb::machine::{self, NewMachine};
use bmdb::{
    Backoff, Bmdb, CancellationToken, Config, Eligible, MachineId, Process, Registered, Session, Until, Work, provided,
};
use bmdb_operator::metrics::Exporter;
use harness::{Backend, Fate, Fault, PATIENCE, Proxy, TestDatabase, until};
use sea_orm::{ColumnTrait, ConnectionTrait};
use tokio::task::JoinSet;

impl Fleet {
    /// Somebody pauses what it does.
    pub(crate) async fn pause(&self) {
        let bmdb = &self.components[1];
        let process = bmdb.processes().await.expect("it is up").remove(0).process;
        let ada = bmdb.operator("ada", "the images are rebuilt").expect("it is a reason");
        let paused = ada.pause_process(&process, Until::Open).await;
        paused.expect("it is up");
    }
}

macro_rules! install {
    ($name:ident, $text:literal) => {
        #[derive(Default)]
        struct $name;

        impl Process for $name {
            const NAME: &'static str = $text;
            const BACKOFF: Backoff = Backoff::NONE.max_attempts(2);
            const COOL_DOWN: Duration = Duration::ZERO;
            type Item = provided::Model;

            fn eligible(&self, machines: Eligible) -> Eligible {
                machines.when("is of oak", provided::Column::Provider.eq("oak"))
            }
        }
    };
}

install!(OnPostgres, "install-postgres");
install!(OnSqlite, "install-sqlite");

/// It goes on for as long as this lives.
pub(crate) struct Fleet {
    _proxy: Option<Proxy>,
    _tasks: JoinSet<()>,
    components: [Bmdb; 2],
    _sessions: [Session; 2],
    _db: TestDatabase,
}

struct Component<P> {
    bmdb: Bmdb,
    session: Session,
    install: Registered<P>,
}

async fn component<P: Process + Default>(url: &str, name: &str) -> Component<P> {
    let config = Config::new(url, name, "v1.2 on host-7").interval(Duration::from_secs(6));
    let bmdb = Bmdb::connect(config).await.expect("the database is good");
    let session = bmdb.start_session().await.expect("it is up");
    let install = bmdb.register(P::default()).await.expect("it is a good rule");
    Component { bmdb, session, install }
}

impl<P: Process> Component<P> {
    async fn claim(&self) -> Work<P> {
        self.session
            .claim(&self.install)
            .await
            .expect("it is up")
            .expect("there are machines")
    }
}

pub(crate) async fn on_postgres(exporter: &Exporter) -> Fleet {
    let db = TestDatabase::migrated(Backend::Postgres).await;
    let proxy = Proxy::to(db.url()).await;
    let (a, b) = (
        component::<OnPostgres>(proxy.url(), "shepherd-a").await,
        component(db.url(), "shepherd-b").await,
    );
    bmdb_migration::make_roles(db.url())
        .await
        .expect("an administrator can");
    let reader = Bmdb::connect(Config::new(
        db.url().replace("bmdb@", "bmdb_console@"),
        "console",
        "v1.2 on host-7",
    ));
    let reader = reader.await.expect("there is such a login");
    let tasks = run(&a, &b, exporter, Some(reader), &db).await;

    // An answer to a commit that is lost, and one transaction that is refused for another.
    for fault in [Fault::DropAfter, Fault::Refused("40001")] {
        let times = AtomicU32::new(0);
        proxy.decide(move |passing| {
            match passing.sql.contains("work_history") && passing.commits && times.fetch_add(1, Ordering::Relaxed) == 0
            {
                true => Fate::Fail(fault),
                false => Fate::Pass,
            }
        });
        a.claim()
            .await
            .cancel()
            .await
            .expect("it is found out what became of it");
        proxy.calm();
    }
    // Many for few machines.
    until("a race was lost", PATIENCE, async || {
        let claims = [&a, &b, &a, &b, &a, &b, &a, &b].map(|one| async move {
            let here = provided::Column::ProviderId.eq("OAK-7");
            drop(one.session.claim(&one.install).filter(here).await.expect("it is up"));
        });
        futures_util::future::join_all(claims).await;
        exporter.render().contains("bmdb_claim_races_lost_total{")
    })
    .await;
    ended(&a, &b).await;
    fleet(db, Some(proxy), tasks, a, b)
}

pub(crate) async fn on_sqlite(exporter: &Exporter) -> Fleet {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let (a, b) = (
        component::<OnSqlite>(db.url(), "shepherd-a").await,
        component(db.url(), "shepherd-b").await,
    );
    let tasks = run(&a, &b, exporter, None, &db).await;
    ended(&a, &b).await;
    fleet(db, None, tasks, a, b)
}

fn fleet<P>(db: TestDatabase, proxy: Option<Proxy>, tasks: JoinSet<()>, a: Component<P>, b: Component<P>) -> Fleet {
    Fleet {
        _proxy: proxy,
        _tasks: tasks,
        components: [a.bmdb, b.bmdb],
        _sessions: [a.session, b.session],
        _db: db,
    }
}

/// Machines, a collector and an exporter; works that end in each way, claims that find nothing and that fail, heartbeats that fail.
async fn run<P: Process>(
    a: &Component<P>,
    b: &Component<P>,
    exporter: &Exporter,
    reader: Option<Bmdb>,
    db: &TestDatabase,
) -> JoinSet<()> {
    let new: Vec<_> = (0..20)
        .map(|nth| NewMachine::new("oak", format!("OAK-{nth}")))
        .collect();
    let import = b.session.transact(async |tx| machine::import(tx, &new).await);
    import.await.expect("they can be imported");
    let mut tasks = JoinSet::new();
    let (collector, bmdb, counts) = (b.bmdb.collector(), b.bmdb.clone(), exporter.clone());
    tasks.spawn(collector.run(CancellationToken::new()));
    tasks.spawn(async move { counts.keep(bmdb, reader, CancellationToken::new()).await });

    a.claim().await.done().await.expect("it is ours");
    a.claim()
        .await
        .fail("no image for this board")
        .await
        .expect("it is ours");
    let next = b.claim().await.done().then(b.session.claim(&b.install)).await;
    next.expect("it is ours")
        .expect("it is up")
        .expect("there are more")
        .cancel()
        .await
        .expect("it is ours");
    let none = a.session.claim(&a.install).on(MachineId::random()).await;
    assert!(none.expect("it is up").is_none());

    let raw = db.raw().await;
    let failed = |text: &str| {
        text.lines()
            .any(|line| line.starts_with("bmdb_heartbeats_failed_total ") && !line.ends_with(" 0"))
    };
    raw.execute_unprepared("ALTER TABLE work RENAME TO work_elsewhere")
        .await
        .expect("it can be");
    let answer = a.session.claim(&a.install).await;
    until("a heartbeat has failed", PATIENCE, async || failed(&exporter.render())).await;
    raw.execute_unprepared("ALTER TABLE work_elsewhere RENAME TO work")
        .await
        .expect("it can be");
    assert!(answer.is_err(), "{answer:?}");
    tasks
}

/// A component's session is broken while it holds something.
async fn ended<P: Process>(a: &Component<P>, b: &Component<P>) {
    let work = a.claim().await;
    let ada = b.bmdb.operator("ada", "it hangs").expect("it is a reason");
    ada.break_holder(work.id(), work.fence())
        .await
        .expect("it is up")
        .expect("it is held");
    until("its holder knows", PATIENCE, async || a.session.lost().is_cancelled()).await;
    drop(work);
}
