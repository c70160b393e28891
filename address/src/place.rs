//! Whether all who open a SQLite file by this name share what SQLite keeps beside it, as far as its name and place tell: its locks are nothing else, and
//! bear the file's name.

use std::path::Path;

/// What keeps a file from being used, and what to do. A file that does not exist yet is good.
#[must_use]
pub fn what_is_wrong_with(named: &Path) -> Option<String> {
    let file = named.canonicalize().ok()?;
    if has_other_names(&file) {
        return Some(
            "it has several names (hard links), and who opens it by another one shares no -wal and -shm with us; leave it one, and make copies as \
             docs/backups.md says"
                .to_owned(),
        );
    }
    mount::what_is_wrong_with(&file)
}

#[cfg(unix)]
fn has_other_names(file: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).is_ok_and(|metadata| metadata.nlink() > 1)
}

#[cfg(not(unix))]
fn has_other_names(_: &Path) -> bool {
    false
}

/// Where the file is mounted.
#[cfg(target_os = "linux")]
mod mount {
    use std::borrow::Cow;
    use std::path::Path;

    /// File systems whose files others may have open on other machines, or on the host of this virtual one, with whom no memory is shared. Those of a FUSE
    /// program are taken for such: what they do is not known, but for [`LOCAL_FUSE`]. (`virtiofs`, `fakeowner`, `grpcfuse`, `vboxsf`, `vmhgfs` and `prl_fs` are
    /// folders that desktops share with a virtual machine.)
    const SHARED: [&str; 21] = [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "fakeowner",
        "fuse",
        "gfs2",
        "glusterfs",
        "gpfs",
        "grpcfuse",
        "lustre",
        "nfs",
        "nfs4",
        "ocfs2",
        "prl_fs",
        "smb3",
        "vboxsf",
        "virtiofs",
        "vmhgfs",
    ];
    /// Disks of this machine, and folders laid over each other on them.
    const LOCAL_FUSE: [&str; 4] = ["fuse.ext2", "fuse.exfat", "fuse.fuse-overlayfs", "fuse.mergerfs"];

    pub(super) fn what_is_wrong_with(file: &Path) -> Option<String> {
        match std::fs::read_to_string("/proc/self/mountinfo") {
            Ok(mounts) => wrong_by(&mounts, file),
            Err(error) => Some(format!(
                "how it is mounted cannot be known ({error} for /proc/self/mountinfo): mount /proc"
            )),
        }
    }

    /// Reads the lines that proc_pid_mountinfo(5) describes.
    pub(super) fn wrong_by(mounts: &str, file: &Path) -> Option<String> {
        let mounts = mounts.lines().filter_map(|line| {
            let (mount, system) = line.split_once(" - ")?;
            Some((unescaped(mount.split(' ').nth(4)?), system.split(' ').next()?))
        });
        // The innermost; of those at one place the last, which hides the others.
        let (point, system) = mounts
            .filter(|(point, _)| file.starts_with(&**point))
            .max_by_key(|(point, _)| point.len())?;
        if file == Path::new(&*point) {
            return Some(
                "it is mounted by itself, as `docker run -v ./db:/app/db` does with a file, and what stands beside it is not: mount its folder"
                    .to_owned(),
            );
        }
        let is_shared = SHARED.contains(&system) || (system.starts_with("fuse.") && !LOCAL_FUSE.contains(&system));
        is_shared.then(|| {
            format!(
                "it is on a network file system, or a folder that another machine shares ({system}), where SQLite's locks and shared memory do not reach: \
                 put it on a local disk, or use PostgreSQL"
            )
        })
    }

    /// A space, a tab, a line feed and a backslash are three octal digits.
    fn unescaped(point: &str) -> Cow<'_, str> {
        if !point.contains('\\') {
            return point.into();
        }
        let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
        let unescape = |text: String, (from, to): (&str, &str)| text.replace(from, to);
        escapes.into_iter().fold(point.to_owned(), unescape).into()
    }
}

/// Elsewhere files cannot be mounted by themselves.
#[cfg(not(target_os = "linux"))]
mod mount {
    pub(super) fn what_is_wrong_with(_: &std::path::Path) -> Option<String> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::mount::wrong_by;
    use super::*;

    const MOUNTS: &str = r"
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 22 0:40 / /srv/far rw - nfs4 server:/export rw
32 31 254:0 / /srv/far/near rw shared:7 master:2 - ext4 /dev/vdb rw
33 22 254:0 /host/db /app/db\040x rw - ext4 /dev/vda rw
34 22 0:41 / /mnt rw - 9p c: rw
35 22 254:0 / /mnt rw - ext4 /dev/vda rw
36 22 0:42 / /host rw - fakeowner grpcfuse rw
37 22 0:43 / /disk rw - fuseblk /dev/sdb1 rw
38 22 0:44 / /sftp rw - fuse.sshfs ada@far:/ rw
39 22 0:45 / /over rw - fuse.fuse-overlayfs fuse-overlayfs rw
";

    #[test]
    fn a_file_s_mount_is_the_innermost_that_is_seen() {
        let wrong = |file: &str| wrong_by(MOUNTS, Path::new(file));
        for good in [
            "/bmdb",
            "/srv/farther/bmdb",
            "/srv/far/near/bmdb",
            "/app/db",
            "/mnt/bmdb",
            "/disk/bmdb",
            "/over/bmdb",
        ] {
            assert_eq!(wrong(good), None, "{good}");
        }
        for (file, system) in [
            ("/srv/far/bmdb", "nfs4"),
            ("/host/bmdb", "fakeowner"),
            ("/sftp/bmdb", "fuse.sshfs"),
        ] {
            assert!(wrong(file).is_some_and(|why| why.contains(system)), "{file}");
        }
        assert!(wrong("/app/db x").is_some_and(|why| why.contains("mount its folder")));
    }
}
