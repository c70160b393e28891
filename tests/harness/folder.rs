//! The folders of tests, and removing what a crash left behind: the keeper itself can be killed, and machines lose power.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

use tempfile::TempDir;

/// The number of the test process follows, and what the folder is for.
const PREFIX: &str = "bmdb-tests-";

/// A new folder. `BMDB_TEST_FOLDER` says where, the system's temporary folder is the default.
pub(crate) fn new(what: &str) -> TempDir {
    static SWEPT: Once = Once::new();
    let place = std::env::var_os("BMDB_TEST_FOLDER").filter(|place| !place.is_empty());
    let place = place.map_or_else(std::env::temp_dir, PathBuf::from);
    SWEPT.call_once(|| sweep(&place));
    TempDir::with_prefix_in(format!("{PREFIX}{}-{what}-", std::process::id()), &place)
        .unwrap_or_else(|error| panic!("no folder can be made in {}: {error}", place.display()))
}

/// Ends the servers of test processes that are no more, and removes their folders.
fn sweep(place: &Path) {
    let Ok(entries) = fs::read_dir(place) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok());
        if owner.is_some_and(|owner: u32| !is_alive(owner)) {
            remove(&entry.path());
        }
    }
}

/// A keeper of a process that has just ended may be at the same: whoever comes second finds nothing to do.
fn remove(folder: &Path) {
    let server = fs::read_to_string(folder.join("data/postmaster.pid"));
    if let Some(pid) = server
        .ok()
        .and_then(|file| file.lines().next()?.trim().parse::<u32>().ok())
    {
        // The number may belong to a stranger by now; a server's command line names its folder.
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command_line).contains(&folder.display().to_string()) {
            signal("-QUIT", pid);
        }
    }
    drop(fs::remove_dir_all(folder));
}

fn is_alive(pid: u32) -> bool {
    signal("-0", pid)
}

fn signal(which: &str, pid: u32) -> bool {
    let sent = Command::new("kill")
        .args([which, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    sent.is_ok_and(|status| status.success())
}
