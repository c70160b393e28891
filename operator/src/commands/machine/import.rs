//! An inventory, as a file of comma-separated values.

use std::collections::HashSet;
use std::path::Path;

use bmdb::Bmdb;
use bmdb::machine::{LARGEST_IMPORT, NewMachine, import as import_batch};
use serde_json::json;

use crate::answer::words::{brief, count};
use crate::answer::{Answer, Table};
use crate::failure::Failure;

/// Columns that a header may name; the first two it must.
const COLUMNS: [&str; 5] = ["provider", "provider_id", "address", "location", "reservation"];

/// So many wrong lines are shown; all are counted.
const SHOWN: usize = 20;

/// What a file has.
struct Inventory {
    machines: Vec<NewMachine>,
    /// The lines that are no machine, and why.
    wrong: Vec<(u64, String)>,
    /// Lines that name a machine again.
    twice: u64,
}

pub(super) async fn import(bmdb: &Bmdb, file: &Path, yes: Option<u64>) -> Result<Answer, Failure> {
    let inventory = read(file)?;
    let many = inventory.machines.len() as u64;
    let machines = count(many, "machine", "machines");
    let shown = brief(&file.display().to_string());
    let mut json = json!({
        "machines": many.to_string(), "twice": inventory.twice.to_string(), "written": yes.is_some(),
        "wrong": inventory.wrong.iter().map(|(line, why)| json!({"line": line.to_string(), "why": why})).collect::<Vec<_>>(),
    });
    let sentence = match yes {
        None => format!("{shown} has {machines}. Nothing was written: --yes {many} adds those that are not there yet."),
        Some(seen) if seen != many => {
            return Err(Failure::changed(format!(
                "nothing was done: {shown} has {machines}, not {seen}. Look at it without --yes"
            )));
        }
        Some(_) => {
            let session = bmdb.start_session().await?;
            let (mut created, mut known) = (0, 0);
            for batch in inventory.machines.chunks(LARGEST_IMPORT) {
                let imported = session.transact(async |tx| import_batch(tx, batch).await).await;
                let imported = imported.map_err(|error| {
                    let before = Failure::from(error);
                    Failure::new(
                        before.kind,
                        format!(
                            "{}. {created} machines were added before; to run it again adds none twice",
                            before.text
                        ),
                    )
                })?;
                created += imported.created as u64;
                known += imported.known as u64;
            }
            session.close().await?;
            json["created"] = json!(created.to_string());
            json["known"] = json!(known.to_string());
            format!(
                "{} added, {} there already.",
                count(created, "machine is", "machines are"),
                count(known, "was", "were")
            )
        }
    };
    let mut table = Table::new(&[">line", "is no machine"]);
    for (line, why) in inventory.wrong.iter().take(SHOWN) {
        table.row([line.to_string(), brief(why)]);
    }
    let mut answer = Answer::new(sentence, json)
        .table(table)
        .found(!inventory.wrong.is_empty());
    if inventory.wrong.len() > SHOWN {
        answer = answer.note(format!("{SHOWN} wrong lines are shown of {}", inventory.wrong.len()));
    }
    if inventory.twice > 0 {
        answer = answer.note(format!(
            "{} a machine that stands before it, and counts once",
            count(inventory.twice, "line names", "lines name")
        ));
    }
    answer.from(bmdb).await
}

/// Reads a file, past lines that are wrong.
fn read(file: &Path) -> Result<Inventory, Failure> {
    let shown = file.display();
    let reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .flexible(true)
        .from_path(file);
    let mut reader = reader.map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
    let header = reader
        .headers()
        .map_err(|error| Failure::usage(format!("the first line of {shown} is no header: {error}")))?
        .clone();
    let unknown = header.iter().find(|column| !COLUMNS.contains(column));
    let missing = COLUMNS[..2]
        .iter()
        .find(|column| !header.iter().any(|there| there == **column));
    let expected = COLUMNS.join(", ");
    if let Some(unknown) = unknown {
        return Err(Failure::usage(format!(
            "{shown} has a column {unknown:?}; there may be {expected}"
        )));
    }
    if let Some(missing) = missing {
        return Err(Failure::usage(format!(
            "{shown} has no column {missing}; its first line names them: {expected}"
        )));
    }
    let mut inventory = Inventory {
        machines: Vec::new(),
        wrong: Vec::new(),
        twice: 0,
    };
    let mut seen = HashSet::new();
    let mut record = csv::StringRecord::new();
    loop {
        let line = reader.position().line();
        match reader.read_record(&mut record) {
            Ok(false) => return Ok(inventory),
            Ok(true) => {}
            Err(error) if error.is_io_error() => {
                return Err(Failure::usage(format!("cannot read {shown} to its end: {error}")));
            }
            Err(error) => {
                inventory.wrong.push((line, error.to_string()));
                continue;
            }
        }
        let line = record.position().map_or(line, csv::Position::line);
        match machine(&header, &record) {
            Err(why) => inventory.wrong.push((line, why)),
            Ok(new) if seen.insert((new.provider.clone(), new.provider_id.clone())) => inventory.machines.push(new),
            Ok(_again) => inventory.twice += 1,
        }
    }
}

fn machine(header: &csv::StringRecord, record: &csv::StringRecord) -> Result<NewMachine, String> {
    if record.len() != header.len() {
        return Err(format!("it has {} values, the header {}", record.len(), header.len()));
    }
    let value = |column: &str| {
        let named = std::iter::zip(header, record).find(|(name, _)| *name == column);
        named.map(|(_, value)| value).filter(|value| !value.is_empty())
    };
    let mut new = NewMachine::new(
        value("provider").unwrap_or_default(),
        value("provider_id").unwrap_or_default(),
    );
    new.address = value("address").map(str::to_owned);
    new.location = value("location").map(str::to_owned);
    new.reservation = value("reservation").map(str::to_owned);
    new.check().map_err(|error| error.to_string())?;
    Ok(new)
}
