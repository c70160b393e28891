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
    pub(super) const ALL: [Self; 38] = [
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
            | AskToStop | DrainMachine | Works | Explain | History => Needs::Work,
            FailMany => Needs::Works,
            BreakHolder => Needs::OthersWork,
            Sweep => Needs::DeadWork,
            LiftHold | Holds | Operations => Needs::Hold,
            ClearBackoff | RunNow | Backoffs => Needs::Backoff,
            Connect | Register | StartSession | Heartbeat | Transact | State | Claim | ClaimMany | PlaceHold
            | BreakSession | Count | Sessions | Machines | Processes => Needs::Nothing,
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

    /// Whether it must be alone in its database: a collector sees every session, a claim from hints every machine.
    pub(super) fn is_alone(self) -> bool {
        matches!(self, Sweep | FailThenClaim)
    }

    /// How often it took effect so far.
    pub(super) async fn effect(self, scene: &Scene) -> i64 {
        let events = async |event: &str| {
            let count = format!("SELECT count(*) FROM work_history WHERE machine_id = $1 AND event = '{event}'");
            scene.number(&count).await
        };
        // An operator's act and its row are one, however often it was done. At one moment, for a statement may still be under way.
        let recorded = async |verb: &str, effect: &str| {
            let both = format!(
                "SELECT CASE WHEN (e.n > 0) = (a.n > 0) THEN e.n ELSE {} END FROM ({effect}) AS e (n), \
                 (SELECT count(*) FROM operation WHERE verb = '{verb}' AND (machine_id = $1 OR session_id = '{}')) AS a (n)",
                i64::MAX,
                scene.other.id()
            );
            scene.number(&both).await
        };
        const HEARD: &str = "SELECT count(*) FROM machine_agent_heartbeat WHERE machine_id = $1";
        const COUNTER: &str = "SELECT n FROM counter WHERE id = {nth}";
        match self {
            Connect | Heartbeat | Count | Explain | History | Holds | Backoffs | Sessions | Operations | Machines
            | Works | Processes => 1,
            Register => {
                let rules = "SELECT count(*) FROM process_rule WHERE process = 'numbered' AND CAST(clauses AS TEXT) LIKE '%CAST({nth} AS BIGINT)%'";
                scene.number(rules).await
            }
            StartSession => {
                let own = format!(
                    "SELECT count(*) - 1 FROM session WHERE component_name = '{}'",
                    scene.component()
                );
                scene.number(&own).await
            }
            Transact | WorkTransact => scene.number(COUNTER).await,
            State => scene.number(HEARD).await,
            Claim | ClaimMany => events("started").await,
            Progress => {
                let written = "SELECT count(*) FROM work WHERE machine_id = $1 AND progress IS NOT NULL";
                scene.number(written).await
            }
            Finish => {
                let (counted, finished) = (scene.number(COUNTER).await, events("finished").await);
                // The body and the end are one.
                if counted == finished { finished } else { i64::MAX }
            }
            Done => {
                let (stated, finished) = (scene.number(HEARD).await, events("finished").await);
                // What an end states and the end are one.
                if stated == finished { finished } else { i64::MAX }
            }
            Update => {
                let updated = "SELECT count(*) FROM machine_provided WHERE machine_id = $1 AND address = '192.0.2.7'";
                let (updated, finished) = (scene.number(updated).await, events("finished").await);
                if updated == finished { finished } else { i64::MAX }
            }
            Fail | FailThenClaim => {
                let attempts = "SELECT coalesce(max(attempts), 0) FROM work_backoff WHERE machine_id = $1";
                let (backed_off, failed) = (scene.number(attempts).await, events("failed").await);
                let stated = if self == Fail {
                    failed
                } else {
                    scene.number(HEARD).await
                };
                if backed_off == failed && stated == failed {
                    failed
                } else {
                    i64::MAX
                }
            }
            FailMany => {
                let other = format!(
                    "SELECT count(*) FROM work_history JOIN work_backoff USING (machine_id) WHERE machine_id = '{}' AND event = 'failed'",
                    scene.machines[1]
                );
                let (one, other) = (events("failed").await, scene.number(&other).await);
                if one == other { one } else { i64::MAX }
            }
            Cancel | Drop => events("canceled").await,
            Close => {
                let gone = format!(
                    "SELECT 1 - count(*) FROM session WHERE session_id = '{}'",
                    scene.session.id()
                );
                scene.number(&gone).await
            }
            Sweep => events("expired").await,
            PlaceHold => recorded("place-hold", "SELECT count(*) FROM work_hold WHERE machine_id = $1").await,
            DrainMachine => {
                // Whoever is gone has let go of the work as well, and nobody need ask any more.
                const DRAINED: &str = "SELECT count(*) FROM work_hold LEFT JOIN work USING (machine_id) \
                    WHERE machine_id = $1 AND (work_id IS NULL OR stop_requested = 'a test')";
                recorded("drain-machine", DRAINED).await
            }
            LiftHold => {
                let lifted = "SELECT 1 - count(*) FROM work_hold WHERE machine_id = $1";
                recorded("lift-hold", lifted).await
            }
            RunNow => {
                let due = "SELECT count(*) FROM work_backoff WHERE machine_id = $1 AND until <= now()";
                recorded("run-now", due).await
            }
            ClearBackoff => {
                let cleared = "SELECT 1 - count(*) FROM work_backoff WHERE machine_id = $1";
                recorded("clear-backoff", cleared).await
            }
            AskToStop => {
                // Nor is there anything left to see where the work is gone: then its row tells.
                let asked = "SELECT count(*) FROM operation LEFT JOIN work USING (machine_id) \
                    WHERE machine_id = $1 AND verb = 'ask-to-stop' AND (work.work_id IS NULL OR stop_requested = 'a test')";
                recorded("ask-to-stop", asked).await
            }
            BreakSession | BreakHolder => {
                let broken = format!(
                    "SELECT count(*) FROM session_lease WHERE deadline <= now() AND session_id = '{}'",
                    scene.other.id()
                );
                recorded("break-session", &broken).await
            }
        }
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
