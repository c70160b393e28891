//! The settings of `bmdb serve`: what a flag says, else a variable, else the file, else the default; and where each came from.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory};
use serde::Deserialize;

use crate::cli::serve::Serve;
use crate::cli::{Cli, Global};
use crate::failure::Failure;

/// What flags and variables say, by the flag's name in the struct: anything else is for the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given(HashMap<String, Origin>);

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Flag,
    Variable,
    File,
    Default,
}

/// A setting that is in force, as people may see it.
pub(crate) struct Setting {
    /// The flag without its dashes, which is the key in the file.
    pub(crate) name: &'static str,
    /// Without secrets. Empty: it is not set.
    pub(crate) value: String,
    /// Where it comes from: a flag, a variable, or a file.
    pub(crate) from: String,
}

/// The file. Its keys are the flags.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    database: Option<String>,
    database_file: Option<PathBuf>,
    read_database: Option<String>,
    read_database_file: Option<PathBuf>,
    listen: Option<SocketAddr>,
    token_file: Option<PathBuf>,
    public_host: Option<Vec<String>>,
    portal: Option<Vec<String>>,
    read_only: Option<bool>,
    no_collector: Option<bool>,
    by: Option<String>,
    metrics: Option<bool>,
}

impl Given {
    pub(crate) fn of(matches: &ArgMatches) -> Self {
        let origin = |id: &str| match matches.value_source(id)? {
            ValueSource::CommandLine => Some(Origin::Flag),
            ValueSource::EnvVariable => Some(Origin::Variable),
            _ => None,
        };
        let ids = matches.ids().map(clap::Id::as_str);
        Self(ids.filter_map(|id| Some((id.to_owned(), origin(id)?))).collect())
    }

    /// What is given stands; else what the file says, if it does.
    fn settle<T>(&self, name: &str, value: &mut T, kept: Option<T>) -> Origin {
        if let Some(origin) = self.0.get(&name.replace('-', "_")) {
            return *origin;
        }
        match kept {
            Some(kept) => {
                *value = kept;
                Origin::File
            }
            None => Origin::Default,
        }
    }
}

/// Puts into the command what its file says and it does not, reads the addresses of databases from their files, and tells what is in force.
///
/// # Errors
/// When a file cannot be read or says what is not understood, with its line; or what belongs together was given apart.
pub(crate) fn settle(global: &mut Global, serve: &mut Serve) -> Result<Vec<Setting>, Failure> {
    let mut file = match &serve.settings {
        Some(path) => read(path)?,
        None => File::default(),
    };
    let given = std::mem::take(&mut serve.given);
    let mut told = Vec::new();
    let mut tell = |name, value: String, origin| told.push((name, value, origin));

    let databases = [
        (
            ["database", "database-file"],
            &mut global.database,
            &mut serve.database_file,
            (file.database.take(), file.database_file.take()),
        ),
        (
            ["read-database", "read-database-file"],
            &mut global.read_database,
            &mut serve.read_database_file,
            (file.read_database.take(), file.read_database_file.take()),
        ),
    ];
    for ([name, name_of_file], url, path, (kept, kept_file)) in databases {
        // An empty variable is none.
        url.take_if(|url| url.is_empty());
        path.take_if(|path| path.as_os_str().is_empty());
        if let Some(url) = &kept
            && without_secrets(url).is_none_or(|(_, has_password)| has_password)
        {
            return Err(Failure::usage(format!(
                "{name} in the file of settings has a password in it, or may have. Put the URL into a file of its own that few may read, and name that as {name_of_file}"
            )));
        }
        if url.is_some() && path.is_some() || kept.is_some() && kept_file.is_some() {
            return Err(Failure::usage(format!(
                "both {name} and {name_of_file} were given: give one"
            )));
        }
        let (kept, kept_file) = match url.is_some() || path.is_some() {
            true => (None, None),
            false => (kept, kept_file),
        };
        let (had_url, had_path) = (url.is_some(), path.is_some());
        let kept = kept.map(Some);
        let from = match had_url {
            true => given.settle(name, url, None),
            false => kept.map_or(Origin::Default, |kept| {
                *url = kept;
                Origin::File
            }),
        };
        let shown_url = url.as_deref().map(|url| match without_secrets(url) {
            Some((shown, _)) => shown,
            None => "(given, and too odd to be shown)".to_owned(),
        });
        tell(name, shown_url.unwrap_or_default(), from);
        let from = match had_path {
            true => given.settle(name_of_file, path, None),
            false => kept_file.map_or(Origin::Default, |kept| {
                *path = Some(kept);
                Origin::File
            }),
        };
        tell(name_of_file, shown(path.as_deref()), from);
        if let Some(path) = path {
            *url = Some(url_in(path)?);
        }
    }
    let from = given.settle("listen", &mut serve.listen, file.listen);
    tell("listen", serve.listen.to_string(), from);
    let from = given.settle("token-file", &mut serve.token_file, file.token_file.map(Some));
    tell("token-file", shown(serve.token_file.as_deref()), from);
    let from = given.settle("public-host", &mut serve.public_host, file.public_host);
    tell("public-host", serve.public_host.join(","), from);
    let from = given.settle("portal", &mut serve.portal, file.portal);
    tell("portal", serve.portal.join(","), from);
    for (name, value, kept) in [
        ("read-only", &mut serve.read_only, file.read_only),
        ("no-collector", &mut serve.no_collector, file.no_collector),
        ("metrics", &mut serve.metrics, file.metrics),
    ] {
        let from = given.settle(name, value, kept);
        tell(name, value.to_string(), from);
    }
    let from = given.settle("by", &mut serve.by, file.by.map(Some));
    tell("by", serve.by.clone().unwrap_or_default(), from);
    if !serve.public_host.is_empty() && serve.token_file.is_none() {
        return Err(Failure::usage(
            "--public-host needs --token-file: whoever reaches it from elsewhere must sign in",
        ));
    }
    let path = shown(serve.settings.as_deref());
    let settings = told.into_iter();
    Ok(settings
        .map(|(name, value, origin)| Setting {
            name,
            value,
            from: match origin {
                Origin::Flag => format!("--{name}"),
                Origin::Variable => variable(name),
                Origin::File => path.clone(),
                Origin::Default => "default".to_owned(),
            },
        })
        .collect())
}

