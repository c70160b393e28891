//! Lists, page by page: however many rows there are, a page reads as many as it has, and finds its beginning by key.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;

use bmdb_entity::work_history::{self, Event};
use bmdb_entity::{Fence, MachineId, work_backoff, work_hold};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, QueryResult};

use crate::bmdb::Bmdb;
use crate::db::database::Database;
use crate::db::sql::SqlBuilder;
use crate::db::tx::Tx;
use crate::error::Error;

/// A query for a list. Await it for the first [page](Page); [`after`](Self::after) and [`limit`](Self::limit) choose where it starts and how long it
/// is.
///
/// ```no_run
/// # async fn example(bmdb: bmdb::Bmdb, machine: bmdb::MachineId) -> Result<(), bmdb::Error> {
/// let mut page = bmdb.history(machine).await?;
/// loop {
///     for event in &page.rows {
///         println!("{} {} {}", event.fence, event.event, event.process);
///     }
///     let Some(last) = page.next else { break };
///     page = bmdb.history(machine).after(last).await?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Invalid`] for a limit that is none, or when the database cannot be read. A row that cannot be read is no error: see
/// [`Page::unreadable`].
///
/// # Cancel safety
/// Safe: it only reads.
#[must_use = "a list is read when it is awaited"]
pub struct List<Row: Listed> {
    database: Arc<Database>,
    filter: Row::Filter,
    after: Option<Row::Key>,
    limit: u32,
}

/// Some rows of a list, in the order of their keys.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page<Row: Listed> {
    /// The rows.
    pub rows: Vec<Row>,
    /// Rows of this page that cannot be decoded because somebody edited them by hand.
    pub unreadable: Vec<Unreadable>,
    /// The key of the last row, for [`List::after`]. `None`: there are no more rows.
    pub next: Option<Row::Key>,
}

/// A row that cannot be read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Unreadable {
    /// Its key, for people.
    pub row: String,
    /// Which column, and why.
    pub error: DbErr,
}

/// Rows that are listed in pages: events of history, holds, backoffs, machines, works, sessions, operations.
pub trait Listed: FromQueryResult + Send + sealed::Rows {
    /// What rows are ordered by: no two have the same.
    type Key: Clone + std::fmt::Debug + Send + Sync;
    /// Which rows there are at all.
    type Filter: Clone + std::fmt::Debug + Send + Sync;

    #[doc(hidden)]
    const DOING: &'static str;
    #[doc(hidden)]
    fn key(row: &QueryResult) -> Result<Self::Key, DbErr>;
    #[doc(hidden)]
    fn select(text: &mut sealed::Select<'_>, filter: &Self::Filter, after: Option<&Self::Key>);
}

pub(super) mod sealed {
    pub trait Rows {}
    /// A list's statement, and how many rows it asks for.
    pub struct Select<'a>(pub(in crate::admin) &'a mut super::SqlBuilder, pub(in crate::admin) i64);
}

impl Bmdb {
    /// What happened on a machine, in the order of its claims and in [pages](List). A machine that is gone keeps its history.
    ///
    /// Ordered by fence, not by time: times are those of the transaction's start, so a claim that waited for an end may have the earlier one.
    pub fn history(&self, machine: MachineId) -> List<work_history::Model> {
        List::new(self.database(), machine)
    }

    /// The holds on a machine, or on all, in [pages](List), including those that have ended. An end of `infinity` or beyond the year 9999 is shown as
    /// open.
    pub fn holds(&self, machine: Option<MachineId>) -> List<work_hold::Model> {
        List::new(self.database(), machine.map(|machine| vec![machine]))
    }

    /// [`holds`](Self::holds) on these machines.
    pub fn holds_on(&self, machines: impl Into<Vec<MachineId>>) -> List<work_hold::Model> {
        List::new(self.database(), Some(machines.into()))
    }

    /// The backoffs from a machine, or from all, in [pages](List), including those that have ended. An end of `infinity` or beyond the year 9999 is
    /// shown as open.
    pub fn backoffs(&self, machine: Option<MachineId>) -> List<work_backoff::Model> {
        List::new(self.database(), machine.map(|machine| vec![machine]))
    }

