//! What is decided without a database.

pub(crate) mod backoff;
pub(crate) mod check;
pub(crate) mod claim_plan;
pub(crate) mod claimable;
pub(crate) mod eligible;
pub(crate) mod facts;
pub(crate) mod hint_refresh;
pub(crate) mod process;
pub(crate) mod select;
pub(crate) mod sightings;
pub(crate) mod work_key;
