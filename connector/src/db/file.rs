//! SQLite's file, and that all who have it open share one file, one `-wal` and one `-shm`: SQLite's locks are nothing else. What SQLite keeps beside a file
//! bears the file's name, so who comes by another name, or after one of the three was removed, locks something else: two components could hold one
//! machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use sea_orm::DbErr;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::error::fault::Fault;

/// What is kept beside a file that is open.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// Three files that are open, and the paths that led to them.
pub(crate) struct OpenFile {
    /// Its own, as SQLite has opened it.
    path: PathBuf,
    files: Vec<(PathBuf, Identity)>,
    /// How long it was at most: in WAL mode it never becomes shorter, but by VACUUM.
    length: AtomicU64,
    /// What is wrong with it, for good: what was done since cannot be known.
    wrong: OnceLock<Error>,
    is_wrong: CancellationToken,
}

impl OpenFile {
    /// The file of this name. A connection has it open in WAL mode, and stays open: so what is beside it stays, too, unless somebody meddles.
    ///
    /// # Errors
    /// [`Error::UnsafeFile`]; [`Error::FileReplaced`] if one of the three is not there.
    pub(crate) fn at(named: &Path) -> Result<Self, Error> {
        check_name(named)?;
        // SQLite follows symbolic links, so the others stand beside what they lead to.
        let file = named.canonicalize().map_err(|_gone| replaced(named))?;
        let paths = [named.to_owned(), file.clone()].into_iter().chain(beside(&file));
        let identified = paths.map(|path| match identity_of(&path) {
            Some(identity) => Ok((path, identity)),
            None => Err(replaced(&path)),
        });
        let mut files = identified.collect::<Result<Vec<_>, _>>()?;
        files.dedup_by(|one, other| one.0 == other.0);
        Ok(Self {
            length: length_of(&file).unwrap_or_default().into(),
            path: file,
            files,
            wrong: OnceLock::new(),
            is_wrong: CancellationToken::new(),
        })
    }

    /// One look at each: some microseconds. (Opening them instead would release SQLite's locks on them, all of this process's.)
    ///
    /// # Errors
    /// [`Error::FileReplaced`] or [`Error::FileDamaged`], once and for good.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.wrong.get().is_none() {
            let other = |(path, identity): &&(PathBuf, Identity)| identity_of(path).as_ref() != Some(identity);
            if let Some((path, _)) = self.files.iter().find(other) {
                self.condemn(replaced(path));
            } else if self.is_shorter() {
                self.condemn(self.damaged(None));
            }
        }
        self.wrong.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    fn is_shorter(&self) -> bool {
        // What is gone has no length.
        let length = length_of(&self.path).unwrap_or_default();
        self.length.fetch_max(length, Ordering::AcqRel) > length
    }

    /// Nobody works on a file any more of which SQLite says that it is damaged.
    ///
    /// # Errors
    /// [`Error::FileDamaged`] if this error says so.
    pub(crate) fn check_answer(&self, error: &DbErr) -> Result<(), Error> {
        if Fault::of(error) != Fault::Damaged {
            return Ok(());
        }
        let damaged = self.damaged(Some(error.clone()));
        self.condemn(damaged.clone());
        Err(damaged)
    }

    fn damaged(&self, source: Option<DbErr>) -> Error {
        let file = self.path.clone();
        Error::FileDamaged { file, source }
    }

    /// From now on nobody works on it.
    fn condemn(&self, error: Error) {
        // Who comes second finds the first reason.
        drop(self.wrong.set(error));
        self.is_wrong.cancel();
    }

    /// Waits until something is found to be wrong with it, and says what.
    pub(crate) async fn is_wrong(&self) -> Error {
        self.is_wrong.cancelled().await;
        let wrong = self.wrong.get().cloned();
        wrong.expect("BUG: the reason is noted before the token fires")
    }
}

fn replaced(path: &Path) -> Error {
    Error::FileReplaced { file: path.to_owned() }
}

fn beside(file: &Path) -> [PathBuf; 2] {
    BESIDE.map(|suffix| {
        let mut path = OsString::from(file);
        path.push(suffix);
        path.into()
    })
}

/// Whether a file that is there has nothing beside it: either nobody has it open, or they came by another name, or what they share was removed.
pub(crate) fn seems_unused(named: &Path) -> bool {
    let file = named.canonicalize();
    file.is_ok_and(|file| beside(&file).iter().any(|path| identity_of(path).is_none()))
}

/// The error for a file that [seems unused](seems_unused) and is in use.
pub(crate) fn used_elsewhere(named: &Path) -> Error {
    Error::UnsafeFile {
        file: named.to_owned(),
        reason: "others have it open who share no -wal and -shm with us: they know it by another name, or its -wal or -shm was removed while they \
                 had it open; end them, and start again with one name for all"
            .to_owned(),
    }
}

/// Checks that what stands beside a file is shared by all who have it open, as far as its name and place tell. A file that does not exist yet is good.
///
/// # Errors
/// [`Error::UnsafeFile`].
pub(crate) fn check_name(named: &Path) -> Result<(), Error> {
    bmdb_address::what_is_wrong_with(named).map_or(Ok(()), |reason| {
        Err(Error::UnsafeFile {
            file: named.to_owned(),
            reason,
        })
    })
}

fn length_of(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.len())
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// A folder with a file in it, and what is beside a file.
    fn folder(name: &str) -> (PathBuf, OpenFile) {
        let folder = std::env::temp_dir().join(format!("bmdb-file-{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder can be made");
        let path = folder.join("bmdb");
        for file in [path.clone()].into_iter().chain(beside(&path)) {
            std::fs::write(file, "").expect("a file in it can be written");
        }
        let file = OpenFile::at(&path).expect("all three are there");
        assert!(file.check().is_ok());
        (folder, file)
    }

    #[test]
    fn a_file_may_grow_and_not_become_shorter() {
        let (folder, file) = folder("length");
        for (text, is_good) in [
            ("a", true),
            ("abc", true),
            ("xyz", true),
            ("ab", false),
            ("abcd", false),
        ] {
            std::fs::write(folder.join("bmdb"), text).unwrap();
            assert_eq!(file.check().is_ok(), is_good, "{text}");
        }
        assert!(matches!(file.check(), Err(Error::FileDamaged { source: None, .. })));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_condemned_file_stays_condemned() {
        let (folder, file) = folder("replaced");
        let (wal, away) = (folder.join("bmdb-wal"), folder.join("away"));
        std::fs::rename(&wal, &away).unwrap();
        let wrong = |file: &OpenFile| matches!(file.check(), Err(Error::FileReplaced { file }) if file == wal);
        assert!(wrong(&file));
        std::fs::rename(&away, &wal).unwrap();
        assert!(wrong(&file), "what was written meanwhile is not known");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
