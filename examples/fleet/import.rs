//! Brings an inventory into the database: in batches, each one transaction. Importing the same again changes nothing.

use std::io;
use std::time::Instant;

use bmdb::machine::{self, Imported, NewMachine};
use bmdb::{Bmdb, CancellationToken, Error, Session};

use crate::Failure;
use crate::cli::Cli;
use crate::inventory::Inventory;
use crate::talk::{self, Talk};

/// How many machines one transaction brings in.
const BATCH: usize = 2000;

/// Imports what the command line names.
///
/// # Errors
/// A wrong inventory, and what came before the wrong line is imported; or the database's.
pub(crate) async fn run(bmdb: &Bmdb, cli: &Cli, talk: &Talk, stop: &CancellationToken) -> Result<(), Failure> {
    let mut inventory = match (&cli.inventory, cli.generate) {
        (Some(path), _) => Inventory::open(path, &cli.provider)?,
        (None, Some(machines)) => Inventory::invented(machines, &cli.provider),
        (None, None) => Inventory::shipped(&cli.provider)?,
    };
    let session = bmdb.start_session().await?;
    let (began, mut all) = (Instant::now(), Imported::default());
    let imported = import(&session, &mut inventory, &mut all, talk, stop).await;
    let (seconds, machines) = (began.elapsed().as_secs_f64(), all.created + all.known);
    session.close().await?;
    let said = format!("imported {} new machines; {} were known", all.created, all.known);
    match imported {
        Err(failure) => {
            return Err(format!("{failure}; until then it {said}. Running it again goes on from there").into());
        }
        Ok(()) if machines == 0 && !stop.is_cancelled() => return Err("the inventory holds no machine".into()),
        Ok(()) if !cli.import_only => talk.say(&said),
        Ok(()) => {
            let rate = machines as f64 / seconds.max(0.001);
            let memory = peak_memory().map_or_else(|_unknown| "unknown".to_owned(), |mib| format!("{mib} MiB"));
            talk::print(&format!(
                "{said}; {seconds:.1} s, {rate:.0} machines/s, peak memory {memory}\n"
            ))?;
        }
    }
    Ok(())
}

async fn import(
    session: &Session,
    inventory: &mut Inventory,
    all: &mut Imported,
    talk: &Talk,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let mut bar = talk.bar("import", "{prefix} [{bar:40}] {percent:>3} %  {msg}  {elapsed}");
    while !stop.is_cancelled() {
        let (mut lines, mut machines, mut wrong) = (Vec::new(), Vec::new(), None);
        for row in inventory.by_ref().take(BATCH) {
            match row {
                Ok((line, machine)) => (lines.push(line), machines.push(machine)),
                Err(error) => {
                    wrong = Some(error);
                    break;
                }
            };
        }
        let last = machines.len() < BATCH;
        write(session, inventory, &lines, &machines, all).await?;
        let (read, size) = inventory.progress();
        bar.show(read, size, format!("{} new, {} known", all.created, all.known));
        match wrong {
            Some(error) => return Err(error.into()),
            None if last => break,
            None => {}
        }
    }
    Ok(())
}

/// Imports a batch. If BMDB refuses one of its machines, imports them one by one to say which.
async fn write(
    session: &Session,
    inventory: &Inventory,
    lines: &[u64],
    machines: &[NewMachine],
    all: &mut Imported,
) -> Result<(), Failure> {
    match import_batch(session, machines, all).await {
        Err(Error::Invalid { .. }) => {
            for (line, machine) in lines.iter().zip(machines) {
                let one = std::slice::from_ref(machine);
                import_batch(session, one, all).await.map_err(|error| match error {
                    error @ Error::Invalid { .. } => inventory.wrong(*line, error.to_string()).into(),
                    error => Failure::from(error),
                })?;
            }
            Ok(())
        }
        imported => Ok(imported?),
    }
}

async fn import_batch(session: &Session, batch: &[NewMachine], all: &mut Imported) -> Result<(), Error> {
    let imported = session.transact(async |tx| machine::import(tx, batch).await).await?;
    all.created += imported.created;
    all.known += imported.known;
    Ok(())
}

/// The most memory that this process has had, in MiB.
fn peak_memory() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    peak.map(|kib: u64| kib / 1024)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}
