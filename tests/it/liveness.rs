//! Sessions: what keeps one alive, what ends it, and who finds that out.

mod collect;
mod listed;
mod session;
mod stalls;
mod trust;
