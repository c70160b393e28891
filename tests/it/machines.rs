//! What is written about machines: tags, their times, facts from those who hold no work, and what operators do to them.

mod observations;
mod operators;
mod pruning;
mod removal;
mod states;
mod tags;
mod times;
