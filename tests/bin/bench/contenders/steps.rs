//! The original's way: a statement per step in a SERIALIZABLE transaction with CockroachDB's savepoint, whole transactions run again.
//!
//! The sequence is that of Monogon's Go package `bmdb` (sessions.go, queries_base.sql, queries_workflows.sql), nine round trips for a claim and nine
//! for a finish, on our tables. Where ours have columns that the original lacks, they are filled without a further round trip.

use std::str::FromStr;
use std::time::Instant;

use bmdb::MachineId;
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::{self, Executor, PgConnection};
use uuid::Uuid;

use crate::Failure;
use crate::contender::Cycle;
use crate::contenders::clients::Clients;
use crate::fleet::Fleet;

const CHECK: &str = "SELECT session_id FROM session_lease WHERE session_id = $1 AND deadline > now()";
const RETRIEVE: &str = "
    SELECT machine_provided.machine_id FROM machine
    INNER JOIN machine_provided ON machine.machine_id = machine_provided.machine_id
    LEFT JOIN work ON machine.machine_id = work.machine_id AND work.slot = 'agent'
    LEFT JOIN work_backoff ON machine.machine_id = work_backoff.machine_id AND work_backoff.until > now()
        AND work_backoff.process = 'agent-start'
    LEFT JOIN machine_agent_started ON machine.machine_id = machine_agent_started.machine_id
    LEFT JOIN machine_os_installation_request ON machine.machine_id = machine_os_installation_request.machine_id
    LEFT JOIN machine_os_installation_report ON machine.machine_id = machine_os_installation_report.machine_id
    WHERE machine_agent_started.machine_id IS NULL
        AND (machine_os_installation_request.machine_id IS NULL
             OR machine_os_installation_report.generation IS DISTINCT FROM machine_os_installation_request.generation)
        AND work_backoff.machine_id IS NULL AND work.machine_id IS NULL
    LIMIT 1";
const START: &str = "
    INSERT INTO work (machine_id, slot, process, work_id, session_id, fence, claimed_at)
    VALUES ($1, 'agent', 'agent-start', $2, $3, $4, now())";
const END: &str = "DELETE FROM work WHERE machine_id = $1 AND session_id = $2 AND process = 'agent-start'";
const RECORD: &str = "
    INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at, cause)
    VALUES ($1, $2, $3, $4, 'agent-start', 'agent', $5, 'steps', '', now(), NULL)";
const STATE: &str = "
    INSERT INTO machine_agent_started (machine_id, at, public_key) VALUES ($1, now(), '\\x01')
    ON CONFLICT (machine_id) DO UPDATE SET at = excluded.at, public_key = excluded.public_key";

pub(crate) struct Steps(Clients);

/// What the original does not have and our keys want: made by the client.
#[derive(Clone, Copy)]
struct Numbers {
    work: Uuid,
    fence: i64,
}

impl Steps {
    pub(crate) async fn connect(url: &str, workers: usize) -> Result<Self, Failure> {
        let serializable = [("default_transaction_isolation", "serializable")];
        let options = PgConnectOptions::from_str(url)?.options(serializable);
        Ok(Self(Clients::connect(options, workers, "steps").await?))
    }

    pub(crate) async fn cycle(&self, worker: usize, fleet: &Fleet) -> Result<Option<Cycle>, Failure> {
        let mut connection = self.0.of(worker).await;
        let numbers = Numbers {
            work: Uuid::new_v4(),
            fence: fastrand::i64(0..i64::MAX),
        };
        let (began, mut retries) = (Instant::now(), 0);
        let machine = loop {
            match self.claim(&mut connection, numbers).await {
                Ok(machine) => break machine,
                Err(error) if is_conflict(&error) => retries += 1,
                Err(error) => return Err(error.into()),
            }
            connection.execute("ROLLBACK").await?;
        };
        let claim = began.elapsed();
        let Some(machine) = machine else {
            return Ok(None);
        };
        fleet.claimed(machine);
        fleet.finishing(machine);
        while let Err(error) = self.finish(&mut connection, machine, numbers).await {
            if !is_conflict(&error) {
                return Err(error.into());
            }
            retries += 1;
            connection.execute("ROLLBACK").await?;
        }
        fleet.finished(machine);
        Ok(Some(Cycle {
            machines: 1,
            claim,
            retries,
        }))
    }

    async fn claim(&self, connection: &mut PgConnection, numbers: Numbers) -> Result<Option<MachineId>, sqlx::Error> {
        self.begin(connection).await?;
        let machine: Option<Uuid> = sqlx::query_scalar(RETRIEVE).fetch_optional(&mut *connection).await?;
        if let Some(machine) = machine {
            sqlx::query(START)
                .bind(machine)
                .bind(numbers.work)
                .bind(self.0.session)
                .bind(numbers.fence)
                .execute(&mut *connection)
                .await?;
            self.record(connection, machine, numbers, "started").await?;
        }
        commit(connection).await?;
        Ok(machine.map(MachineId))
    }

    async fn finish(
        &self,
        connection: &mut PgConnection,
        machine: MachineId,
        numbers: Numbers,
    ) -> Result<(), sqlx::Error> {
        self.begin(connection).await?;
        sqlx::query(END)
            .bind(machine.0)
            .bind(self.0.session)
            .execute(&mut *connection)
            .await?;
        sqlx::query(STATE).bind(machine.0).execute(&mut *connection).await?;
        self.record(connection, machine.0, numbers, "finished").await?;
        commit(connection).await
    }

    async fn begin(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        connection.execute("BEGIN").await?;
        connection.execute("SAVEPOINT cockroach_restart").await?;
        sqlx::query(CHECK)
            .bind(self.0.session)
            .fetch_one(&mut *connection)
            .await?;
        Ok(())
    }

    async fn record(
        &self,
        connection: &mut PgConnection,
        machine: Uuid,
        numbers: Numbers,
        event: &str,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(RECORD)
            .bind(machine)
            .bind(numbers.fence)
            .bind(event)
            .bind(numbers.work)
            .bind(self.0.session)
            .execute(&mut *connection)
            .await?;
        Ok(())
    }

    pub(crate) async fn leave(self) -> Result<(), Failure> {
        self.0.leave().await
    }
}

async fn commit(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    connection.execute("RELEASE SAVEPOINT cockroach_restart").await?;
    connection.execute("COMMIT").await?;
    Ok(())
}

/// serialization_failure, deadlock_detected; and a unique violation where SERIALIZABLE noticed the other claim too late.
fn is_conflict(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| matches!(code.as_ref(), "40001" | "40P01" | "23505"))
}
