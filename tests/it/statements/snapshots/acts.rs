//! What operators do.

use std::time::Duration;

use bmdb::{Bmdb, Hold, MachineId, Session, Until};
use harness::{ada, of};
use sea_orm::DatabaseConnection;

use super::Ear;
use crate::world::{Survey, park};

/// Holds and drains a machine.
pub(super) async fn hold(ear: &Ear, bmdb: &Bmdb, machine: MachineId) {
    ear.to("place_hold", ada(bmdb).place_hold(machine, Hold::new()))
        .await
        .unwrap();
    ear.to("drain_machine", ada(bmdb).drain_machine(machine, Hold::new()))
        .await
        .unwrap();
}

/// The rest, of a machine that is held. Answers a session that is to stay: what it sent at its end would be taken for that of another call.
pub(super) async fn act(
    ear: &Ear,
    bmdb: &Bmdb,
    raw: &DatabaseConnection,
    session: &Session,
    machine: MachineId,
) -> Session {
    ear.to("lift_hold", ada(bmdb).lift_hold(machine, None)).await.unwrap();
    // Whichever machines failed above.
    park(raw, machine, "agent-start").await;
    ear.to("run_now", ada(bmdb).run_now(machine, "agent-start"))
        .await
        .unwrap();
    ear.to("clear_backoff", ada(bmdb).clear_backoff(machine, "agent-start"))
        .await
        .unwrap();

    let survey = of::<Survey>(session).await;
    ear.to("pause_process", ada(bmdb).pause_process("survey", Until::Open))
        .await
        .unwrap();
    ear.to("claim_of_a_paused_process", session.claim(&survey))
        .await
        .unwrap();
    ear.to("resume_process", ada(bmdb).resume_process("survey"))
        .await
        .unwrap();
    let work = session.claim(&survey).await.unwrap().expect("it is eligible");
    ear.to("ask_all_to_stop", ada(bmdb).ask_all_to_stop("survey"))
        .await
        .unwrap();
    let machine = work.machine();
    work.cancel().await.unwrap();
    ear.to("remove_machine", ada(bmdb).remove_machine(machine))
        .await
        .unwrap();
    let drained = bmdb.start_session().await.unwrap();
    ear.to("drain_session", ada(bmdb).drain_session(drained.id()))
        .await
        .unwrap();
    let two_days_ago = bmdb.now().await.unwrap() - Duration::from_secs(2 * 24 * 3600);
    ear.to("prunable_history", bmdb.prunable_history(two_days_ago))
        .await
        .unwrap();
    ear.to("prune_history", ada(bmdb).prune_history(two_days_ago))
        .await
        .unwrap();
    drained
}
