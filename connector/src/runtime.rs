//! What the rest runs on: no SQL, and no word of ours.

pub(crate) mod awake;
pub(crate) mod detach;
pub(crate) mod escaped;
pub(crate) mod lease;
pub(crate) mod lock;
pub(crate) mod retry;
pub(crate) mod spawn_on_drop;
pub(crate) mod supervised;
