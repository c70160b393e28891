//! The library's own statements, interleaved one by one on PostgreSQL.
//!
//! Each participant connects through a [`Proxy`] that keeps every statement back until a scheduler lets it pass: a random choice among those that
//! wait, from a printed seed. So each schedule of statements can happen, also those that never do by themselves. `BMDB_TEST_SCHEDULES` is how many
//! are run; the default is enough for every change, a night is enough for 50,000.

mod ablation;
mod interleave;
mod scene;

use std::collections::HashSet;
use std::task::Poll;

use bmdb::{MachineId, Session, agent_started};
use harness::{AgentStart, Survey, check_history, of};
use sea_orm::{ConnectionTrait, Statement};
use tokio::task::JoinSet;

use ablation::{Ablation, WITHOUT_REFERENCE, without_fence_compare, without_key_share};
use interleave::{Run, interleave};
use scene::{Scene, dies, new_machine};

/// How many run at once, each in a database of its own: a collector sees every session of a database.
const AT_ONCE: usize = 6;

/// An owner whose session is dead writes or finishes; a collector expires it; another claims. The owner must not commit once the session is
/// expired or another holds.
async fn expiry(scene: &Scene, random: &mut fastrand::Rng, nth: usize) -> (Run, bool) {
    let [owner, collector, claimer] = &scene.participants[..] else {
        unreachable!("there are three")
    };
    let machine = new_machine(&scene.calm, format!("expiry-{nth}")).await;
    let dead = owner.bmdb.start_session().await.unwrap();
    let work = dead
        .claim(&of::<Survey>(&dead).await)
        .on(machine)
        .await
        .unwrap()
        .expect("it is new");
    let other = claimer.bmdb.start_session().await.unwrap();
    // Claims of a process are not the first of their component's, which would also register it.
    other.claim(&of::<Survey>(&other).await).on(machine).await.unwrap();
    let (id, mut collecting) = dies(scene, &dead, collector).await;

    let arrivals = scene.keep_back();
    let mut tasks = JoinSet::new();
    let finishes = random.bool();
    tasks.spawn(async move {
        let body = async |tx: &bmdb::Tx| agent_started::set(tx, machine, *b"late").await;
        if finishes {
            let finished = work.finish(body).await;
            (0, finished.is_ok(), Box::new(finished) as _)
        } else {
            (0, work.transact(body).await.is_ok(), Box::new(work) as _)
        }
    });
    tasks.spawn(async move {
        let sweep = collecting.sweep().await;
        (
            1,
            sweep.is_ok_and(|sweep| sweep.expired.contains(&id)),
            Box::new(()) as _,
        )
    });
    let claim = other.clone();
    tasks.spawn(async move {
        let claimed = claim.claim(&of::<Survey>(&claim).await).on(machine).await;
        (2, claimed.as_ref().is_ok_and(Option::is_some), Box::new(claimed) as _)
    });
    let run = interleave(&scene.raw, random, arrivals, tasks, || scene.calm_down()).await;
    let violated = run.succeeded[0] && run.before_commit[0][1..].contains(&true);
    drop(dead);
    other.close().await.unwrap();
    (run, violated)
}

/// A session of each of two components that have registered the process.
async fn two_sessions(scene: &Scene) -> [Session; 2] {
    let start = async |nth: usize| {
        let session = scene.participants[nth].bmdb.start_session().await.unwrap();
        let registered = session
            .claim(&of::<AgentStart>(&session).await)
            .on(MachineId::random())
            .await
            .unwrap();
        assert!(registered.is_none(), "there is no such machine");
        session
    };
    [start(0).await, start(1).await]
}

