//! What an end of work writes: the work's row goes, and a backoff, a hint, and history are left.

use sea_orm::sea_query::Value;
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, Statement};

use bmdb_entity::work_backoff;

use crate::backoff::Backoff;
use crate::candidate;
use crate::claim::Failures;
use crate::dialect::Dialect;
use crate::end::Trace;
use crate::error::Error;
use crate::history;
use crate::session::Core;
use crate::text::Text;
use crate::tx::{Failure, Scope, Tx};
use crate::work::Key;

/// Ends a work within a transaction. `false`: the work is not ours any more, and nothing was written.
pub(crate) async fn within(tx: &Tx, core: &Core, key: &Key, trace: &Trace) -> Result<bool, DbErr> {
    if tx.dialect() == Dialect::Sqlite {
        return in_steps(tx, core, key, trace).await;
    }
    let trace = &match trace {
        Trace::Failed { cause, backoff, .. } => Trace::Failed {
            cause: cause.clone(),
            backoff: *backoff,
            failures: failures(tx, key).await?,
        },
        Trace::Finished => Trace::Finished,
        Trace::Canceled => Trace::Canceled,
    };
    Ok(!tx.query_all_raw(statement(core, key, trace)).await?.is_empty())
}

/// Ends a work in one statement that is a transaction of its own. `false`: the work is not ours any more, and nothing was written.
pub(crate) async fn at_once(
    scope: &Scope<'_>,
    core: &Core,
    key: &Key,
    trace: &Trace,
) -> Result<bool, Failure<(), Error>> {
    if !scope.once(&statement(core, key, trace)).await?.is_empty() {
        return Ok(true);
    }
    if !matches!(trace, Trace::Failed { .. }) {
        return Ok(false);
    }
    // Or somebody has cleared the backoff meanwhile, and the one that follows is another.
    let whole = async |tx: &Tx| within(tx, core, key, trace).await.map_err(Error::from);
    scope.run(whole).await.map_err(Failure::without_value)
}

/// A backoff that follows from failures before it.
struct Next {
    wait_ms: i64,
    attempts: i64,
    interval_seconds: i64,
    parks: bool,
}

impl Next {
    fn after(failures: Option<Failures>, backoff: &Backoff) -> Self {
        let attempts = failures.map_or(0, |failures| failures.attempts) + 1;
        let interval_seconds = backoff.interval_after(failures.map(|failures| failures.last_interval_seconds));
        Self {
            wait_ms: backoff.wait_ms(interval_seconds, fastrand::f64()),
            attempts,
            interval_seconds,
            parks: backoff.parks_after(attempts),
        }
    }
}

/// Nobody else writes this row while the work is held; a person may delete it.
async fn failures(tx: &Tx, key: &Key) -> Result<Option<Failures>, DbErr> {
    let last = work_backoff::Entity::find_by_id((key.machine, key.process.to_owned()))
        .one(tx)
        .await?;
    Ok(last.map(|last| Failures {
        attempts: last.attempts,
        last_interval_seconds: last.last_interval_seconds,
    }))
}

