//! What happens to the demo's fleet: a component dies and another takes over, and Ada holds a machine and asks a work to stop.

use std::process::Child;
use std::time::{Duration, Instant};

use bmdb::entity::work_history::Event;
use bmdb::{Bmdb, CancellationToken, Hold, SessionStatus, WorkStatus, WorksOf};
use chrono::TimeDelta;

use crate::answer::words::count;
use crate::demo::account::{Account, pause};
use crate::demo::components::{MORTAL, start_mortal};
use crate::demo::machines::{HELD, find};
use crate::facts::pages::read_all;
use crate::failure::{Failure, Kind};

/// How often it is looked whether something has come about.
const LOOKS_EVERY: Duration = Duration::from_millis(500);
/// How long the component is dead before it is started again, and how long it lives then.
const DEAD_FOR: Duration = Duration::from_secs(20);
const LIVES_FOR: Duration = Duration::from_secs(40);
/// How long it has to end in order at the end of the demo.
const ENDS_WITHIN: Duration = Duration::from_secs(3);
/// How long nobody looks for a machine that nobody has taken over.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(60);
/// How long Ada leaves the surveyors alone.
const ASKS_EVERY: Duration = Duration::from_secs(60);

/// Has a component die, again and again, and tells what becomes of its machines.
///
/// # Errors
/// The database's, or that the component cannot be started.
pub(super) async fn death(bmdb: Bmdb, url: String, account: Account, stop: CancellationToken) -> Result<(), Failure> {
    let mut lives = Duration::from_secs(1);
    loop {
        let mut child = start_mortal(&url)?;
        account.say(MORTAL, &format!("starts agents, as process {} of its own", child.id()));
        let mut session = None;
        while session.is_none() && pause(&stop, LOOKS_EVERY).await {
            session = session_of(&bmdb, MORTAL).await?.filter(|session| session.works >= 2);
        }
        let goes_on = pause(&stop, lives).await;
        let Some(session) = session.filter(|_| goes_on) else {
            return end(child).await;
        };
        let held = read_all(|| bmdb.works(WorksOf::Session(session.session))).await?.rows;
        let killed = child.kill().and_then(|()| child.wait());
        killed.map_err(|error| Failure::new(Kind::Unreachable, format!("cannot kill a component: {error}")))?;
        let died = Instant::now();
        let machines = count(held.len() as u64, "machine", "machines");
        account.say(
            MORTAL,
            &format!("is killed with SIGKILL while it holds {machines}; its session goes silent"),
        );
        if !is_expired(&bmdb, &session, &stop).await? {
            return Ok(());
        }
        let seconds = died.elapsed().as_secs_f64();
        account.say(
            "a collector",
            &format!("expires the session of {MORTAL}, {seconds:.1} s after its death, which frees {machines}"),
        );
        if let Some((name, component)) = taken_over(&bmdb, &held, &stop).await? {
            let seconds = died.elapsed().as_secs_f64();
            account.say(
                &component,
                &format!("takes {name} over, {seconds:.1} s after the death of {MORTAL}"),
            );
        }
        if !pause(&stop, DEAD_FOR).await {
            return Ok(());
        }
        lives = LIVES_FOR;
    }
}

/// Has it end in order, as it does when its stdin is closed, or else at once.
async fn end(mut child: Child) -> Result<(), Failure> {
    drop(child.stdin.take());
    let began = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && began.elapsed() < ENDS_WITHIN {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // One that has ended cannot be killed, which is as well.
    let _ended = child.kill().and_then(|()| child.wait());
    Ok(())
}

async fn session_of(bmdb: &Bmdb, component: &str) -> Result<Option<SessionStatus>, Failure> {
    let sessions = read_all(|| bmdb.sessions()).await?.rows;
    // Of an earlier one that is not expired yet, nothing comes any more.
    let is_alive = |row: &SessionStatus| row.left().is_some_and(|left| left > TimeDelta::zero());
    Ok(sessions
        .into_iter()
        .find(|row| row.component == component && is_alive(row)))
}

async fn is_expired(bmdb: &Bmdb, session: &SessionStatus, stop: &CancellationToken) -> Result<bool, Failure> {
    while pause(stop, LOOKS_EVERY).await {
        let sessions = read_all(|| bmdb.sessions()).await?.rows;
        if sessions.iter().all(|row| row.session != session.session) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The first machine of these that another has claimed since, and who.
async fn taken_over(
    bmdb: &Bmdb,
    held: &[WorkStatus],
    stop: &CancellationToken,
) -> Result<Option<(String, String)>, Failure> {
    let began = Instant::now();
    while began.elapsed() < TAKEN_OVER_WITHIN && pause(stop, LOOKS_EVERY).await {
        for work in held {
            let history = read_all(|| bmdb.history(work.machine)).await?.rows;
            let next = history
                .into_iter()
                .find(|row| row.fence > work.fence && row.event == Event::Started && row.slot == work.slot);
            if let Some(next) = next {
                let name = work.provider_id.clone().unwrap_or_else(|| work.machine.to_string());
                return Ok(Some((name, next.component_name)));
            }
        }
    }
    Ok(None)
}

/// What Ada does.
///
/// # Errors
/// The database's.
pub(super) async fn ada(bmdb: Bmdb, account: Account, stop: CancellationToken) -> Result<(), Failure> {
    let held = find(&bmdb, "elm", HELD).await?;
    let ada = bmdb.operator("ada", "a fan is to be replaced")?.ticket("OPS-4471")?;
    ada.place_hold(held, Hold::new()).await?;
    account.say("ada", &format!("holds {HELD}: a fan is to be replaced (OPS-4471)"));
    let ada = bmdb.operator("ada", "the rack is to be moved")?.ticket("OPS-4480")?;
    while pause(&stop, LOOKS_EVERY).await {
        let works = read_all(|| bmdb.works(WorksOf::Process("hardware-survey".to_owned())))
            .await?
            .rows;
        let Some(work) = works.into_iter().find(|work| work.age() > TimeDelta::seconds(1)) else {
            continue;
        };
        if !ada.ask_to_stop(work.work).await? {
            continue;
        }
        let asked = Instant::now();
        let name = work.provider_id.clone().unwrap_or_else(|| work.machine.to_string());
        account.say(
            "ada",
            &format!(
                "asks {} to stop on {name}: the rack is to be moved (OPS-4480)",
                work.component
            ),
        );
        let mut ended = false;
        while !ended && pause(&stop, LOOKS_EVERY).await {
            ended = read_all(|| bmdb.works(WorksOf::Work(work.work))).await?.rows.is_empty();
        }
        if ended {
            let seconds = asked.elapsed().as_secs();
            account.say(
                &work.component,
                &format!("lets go of {name}, {seconds} s after it was asked to"),
            );
        }
        pause(&stop, ASKS_EVERY).await;
    }
    Ok(())
}
