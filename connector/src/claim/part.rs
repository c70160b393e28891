//! Attempts to claim that share a statement, and one attempt as the database of the session takes it.

use std::marker::PhantomData;
use std::sync::Arc;

use bmdb_entity::WorkId;
use sea_orm::Condition;

use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::rules::claim_plan::CandidateSource;
use crate::rules::process::Process;
use crate::rules::work_key::RuleKey;
use crate::runtime::detach::Detach;
use crate::session::batch::Batchable;
use crate::session::shared::Shared;
use crate::store::attempt::{Attempt, ClaimRequest};
use crate::store::claim_postgres;
use crate::store::claim_sqlite;
use crate::store::end::{EndRequest, EndShape};
use crate::store::rule::Rule;

/// An attempt that may be made with others.
pub(super) struct ClaimPart<P: Process> {
    pub(super) shared: Arc<Shared>,
    pub(super) rule: Arc<Rule>,
    /// The ids of the works that are to be.
    pub(super) works: Vec<WorkId>,
    /// A work that is to end first.
    pub(super) to_end: Option<EndRequest>,
    /// Whether it takes the search lease if there are no hints.
    pub(super) searches: bool,
    /// The search that had begun when this claim started.
    pub(super) baseline: Option<i64>,
    pub(super) detach: Detach,
    pub(super) process: PhantomData<fn() -> P>,
}

impl<P: Process> Batchable for ClaimPart<P> {
    type Answer = Result<Attempt<P>, TxError<(), Error>>;

    fn kind(&self) -> (usize, Option<EndShape>, Option<RuleKey>) {
        let shape = self.to_end.as_ref().map(EndRequest::shape);
        (self.works.len(), shape, Some(self.rule.key))
    }

    fn detach(&self) -> Option<&Detach> {
        // An end comes to its end.
        self.to_end.is_none().then_some(&self.detach)
    }

    async fn run(mut these: Vec<Self>) -> Vec<Self::Answer> {
        let (shared, rule) = (Arc::clone(&these[0].shared), Arc::clone(&these[0].rule));
        let works: Vec<WorkId> = these.iter().flat_map(|asked| asked.works.iter().copied()).collect();
        let to_end: Vec<EndRequest> = these.iter_mut().filter_map(|asked| asked.to_end.take()).collect();
        let searching = || these.iter().filter(|asked| asked.searches);
        let source = if searching().next().is_some() {
            CandidateSource::HintsThenSearch
        } else {
            CandidateSource::HintsOnly
        };
        // The latest of them. If one has none yet, the search that had begun when this statement started.
        let baseline: Option<Vec<i64>> = searching().map(|asked| asked.baseline).collect();
        let baseline = baseline.and_then(|baseline| baseline.into_iter().max());
        let request = ClaimRequest {
            rule: &rule,
            source,
            filter: &Condition::all(),
            works: &works,
            after: &to_end,
            baseline,
        };
        match attempt_once(&shared, request, None).await {
            Ok(attempt) => {
                let asked = these.iter().map(|asked| (asked.works.len(), asked.searches));
                attempt.split(asked, &to_end).map(Ok).collect()
            }
            Err(failure) => failure.of_each(these.len()).map(Err).collect(),
        }
    }
}

/// One attempt, alone or for many. `detach`: the call that may be given up as long as it waits.
pub(super) async fn attempt_once<P: Process>(
    shared: &Shared,
    request: ClaimRequest<'_>,
    detach: Option<&Detach>,
) -> Result<Attempt<P>, TxError<(), Error>> {
    let by = shared.writer();
    let attempt = match &shared.database.autocommit {
        None => {
            // Before the search: whoever searched first and waited then would find that others have taken all that it had found.
            let alone = match detach {
                Some(detach) => {
                    detach.wait();
                    shared.batcher.alone.acquire().await.ok()
                }
                None => None,
            };
            let attempt = claim_sqlite::attempt(&by, request, detach).await;
            drop(alone);
            attempt
        }
        Some(pools) => claim_postgres::attempt(&by, pools, request, detach).await,
    };
    let states_nothing = request.after.iter().all(|to_end| to_end.facts.is_empty());
    match attempt {
        // The only key that a claim can miss is its session's: the machine is locked. What is stated may miss others.
        Err(TxError::NotCommitted(error)) if error.is_foreign_key_violation() && states_nothing => {
            shared.lose("its row is gone");
            Err(TxError::NotCommitted(shared.expired()))
        }
        // Another claim has taken the slot and its fence, between what this one read and what it wrote.
        Err(TxError::NotCommitted(error)) if error.is_key_violation() => Ok(Attempt::lost_race()),
        attempt => attempt,
    }
}
