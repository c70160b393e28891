//! What operators do to processes and sessions as a whole, and to what is to go.

use std::time::Duration;

use bmdb::{Bmdb, Process, Session, Until};
use harness::{ada, of};

use crate::world::Survey;

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
    let machine = work.machine();
    assert!(ada(bmdb).remove_machine(machine).await.is_err(), "somebody works on it");
    work.cancel().await.unwrap();
    ada(bmdb).remove_machine(machine).await.unwrap();
    let drained = bmdb.start_session().await.unwrap();
    assert!(ada(bmdb).drain_session(drained.id()).await.unwrap().is_some());
    drained.close().await.unwrap();
    let two_days_ago = now - Duration::from_secs(2 * 24 * 3600);
    assert_eq!(bmdb.prunable_history(two_days_ago).await.unwrap(), 0);
    assert_eq!(ada(bmdb).prune_history(two_days_ago).await.unwrap(), 0);
}