/// PostgreSQL's and CockroachDB's way. Its answer has a row if the work was ours. A failure asks for the failures before it to be what it was told.
fn statement(core: &Core, key: &Key, trace: &Trace) -> Statement {
    let mut text = Text::new(core.database.dialect);
    text.put(
        "WITH w AS (DELETE FROM work WHERE machine_id = $1 AND slot = $2 AND fence = $3 AND work_id = $4",
        [key.machine.into(), key.slot.into(), key.fence.into(), key.work.into()],
    );
    let machine_process = || -> [Value; 2] { [key.machine.into(), key.process.into()] };
    let [machine, process] = machine_process();
    const RETURNING: &str = " RETURNING machine_id, slot, process, work_id, fence)";
    let cause = match trace {
        Trace::Finished => {
            text.put(RETURNING, []).put(
                ", b AS (DELETE FROM work_backoff USING w WHERE work_backoff.machine_id = w.machine_id AND work_backoff.process = $1)",
                [process],
            );
            None
        }
        Trace::Canceled => {
            text.put(RETURNING, []).put(
                ", b AS (INSERT INTO work_candidate (process, machine_id, found_at) SELECT w.process, w.machine_id, {now} FROM w \
                 ON CONFLICT (process, machine_id) DO NOTHING)",
                [],
            );
            None
        }
        Trace::Failed {
            cause,
            backoff,
            failures,
        } => {
            let next = Next::after(*failures, backoff);
            text.put(
                " AND COALESCE((SELECT attempts FROM work_backoff WHERE machine_id = $1 AND process = $2), 0) = $3",
                [machine, process.clone(), (next.attempts - 1).into()],
            )
            .put(RETURNING, [])
            .put(
                ", b AS (INSERT INTO work_backoff (machine_id, process, until, cause, attempts, last_interval_seconds) \
                 SELECT w.machine_id, w.process, ",
                [],
            );
            if next.parks {
                text.put("CAST(NULL AS TIMESTAMPTZ)", []);
            } else {
                text.put("{after $1}", [next.wait_ms.into()]);
            }
            text.put(
                ", CAST($1 AS TEXT), CAST($2 AS BIGINT), CAST($3 AS BIGINT) FROM w ON CONFLICT (machine_id, process) DO UPDATE \
                 SET until = excluded.until, cause = excluded.cause, attempts = excluded.attempts, \
                 last_interval_seconds = excluded.last_interval_seconds)",
                [
                    cause.as_str().into(),
                    next.attempts.into(),
                    next.interval_seconds.into(),
                ],
            );
            Some(cause.as_str())
        }
    };
    let author = core.author();
    text.put(
        ", h AS (INSERT INTO work_history (machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, at, cause) \
         SELECT w.machine_id, w.fence, CAST($1 AS TEXT), w.work_id, w.process, w.slot, CAST($2 AS UUID), CAST($3 AS TEXT), CAST($4 AS TEXT), \
         {now}, CAST($5 AS TEXT) FROM w) SELECT work_id FROM w",
        [
            trace.event().to_string().into(),
            author.session.into(),
            author.component.into(),
            author.runtime_info.into(),
            cause.into(),
        ],
    );
    text.finish()
}

/// SQLite's way.
async fn in_steps(tx: &Tx, core: &Core, key: &Key, trace: &Trace) -> Result<bool, DbErr> {
    const TAKE: &str = "DELETE FROM work WHERE machine_id = $1 AND slot = $2 AND fence = $3 AND work_id = $4";
    let values: [Value; 4] = [key.machine.into(), key.slot.into(), key.fence.into(), key.work.into()];
    if tx.execute_text(TAKE, values).await? == 0 {
        return Ok(false);
    }
    let cause = match trace {
        Trace::Finished => {
            let forget = "DELETE FROM work_backoff WHERE machine_id = $1 AND process = $2";
            tx.execute_text(forget, [key.machine.into(), key.process.into()])
                .await?;
            None
        }
        Trace::Failed { cause, backoff, .. } => {
            back_off(tx, key, cause, backoff).await?;
            Some(cause.as_str())
        }
        Trace::Canceled => {
            candidate::leave_hints(tx, key.process, &[key.machine]).await?;
            None
        }
    };
    history::record(tx, &core.author(), &[*key], trace.event(), cause).await?;
    Ok(true)
}

async fn back_off(tx: &Tx, key: &Key, cause: &str, backoff: &Backoff) -> Result<(), DbErr> {
    const WRITE: &str = "
        INSERT INTO work_backoff (machine_id, process, until, cause, attempts, last_interval_seconds)
        VALUES ($1, $2, {after $3}, $4, $5, $6)
        ON CONFLICT (machine_id, process) DO UPDATE
        SET until = excluded.until, cause = excluded.cause, attempts = excluded.attempts, last_interval_seconds = excluded.last_interval_seconds";
    const PARK: &str = "UPDATE work_backoff SET until = NULL WHERE machine_id = $1 AND process = $2";
    let next = Next::after(failures(tx, key).await?, backoff);
    let machine_process = || [key.machine.into(), key.process.into()];
    let [machine, process] = machine_process();
    tx.execute_text(
        WRITE,
        [
            machine,
            process,
            next.wait_ms.into(),
            cause.into(),
            next.attempts.into(),
            next.interval_seconds.into(),
        ],
    )
    .await?;
    if next.parks {
        tx.execute_text(PARK, machine_process()).await?;
    }
    Ok(())
}
