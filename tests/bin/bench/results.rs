//! What was measured, as tables, CSV and plots.

pub(crate) mod medians;
pub(crate) mod plot;
pub(crate) mod report;
