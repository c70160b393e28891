//! The public operations: what each needs, what it reports, and how often it took effect.

use std::time::Duration;

use bmdb::{Bmdb, Error, Hold, Process, agent_heartbeat};
use harness::{Survey, ada, of};
use tokio::time::sleep;

use super::scene::{Needs, Said, Scene};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Connect,
    Register,
    StartSession,
    Heartbeat,
    Transact,
    State,
    Claim,
    ClaimMany,
    WorkTransact,
    Progress,
    Finish,
    Done,
    Update,
    Fail,
    FailMany,
    FailThenClaim,
    Cancel,
    Drop,
    Close,
    Sweep,
    PlaceHold,
    DrainMachine,
    LiftHold,
    RunNow,
    ClearBackoff,
    AskToStop,
    BreakSession,
    BreakHolder,
    DrainSession,
    PauseProcess,
    ResumeProcess,
    AskAllToStop,
    RemoveMachine,
    PruneHistory,
    Count,
    Explain,
    History,
    Holds,
    Backoffs,
    Sessions,
    Operations,
    Machines,
    Works,
    Processes,
}

use Operation::*;

impl Operation {
    pub(super) const ALL: [Self; 44] = [
        Connect,
        Register,
        StartSession,
        Heartbeat,
        Transact,
        State,
        Claim,
        ClaimMany,
        WorkTransact,
        Progress,
        Finish,
        Done,
        Update,
        Fail,
        FailMany,
        FailThenClaim,
        Cancel,
        Drop,
        Close,
        Sweep,
        PlaceHold,
        DrainMachine,
        LiftHold,
        RunNow,
        ClearBackoff,
        AskToStop,
        BreakSession,
        BreakHolder,
        DrainSession,
        PauseProcess,
        ResumeProcess,
        AskAllToStop,
        RemoveMachine,
        PruneHistory,
        Count,
        Explain,
        History,
        Holds,
        Backoffs,
        Sessions,
        Operations,
        Machines,
        Works,
        Processes,
    ];

    pub(super) fn needs(self) -> Needs {
        match self {
            WorkTransact | Progress | Finish | Done | Update | Fail | FailThenClaim | Cancel | Drop | Close
            | AskToStop | AskAllToStop | DrainMachine | Works | Explain | History => Needs::Work,
            FailMany => Needs::Works,
            BreakHolder => Needs::OthersWork,
            Sweep => Needs::DeadWork,
            LiftHold | Holds | Operations => Needs::Hold,
            ResumeProcess => Needs::Pause,
            PruneHistory => Needs::OldHistory,
            ClearBackoff | RunNow | Backoffs => Needs::Backoff,
            Connect | Register | StartSession | Heartbeat | Transact | State | Claim | ClaimMany | PlaceHold
            | BreakSession | DrainSession | PauseProcess | RemoveMachine | Count | Sessions | Machines | Processes => {
                Needs::Nothing
            }
        }
    }

