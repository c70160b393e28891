//! An authority, a server and a client that it vouches for, made with openssl for one test.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::folder;

/// The client's name, which is its role.
pub(crate) const CLIENT: &str = "secured";

/// A role that is known by its password.
pub(crate) const LOCKED: &str = "locked";

/// Who may connect how: the client only over TLS and with its certificate, another role with its password, everybody else as on the plain
/// server.
const RULES: &str =
    "hostssl all secured 127.0.0.1/32 cert\nhost all secured all reject\nhost all locked all scram-sha-256\n";

/// Certificates and keys as PEM files in a folder that goes when this is dropped.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    pub(crate) fn make() -> Self {
        let folder = folder::new("certificates");
        let made = Self { folder };
        made.authority("authority");
        made.authority("stranger");
        // rustls takes no certificate of an authority for a server's.
        made.signed(
            "server",
            "basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:localhost\n",
        );
        made.signed(CLIENT, "basicConstraints=critical,CA:FALSE\n");
        made
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The authority that signed the server's certificate.
    #[must_use]
    pub fn authority_file(&self) -> PathBuf {
        self.file("authority.crt")
    }

    /// An authority that signed nothing.
    #[must_use]
    pub fn stranger_file(&self) -> PathBuf {
        self.file("stranger.crt")
    }

    /// The client's certificate.
    #[must_use]
    pub fn client_file(&self) -> PathBuf {
        self.file("secured.crt")
    }

    /// The client's key.
    #[must_use]
    pub fn client_key_file(&self) -> PathBuf {
        self.file("secured.key")
    }

    /// Puts what the server needs into its data folder, and answers the settings that name it.
    pub(crate) fn install(&self, data: &Path) -> Vec<String> {
        let owner = fs::metadata(data).expect("the cluster was made");
        for name in ["server.crt", "server.key", "authority.crt"] {
            fs::copy(self.file(name), data.join(name)).expect("the cluster's folder can be written");
            chown(data.join(name), Some(owner.uid()), Some(owner.gid())).expect("we are its owner or root");
        }
        let rules = data.join("pg_hba.conf");
        let old = fs::read_to_string(&rules).expect("initdb writes rules");
        fs::write(rules, format!("{RULES}{old}")).expect("the cluster's folder can be written");
        [
            "ssl=on",
            "ssl_cert_file=server.crt",
            "ssl_key_file=server.key",
            "ssl_ca_file=authority.crt",
        ]
        .map(str::to_owned)
        .into()
    }

    fn authority(&self, name: &str) {
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.crt"),
        ]);
    }

    fn signed(&self, name: &str, extensions: &str) {
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        fs::write(self.file("extensions"), extensions).expect("our own folder can be written");
        self.openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            &key,
            "-out",
            &request,
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "authority.crt",
            "-CAkey",
            "authority.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extensions",
            "-out",
            &certificate,
        ]);
    }

    fn openssl(&self, arguments: &[&str]) {
        let done = Command::new("openssl")
            .args(arguments)
            .current_dir(self.folder.path())
            .output();
        let done = done.expect("openssl is installed (tests/run installs it)");
        assert!(
            done.status.success(),
            "openssl {arguments:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}
