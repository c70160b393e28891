//! What breaks: components, networks, servers, disks, clocks, and the order in which things happen.

pub(crate) mod crash;
mod faults;
pub(crate) mod file_faults;
mod restore;
mod schedules;
pub(crate) mod server_faults;
