//! Rules of this repository that no lint knows.

mod arrows;
mod tidy;
