//! The web console, as browsers and programs reach it.

mod access;
mod browser;
mod client;
mod fleet;
mod html;
mod live;
mod pages;
mod writes;