/// The variable of a flag.
fn variable(flag: &str) -> String {
    let root = Cli::command();
    let serve = root.find_subcommand("serve").map(|serve| serve.get_arguments());
    let mut arguments = root.get_arguments().chain(serve.into_iter().flatten());
    let found = arguments.find(|argument| argument.get_long() == Some(flag));
    let name = found.and_then(clap::Arg::get_env);
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn shown(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

fn read(path: &Path) -> Result<File, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("the settings in {shown} cannot be read: {error}")))?;
    toml::from_str(&text).map_err(|error| {
        // Never the line itself: it may be a secret that somebody has put into the wrong file.
        let place = error
            .span()
            .map(|span| text[..span.start.min(text.len())].lines().count());
        let line = place.map_or(1, |lines| lines.max(1) + usize::from(starts_line(&text, error.span())));
        let what = error.message().lines().next().unwrap_or_default();
        Failure::usage(format!("{shown}, line {line}: {what}"))
    })
}

/// Whether what a span covers begins a line that the lines before it do not count.
fn starts_line(text: &str, span: Option<std::ops::Range<usize>>) -> bool {
    span.is_some_and(|span| span.start > 0 && text.as_bytes().get(span.start - 1) == Some(&b'\n'))
}

/// The URL that a file holds.
fn url_in(path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("the URL of a database cannot be read from {shown}: {error}")))?;
    let url = text.trim();
    if url.is_empty() || url.contains(char::is_whitespace) {
        return Err(Failure::usage(format!("{shown} holds no URL, or more than one")));
    }
    Ok(url.to_owned())
}

/// A URL without what may be secret in it, and whether there was a password. `None`: it is too odd to say what of it is secret.
fn without_secrets(url: &str) -> Option<(String, bool)> {
    let (scheme, rest) = url.split_once("://")?;
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let host = place.find('/').unwrap_or(place.len());
    // What is not escaped may hide where the host begins.
    if url.matches('@').count() > 1 || rest.find('@').is_some_and(|at| at > host) {
        return None;
    }
    let (user, place) = match place.split_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, place),
    };
    let asks = query.split('&').any(|part| part.to_lowercase().contains("password"));
    let has_password = asks || user.is_some_and(|user| user.contains(':'));
    let user = user.map(|user| format!("{}@", user.split(':').next().unwrap_or_default()));
    let more = if query.is_empty() { "" } else { "?…" };
    let shown = format!("{scheme}://{}{place}{more}", user.unwrap_or_default());
    Some((shown, has_password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_a_url_is_shown() {
        for (url, expected) in [
            ("sqlite://fleet.sqlite", Some(("sqlite://fleet.sqlite", false))),
            (
                "postgres://bmdb@h:5432/fleet",
                Some(("postgres://bmdb@h:5432/fleet", false)),
            ),
            (
                "postgres://bmdb:geheim@h/fleet",
                Some(("postgres://bmdb@h/fleet", true)),
            ),
            (
                "postgres://bmdb@h/fleet?password=geheim",
                Some(("postgres://bmdb@h/fleet?…", true)),
            ),
            (
                "postgres://h/fleet?sslmode=require",
                Some(("postgres://h/fleet?…", false)),
            ),
            ("postgres://bmdb:ge@heim@h/fleet", None),
            ("postgres://bmdb:ge/heim@h/fleet", None),
            ("postgres://bmdb:ge?heim@h/fleet", None),
            ("postgres://h/fleet?password=ge@heim", None),
            ("geheim", None),
        ] {
            let told = without_secrets(url);
            let told = told.as_ref().map(|(shown, has)| (shown.as_str(), *has));
            assert_eq!(told, expected, "{url}");
        }
    }
}