    /// [`backoffs`](Self::backoffs) from these machines.
    pub fn backoffs_from(&self, machines: impl Into<Vec<MachineId>>) -> List<work_backoff::Model> {
        List::new(self.database(), Some(machines.into()))
    }
}

impl<Row: Listed> List<Row> {
    pub(super) fn new(database: &Arc<Database>, filter: Row::Filter) -> Self {
        Self {
            database: Arc::clone(database),
            filter,
            after: None,
            limit: 1000,
        }
    }

    /// The rows after the one with this key.
    pub fn after(mut self, key: Row::Key) -> Self {
        self.after = Some(key);
        self
    }

    /// How many rows the page has at most: 1 to 10,000. Default: 1000.
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    async fn read(self) -> Result<Page<Row>, Error> {
        if !(1..=10_000).contains(&self.limit) {
            return Err(Error::invalid(
                "the limit of a page",
                &self.limit.to_string(),
                "1 to 10000",
            ));
        }
        let mut text = SqlBuilder::new(self.database.dialect);
        // One more tells whether there is a next page.
        let limit = i64::from(self.limit) + 1;
        Row::select(&mut sealed::Select(&mut text, limit), &self.filter, self.after.as_ref());
        text.put(" LIMIT $1", [limit.into()]);
        let mut rows = self.database.read_statement(Row::DOING, text.finish()).await?;
        let are_more = rows.len() > self.limit as usize;
        rows.truncate(self.limit as usize);
        let mut page = Page {
            next: None,
            rows: Vec::with_capacity(rows.len()),
            unreadable: Vec::new(),
        };
        for row in &rows {
            match Row::from_query_result(row, "") {
                Ok(row) => page.rows.push(row),
                Err(error) => {
                    let name = row.try_get("", "row_name").unwrap_or_default();
                    page.unreadable.push(Unreadable { row: name, error });
                }
            }
        }
        if are_more {
            // A row whose very key cannot be read is in two pages then.
            page.next = rows.iter().rev().find_map(|row| Row::key(row).ok());
            if page.next.is_none() {
                let unread =
                    DbErr::Custom("no row of the page has a key that can be read: ask for a longer page".to_owned());
                return Err(Error::database(Row::DOING)(unread));
            }
        }
        Ok(page)
    }
}

impl<Row: Listed + 'static> IntoFuture for List<Row> {
    type Output = Result<Page<Row>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.read())
    }
}

impl<Row: Listed> std::fmt::Debug for List<Row> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("List")
            .field("filter", &self.filter)
            .field("after", &self.after)
            .field("limit", &self.limit)
            .finish()
    }
}

impl sealed::Rows for work_history::Model {}

/// A machine's events in the order of its claims, each claim's start before its end.
impl Listed for work_history::Model {
    type Key = (Fence, Event);
    type Filter = MachineId;
    const DOING: &'static str = "read a machine's history";

    fn key(row: &QueryResult) -> Result<Self::Key, DbErr> {
        Ok((row.try_get("", "fence")?, row.try_get("", "event")?))
    }

    fn select(text: &mut sealed::Select<'_>, machine: &MachineId, after: Option<&Self::Key>) {
        const COLUMNS: &str = "
            SELECT machine_id, fence, event, work_id, process, slot, session_id, component_name, runtime_info, {moment at} AS at, cause,
                {id machine_id} || ' ' || CAST(fence AS TEXT) || ' ' || event AS row_name
            FROM work_history WHERE machine_id = $1";
        const AFTER: &str =
            " AND fence >= $1 AND NOT (fence = $1 AND (event = 'started' OR ($2 <> 'started' AND event <= $2)))";
        let text = text.0.put(COLUMNS, [(*machine).into()]);
        if let Some((fence, event)) = after {
            text.put(AFTER, [(*fence).into(), event.to_string().into()]);
        }
        text.put(
            " ORDER BY fence, CASE WHEN event = 'started' THEN 0 ELSE 1 END, event",
            [],
        );
    }
}

