//! A fleet in trouble: what a console is for.

use std::time::Duration;

use bmdb::machine::{self, NewMachine};
use bmdb::{Bmdb, Config, Hold, Registered, Session, Until, Work};
use harness::{AgentRecovery, AgentStart, Survey, TestDatabase, until};

use crate::rig::Install;

/// Two components: one works, one has gone silent. And a process that nobody runs.
pub(crate) struct Fleet {
    pub(crate) bmdb: Bmdb,
    pub(crate) session: Session,
    pub(crate) install: Registered<Install>,
    /// Asked to stop, and does not.
    pub(crate) stuck: Work<Install>,
    pub(crate) works: Vec<Work<Install>>,
    pub(crate) parked: bmdb::MachineId,
    pub(crate) held: bmdb::MachineId,
    /// What the silent one had; it keeps its process from ending them.
    _silent: (Bmdb, Session, Vec<Work<AgentStart>>),
}

/// A cause as a BMC writes it.
pub(crate) const CAUSE: &str = "image ubuntu-24.04.3-server.raw checksum mismatch: wanted sha256 9f2c41aa7e0b55d1c7a2, got 41aa0b55d1c79f2c7ea2 \
    from https://images.example.com/os/ubuntu-24.04.3-server.raw?arch=amd64&signed=yes; gave up after 3 tries over 12 minutes on this machine";

async fn connect(db: &TestDatabase, component: &str) -> (Bmdb, Session) {
    let config = Config::new(db.url(), component, "v2.4.1 on host-7, process 51877").interval(Duration::from_secs(10));
    let bmdb = Bmdb::connect(config).await.expect("the database is good");
    let session = bmdb.start_session().await.expect("it is up");
    (bmdb, session)
}

/// Makes it, with so many machines of oak and a quarter as many of elm.
pub(crate) async fn fleet(db: &TestDatabase, machines: usize) -> Fleet {
    let (bmdb, session) = connect(db, "shepherd-oak").await;
    let oak = (0..machines).map(|nth| {
        let place = format!("fra2/r{}/u{}", nth / 20, nth % 20);
        NewMachine::new("oak", format!("OAK-{nth:04}"))
            .address(format!("198.51.100.{}", nth % 256))
            .location(place)
    });
    let elm = (0..machines / 4).map(|nth| NewMachine::new("elm", format!("ELM-{nth:04}")));
    for some in oak.chain(elm).collect::<Vec<_>>().chunks(100) {
        let imported = session.transact(async |tx| machine::import(tx, some).await).await;
        imported.expect("they can be imported");
    }
    let install = bmdb.register(Install).await.expect("it is a good rule");
    bmdb.register(AgentRecovery).await.expect("it is a good rule");
    bmdb.register(Survey).await.expect("it is a good rule");

    let mut works = Vec::new();
    for _ in 0..8 {
        works.extend(session.claim(&install).await.expect("the database is good"));
    }
    works[0]
        .progress(&"step 3 of 5, waiting for power state Off")
        .await
        .expect("it is held");
    let ada = bmdb
        .operator("ops-day", "BMC answers 503 to every power call")
        .expect("it is a reason");
    let ada = ada.ticket("OPS-4471").expect("it is a ticket");
    let stuck = works.remove(0);
    assert!(ada.ask_to_stop(stuck.id()).await.expect("it can be asked"));
    // Two failures park it.
    let parked = works[0].machine();
    works.remove(0).fail(CAUSE).await.expect("it is held");
    let other = works.remove(0);
    other.fail("PXE: no DHCP offer within 120 s").await.expect("it is held");
    let mut again = None;
    until("it may be claimed again", Duration::from_secs(30), async || {
        again = session.claim(&install).on(parked).await.expect("the database is good");
        again.is_some()
    })
    .await;
    again.expect("it was claimed").fail(CAUSE).await.expect("it is held");
    let done = works.pop().expect("there are more");
    done.finish(async |_tx| Ok::<_, bmdb::Error>(()))
        .await
        .expect("it is held");

    let held = works[0].machine();
    let reason =
        "RAM in slot B2 is being replaced. Do not install before the swap is done; the vendor comes between 9 and 12";
    let hand = bmdb.operator("ops-night", reason).expect("it is a reason");
    let hand = hand
        .ticket("https://tickets.example.com/OPS-3902")
        .expect("it is a ticket");
    hand.place_hold(held, Hold::new().slot("os"))
        .await
        .expect("it can be held");
    hand.place_hold(
        stuck.machine(),
        Hold::new().until(Until::For(Duration::from_secs(7200))),
    )
    .await
    .expect("it can be held");

    let (elm, silent) = connect(db, "shepherd-elm").await;
    let start = elm.register(AgentStart).await.expect("it is a good rule");
    let mut lost = Vec::new();
    for _ in 0..4 {
        lost.extend(silent.claim(&start).await.expect("the database is good"));
    }
    ada.break_session(silent.id())
        .await
        .expect("it can be broken")
        .expect("it lives");
    Fleet {
        bmdb,
        session,
        install,
        stuck,
        works,
        parked,
        held,
        _silent: (elm, silent, lost),
    }
}
