//! Rows that contradict each other: what the schema's references and the protocol exclude, and hands, tools and restores do not.

use bmdb::entity::{
    machine, machine_agent_heartbeat, machine_agent_started, machine_hardware_report, machine_os_installation_report,
    machine_os_installation_request, machine_provided, session, session_lease, work, work_backoff, work_history,
    work_hold,
};
use bmdb::sea_orm::sea_query::{Expr, ExprTrait, Query, SelectStatement};
use bmdb::sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, IdenStatic, PaginatorTrait, QueryFilter};
use bmdb::{Bmdb, Fence};

use super::{Checked, Finding, Patient};
use crate::answer::words::count;
use crate::failure::{Failure, Kind};

/// Claims that are made while we look have fences ahead of the time at which we began.
const WHILE_WE_LOOK: i64 = 60_000;

/// Rows whose machine or session is not there. On a server references keep them out, and so they do on SQLite, but not from tools that do not ask for it.
pub(super) async fn orphans(patient: &Patient<'_>) -> Result<Checked, Failure> {
    let bmdb = patient.bmdb()?;
    let machine = machine::Column::MachineId;
    let mut found = Vec::new();
    found.extend(without::<work::Entity, machine::Entity>(bmdb, work::Column::MachineId, machine).await?);
    found.extend(
        without::<work_backoff::Entity, machine::Entity>(bmdb, work_backoff::Column::MachineId, machine).await?,
    );
    found.extend(without::<work_hold::Entity, machine::Entity>(bmdb, work_hold::Column::MachineId, machine).await?);
    macro_rules! tags {
        ($($tag:ident),*) => {
            $(found.extend(without::<$tag::Entity, machine::Entity>(bmdb, $tag::Column::MachineId, machine).await?);)*
        };
    }
    tags!(
        machine_provided,
        machine_hardware_report,
        machine_agent_started,
        machine_agent_heartbeat,
        machine_os_installation_request,
        machine_os_installation_report
    );
    let session = session::Column::SessionId;
    found.extend(without::<work::Entity, session::Entity>(bmdb, work::Column::SessionId, session).await?);
    found.extend(
        without::<session_lease::Entity, session::Entity>(bmdb, session_lease::Column::SessionId, session).await?,
    );
    Ok(Checked::Found(found))
}

/// The rows of `C` whose `P` is not there, if there are such.
async fn without<C, P>(bmdb: &Bmdb, child: C::Column, parent: P::Column) -> Result<Option<Finding>, Failure>
where
    C: EntityTrait,
    C::Model: FromQueryResult + Send + Sync,
    P: EntityTrait,
{
    let same = Expr::col((P::default(), parent)).equals((C::default(), child));
    let theirs = Query::select()
        .expr(Expr::val(1))
        .from(P::default())
        .and_where(same)
        .take();
    let many = number::<C>(bmdb, Expr::not_exists(theirs)).await?;
    let (table, of) = (
        C::default().table_name().to_owned(),
        P::default().table_name().to_owned(),
    );
    let (column, key) = (child.as_str(), parent.as_str());
    Ok((many > 0).then(|| Finding {
        what: format!("{} of {table} without its {of}", count(many, "row", "rows")),
        mend: format!(
            "look at them: SELECT * FROM {table} WHERE {column} NOT IN (SELECT {key} FROM {of}). If rows of {of} were lost, put a backup back \
             (docs/backups.md). Only if they were removed on purpose, with every component stopped: the same with DELETE"
        ),
    }))
}

/// Fences that a clock or a restore has left where they cannot have come to by claims.
pub(super) async fn fences(patient: &Patient<'_>) -> Result<Checked, Failure> {
    let bmdb = patient.bmdb()?;
    let now = bmdb.now().await?.timestamp_millis();
    let ahead = machine::Column::Fence.gt(Fence(now + WHILE_WE_LOOK));
    let ahead = number::<machine::Entity>(bmdb, ahead).await?;
    let mut found = Vec::new();
    if ahead > 0 {
        found.push(Finding {
            what: format!(
                "the {} ahead of the database's clock, which has been set back, or is that of another server",
                count(ahead, "fence of 1 machine is", "fences of machines are")
            ),
            mend: "set the clock by NTP. If a backup was put back, run after-restore before components start (docs/backups.md)".to_owned(),
        });
    }
    let behind = number::<machine::Entity>(bmdb, Expr::exists(later_history())).await?;
    if behind > 0 {
        found.push(Finding {
            what: format!(
                "{} behind in its fence: the history has later ones, so that a fence may be given out twice",
                count(behind, "machine is", "machines are")
            ),
            mend: "machine and work_history are from two backups: stop every component, put one backup back whole, and run after-restore (docs/backups.md)"
                .to_owned(),
        });
    }
    Ok(Checked::Found(found))
}

fn later_history() -> SelectStatement {
    let of_it = Expr::col((work_history::Entity, work_history::Column::MachineId))
        .equals((machine::Entity, machine::Column::MachineId));
    let later = Expr::col((work_history::Entity, work_history::Column::Fence))
        .gt(Expr::col((machine::Entity, machine::Column::Fence)));
    Query::select()
        .expr(Expr::val(1))
        .from(work_history::Entity)
        .and_where(of_it)
        .and_where(later)
        .take()
}

/// How many rows meet a condition.
async fn number<E>(bmdb: &Bmdb, condition: Expr) -> Result<u64, Failure>
where
    E: EntityTrait,
    E::Model: FromQueryResult + Send + Sync,
{
    let read = E::find().filter(condition).count(bmdb.reads()).await;
    let table = E::default().table_name().to_owned();
    read.map_err(|_unread| {
        Failure::new(
            Kind::Unreachable,
            format!("table {table} cannot be read, or not in time"),
        )
    })
}
