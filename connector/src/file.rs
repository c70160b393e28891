//! SQLite's file, and whether it still is the one that was opened.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// A file and the path that led to it. When another takes its place, whoever has it open goes on writing to it, and whoever comes later writes to
/// the other: two components could hold one machine.
pub(crate) struct OpenFile {
    path: PathBuf,
    identity: Identity,
}

impl OpenFile {
    /// The file at this path, if there is one.
    pub(crate) fn at(path: PathBuf) -> Option<Self> {
        let identity = identity_of(&path)?;
        Some(Self { path, identity })
    }

    /// One look at its folder: a microsecond or so. (Opening it instead would let go of SQLite's locks on it, all of this process's.)
    pub(crate) fn check(&self) -> Result<(), Error> {
        if identity_of(&self.path).as_ref() == Some(&self.identity) {
            return Ok(());
        }
        Err(Error::FileReplaced {
            file: self.path.clone(),
        })
    }
}

/// A device and a file's number on it.
#[cfg(unix)]
type Identity = (u64, u64);

#[cfg(unix)]
fn identity_of(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// When it was made: the standard library knows no more.
#[cfg(not(unix))]
type Identity = std::time::SystemTime;

#[cfg(not(unix))]
fn identity_of(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok()?.created().ok()
}
