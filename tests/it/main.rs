//! The suites. Each test says in its name what must hold.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod any_input;
mod bad_input;
mod canary;
mod candidates;
mod collect;
mod connections;
mod crash;
mod crowds;
mod dropped;
mod eligible;
mod explain;
mod facts;
mod faults;
mod file_faults;
mod hostile;
mod logs;
mod migration;
mod observations;
mod odd_items;
mod odd_rows;
mod one_file;
mod overload;
mod plans;
mod restore;
mod roles;
mod round_trips;
mod runner;
mod schedules;
mod server_faults;
mod session;
mod settings;
mod sql;
mod stalls;
mod stress;
mod tags;
mod tidy;
mod times;
mod tls;
mod transact;
mod trust;
mod unknown;
mod url;
mod work;
mod world;
