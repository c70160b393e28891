//! A wall clock that a test moves while a process lives, by libfaketime.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::folder;

const NONE: &str = "libfaketime is not installed. Run tests/run, which installs it, or `apt-get install libfaketime`";

/// How far the wall clocks of some processes are from ours. Their monotonic clocks are not touched.
#[derive(Debug)]
pub struct Clock {
    folder: TempDir,
    library: PathBuf,
}

impl Clock {
    /// A clock that shows our own time.
    ///
    /// # Panics
    /// Panics if libfaketime is not installed (`tests/run` installs it).
    #[must_use]
    pub fn right() -> Self {
        let clock = Self {
            folder: folder::new("clock"),
            library: library().expect(NONE),
        };
        // Whoever runs the server reads it.
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(clock.folder.path(), readable).expect("it is ours");
        clock.set(0);
        clock
    }

    /// Moves it to so many seconds from our own time, in one step.
    ///
    /// # Panics
    /// Panics if its file cannot be written.
    pub fn set(&self, seconds: i64) {
        // Renamed into place, because a reader must never see half of it.
        let new = self.folder.path().join("new");
        fs::write(&new, format!("{seconds:+}s\n")).expect("our own folder can be written");
        fs::rename(new, self.file()).expect("our own folder can be written");
    }

    /// What a process that shall see it needs in its environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    /// Removes what libfaketime leaves of a process that was killed, if that process saw such a clock.
    pub fn forget(process: u32) {
        for file in ["faketime_shm_", "sem.faketime_sem_"] {
            // Most processes leave none.
            drop(fs::remove_file(format!("/dev/shm/{file}{process}")));
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }
}

/// Debian's, of whatever architecture.
fn library() -> Option<PathBuf> {
    let in_folder = |folder: &Path| folder.join("faketime/libfaketime.so.1");
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
    folders.map(|folder| in_folder(&folder)).find(|file| file.is_file())
}
