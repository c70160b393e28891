//! The schema: its steps, and whether this build knows them.

use std::collections::BTreeMap;

use bmdb::sea_orm::{ConnectionTrait, DbErr, Statement};
use bmdb::{Dialect, MIGRATIONS};
use chrono::{DateTime, Utc};
use maud::html;
use serde_json::json;

use crate::answer::words::count;
use crate::failure::Failure;
use crate::serve::console::Console;
use crate::serve::page::Page;
use crate::serve::parts::chip::{Tone, chip};
use crate::serve::parts::lists::{section, source};
use crate::serve::parts::text::foreign;
use crate::serve::parts::time::clock;
use crate::serve::view::{Part, View};

pub(super) async fn read(console: &Console) -> Result<View, Failure> {
    let applied = applied(console).await?;
    let now = console.source.bmdb.now().await?;
    let unknown = applied
        .keys()
        .filter(|step| !MIGRATIONS.contains(&step.as_str()))
        .count() as u64;
    let pending = MIGRATIONS.iter().filter(|step| !applied.contains_key(**step)).count() as u64;
    let kind = match console.source.bmdb.dialect() {
        Dialect::Sqlite => "SQLite",
        Dialect::Postgres => "PostgreSQL",
        Dialect::Cockroach => "CockroachDB",
    };
    let mut steps: Vec<&str> = MIGRATIONS.to_vec();
    steps.extend(applied.keys().map(String::as_str));
    steps.sort_unstable();
    steps.dedup();
    let head = html! {
        header.head {
            h1 { "Schema" }
            p.lead {
                @match (pending, unknown) {
                    (0, 0) => { "All " (applied.len()) " steps are applied." },
                    (0, unknown) => { "All of ours are applied, and " (count(unknown, "step", "steps")) " that this build does not know: a newer one has been here." },
                    (pending, _) => { (count(pending, "step is", "steps are")) " pending: run bmdb migrate up." },
                }
                " It is " (kind) "."
            }
            (source(console, &Page::Schema, now, "bmdb migrate status", &[]))
        }
    };
    let table = html! {
        div.panel {
            table.stacks role="table" {
                thead role="rowgroup" { tr role="row" { th scope="col" role="columnheader" { "Step" } th scope="col" role="columnheader" { "State" } th scope="col" role="columnheader" { "Applied" } } }
                tbody role="rowgroup" {
                    @for step in &steps {
                        tr role="row" data-row {
                            th scope="row" role="rowheader" { code { (foreign(step)) } }
                            td role="cell" {
                                @match (applied.contains_key(*step), MIGRATIONS.contains(step)) {
                                    (true, true) => (chip("met", Tone::Quiet, "applied")),
                                    (true, false) => (chip("alert", Tone::Soon, "applied, not known here")),
                                    (false, _) => (chip("waits", Tone::Person, "pending")),
                                }
                            }
                            td role="cell" data-label="Applied" { @if let Some(at) = applied.get(*step).copied().flatten() { (clock(at, now)) } }
                        }
                    }
                }
            }
        }
    };
    let json = steps
        .iter()
        .map(|step| json!({"step": step, "applied": applied.contains_key(*step), "known": MIGRATIONS.contains(step)}));
    Ok(View {
        page: Page::Schema,
        title: "Schema".to_owned(),
        parts: vec![
            Part::new("head", head),
            Part::new("steps", section("Steps", None, &table)),
        ],
        json: json!({"steps": json.collect::<Vec<_>>(), "database": kind}),
        at: now,
    })
}

/// The steps that the database says it has gone, with when.
async fn applied(console: &Console) -> Result<BTreeMap<String, Option<DateTime<Utc>>>, Failure> {
    let reads = console.source.bmdb.reads();
    let statement = Statement::from_string(
        reads.get_database_backend(),
        "SELECT version, applied_at FROM seaql_migrations",
    );
    let rows = reads.query_all_raw(statement).await.map_err(bmdb::Error::from)?;
    let read = |row: &bmdb::sea_orm::QueryResult| {
        let at: i64 = row.try_get_by_index(1)?;
        Ok::<_, DbErr>((row.try_get_by_index(0)?, DateTime::from_timestamp(at, 0)))
    };
    let steps = rows.iter().map(read).collect::<Result<_, _>>();
    Ok(steps.map_err(bmdb::Error::from)?)
}
