//! One archive for a bug report: what the commands say, as `-o json` prints it. A part that cannot be read stops no other, and the manifest says why.

mod archive;
mod server;
mod untagged;

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bmdb::sea_orm::EntityTrait;
use bmdb::sea_orm::QuerySelect;
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use crate::answer::words::count;
use crate::answer::{Answer, Table};
use crate::cli::values::Span;
use crate::cli::{Backoff, Global, Limit, Migrate, Operation, Process, Session, Work};
use crate::commands::{attention, backoff, doctor, migrate, operation, process, session, status, work};
use crate::facts::{self, claims};
use crate::failure::{Failure, Kind};
use crate::source::Source;

/// What has not been read by then stops no other part.
const LONGEST: Duration = Duration::from_secs(60);
/// Lists are cut there, and say so.
const MOST: Limit = Limit { limit: 1000 };
/// Work that is held for longer is told of, as `bmdb attention` says without being asked.
const LONG: Duration = Duration::from_secs(3600);

/// What a part may read.
struct Asked<'a> {
    global: &'a Global,
    source: &'a Result<Source, Failure>,
    with_tags: bool,
}

impl Asked<'_> {
    fn source(&self) -> Result<&Source, Failure> {
        self.source.as_ref().map_err(Failure::clone)
    }
}

type Reading<'a> = Pin<Box<dyn Future<Output = Result<Value, Failure>> + Send + 'a>>;

/// A file of the archive: its name, and the command that says the same, where one does.
struct Part {
    name: &'static str,
    says: &'static str,
    read: for<'a> fn(&'a Asked<'a>) -> Reading<'a>,
}

macro_rules! part {
    ($name:literal, $says:literal, |$asked:ident| $read:expr) => {
        Part {
            name: $name,
            says: $says,
            read: |$asked| Box::pin(async move { Ok($read) }),
        }
    };
}

const PARTS: [Part; 13] = [
    part!("versions.json", "this build, the database and its version", |asked| {
        server::versions(asked.source()?).await?
    }),
    part!("schema.json", "bmdb migrate status", |asked| migrate::run(
        asked.global,
        Migrate::Status
    )
    .await?
    .document()),
    part!("doctor.json", "bmdb doctor", |asked| doctor::run(asked.global)
        .await?
        .document()),
    part!(
        "settings.json",
        "settings of the database that tell of no secret",
        |asked| server::settings(asked.source()?).await?
    ),
    part!(
        "tables.json",
        "rows and bytes of each table, as the server estimates them",
        |asked| server::tables(asked.source()?).await?
    ),
    part!("status.json", "bmdb status", |asked| status::run(asked.source()?)
        .await?
        .document()),
    part!("processes.json", "bmdb process ls", |asked| process::run(
        asked.source()?,
        Process::Ls
    )
    .await?
    .document()),
    part!("sessions.json", "bmdb session ls", |asked| {
        session::run(asked.source()?, Session::Ls { silent: false })
            .await?
            .document()
    }),
    part!("works.json", "bmdb work ls --limit 1000", |asked| {
        let all = Work::Ls {
            process: None,
            session: None,
            longer_than: None,
            stuck: false,
            limit: MOST,
        };
        work::run(asked.source()?, all).await?.document()
    }),
    part!("backoffs.json", "bmdb backoff ls --limit 1000", |asked| {
        let all = Backoff::Ls {
            process: None,
            parked: false,
            limit: MOST,
        };
        backoff::run(asked.source()?, all).await?.document()
    }),
    part!("attention.json", "bmdb attention", |asked| needs(asked).await?),
    part!("operations.json", "bmdb operation ls --limit 1000", |asked| {
        let all = Operation::Ls {
            machine: None,
            limit: MOST,
        };
        operation::run(asked.source()?, all).await?.document()
    }),
    part!(
        "history.json",
        "some history, in no order: at most 1,000 events",
        |asked| events(asked.source()?).await?
    ),
];

