//! Claims of unknown outcome: what they may have taken is found, or released.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use bmdb_entity::{WorkId, machine, work};
use sea_orm::sea_query::{Expr, ExprTrait, JoinType};
use sea_orm::{ConnectionTrait, DbErr};

use crate::db::tx::Tx;
use crate::db::tx_error::TxError;
use crate::error::Error;
use crate::metrics;
use crate::rules::process::Process;
use crate::rules::work_key::RuleKey;
use crate::session::held::Release;
use crate::session::shared::Shared;
use crate::store::candidate::{Candidate, ClaimedMachine};

/// Attempts of unknown outcome: they may have taken machines, or still be on their way. What is left of them in the end is for the session's task to
/// release, whenever it turns up.
pub(crate) struct InDoubt<P: Process> {
    /// When the claim was awaited.
    pub(crate) begun: Instant,
    shared: Arc<Shared>,
    rule: RuleKey,
    works: Vec<WorkId>,
    /// What is known of the last one.
    source: Option<DbErr>,
    process: PhantomData<fn() -> P>,
}

impl<P: Process> InDoubt<P> {
    pub(crate) fn none(shared: &Arc<Shared>, rule: RuleKey) -> Self {
        Self {
            begun: Instant::now(),
            shared: Arc::clone(shared),
            rule,
            works: Vec::new(),
            source: None,
            process: PhantomData,
        }
    }

    pub(crate) fn add(&mut self, works: impl IntoIterator<Item = WorkId>, source: Option<DbErr>) {
        let error = source.as_ref().map(tracing::field::display);
        tracing::debug!(process = P::NAME, error, "the outcome of a claim is not known");
        metrics::claim_unknown(P::NAME);
        self.works.extend(works);
        self.source = source;
    }

    /// What has turned up by now.
    pub(crate) async fn arrived(&mut self) -> Result<Vec<ClaimedMachine<P>>, Error> {
        if self.works.is_empty() {
            return Ok(Vec::new());
        }
        let taken = match claimed::<P>(&self.shared, &self.works).await {
            Ok(taken) => taken,
            // The session is over, and with it whatever they have taken.
            Err(expired @ Error::SessionExpired { .. }) => return Err(expired),
            Err(_unreachable) => {
                return Err(Error::CommitUnknown {
                    doing: "claim a machine",
                    source: self.source.take(),
                });
            }
        };
        self.works.retain(|work| !taken.iter().any(|taken| taken.work == *work));
        Ok(taken)
    }
}

impl<P: Process> Drop for InDoubt<P> {
    fn drop(&mut self) {
        let works = std::mem::take(&mut self.works);
        if !works.is_empty() {
            // Without a receiver the session is over, and its works with it.
            let _unheard = self.shared.releases.send(Release::InDoubt {
                slot: P::SLOT,
                rule: self.rule,
                works,
            });
        }
    }
}

/// The machines that an attempt of unknown outcome has taken, as far as it has arrived.
async fn claimed<P: Process>(shared: &Shared, works: &[WorkId]) -> Result<Vec<ClaimedMachine<P>>, Error> {
    let runner = shared.library("find out what became of a claim");
    // The machine's fence may have risen since.
    let mut select = Candidate::<P>::select(Expr::col((work::Entity, work::Column::Fence)));
    select
        .expr_as(Expr::col((work::Entity, work::Column::WorkId)), "bmdb_work")
        .join(
            JoinType::InnerJoin,
            work::Entity,
            Expr::col((work::Entity, work::Column::MachineId)).equals((machine::Entity, machine::Column::MachineId)),
        )
        .and_where(Expr::col((work::Entity, work::Column::WorkId)).is_in(works.iter().copied()));
    let ask = async |tx: &Tx| {
        let rows = tx.query_all(&select).await?;
        let taken = rows.iter().map(|row| {
            Ok(ClaimedMachine {
                work: row.try_get("", "bmdb_work")?,
                seen: Candidate::read(row)?,
            })
        });
        taken.collect::<Result<Vec<_>, DbErr>>().map_err(Error::from)
    };
    runner.run(ask).await.or_else(TxError::or_read)
}
