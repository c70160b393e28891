//! A disk that a test can fill.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::folder;

/// Mounts a disk where nobody else sees it, says so, and lives until its input ends; the disk goes with the last process there.
const MOUNT: &str = r#"mount -t tmpfs -o "size=${2}m" none "$1" && echo mounted && cat"#;

/// A disk of a test's own in memory, seen by the processes that are told to [`enter`](Self::enter) only.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
    keeper: Child,
    as_root: bool,
}

impl SmallDisk {
    /// One of so many megabytes.
    ///
    /// # Panics
    /// Panics if this system lets us mount nothing, not even in a namespace of our own.
    #[must_use]
    pub fn of(megabytes: u32) -> Self {
        let folder = folder::new("disk");
        let as_root = super::postgres::we_are_root();
        let mut keeper = Command::new("unshare");
        keeper.args(["--mount", "--propagation=private"]);
        if !as_root {
            keeper.args(["--user", "--map-root-user"]);
        }
        keeper.args(["sh", "-c", MOUNT, "disk"]);
        keeper.arg(folder.path()).arg(megabytes.to_string());
        let mut keeper = keeper
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare can be started");
        let mut said = String::new();
        let output = keeper.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut said).expect("it can be read");
        assert_eq!(
            said, "mounted\n",
            "this system lets nobody mount a disk: run the tests as root, or allow user namespaces"
        );
        Self {
            folder,
            keeper,
            as_root,
        }
    }

    /// Where a file is, for those who have entered.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command that runs a program where the disk is seen.
    #[must_use]
    pub fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.keeper.id())).arg("--mount");
        if !self.as_root {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--").arg(program);
        command
    }

    /// Copies a file onto it.
    ///
    /// # Panics
    /// Panics if it has no room.
    pub fn take(&self, file: &Path) {
        self.run("cp", &[file, self.folder.path()]);
    }

    /// Copies a file from it.
    ///
    /// # Panics
    /// Panics if it is not there.
    pub fn give(&self, name: &str, to: &Path) {
        self.run("cp", &[&self.path(name), to]);
    }

    /// Mounts a file or a folder once more, over another that is there, for those who have entered.
    ///
    /// # Panics
    /// Panics if it cannot be mounted.
    pub fn mount(&self, what: &Path, over: &Path) {
        self.run("mount", &[Path::new("--bind"), what, over]);
    }

    /// Fills it to its last byte.
    ///
    /// # Panics
    /// Panics if there is room left.
    pub fn fill(&self) {
        let filler = format!("of={}", self.path("filler").display());
        let mut fill = self.enter("dd");
        let full = fill.args(["if=/dev/zero", &filler, "bs=4096"]).stderr(Stdio::piped());
        let full = full.output().expect("dd can be started");
        let said = String::from_utf8_lossy(&full.stderr);
        assert!(said.contains("No space left"), "{said}");
    }

    /// Removes what filled it.
    ///
    /// # Panics
    /// Panics if it was not [filled](Self::fill).
    pub fn empty(&self) {
        self.run("rm", &[&self.path("filler")]);
    }

    fn run(&self, program: &str, files: &[&Path]) {
        let done = self.enter(program).args(files).status();
        assert!(
            done.expect("nsenter can be started").success(),
            "{program} {files:?} failed"
        );
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        if let Err(error) = self.keeper.wait() {
            eprintln!("a disk is left: {error}");
        }
    }
}