pub(super) async fn run(global: &Global, file: &Path, with_tags: bool) -> Result<Answer, Failure> {
    if global.database.is_none() {
        // A mistake of usage, in the same words.
        Source::open(global).await?.close().await;
    }
    archive::check(file)?;
    let source = Source::open(global).await;
    let asked = Asked {
        global,
        source: &source,
        with_tags,
    };
    let secrets = archive::Secrets::of([global.database.as_deref(), global.read_database.as_deref()]);
    let mut files = Vec::new();
    let mut manifest = Vec::new();
    let mut table = Table::new(&["part", ">bytes", "says", "but"]);
    let mut missing = 0;
    for part in &PARTS {
        let read = tokio::time::timeout(LONGEST, (part.read)(&asked)).await;
        let read = read.unwrap_or_else(|_late| Err(Failure::new(Kind::Unreachable, "it took longer than a minute")));
        let text = read.and_then(|mut document| {
            if !with_tags {
                untagged::strip(&mut document);
            }
            secrets.checked(crate::answer::json_text(&document))
        });
        let (bytes, but) = match &text {
            Ok(text) => (text.len().to_string(), String::new()),
            Err(failure) => (String::new(), failure.text.clone()),
        };
        table.row([part.name.to_owned(), bytes.clone(), part.says.to_owned(), but]);
        let not_read = text.as_ref().err().map(|failure| failure.text.clone());
        missing += u64::from(not_read.is_some());
        manifest.push(
            json!({"file": part.name, "says": part.says, "bytes": text.is_ok().then_some(bytes), "not_read": not_read}),
        );
        if let Ok(text) = text {
            files.push((part.name, text));
        }
    }
    let described = json!({
        "made_at": Utc::now().to_rfc3339(), "made_by": concat!("bmdb ", env!("CARGO_PKG_VERSION")), "with_tags": with_tags, "parts": manifest,
        "left_out": if with_tags { "passwords, the environment" } else { "passwords, the environment, tags of machines (--with-tags)" },
        "look_through": "reasons, causes, progress and the like are as people and components wrote them",
    });
    let described = secrets.checked(crate::answer::json_text(&described))?;
    files.insert(0, ("MANIFEST.json", described));
    archive::write(file, &files)?;
    if let Ok(source) = source {
        source.close().await;
    }
    let shown = file.display();
    let sentence = match missing {
        0 => format!("{shown} has everything. Look through it before you send it."),
        missing => format!(
            "{shown} is written without {}.",
            count(missing, "part that could not be read", "parts that could not be read")
        ),
    };
    Ok(
        Answer::new(sentence, json!({"file": shown.to_string(), "parts": manifest}))
            .table(table)
            .found(missing > 0),
    )
}

/// Without tags, machines go by their ids.
async fn needs(asked: &Asked<'_>) -> Result<Value, Failure> {
    let source = asked.source()?;
    if asked.with_tags {
        return Ok(attention::run(source, Span(LONG)).await?.document());
    }
    let processes = facts::process::read(source).await?;
    let long = TimeDelta::from_std(LONG).unwrap_or(TimeDelta::MAX);
    let mut found = facts::attention::read(source, &processes, long).await?;
    untagged::unname(&mut found);
    Ok(attention::answer(&found, &processes.unread)
        .read_at(&source.bmdb, found.at)
        .document())
}

/// What the key's order gives: to find the latest, all would be read.
async fn events(source: &Source) -> Result<Value, Failure> {
    let some = bmdb::entity::work_history::Entity::find().limit(u64::from(MOST.limit));
    let events = some.all(source.bmdb.reads()).await.map_err(bmdb::Error::from)?;
    let events: Vec<_> = events
        .iter()
        .map(|event| {
            let mut json = claims::event_json(event);
            json["machine"] = json!(event.machine_id.to_string());
            json
        })
        .collect();
    Ok(json!({"events": events}))
}