/// A hold's row, as the driver can read it, and its name for people.
pub(crate) const HOLD_COLUMNS: &str = "
    SELECT machine_id, slot, {until until} AS until, reason, placed_by, {moment placed_at} AS placed_at, ticket, {id machine_id} || ' ' || slot AS row_name
    FROM work_hold";

impl sealed::Rows for work_hold::Model {}

impl Listed for work_hold::Model {
    type Key = (MachineId, String);
    type Filter = Option<Vec<MachineId>>;
    const DOING: &'static str = "list holds";

    fn key(row: &QueryResult) -> Result<Self::Key, DbErr> {
        Ok((row.try_get("", "machine_id")?, row.try_get("", "slot")?))
    }

    fn select(text: &mut sealed::Select<'_>, machines: &Option<Vec<MachineId>>, after: Option<&Self::Key>) {
        text.0.put(HOLD_COLUMNS, []);
        of_these(text.0, machines.as_deref(), "slot", after);
    }
}

/// Rows whose first column is a machine, each read for itself.
pub(crate) async fn of_machines<Row: FromQueryResult>(
    tx: &Tx,
    text: SqlBuilder,
    doing: &'static str,
) -> Result<Vec<(MachineId, Result<Row, Error>)>, Error> {
    let rows = tx.query_all_raw(text.finish()).await.map_err(Error::database(doing))?;
    let read = |row: &QueryResult| {
        let machine = row.try_get_by_index(0).map_err(Error::database(doing))?;
        Ok((machine, Row::from_query_result(row, "").map_err(Error::database(doing))))
    };
    rows.iter().map(read).collect()
}

/// A backoff's row, as the driver can read it, and its name for people.
pub(crate) const BACKOFF_COLUMNS: &str = "
    SELECT machine_id, process, {until until} AS until, cause, attempts, last_interval_seconds, {id machine_id} || ' ' || process AS row_name
    FROM work_backoff";

impl sealed::Rows for work_backoff::Model {}

impl Listed for work_backoff::Model {
    type Key = (MachineId, String);
    type Filter = Option<Vec<MachineId>>;
    const DOING: &'static str = "list backoffs";

    fn key(row: &QueryResult) -> Result<Self::Key, DbErr> {
        Ok((row.try_get("", "machine_id")?, row.try_get("", "process")?))
    }

    fn select(text: &mut sealed::Select<'_>, machines: &Option<Vec<MachineId>>, after: Option<&Self::Key>) {
        text.0.put(BACKOFF_COLUMNS, []);
        of_these(text.0, machines.as_deref(), "process", after);
    }
}

/// No machine has it, and it is below all others.
pub(super) const NO_MACHINE: MachineId = MachineId(uuid::Uuid::nil());

/// Only rows of these machines. SQL knows no empty list.
pub(super) fn among<'a>(text: &'a mut SqlBuilder, column: &str, machines: &[MachineId]) -> &'a mut SqlBuilder {
    text.put(column, [])
        .put(" IN (", [])
        .each(std::iter::once(&NO_MACHINE).chain(machines), "$1", |machine| {
            [(*machine).into()]
        })
        .put(")", [])
}

/// Of these machines or all, in the order of the key, whose second column is `name`.
fn of_these(text: &mut SqlBuilder, machines: Option<&[MachineId]>, name: &str, after: Option<&(MachineId, String)>) {
    match machines {
        None => {}
        Some([machine]) => {
            text.put(" WHERE machine_id = $1", [(*machine).into()]);
        }
        Some(machines) => {
            among(text, " WHERE machine_id", machines);
        }
    }
    if let Some((machine_id, last)) = after {
        let begins = if machines.is_some() { "AND" } else { "WHERE" };
        let after = format!(" {begins} (machine_id, {name}) > ($1, $2)");
        text.put(&after, [(*machine_id).into(), last.clone().into()]);
    }
    text.put(&format!(" ORDER BY machine_id, {name}"), []);
}
