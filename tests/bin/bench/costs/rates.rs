//! How fast machines are imported and dead sessions are expired, side by side with the smallest statements that leave the same rows. Each turn begins
//! with nothing but what it says.

use std::time::Instant;

use harness::{OwnServer, TestDatabase};
use sea_orm::ConnectionTrait;

use crate::Failure;
use crate::costs::{expiries, imports};
use crate::fleet::{Fleet, Size};
use crate::results::medians::{LIMIT, Turns};
use crate::run::{Meters, Outcome};

/// Where a turn takes place.
pub(crate) struct Place<'a> {
    pub(crate) database: TestDatabase,
    pub(crate) fleet: Fleet,
    /// None for SQLite.
    server: Option<&'a OwnServer>,
}

/// Prints two tables.
pub(crate) async fn compare(server: Option<&OwnServer>, turns: usize, durable: bool) -> Result<(), Failure> {
    let mut imported = Turns::new(["machines/s", "server us", "client us", "WAL B"]);
    let mut expired = Turns::new(["sessions/s", "works/s", "server us", "client us", "WAL B"]);
    for _ in 0..turns {
        for (what, machines) in [("import, empty", 0), ("import, 100000 machines", 100_000)] {
            let size = Size { machines, share: 0.01 };
            let place = Place::fresh(server, size, durable).await?;
            let used = imports::by_limit(&place).await?;
            imports::check(&place).await?;
            imported.add(what, LIMIT, of_one(&used));
            let place = Place::fresh(server, size, durable).await?;
            let used = imports::by_connector(&place).await?;
            imports::check(&place).await?;
            imported.add(what, "bmdb", of_one(&used));
        }
        let what = format!("expire, {} works each", expiries::WORKS);
        for way in [LIMIT, "bmdb"] {
            let size = Size {
                machines: expiries::SESSIONS * expiries::WORKS,
                share: 1.0,
            };
            let place = Place::fresh(server, size, durable).await?;
            expiries::let_die(&place).await?;
            let used = if way == LIMIT {
                expiries::by_limit(&place).await?
            } else {
                expiries::by_connector(&place).await?
            };
            expiries::check(&place).await?;
            let [rate, server_us, client_us, wal] = of_one(&used);
            let works = rate * f64::from(expiries::WORKS);
            expired.add(&what, way, [rate, works, server_us, client_us, wal]);
        }
    }
    println!("{imported}\n{expired}");
    Ok(())
}

/// How many a second, and the CPU and the log of writes for one.
fn of_one(used: &Outcome) -> [f64; 4] {
    let cycles = used.cycles as f64;
    [
        cycles / used.took.as_secs_f64(),
        used.server_cpu.as_secs_f64() * 1e6 / cycles,
        used.client_cpu.as_secs_f64() * 1e6 / cycles,
        used.wal as f64 / cycles,
    ]
}

impl<'a> Place<'a> {
    async fn fresh(server: Option<&'a OwnServer>, size: Size, durable: bool) -> Result<Self, Failure> {
        // What the server has learnt of other turns' rows goes too: nobody imports for the first time into a database that has been analysed.
        const EMPTY: &str = "
            TRUNCATE machine, session, work_history, process, work_candidate, work_retrieval CASCADE;
            DELETE FROM pg_statistic";
        let database = match server {
            None => TestDatabase::sqlite_for_measurements(durable).await,
            Some(server) => {
                let database = server.database();
                database.raw().await.execute_unprepared(EMPTY).await?;
                database
            }
        };
        let fleet = Fleet::fill(&database, size).await?;
        Ok(Self {
            database,
            fleet,
            server,
        })
    }

    /// Does so many things, and tells what that took.
    pub(crate) async fn measure<T>(
        &self,
        things: u32,
        doing: impl Future<Output = Result<T, Failure>>,
    ) -> Result<(T, Outcome), Failure> {
        let process = std::process::id();
        let before = Meters::read(self.server, &self.fleet, process).await?;
        let began = Instant::now();
        let done = doing.await?;
        let took = began.elapsed();
        let after = Meters::read(self.server, &self.fleet, process).await?;
        let outcome = Outcome {
            cycles: u64::from(things),
            took,
            ..Outcome::between(before, after)
        };
        Ok((done, outcome))
    }
}