/// One claims and finishes with a fact after which nobody is to claim; another claims at the same time. It must not redo what was done.
async fn redoing(scene: &Scene, random: &mut fastrand::Rng, nth: usize) -> (Run, bool) {
    let machine = new_machine(&scene.calm, format!("redoing-{nth}")).await;
    let [one, two] = two_sessions(scene).await;
    let arrivals = scene.keep_back();
    let mut tasks = JoinSet::new();
    let claim = one.clone();
    tasks.spawn(async move {
        let claimed = claim.claim(&of::<AgentStart>(&claim).await).on(machine).await;
        let Ok(Some(work)) = claimed else {
            return (0, false, Box::new(claimed) as _);
        };
        let finished = work
            .finish(async |tx| agent_started::set(tx, machine, *b"key").await)
            .await;
        (0, finished.is_ok(), Box::new(finished) as _)
    });
    let claim = two.clone();
    tasks.spawn(async move {
        let claimed = claim.claim(&of::<AgentStart>(&claim).await).on(machine).await;
        (1, claimed.as_ref().is_ok_and(Option::is_some), Box::new(claimed) as _)
    });
    let run = interleave(&scene.raw, random, arrivals, tasks, || scene.calm_down()).await;
    let violated = run.succeeded == [true, true];
    one.close().await.unwrap();
    two.close().await.unwrap();
    (run, violated)
}

/// An owner whose session is dead claims; a collector expires the session. No work may be left that is nobody's.
async fn late_claim(scene: &Scene, random: &mut fastrand::Rng, nth: usize) -> (Run, bool) {
    let [owner, collector] = &scene.participants[..] else {
        unreachable!("there are two")
    };
    let machine = new_machine(&scene.calm, format!("late-{nth}")).await;
    let dead = owner.bmdb.start_session().await.unwrap();
    let registered = dead
        .claim(&of::<Survey>(&dead).await)
        .on(MachineId::random())
        .await
        .unwrap();
    assert!(registered.is_none(), "there is no such machine");
    let (id, mut collecting) = dies(scene, &dead, collector).await;
    let arrivals = scene.keep_back();
    let mut tasks = JoinSet::new();
    let claim = dead.clone();
    tasks.spawn(async move {
        let claimed = claim.claim(&of::<Survey>(&claim).await).on(machine).await;
        (0, claimed.as_ref().is_ok_and(Option::is_some), Box::new(claimed) as _)
    });
    tasks.spawn(async move {
        let sweep = collecting.sweep().await;
        (
            1,
            sweep.is_ok_and(|sweep| sweep.expired.contains(&id)),
            Box::new(()) as _,
        )
    });
    let run = interleave(&scene.raw, random, arrivals, tasks, || scene.calm_down()).await;
    let nobodys = format!(
        "SELECT count(*) FROM work WHERE machine_id = '{machine}' \
         AND NOT EXISTS (SELECT session_id FROM session WHERE session.session_id = work.session_id)"
    );
    let statement = Statement::from_string(scene.raw.get_database_backend(), nobodys);
    let row = scene
        .raw
        .query_one_raw(statement)
        .await
        .unwrap()
        .expect("a count has a row");
    let violated = row.try_get_by_index::<i64>(0).unwrap() > 0;
    drop(dead);
    (run, violated)
}

/// One claims and finishes with a fact after which nobody is to claim, and its caller is gone in the middle of that; another claims at the same time.
/// What was done is not redone, and what was let go of is free.
async fn caller_gone(scene: &Scene, random: &mut fastrand::Rng, nth: usize) -> (Run, bool) {
    let machine = new_machine(&scene.calm, format!("gone-{nth}")).await;
    let [one, two] = two_sessions(scene).await;
    let arrivals = scene.keep_back();
    let mut tasks = JoinSet::new();
    let (claim, polls) = (one.clone(), random.usize(1..40));
    tasks.spawn(async move {
        let claims_and_finishes = async {
            let work = claim.claim(&of::<AgentStart>(&claim).await).on(machine).await.ok()??;
            let body = async |tx: &bmdb::Tx| agent_started::set(tx, machine, *b"key").await;
            work.finish(body).await.ok()
        };
        let finished = polled(claims_and_finishes, polls).await.flatten();
        (0, finished.is_some(), Box::new(()) as _)
    });
    let claim = two.clone();
    tasks.spawn(async move {
        let claimed = claim.claim(&of::<AgentStart>(&claim).await).on(machine).await;
        (1, claimed.as_ref().is_ok_and(Option::is_some), Box::new(claimed) as _)
    });
    let run = interleave(&scene.raw, random, arrivals, tasks, || scene.calm_down()).await;
    one.close().await.unwrap();
    two.close().await.unwrap();
    let redone = format!(
        "SELECT count(*) FROM work_history AS before JOIN work_history AS after USING (machine_id) \
         WHERE machine_id = '{machine}' AND before.event = 'finished' AND after.fence > before.fence"
    );
    let held = format!("SELECT count(*) FROM work WHERE machine_id = '{machine}'");
    let mut found = 0;
    for count in [redone, held] {
        let statement = Statement::from_string(scene.raw.get_database_backend(), count);
        let row = scene.raw.query_one_raw(statement).await.unwrap();
        found += row.expect("a count has a row").try_get_by_index::<i64>(0).unwrap();
    }
    (run, found > 0)
}

