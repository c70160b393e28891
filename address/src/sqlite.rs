//! A URL of SQLite's, read by ourselves. SQLite takes a name that begins with `file:` for a URL of its own, whose parameters switch off the locks; so the
//! driver is told a plain file and nothing else, and what we do not know is refused.

use std::path::PathBuf;

use crate::plain::is_misleading;

/// Which file, and whether it may be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SqliteUrl {
    pub(crate) file: PathBuf,
    pub(crate) may_create: bool,
}

/// What is wrong with a URL. None of it is quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    InMemory,
    Because(&'static str),
}

impl SqliteUrl {
    /// Reads `sqlite:FILE`, `sqlite://FILE` and `sqlite:///FILE` with `?mode=rw` or `?mode=rwc`. Percent signs are for `?`, `%` and the like in a name.
    pub(crate) fn parse(url: &str) -> Result<Self, Refused> {
        use Refused::{Because, InMemory};
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
        // Names are shown in errors and logs: they must not be able to forge a line.
        if file.chars().any(is_misleading) {
            return Err(Because("a name in it holds a control character or a mark of direction"));
        }
        let mut may_create = false;
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match (&*name, &*value) {
                ("mode", "rw") => may_create = false,
                ("mode", "rwc") => may_create = true,
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
            ("sqlite:bmdb.sqlite", "bmdb.sqlite", false),
            ("sqlite://bmdb.sqlite?mode=rwc", "bmdb.sqlite", true),
            ("sqlite://bmdb.sqlite?mode=rw", "bmdb.sqlite", false),
            ("sqlite:///var/lib/bmdb.sqlite?mode=rw", "/var/lib/bmdb.sqlite", false),
            ("sqlite:/var/lib/bmdb.sqlite?mode=%72wc", "/var/lib/bmdb.sqlite", true),
            ("sqlite:////var//lib/x", "//var//lib/x", false),
            ("sqlite://a%3Fmode=memory", "a?mode=memory", false),
            ("sqlite://a+b%20c%zz%2%", "a+b c%zz%2%", false),
            ("sqlite://%E2%82%AC.sqlite", "€.sqlite", false),
            ("sqlite://x#y", "x#y", false),
            ("sqlite://folder/file:x", "folder/file:x", false),
        ] {
            let file = PathBuf::from(file);
            let driver = SqliteConnectOptions::from_str(url).expect("the driver takes it");
            assert_eq!(driver.get_filename(), file, "{url}");
            assert_eq!(SqliteUrl::parse(url), Ok(SqliteUrl { file, may_create }), "{url}");
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
            assert!(matches!(SqliteUrl::parse(url), Err(Refused::Because(_))), "{url}");
        }
        for url in [
            "sqlite::memory:",
            "sqlite://%3Amemory%3A",
            "sqlite://?mode=memory",
            "sqlite://x?mode=%6Demory",
        ] {
            assert_eq!(SqliteUrl::parse(url), Err(Refused::InMemory), "{url}");
        }
    }
}
