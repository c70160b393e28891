//! What is measured beside claims: heartbeats, holding, imports and expiries.

pub(crate) mod expiries;
pub(crate) mod heartbeats;
pub(crate) mod holding;
pub(crate) mod imports;
pub(crate) mod rates;
