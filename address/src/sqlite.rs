//! SQLite takes a name that begins with `file:` for a URL of its own, whose parameters switch off the locks; so the driver is told a plain file and
//! nothing else, and what we do not know is refused.

use std::fmt;
use std::path::PathBuf;

use crate::{UrlError, check_readable};

/// Where a database of SQLite's is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sqlite {
    /// A plain name, relative to the process's folder if it does not begin with `/`. Never a URL of SQLite's own.
    pub file: PathBuf,
    /// Whether a file that is not there may be made, as `mode=rwc` says and `mode=rw` denies; none if the URL does not say.
    pub may_create: Option<bool>,
}

impl Sqlite {
    /// Reads `sqlite:FILE`, `sqlite://FILE` and `sqlite:///FILE` with `?mode=rw` or `?mode=rwc`. Percent signs are for `?`, `%` and the like in a name.
    ///
    /// ```
    /// let place = bmdb_address::Sqlite::parse("sqlite:///var/lib/bmdb.sqlite?mode=rwc")?;
    /// assert_eq!(place.file, std::path::Path::new("/var/lib/bmdb.sqlite"));
    /// assert_eq!(place.may_create, Some(true));
    /// # Ok::<_, bmdb_address::UrlError>(())
    /// ```
    ///
    /// # Errors
    /// The first thing that is wrong: [`UrlError::InMemory`] for a database that no other process sees, else [`UrlError::Malformed`].
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        use UrlError::{InMemory, Malformed as Because};
        let rest = url.strip_prefix("sqlite:").unwrap_or(url);
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (file, query) = rest.split_once('?').unwrap_or((rest, ""));
        let file = decoded(file).ok_or(Because("its file's name is not UTF-8"))?;
        if file.trim_start_matches('/').is_empty() {
            let is_in_memory = query.split('&').any(|pair| pair == "mode=memory");
            return Err(if is_in_memory {
                InMemory
            } else {
                Because("it names no file")
            });
        }
        if file.contains(":memory:") {
            return Err(InMemory);
        }
        if file.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("file:")) {
            return Err(Because(
                "its file is a URL of SQLite's own; write the path itself, as sqlite:///folder/file",
            ));
        }
        if file.ends_with('/') {
            return Err(Because("it names a folder"));
        }
        check_readable(&file)?;
        let mut may_create = None;
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match (&*name, &*value) {
                ("mode", "rw") => may_create = Some(false),
                ("mode", "rwc") => may_create = Some(true),
                ("mode", "memory") => return Err(InMemory),
                ("mode", "ro") => return Err(Because("mode=ro lets nobody write, and a component writes")),
                ("mode", _) => return Err(Because("its mode is neither rw nor rwc")),
                _ => {
                    return Err(Because(
                        "a parameter after the file is not mode: what else SQLite knows (cache, immutable, nolock, vfs) changes its locks",
                    ));
                }
            }
        }
        let file = PathBuf::from(file);
        Ok(Self { file, may_create })
    }
}

/// The database's name for people: no parameters.
impl fmt::Display for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite://{}", self.file.display())
    }
}

/// Without its percent signs, as the driver reads it too: one that two hexadecimal digits do not follow stands for itself.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%').then(|| after.get(..2)).flatten();
        let byte = escaped.and_then(|digits| {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            u8::try_from(16 * digit(digits[0])? + digit(digits[1])?).ok()
        });
        rest = if byte.is_some() { &after[2..] } else { after };
        bytes.push(byte.unwrap_or(first));
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use sea_orm::sqlx::sqlite::SqliteConnectOptions;

    use super::*;

    #[test]
    fn a_url_is_read_as_the_driver_reads_it() {
        for (url, file, may_create) in [
            ("sqlite:bmdb.sqlite", "bmdb.sqlite", None),
            ("sqlite://bmdb.sqlite?mode=rwc", "bmdb.sqlite", Some(true)),
            ("sqlite://bmdb.sqlite?mode=rw", "bmdb.sqlite", Some(false)),
            (
                "sqlite:///var/lib/bmdb.sqlite?mode=rw",
                "/var/lib/bmdb.sqlite",
                Some(false),
            ),
            (
                "sqlite:/var/lib/bmdb.sqlite?mode=%72wc",
                "/var/lib/bmdb.sqlite",
                Some(true),
            ),
            ("sqlite:////var//lib/x", "//var//lib/x", None),
            ("sqlite://a%3Fmode=memory", "a?mode=memory", None),
            ("sqlite://a+b%20c%zz%2%", "a+b c%zz%2%", None),
            ("sqlite://%E2%82%AC.sqlite", "€.sqlite", None),
            ("sqlite://x#y", "x#y", None),
            ("sqlite://folder/file:x", "folder/file:x", None),
        ] {
            let file = PathBuf::from(file);
            let driver = SqliteConnectOptions::from_str(url).expect("the driver takes it");
            assert_eq!(driver.get_filename(), file, "{url}");
            assert_eq!(Sqlite::parse(url), Ok(Sqlite { file, may_create }), "{url}");
        }
    }

    #[test]
    fn what_would_switch_off_a_lock_is_refused() {
        for url in [
            "sqlite:file:bmdb.sqlite",
            "sqlite:file:/var/lib/bmdb.sqlite?mode=rw",
            "sqlite://file:bmdb.sqlite%3Fnolock=1",
            "sqlite://FILE:x%3Fimmutable=1",
            "sqlite://%66ile:x%3Fvfs=unix-none",
            "sqlite://file%3Ax%3Fmode=memory",
            "sqlite://x?immutable=1",
            "sqlite://x?immutable=true",
            "sqlite://x?immutable=false",
            "sqlite://x?nolock=1",
            "sqlite://x?psow=0",
            "sqlite://x?vfs=unix-none",
            "sqlite://x?cache=shared",
            "sqlite://x?mode=rw&cache=private",
            "sqlite://x?mode=ro",
            "sqlite://x?mode",
            "sqlite://x?m%6Fde=RW",
            "sqlite://folder/",
            "sqlite://%FF",
            "sqlite://x%00y",
            "sqlite:",
            "sqlite://?mode=rwc",
        ] {
            assert!(matches!(Sqlite::parse(url), Err(UrlError::Malformed(_))), "{url}");
        }
        for url in [
            "sqlite::memory:",
            "sqlite://%3Amemory%3A",
            "sqlite://?mode=memory",
            "sqlite://x?mode=%6Demory",
        ] {
            assert_eq!(Sqlite::parse(url), Err(UrlError::InMemory), "{url}");
        }
    }
}
