//! The archive itself, and what must not be in it.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use percent_encoding::percent_decode_str;

use crate::failure::{Failure, Kind};

/// The folder that the archive unpacks to.
const FOLDER: &str = "bmdb-bundle";
/// Only who made it reads it.
const MODE: u32 = 0o600;

/// A file that is there is somebody's.
pub(super) fn check(file: &Path) -> Result<(), Failure> {
    match file.try_exists() {
        Ok(false) => Ok(()),
        Ok(true) => Err(there_already(file)),
        Err(error) => Err(Failure::usage(format!("cannot look at {}: {error}", file.display()))),
    }
}

fn there_already(file: &Path) -> Failure {
    Failure::usage(format!("{} is there already: name another file", file.display()))
}

/// Writes the files. All are small: lists are cut.
pub(super) fn write(file: &Path, files: &[(&str, String)]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => there_already(file),
        _ => Failure::usage(format!("cannot write {}: {error}", file.display())),
    };
    let packed = packed(files).map_err(failed)?;
    let opened = OpenOptions::new().write(true).create_new(true).mode(MODE).open(file);
    let mut opened = opened.map_err(failed)?;
    opened
        .write_all(&packed)
        .and_then(|()| opened.sync_all())
        .map_err(failed)
}

fn packed(files: &[(&str, String)]) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let now = u64::try_from(chrono::Utc::now().timestamp()).unwrap_or_default();
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(MODE);
        header.set_mtime(now);
        archive.append_data(&mut header, format!("{FOLDER}/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()
}

/// The passwords of the databases. No part tells one; if one does, that part stays out.
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    pub(super) fn of<const N: usize>(urls: [Option<&str>; N]) -> Self {
        let mut secrets = Vec::new();
        for url in urls.into_iter().flatten() {
            let Some((_, rest)) = url.split_once("://") else {
                continue;
            };
            let of_user = rest.rsplit_once('@').and_then(|(user, _)| user.split_once(':'));
            let of_query = rest.split_once('?').map(|(_, query)| query).unwrap_or_default();
            let of_query = of_query.split('&').filter_map(|pair| pair.split_once('='));
            let named = of_query.filter(|(name, _)| name.contains("password"));
            for secret in of_user.into_iter().chain(named).map(|(_, secret)| secret) {
                secrets.push(secret.to_owned());
                secrets.push(percent_decode_str(secret).decode_utf8_lossy().into_owned());
            }
        }
        secrets.retain(|secret| !secret.is_empty());
        Self(secrets)
    }

    /// The text, if no password is in it.
    pub(super) fn checked(&self, text: String) -> Result<String, Failure> {
        if self.0.iter().any(|secret| text.contains(secret)) {
            let text = "it is kept back, for the password of the database is in it, or a word of it that is like one";
            return Err(Failure::new(Kind::NotAllowed, text));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_a_password_is_kept_back_however_it_is_written() {
        let secrets = Secrets::of([Some("postgres://ada:hun%74er2@h/db?sslpassword=key&x=y"), None]);
        for text in ["it is hunter2", "hun%74er2", "the key"] {
            assert!(secrets.checked(text.to_owned()).is_err(), "{text}");
        }
        assert!(secrets.checked("ada at h".to_owned()).is_ok());
        assert!(
            Secrets::of([Some("sqlite://fleet.sqlite")])
                .checked("fleet".to_owned())
                .is_ok()
        );
    }
}