    pub(super) async fn perform(self, scene: &Scene) -> Said {
        let Scene { bmdb, session, .. } = scene;
        let machine = scene.machines[0];
        match self {
            Connect => Said::of_repeatable(Bmdb::connect(scene.config()).await),
            Register => Said::of_repeatable(bmdb.register(Numbered(scene.nth)).await),
            StartSession => match bmdb.start_session().await {
                Ok(started) => {
                    scene.started.lock().unwrap().replace(started);
                    Said::Done
                }
                Err(error) => Said::of::<()>(Err(error)),
            },
            Heartbeat => beat(scene).await,
            Transact => Said::of(session.transact(async |tx| scene.count(tx).await).await),
            State => {
                let heard = bmdb::Observation::new(machine, agent_heartbeat::row());
                told(session.state([heard]).await.map(|stated| stated == [true]))
            }
            Claim => match session.claim(&of::<Survey>(&session).await).on(machine).await {
                Ok(Some(work)) => scene.keep(work),
                Ok(None) => panic!("nobody else wants it, so it is there to be had"),
                Err(error) => Said::of::<()>(Err(error)),
            },
            ClaimMany => {
                let mine = bmdb::machine::Column::MachineId;
                let claim = session
                    .claim_many(&of::<Survey>(&session).await, 2)
                    .filter(sea_orm::ColumnTrait::is_in(&mine, scene.machines));
                match claim.await {
                    Ok(works) if works.len() == 2 => works.into_iter().map(|work| scene.keep(work)).last().unwrap(),
                    Ok(works) => panic!("only {} of two were there to be had", works.len()),
                    Err(error) => Said::of::<()>(Err(error)),
                }
            }
            WorkTransact => {
                let work = scene.take();
                let said = Said::of(work.transact(async |tx| scene.count(tx).await).await);
                scene.keep(work);
                said
            }
            Progress => {
                let work = scene.take();
                let said = Said::of_repeatable(work.progress(&"half-way").await);
                scene.keep(work);
                said
            }
            Finish => Said::of_end(scene.take().finish(async |tx| scene.count(tx).await).await),
            Done => Said::of_end(scene.take().done().stating(agent_heartbeat::row()).await),
            Update => {
                let address = bmdb::provided::ActiveModel {
                    address: sea_orm::ActiveValue::Set(Some("192.0.2.7".to_owned())),
                    ..sea_orm::ActiveModelTrait::default()
                };
                Said::of_end(scene.take().done().updating(address).await)
            }
            Fail => Said::of_end(scene.take().fail("a test").await),
            FailMany => {
                let works = vec![scene.take(), scene.take()];
                let ended = bmdb::Work::fail_many(works, "a test").await;
                ended
                    .into_iter()
                    .map(Said::of_end)
                    .reduce(Said::and)
                    .expect("there are two")
            }
            FailThenClaim => {
                let next = session.claim(&of::<Survey>(&session).await);
                match scene
                    .take()
                    .fail("a test")
                    .stating(agent_heartbeat::row())
                    .then(next)
                    .await
                {
                    // The other machine; or the same, when the faults took longer than its backoff.
                    Ok(Ok(Some(work))) => scene.keep(work),
                    Ok(Ok(None)) => panic!("the other machine was there to be had"),
                    // What the claim took is let go of.
                    Ok(Err(_unknown)) => Said::Done,
                    Err(unfinished) => Said::of_end::<(), _>(Err(unfinished)),
                }
            }
            Cancel => Said::of_end(scene.take().cancel().await),
            Drop => {
                drop(scene.take());
                while self.effect(scene).await == 0 {
                    sleep(Duration::from_millis(20)).await;
                }
                Said::Done
            }
            Close => Said::of_repeatable(session.clone().close().await),
            Sweep => {
                let mut collector = scene.collector.lock().await;
                match collector.sweep().await {
                    Ok(sweep) if sweep.expired == [scene.other.id()] && sweep.freed == 1 => Said::Done,
                    other => Said::Unknown(format!("{other:?}")),
                }
            }
            PlaceHold => Said::of(ada(bmdb).place_hold(machine, Hold::new()).await),
            DrainMachine => {
                let work = scene.take();
                let drained = ada(bmdb).drain_machine(machine, Hold::new()).await;
                let said = told(drained.map(|asked| asked == [work.id()]));
                scene.keep(work);
                said
            }
            LiftHold => told(ada(bmdb).lift_hold(machine, None).await),
            RunNow => told(ada(bmdb).run_now(machine, Survey::NAME).await),
            ClearBackoff => told(ada(bmdb).clear_backoff(machine, Survey::NAME).await),
            AskToStop => {
                let work = scene.take();
                let said = told(ada(bmdb).ask_to_stop(work.id()).await);
                scene.keep(work);
                said
            }
            BreakHolder => {
                let work = scene.take();
                let said = told(
                    ada(bmdb)
                        .break_holder(work.id(), work.fence())
                        .await
                        .map(|broken| broken.is_some()),
                );
                scene.keep(work);
                said
            }
            BreakSession => told(
                ada(bmdb)
                    .break_session(scene.other.id())
                    .await
                    .map(|broken| broken.is_some()),
            ),
            DrainSession => told(
                ada(bmdb)
                    .drain_session(scene.other.id())
                    .await
                    .map(|drained| drained.is_some()),
            ),
            PauseProcess => Said::of(ada(bmdb).pause_process(Survey::NAME, bmdb::Until::Open).await),
            ResumeProcess => told(ada(bmdb).resume_process(Survey::NAME).await),
            AskAllToStop => {
                let work = scene.take();
                let said = told(ada(bmdb).ask_all_to_stop(Survey::NAME).await.map(|asked| asked >= 1));
                scene.keep(work);
                said
            }
            RemoveMachine => Said::of(ada(bmdb).remove_machine(machine).await),
            PruneHistory => {
                let two_days_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 24 * 3600);
                told(
                    ada(bmdb)
                        .prune_history(two_days_ago.into())
                        .await
                        .map(|events| events == 2),
                )
            }
            // Its own two machines at least.
            Count => read(of::<Survey>(&bmdb).await.count().await, |count| *count >= 2),
            Explain => read(of::<Survey>(&bmdb).await.explain(machine).await, |it| {
                it.holder.is_some() && !it.eligible
            }),
            History => read(bmdb.history(machine).await, |page| page.rows.len() == 1),
            Holds => read(bmdb.holds(Some(machine)).await, |page| page.rows.len() == 1),
            Backoffs => read(bmdb.backoffs(Some(machine)).await, |page| page.rows.len() == 1),
            Machines => {
                let mine = bmdb::MachineFilter::new().ids(scene.machines);
                read(bmdb.machines(mine).await, |page| page.rows.len() == 2)
            }
            Works => {
                let mine = bmdb::WorksOf::Machines(vec![machine]);
                read(bmdb.works(mine).await, |page| page.rows.len() == 1)
            }
            Processes => read(bmdb.processes().await, |processes| {
                processes.iter().any(|process| process.process == Survey::NAME)
            }),
            Operations => read(bmdb.operations(Some(machine)).await, |page| page.rows.len() == 1),
            Sessions => read(bmdb.sessions().await, |page| {
                page.rows.iter().any(|row| row.session == session.id())
            }),
        }
    }

    /// Whether it must be alone in its database: a collector sees every session, a claim from hints every machine, and all scenes have one process.
    pub(super) fn is_alone(self) -> bool {
        matches!(
            self,
            Sweep | FailThenClaim | PauseProcess | ResumeProcess | AskAllToStop | PruneHistory
        )
    }
}

