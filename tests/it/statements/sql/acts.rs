//! What operators do to processes and sessions as a whole, and to what is to go.

use std::time::Duration;

use bmdb::{Bmdb, Error, Process, Session, Until, machine};
use harness::{ada, of};

use crate::world::{Survey, connect_to};

/// Each of them once.
pub(super) async fn act(bmdb: &Bmdb, session: &Session) {
    let survey = of::<Survey>(session).await;
    let now = bmdb.now().await.unwrap();
    for until in [
        Until::For(Duration::from_secs(1)),
        Until::Time(now + Duration::from_secs(60)),
        Until::Open,
    ] {
        ada(bmdb).pause_process(Survey::NAME, until).await.unwrap();
        let again = ada(bmdb).pause_process(Survey::NAME, until).await;
        assert_eq!(again.is_ok(), matches!(until, Until::For(_)), "{again:?}");
    }
    assert!(session.claim(&survey).await.unwrap().is_none(), "it is paused");
    assert!(
        bmdb.processes()
            .await
            .unwrap()
            .iter()
            .any(|process| process.pause.is_some())
    );
    assert!(ada(bmdb).resume_process(Survey::NAME).await.unwrap());
    let work = session.claim(&survey).await.unwrap().expect("it is eligible");
    assert_eq!(ada(bmdb).ask_all_to_stop(Survey::NAME).await.unwrap(), 1);
    let refused = ada(bmdb).remove_machine(work.machine()).await;
    assert!(matches!(refused, Err(Error::MachineInWork { .. })), "{refused:?}");
    work.cancel().await.unwrap();
    let machine = session.transact(machine::create).await.unwrap();
    ada(bmdb).remove_machine(machine).await.unwrap();
    assert!(bmdb.pauses().await.unwrap().is_empty());
    let drained = bmdb.start_session().await.unwrap();
    assert!(ada(bmdb).drain_session(drained.id()).await.unwrap().is_some());
    drained.close().await.unwrap();
}

/// Old history goes, by a role that may delete it.
pub(super) async fn prune(url: &str) {
    let bmdb = connect_to(url).await;
    let two_days_ago = bmdb.now().await.unwrap() - Duration::from_secs(2 * 24 * 3600);
    assert_eq!(bmdb.prunable_history(two_days_ago).await.unwrap(), 0);
    assert_eq!(ada(&bmdb).prune_history(two_days_ago).await.unwrap(), 0);
    bmdb.close().await;
}
