//! One state for all that differ in nothing that matters: what makes the number of states finite, and small.

use crate::config::Config;
use crate::state::{Beat, Guard, MOST_SESSIONS, MOST_SLOTS, Phase, Session, Share, State, Watch};

/// Brings a state into the one form that stands for all of its kind.
pub(crate) fn normalize(config: &Config, state: &mut State) {
    for session in &mut state.sessions {
        forget(session);
    }
    rank_fences(state);
    if !config.symmetry {
        return;
    }
    state.sessions[..config.sessions].sort_unstable();
    if config.slots == MOST_SLOTS {
        let mut swapped = *state;
        swapped.slots.swap(0, 1);
        for session in &mut swapped.sessions {
            session.shares.swap(0, 1);
            if let Some(recorded) = &mut session.recorded {
                recorded.swap(0, 1);
            }
        }
        swapped.sessions[..config.sessions].sort_unstable();
        *state = (*state).min(swapped);
    }
}

/// Forgets what can have no effect any more.
fn forget(session: &mut Session) {
    if session.lease.is_none() {
        if session.phase == Phase::Dead {
            session.beat = Beat::Idle;
        }
        session.watch = Watch::Unseen;
        session.recorded = None;
    }
    if session.phase == Phase::Lost && session.beat == Beat::Idle {
        session.phase = Phase::Dead;
    }
    for share in &mut session.shares {
        share.asked &= session.phase == Phase::Live && share.row.is_some();
        // An effect borrows its guard.
        share.effect &= matches!(share.guard, Guard::Held { .. });
    }
    let is_over = session.phase == Phase::Dead
        && session.lease.is_none()
        && !session.body
        && session.shares.iter().all(|share| *share == Share::NOTHING);
    if is_over {
        *session = Session::FREE;
    }
}

/// Numbers the fences that somebody still remembers from zero: the protocol compares fences and counts nothing with them.
fn rank_fences(state: &mut State) {
    // One bit for each fence that is in use.
    let mut used = 0_u64;
    each_fence(state, &mut |fence| used |= 1 << *fence);
    each_fence(state, &mut |fence| {
        let below = used & ((1 << *fence) - 1);
        *fence = u8::try_from(below.count_ones()).unwrap_or(u8::MAX);
    });
}

fn each_fence(state: &mut State, visit: &mut impl FnMut(&mut u8)) {
    visit(&mut state.fence);
    visit(&mut state.granted);
    for slot in &mut state.slots {
        visit(&mut slot.highest);
        slot.late.iter_mut().for_each(&mut *visit);
    }
    for session in state.sessions.iter_mut().take(MOST_SESSIONS) {
        if let Some(recorded) = &mut session.recorded {
            recorded.iter_mut().flatten().for_each(&mut *visit);
        }
        for share in &mut session.shares {
            share.row.iter_mut().for_each(&mut *visit);
            match &mut share.guard {
                Guard::Claimed { fence } | Guard::Held { fence } | Guard::Ending { fence, .. } => visit(fence),
                Guard::None | Guard::Looking { .. } | Guard::Claiming { .. } => {}
            }
        }
    }
}
