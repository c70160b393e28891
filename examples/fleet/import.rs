//! Brings an inventory into the database: in batches, each one transaction. Importing the same again changes nothing.

pub(crate) mod inventory;
pub(crate) mod record;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;
use std::{fmt, io};

use bmdb::machine::{self, NewMachine};
use bmdb::{Bmdb, CancellationToken, Error, Session, provided};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, RuntimeErr};

use crate::Failure;
use crate::cli::Cli;
use crate::import::inventory::{Inventory, InventoryError, Row};
use crate::talk::{self, Talk};

/// How many machines one transaction brings in.
const BATCH: usize = 2000;

/// How many records are told of by name; more are only counted.
const NAMED: u64 = 20;

/// What became of an inventory.
#[derive(Clone, Copy, Debug, Default)]
struct Imported {
    created: usize,
    known: usize,
    /// Of those, the ones of which the database knows something else than the inventory.
    differ: u64,
    /// Records of machines that stand in the inventory before.
    twice: u64,
    /// Records that could not be imported.
    wrong: u64,
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "imported {} new machines; {} were known", self.created, self.known)?;
        for (count, what) in [
            (
                self.differ,
                "of them are not in the database as they stand here, and were left as they are",
            ),
            (self.twice, "stand twice in the inventory: the first counts"),
            (self.wrong, "records were not imported"),
        ] {
            if count > 0 {
                write!(f, "; {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// Imports what the command line names. A record that is wrong is told of and passed over.
///
/// # Errors
/// An inventory that cannot be read to its end, and what came before is imported; or the database's. With `--import-only` also wrong records, after
/// everything else was imported.
pub(crate) async fn run(bmdb: &Bmdb, cli: &Cli, talk: &Talk, stop: &CancellationToken) -> Result<(), Failure> {
    let inventory = match (&cli.inventory, cli.generate) {
        (Some(path), _) => Inventory::open(path, &cli.provider)?,
        (None, Some(machines)) => Inventory::invented(machines, &cli.provider),
        (None, None) => Inventory::shipped(&cli.provider)?,
    };
    let session = bmdb.start_session().await?;
    let began = Instant::now();
    let mut import = Import {
        bmdb,
        session: &session,
        talk,
        inventory,
        first: HashMap::new(),
        all: Imported::default(),
        told: 0,
    };
    let imported = import.run(stop).await;
    let (seconds, said) = (began.elapsed().as_secs_f64(), import.all);
    session.close().await?;
    let machines = said.created + said.known;
    match imported {
        Err(failure) => {
            let cause = crate::one_line(&*failure);
            return Err(format!("{cause}; until then it {said}. Running it again goes on from there").into());
        }
        Ok(()) if machines == 0 && !stop.is_cancelled() => {
            return Err(format!("the inventory holds no machine: {said}").into());
        }
        Ok(()) if !cli.import_only => talk.say(&said.to_string()),
        Ok(()) => {
            let rate = machines as f64 / seconds.max(0.001);
            let memory = peak_memory().map_or_else(|_unknown| "unknown".to_owned(), |mib| format!("{mib} MiB"));
            talk::print(&format!(
                "{said}; {seconds:.1} s, {rate:.0} machines/s, peak memory {memory}\n"
            ))?;
            if said.wrong > 0 {
                return Err(format!("{} records were not imported", said.wrong).into());
            }
        }
    }
    Ok(())
}

/// An import under way.
struct Import<'a> {
    bmdb: &'a Bmdb,
    session: &'a Session,
    talk: &'a Talk,
    inventory: Inventory,
    /// On which line each machine of the inventory stands, by a hash that no two share.
    first: HashMap<u128, u64>,
    all: Imported,
    told: u64,
}

impl Import<'_> {
    async fn run(&mut self, stop: &CancellationToken) -> Result<(), Failure> {
        let mut bar = self
            .talk
            .bar("import", "{prefix} [{bar:40}] {percent:>3} %  {msg}  {elapsed}");
        let mut more = true;
        while more && !stop.is_cancelled() {
            let mut rows = Vec::new();
            let mut ended = None;
            while rows.len() < BATCH && more {
                match self.inventory.next() {
                    Some(Ok(row)) => rows.extend(self.unless_twice(row)),
                    Some(Err(error)) if error.ends => {
                        more = false;
                        ended = Some(error);
                    }
                    Some(Err(error)) => self.wrong(&error),
                    None => more = false,
                }
            }
            self.write(&rows).await?;
            if let Some(error) = ended {
                return Err(error.into());
            }
            let (read, size) = self.inventory.progress();
            bar.show(
                read,
                size,
                format!("{} new, {} known", self.all.created, self.all.known),
            );
        }
        Ok(())
    }

    /// The row, unless its machine stands in the inventory before.
    fn unless_twice(&mut self, row: Row) -> Option<Row> {
        if !self.inventory.is_file() {
            return Some(row);
        }
        let (line, machine) = &row;
        let half = |seed: u8| {
            let mut hasher = DefaultHasher::new();
            (seed, &machine.provider, &machine.provider_id).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        match self.first.entry(half(0) << 64 | half(1)) {
            Entry::Vacant(place) => {
                place.insert(*line);
                Some(row)
            }
            Entry::Occupied(place) => {
                let what = format!("{} is the machine of line {} again", name_of(machine), place.get());
                self.all.twice += 1;
                let error = self.inventory.wrong(*line, what);
                self.tell(&error);
                None
            }
        }
    }

    /// Imports a batch. If the database refuses it for what a machine says, imports it in parts until it is known which.
    async fn write(&mut self, rows: &[Row]) -> Result<(), Failure> {
        let mut parts = vec![rows];
        while let Some(part) = parts.pop() {
            let machines: Vec<_> = part.iter().map(|(_, machine)| machine.clone()).collect();
            let written = self
                .session
                .transact(async |tx| machine::import(tx, &machines).await)
                .await;
            match written {
                Ok(imported) => {
                    self.all.created += imported.created;
                    self.all.known += imported.known;
                    if imported.known > 0 {
                        self.compare(part).await?;
                    }
                }
                Err(error) if !is_the_records_fault(&error) => return Err(error.into()),
                Err(error) => match part {
                    [(line, _)] => {
                        let error = self.inventory.wrong(*line, crate::one_line(&error));
                        self.wrong(&error);
                    }
                    _ => {
                        let (one, other) = part.split_at(part.len() / 2);
                        parts.extend([other, one]);
                    }
                },
            }
        }
        Ok(())
    }

    /// Tells of machines of which the database knows something else.
    async fn compare(&mut self, rows: &[Row]) -> Result<(), Failure> {
        let mut by_provider: HashMap<&str, HashMap<&str, &Row>> = HashMap::new();
        for row in rows {
            let ids = by_provider.entry(&row.1.provider).or_default();
            ids.insert(&row.1.provider_id, row);
        }
        for (provider, ids) in by_provider {
            let known = provided::Entity::find()
                .filter(provided::Column::Provider.eq(provider))
                .filter(provided::Column::ProviderId.is_in(ids.keys().copied()))
                .all(self.bmdb.reads());
            for known in known.await? {
                let Some((line, machine)) = ids.get(known.provider_id.as_str()) else {
                    continue;
                };
                let differ: Vec<_> = [
                    ("address", &machine.address, &known.address),
                    ("location", &machine.location, &known.location),
                    ("reservation", &machine.reservation, &known.reservation),
                ]
                .into_iter()
                .filter(|(_, here, there)| here.is_some() && here != there)
                .map(|(what, here, there)| {
                    let text =
                        |value: &Option<String>| value.as_ref().map_or("none".to_owned(), |value| format!("{value:?}"));
                    format!("the {what} {} and not {}", text(there), text(here))
                })
                .collect();
                if !differ.is_empty() {
                    self.all.differ += 1;
                    let what = format!("{} has in the database {}", name_of(machine), differ.join(", "));
                    let error = self.inventory.wrong(*line, what);
                    self.tell(&error);
                }
            }
        }
        Ok(())
    }

    fn wrong(&mut self, error: &InventoryError) {
        self.all.wrong += 1;
        self.tell(error);
    }

    fn tell(&mut self, what: &InventoryError) {
        self.told += 1;
        match self.told {
            ..=NAMED => self.talk.say(&crate::one_line(what)),
            told if told == NAMED + 1 => self.talk.say("more of these are counted, and not named"),
            _ => {}
        }
    }
}

/// A machine's name for people. `{:?}`: what stands in a file cannot forge a line.
fn name_of(machine: &NewMachine) -> String {
    format!("{:?} of {:?}", machine.provider_id, machine.provider)
}

/// Whether the database, or BMDB before it, refused what a record says: SQLSTATE class 22 is a value that it cannot hold, such as an emoji where its
/// encoding is LATIN1.
fn is_the_records_fault(error: &Error) -> bool {
    let source = match error {
        Error::Invalid { .. } => return true,
        Error::Database { source, .. } => source,
        _ => return false,
    };
    let (DbErr::Exec(cause) | DbErr::Query(cause)) = source else {
        return false;
    };
    let RuntimeErr::SqlxError(cause) = cause else {
        return false;
    };
    let code = cause.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code.len() == 5 && code.starts_with("22"))
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