/// Each scene has a value, and so a rule, of its own.
struct Numbered(usize);

impl bmdb::Process for Numbered {
    const NAME: &'static str = "numbered";
    type Item = bmdb::machine::Model;

    fn eligible(&self, machines: bmdb::Eligible) -> bmdb::Eligible {
        let above = sea_orm::ColumnTrait::gt(&bmdb::machine::Column::Fence, i64::try_from(self.0).unwrap_or(0));
        machines.when("is above", above)
    }
}

/// Whether the session's heart beats on: twice after whatever has happened.
async fn beat(scene: &Scene) -> Said {
    let deadline = format!(
        "SELECT CAST(extract(epoch FROM deadline) * 1000 AS BIGINT) FROM session_lease WHERE session_id = '{}'",
        scene.session.id()
    );
    let mut seen = scene.number(&deadline).await;
    let mut beats = 0;
    while beats < 2 {
        sleep(Duration::from_millis(100)).await;
        let now = scene.number(&deadline).await;
        beats += u32::from(now != seen);
        seen = now;
    }
    Said::Done
}

/// Of an operation that says whether there was something to do; there was.
fn told(result: Result<bool, Error>) -> Said {
    match result {
        Ok(true) => Said::Done,
        Ok(false) => Said::NotDone("there was nothing to do".to_owned()),
        Err(error) => Said::of::<()>(Err(error)),
    }
}

/// Of a read: what it says must be true, which its effect of one then demands.
fn read<T: std::fmt::Debug>(result: Result<T, Error>, is_true: impl Fn(&T) -> bool) -> Said {
    match result {
        Ok(value) if is_true(&value) => Said::Done,
        Ok(value) => Said::NotDone(format!("it answered {value:?}")),
        Err(error) => Said::of_repeatable::<()>(Err(error)),
    }
}
