//! What is written about machines: tags, their times, and facts from those who hold no work.

mod observations;
mod tags;
mod times;
