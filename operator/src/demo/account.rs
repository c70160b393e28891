//! What the demo says while it runs: a line for each thing that happens, with when and who, and every few seconds how much goes on.

use std::io::Write;
use std::time::Duration;

use bmdb::entity::work_history::{self, Event};
use bmdb::sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};
use bmdb::{Bmdb, CancellationToken, MachineId, WorksOf};
use chrono::Utc;

use crate::answer::words::{count, foreign};
use crate::answer::{Format, Output};
use crate::facts::name::names;
use crate::facts::pages::read_all;
use crate::failure::{Failure, Kind};

/// How often it counts.
const COUNTS_EVERY: Duration = Duration::from_secs(5);

/// Where the account is written.
#[derive(Clone)]
pub(super) struct Account {
    format: Format,
    /// Fires when nobody reads on.
    stop: CancellationToken,
}

impl Account {
    pub(super) fn new(format: Format, stop: CancellationToken) -> Self {
        Self { format, stop }
    }

    /// Something has happened.
    pub(super) fn say(&self, who: &str, what: &str) {
        let at = Utc::now().format("%H:%M:%S");
        self.line(&format!("{at}  {:<14} {}", foreign(who), foreign(what)));
    }

    /// A line as it is. Where the answer is JSON, stdout has only that.
    pub(super) fn line(&self, line: &str) {
        let line = self.format.fit(line);
        let written = match self.format.output {
            Output::Table => writeln!(std::io::stdout(), "{line}"),
            Output::Json => writeln!(std::io::stderr(), "{line}"),
        };
        if written.is_err() {
            self.stop.cancel();
        }
    }

    /// Counts every few seconds, and names each machine that is parked.
    ///
    /// # Errors
    /// The database's.
    pub(super) async fn count(self, bmdb: Bmdb, stop: CancellationToken) -> Result<(), Failure> {
        let mut before = Ends::read(&bmdb).await?;
        let mut parked: Vec<(MachineId, String)> = Vec::new();
        while pause(&stop, COUNTS_EVERY).await {
            let now = Ends::read(&bmdb).await?;
            let works = read_all(|| bmdb.works(WorksOf::All)).await?.rows.len() as u64;
            let text = format!(
                "{}; in the last 5 s {} ended well, {} failed",
                count(works, "work goes on", "works go on"),
                now.well.saturating_sub(before.well),
                now.failed.saturating_sub(before.failed),
            );
            self.say("fleet", &text);
            before = now;
            for backoff in read_all(|| bmdb.backoffs(None)).await?.rows {
                let key = (backoff.machine_id, backoff.process);
                if backoff.until.is_none() && !parked.contains(&key) {
                    let name = names(&bmdb, vec![key.0]).await?(key.0);
                    let text = format!(
                        "{name} is parked after {} until a person has looked: {}",
                        count(backoff.attempts.unsigned_abs(), "failure", "failures"),
                        backoff.cause
                    );
                    self.say(&key.1, &text);
                    parked.push(key);
                }
            }
        }
        Ok(())
    }
}

/// How many works have ended.
struct Ends {
    well: u64,
    failed: u64,
}

impl Ends {
    async fn read(bmdb: &Bmdb) -> Result<Self, Failure> {
        let of = async |event: Event| {
            let rows = work_history::Entity::find().filter(work_history::Column::Event.eq(event));
            let read = rows.count(bmdb.reads()).await;
            read.map_err(|_unread| Failure::new(Kind::Unreachable, "the demo's history cannot be read"))
        };
        Ok(Self {
            well: of(Event::Finished).await?,
            failed: of(Event::Failed).await?,
        })
    }
}

/// Waits, and answers whether to go on.
pub(super) async fn pause(stop: &CancellationToken, time: Duration) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(time) => true,
    }
}
