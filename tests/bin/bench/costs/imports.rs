//! Machines imported in batches, each in a transaction of its own.

use bmdb::machine::{self, NewMachine};
use bmdb::{Bmdb, Config};
use harness::Backend;
use sea_orm::sqlx::{self, Connection, PgConnection, QueryBuilder, Sqlite, SqliteConnection};
use uuid::Uuid;

use crate::Failure;
use crate::contenders::limit::connect_to_sqlite;
use crate::costs::rates::Place;
use crate::run::{Outcome, ask};

const MACHINES: u32 = 50_000;
const BATCH: usize = 1000;
const PROVIDER: &str = "import";
const ADDRESS: &str = "192.0.2.1";

/// The providers' ids of the machines, in batches.
fn batches() -> Vec<Vec<String>> {
    let ids: Vec<String> = (0..MACHINES).map(|nth| format!("machine-{nth}")).collect();
    ids.chunks(BATCH).map(<[String]>::to_vec).collect()
}

pub(crate) async fn by_connector(place: &Place<'_>) -> Result<Outcome, Failure> {
    let bmdb = Bmdb::connect(Config::new(place.database.url(), "bench", bmdb::runtime_info!())).await?;
    let session = bmdb.start_session().await?;
    let described = |provider_id: String| NewMachine::new(PROVIDER, provider_id).address(ADDRESS);
    let batches = batches().into_iter();
    let batches: Vec<Vec<NewMachine>> = batches
        .map(|batch| batch.into_iter().map(described).collect())
        .collect();
    let importing = async {
        for batch in &batches {
            let imported = session.transact(async |tx| machine::import(tx, batch).await).await?;
            if imported.created != batch.len() {
                return Err(format!("of a batch only {} machines were new", imported.created).into());
            }
        }
        Ok(())
    };
    let ((), outcome) = place.measure(MACHINES, importing).await?;
    session.close().await?;
    bmdb.close().await;
    Ok(outcome)
}

/// For a client that knows that all are new: two inserts.
pub(crate) async fn by_limit(place: &Place<'_>) -> Result<Outcome, Failure> {
    let (url, batches) = (place.database.url(), batches());
    let outcome = match place.database.backend() {
        Backend::Postgres => {
            let mut connection = PgConnection::connect(url).await?;
            let importing = async {
                for batch in &batches {
                    import_to_postgres(&mut connection, batch).await?;
                }
                Ok(())
            };
            let ((), outcome) = place.measure(MACHINES, importing).await?;
            connection.close().await?;
            outcome
        }
        Backend::Sqlite => {
            let mut connection = connect_to_sqlite(url).await?;
            let importing = async {
                for batch in &batches {
                    import_to_sqlite(&mut connection, batch).await?;
                }
                Ok(())
            };
            let ((), outcome) = place.measure(MACHINES, importing).await?;
            connection.close().await?;
            outcome
        }
    };
    Ok(outcome)
}

/// Fails if it is not all there.
pub(crate) async fn check(place: &Place<'_>) -> Result<(), Failure> {
    const THERE: &str =
        "SELECT count(*) FROM machine JOIN machine_provided USING (machine_id) WHERE provider = 'import'";
    match ask(&place.fleet, THERE).await? {
        there if there == u64::from(MACHINES) => Ok(()),
        there => Err(format!("{there} machines were imported").into()),
    }
}

fn new_machines(batch: &[String]) -> Vec<Uuid> {
    batch.iter().map(|_| Uuid::new_v4()).collect()
}

async fn import_to_postgres(connection: &mut PgConnection, batch: &[String]) -> Result<(), Failure> {
    const MACHINE: &str = "INSERT INTO machine (machine_id, created_at, fence) SELECT unnest($1), now(), 0";
    const PROVIDED: &str = "
        INSERT INTO machine_provided (machine_id, provider, provider_id, address, status)
        SELECT new.machine_id, $3, new.provider_id, $4, 'unstated' FROM unnest($1, $2) AS new (machine_id, provider_id)";
    let machines = new_machines(batch);
    let mut tx = connection.begin().await?;
    sqlx::query(MACHINE).bind(&machines).execute(&mut *tx).await?;
    sqlx::query(PROVIDED)
        .bind(&machines)
        .bind(batch)
        .bind(PROVIDER)
        .bind(ADDRESS)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(())
}

async fn import_to_sqlite(connection: &mut SqliteConnection, batch: &[String]) -> Result<(), Failure> {
    let machines = new_machines(batch);
    let mut machine = QueryBuilder::<Sqlite>::new("INSERT INTO machine (machine_id, created_at, fence) ");
    machine.push_values(&machines, |mut row, machine| {
        row.push_bind(*machine)
            .push("strftime('%Y-%m-%d %H:%M:%f', 'now')")
            .push("0");
    });
    let mut provided = QueryBuilder::<Sqlite>::new(
        "INSERT INTO machine_provided (machine_id, provider, provider_id, address, status) ",
    );
    provided.push_values(std::iter::zip(&machines, batch), |mut row, (machine, id)| {
        row.push_bind(*machine)
            .push_bind(PROVIDER)
            .push_bind(id)
            .push_bind(ADDRESS)
            .push("'unstated'");
    });
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    machine.build().execute(&mut *tx).await?;
    provided.build().execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}
