//! The small pieces that pages are made of.

pub(super) mod bar;
pub(super) mod chip;
pub(super) mod clauses;
pub(super) mod lists;
pub(super) mod text;
pub(super) mod time;
