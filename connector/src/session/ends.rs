//! Ends without a body: together with others of the session, apart when they are refused, and what becomes of one that is not answered.

use std::sync::Arc;

use bmdb_entity::WorkId;
use futures_util::future::join_all;
use sea_orm::ConnectionTrait;
use sea_orm::sea_query::Expr;

use crate::db::transaction::TxRunner;
use crate::db::tx::Tx;
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::metrics::StatementKind;
use crate::rules::facts::Facts;
use crate::rules::work_key::{RuleKey, WorkKey};
use crate::runtime::detach::Detach;
use crate::session::batch::Batchable;
use crate::session::shared::Shared;
use crate::store::end::{self, EndRequest, EndShape};
use crate::store::machine;
use crate::store::resolve::{Resolution, resolve};

pub(crate) const DOING: &str = "end a work";

/// What came of ends without a body.
#[derive(Default)]
pub(crate) struct Ends {
    /// Ended as asked.
    pub(crate) ended: Vec<WorkId>,
    /// Not ended, and why. Those that are in neither were not there to be ended, perhaps because an attempt without an answer has ended them.
    pub(crate) rest: Vec<(EndRequest, Error)>,
}

impl Ends {
    fn refuse(mut self, left: Vec<EndRequest>, error: &Error) -> Self {
        self.rest.extend(left.into_iter().map(|to_end| (to_end, error.clone())));
        self
    }

    fn and(mut self, more: Self) -> Self {
        self.ended.extend(more.ended);
        self.rest.extend(more.rest);
        self
    }

    fn has_answered(&self, work: WorkId) -> bool {
        self.ended.contains(&work) || self.rest.iter().any(|(to_end, _)| to_end.key.work == work)
    }

    /// Takes those out that were perhaps refused for another with which they shared a statement.
    fn take_refused(&mut self) -> Vec<EndRequest> {
        let refused = self.rest.extract_if(.., |(_, error)| error.is_of_one());
        refused.map(|(to_end, _)| to_end).collect()
    }
}

/// For how long an end waits for what somebody has locked.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Patience {
    /// As long as the budget lasts.
    Lasting,
    /// As long as one statement does: it is tried again later anyway.
    Short,
}

/// Ends without a body, all with the same ending. Safe to repeat: an end that took effect leaves no row. Each is answered for itself.
pub(crate) async fn end(shared: &Arc<Shared>, left: Vec<EndRequest>, patience: Patience, detach: &Detach) -> Ends {
    let updates = |to_end: &&EndRequest| to_end.facts.updates().next().is_some();
    let updating: Vec<EndRequest> = left.iter().filter(updates).cloned().collect();
    let mut ends = end_or_refuse(shared, left, None, detach).await;
    let refused = ends.take_refused();
    if !refused.is_empty() {
        detach.now().await;
        ends = ends.and(end_apart(shared, refused, patience).await);
    }
    for (to_end, error) in ends.rest.iter_mut().filter(|(_, error)| error.is_key_violation()) {
        detach.now().await;
        let facts = to_end.facts.iter();
        if let Err(duplicate) = machine::check_identities(&*shared.database, to_end.key.machine, facts).await {
            *error = duplicate;
        }
    }
    for to_end in updating {
        if !ends.has_answered(to_end.key.work) {
            detach.now().await;
            let error = missing(shared, &to_end.key, &to_end.facts).await;
            ends.rest.extend(error.map(|error| (to_end, error)));
        }
    }
    ends
}

/// What was to be updated and is not there, if that is why an end has not ended its work.
async fn missing(shared: &Shared, key: &WorkKey, facts: &Facts) -> Option<Error> {
    let Ok(Resolution::StillHeld) = resolve(&shared.writer(), key).await else {
        return None;
    };
    let mut tag = None;
    for fact in facts.updates() {
        let row = shared.database.query_one(&fact.select(Expr::val(key.machine))).await;
        if matches!(row, Ok(None)) {
            tag = Some(fact.tag);
            break;
        }
        // Somebody has written it meanwhile, or it cannot be asked for any more.
        tag.get_or_insert(fact.tag);
    }
    tag.map(|tag| Error::TagMissing {
        tag,
        machine: key.machine,
    })
}

/// Into so many parts are those divided that were refused together, and each part again, until one is alone: of a thousand in two steps.
const PARTS: usize = 32;

