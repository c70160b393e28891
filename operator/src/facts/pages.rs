//! Lists as a whole, or as much of them as is asked for.

use bmdb::{List, Listed, Unreadable};

use crate::failure::Failure;

/// What was read of a list.
pub(crate) struct Read<Row> {
    pub(crate) rows: Vec<Row>,
    pub(crate) unreadable: Vec<Unreadable>,
    /// There is more.
    pub(crate) more: bool,
}

/// Reads pages until `wanted` rows have been kept, or there are no more.
pub(crate) async fn read<Row: Listed + 'static>(
    list: impl Fn() -> List<Row>,
    wanted: usize,
    keep: impl Fn(&Row) -> bool,
) -> Result<Read<Row>, Failure> {
    let mut all = Read {
        rows: Vec::new(),
        unreadable: Vec::new(),
        more: false,
    };
    let mut after: Option<Row::Key> = None;
    loop {
        let page = match after {
            None => list().await?,
            Some(key) => list().after(key).await?,
        };
        all.rows.extend(page.rows.into_iter().filter(&keep));
        all.unreadable.extend(page.unreadable);
        if all.rows.len() > wanted {
            all.rows.truncate(wanted);
            all.more = true;
            return Ok(all);
        }
        match page.next {
            Some(key) => after = Some(key),
            None => return Ok(all),
        }
    }
}

/// Reads all of them.
pub(crate) async fn read_all<Row: Listed + 'static>(list: impl Fn() -> List<Row>) -> Result<Read<Row>, Failure> {
    read(list, usize::MAX, |_| true).await
}