/// Polls a future so often, at least once, and drops it if it is not done by then.
async fn polled<F: Future>(future: F, mut times: usize) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        times -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if times == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[derive(Clone, Copy)]
enum Story {
    Expiry,
    Redoing,
    LateClaim,
    CallerGone,
}

/// How many schedules of how many that differ broke the rule.
async fn schedules(story: Story, ablation: Ablation, count: usize, seed: u64) -> (usize, usize) {
    let mut workers = JoinSet::new();
    for worker in 0..AT_ONCE {
        workers.spawn(async move {
            let participants = match story {
                Story::Expiry => 3,
                Story::Redoing | Story::LateClaim | Story::CallerGone => 2,
            };
            let scene = Scene::of(participants, ablation).await;
            let mut random = fastrand::Rng::with_seed(seed + worker as u64);
            let (mut violations, mut orders) = (0, HashSet::new());
            for nth in 0..count.div_ceil(AT_ONCE) {
                let (run, violated) = match story {
                    Story::Expiry => expiry(&scene, &mut random, nth).await,
                    Story::Redoing => redoing(&scene, &mut random, nth).await,
                    Story::LateClaim => late_claim(&scene, &mut random, nth).await,
                    Story::CallerGone => caller_gone(&scene, &mut random, nth).await,
                };
                violations += usize::from(violated);
                orders.insert(run.order);
            }
            let whole = check_history(&scene.raw).await;
            drop(scene.db);
            (violations, orders, whole)
        });
    }
    let (mut violations, mut orders) = (0, HashSet::new());
    while let Some(ended) = workers.join_next().await {
        let (found, seen, whole) = ended.expect("no schedule panics");
        assert_eq!(whole, Vec::<String>::new(), "history is whole, whatever is taken out");
        violations += found;
        orders.extend(seen);
    }
    (violations, orders.len())
}

/// All of it, and the same again with a mechanism taken out: if that breaks nothing, the test sees nothing.
async fn holds_and_is_needed(story: Story, ablation: Ablation) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seed = number("BMDB_TEST_SEED").unwrap_or_else(|| fastrand::u64(0..1_000_000));
    let count = number("BMDB_TEST_SCHEDULES").map_or(500, |count| usize::try_from(count).unwrap());
    eprintln!("BMDB_TEST_SEED={seed}");
    let (violations, different) = schedules(story, Ablation::None, count, seed).await;
    eprintln!("{count} schedules, {different} of them different: {violations} violations");
    assert_eq!(violations, 0);
    // What is taken out shows in one schedule of some dozens.
    for batch in 0..10 {
        let (without, different) = schedules(story, ablation, 120, seed + 1000 * batch).await;
        eprintln!("120 schedules, {different} of them different, with the mechanism taken out: {without} violations");
        if without > 0 {
            return;
        }
    }
    panic!("without the mechanism something must break");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_schedule_lets_an_expired_owner_write() {
    holds_and_is_needed(Story::Expiry, Ablation::Statements(without_key_share)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_schedule_does_finished_work_again() {
    holds_and_is_needed(Story::Redoing, Ablation::Statements(without_fence_compare)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_schedule_leaves_a_work_that_is_nobodys() {
    holds_and_is_needed(Story::LateClaim, WITHOUT_REFERENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_schedule_does_work_again_whose_caller_is_gone() {
    holds_and_is_needed(Story::CallerGone, Ablation::Statements(without_fence_compare)).await;
}