async fn end_apart(shared: &Arc<Shared>, left: Vec<EndRequest>, patience: Patience) -> Ends {
    let parts = left.chunks(left.len().div_ceil(PARTS)).map(async |part| {
        let mut ends = end_or_refuse(shared, part.to_vec(), Some(patience), &Detach::in_a_task()).await;
        if part.len() == 1 {
            return ends;
        }
        match ends.take_refused() {
            none if none.is_empty() => ends,
            refused => ends.and(Box::pin(end_apart(shared, refused, patience)).await),
        }
    });
    join_all(parts).await.into_iter().fold(Ends::default(), Ends::and)
}

/// `alone`: without others who end at the same time, and with this patience.
async fn end_or_refuse(
    shared: &Arc<Shared>,
    mut left: Vec<EndRequest>,
    alone: Option<Patience>,
    detach: &Detach,
) -> Ends {
    let mut ends = Ends::default();
    // With failures before as they were when the machines were claimed.
    let mut as_claimed = true;
    while let Some(ending) = left.first().map(|to_end| to_end.ending.clone()) {
        let attempt = match alone {
            _ if !as_claimed => {
                detach.now().await;
                in_transaction(shared, &left).await
            }
            Some(patience) => end_at_once(shared, &left, left.len() == 1 && patience == Patience::Lasting).await,
            None => {
                let ending = EndBatch {
                    shared: Arc::clone(shared),
                    left: left.clone(),
                };
                shared.batcher.ask(ending).await.unwrap_or(Err(TxError::UNKNOWN))
            }
        };
        let source = match attempt {
            Ok(gone) => {
                left.retain(|to_end| !gone.contains(&to_end.key.work));
                ends.ended.extend(gone);
                // What is left is not ours; or somebody has cleared a backoff meanwhile, and the one that follows is another.
                if as_claimed && ending.is_failure() {
                    as_claimed = false;
                    continue;
                }
                return ends;
            }
            Err(TxError::NotCommitted(error)) => return ends.refuse(left, &error),
            Err(TxError::Unknown { source, .. }) => source,
        };
        detach.now().await;
        let mut held = Vec::new();
        let mut unreachable = false;
        for to_end in &left {
            match resolve(&shared.writer(), &to_end.key).await {
                Ok(Resolution::StillHeld) => held.push(to_end.clone()),
                // It is not there to be ended any more.
                Ok(Resolution::Ended(_) | Resolution::Gone) => {}
                Err(_unreachable) => unreachable = true,
            }
        }
        if unreachable {
            return ends.refuse(left, &Error::CommitUnknown { doing: DOING, source });
        }
        left = held;
    }
    ends
}

/// Works that end in a statement with others of the session that end at the same time.
struct EndBatch {
    shared: Arc<Shared>,
    left: Vec<EndRequest>,
}

impl Batchable for EndBatch {
    type Answer = Result<Vec<WorkId>, TxError<(), Error>>;

    fn kind(&self) -> (usize, Option<EndShape>, Option<RuleKey>) {
        (self.left.len(), self.left.first().map(EndRequest::shape), None)
    }

    fn detach(&self) -> Option<&Detach> {
        None
    }

    async fn run(these: Vec<Self>) -> Vec<Self::Answer> {
        let shared = Arc::clone(&these[0].shared);
        let left: Vec<Vec<EndRequest>> = these.into_iter().map(|ending| ending.left).collect();
        match end_at_once(&shared, &left.concat(), false).await {
            Ok(gone) => {
                let of = |left: &Vec<EndRequest>| {
                    let works = left.iter().map(|to_end| to_end.key.work);
                    Ok(works.filter(|work| gone.contains(work)).collect())
                };
                left.iter().map(of).collect()
            }
            Err(failure) => failure.of_each(left.len()).map(Err).collect(),
        }
    }
}

/// `is_patient`: it waits for rows that somebody has locked for as long as the budget lasts.
async fn end_at_once(
    shared: &Shared,
    to_end: &[EndRequest],
    is_patient: bool,
) -> Result<Vec<WorkId>, TxError<(), Error>> {
    let Some(pools) = &shared.database.autocommit else {
        return in_transaction(shared, to_end).await;
    };
    let by = shared.writer();
    let runner = TxRunner {
        is_patient,
        kind: StatementKind::End,
        ..by.runner(DOING)
    };
    end::at_once(&runner, &pools.by_keys, &by, to_end).await
}

async fn in_transaction(shared: &Shared, to_end: &[EndRequest]) -> Result<Vec<WorkId>, TxError<(), Error>> {
    let by = shared.writer();
    let whole = async |tx: &Tx| end::within(tx, &by, to_end).await.map_err(Error::from);
    let runner = TxRunner {
        kind: StatementKind::End,
        ..by.runner(DOING)
    };
    runner.run(whole).await.map_err(TxError::without_value)
}
