//! Why a process works on a machine, or does not: by the very rule that claims use, clause by clause.

use bmdb::entity::{work_backoff, work_hold};
use bmdb::{Error, Explanation, Holder, MachineId, Obstacles, StoredRule};
use chrono::{DateTime, Utc};

use crate::facts::process::unasked;
use crate::failure::Failure;
use crate::source::Source;

/// Why one process does what it does with one machine.
pub(crate) struct Why {
    /// By each of its rules that could be asked; the one that is nearest to letting it in first.
    pub(crate) explained: Vec<(StoredRule, Explanation)>,
    /// Why others could not.
    pub(crate) unread: Vec<String>,
    /// BMDB's own reasons, which are there whatever a rule asks.
    pub(crate) obstacles: Obstacles,
    pub(crate) at: DateTime<Utc>,
}

/// One thing that must be so.
pub(crate) enum Clause<'a> {
    /// The process's own.
    OfRule { what: &'a str, met: bool },
    /// Nobody works in the slot.
    Slot(Option<&'a Holder>),
    /// The process does not leave the machine alone.
    Backoff(Option<&'a work_backoff::Model>),
    /// Nothing holds the slot or the machine.
    NoHold,
    /// Something does.
    Hold(&'a work_hold::Model),
}

impl Clause<'_> {
    pub(crate) fn is_met(&self) -> bool {
        match self {
            Self::OfRule { met, .. } => *met,
            Self::Slot(holder) => holder.is_none(),
            Self::Backoff(backoff) => backoff.is_none(),
            Self::NoHold => true,
            Self::Hold(_) => false,
        }
    }

    /// When it will be met, if time alone brings that.
    pub(crate) fn ends_at(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Backoff(backoff) => backoff.and_then(|backoff| backoff.until),
            Self::Hold(hold) => hold.until,
            _ => None,
        }
    }
}

impl Why {
    /// The rule that is nearest to letting it in, and what it says.
    pub(crate) fn best(&self) -> Option<&(StoredRule, Explanation)> {
        self.explained.first()
    }

    /// The process's own clauses, by that rule.
    pub(crate) fn of_rule(&self) -> Vec<Clause<'_>> {
        let clauses = self.best().map(|(_, explanation)| explanation.clauses.as_slice());
        let clauses = clauses.unwrap_or_default().iter();
        clauses
            .map(|clause| Clause::OfRule {
                what: &clause.clause,
                met: clause.met,
            })
            .collect()
    }

    /// BMDB's own: the slot, the backoff, the holds.
    pub(crate) fn of_bmdb(&self) -> Vec<Clause<'_>> {
        let own = &self.obstacles;
        let mut clauses = vec![Clause::Slot(own.holder.as_ref()), Clause::Backoff(own.backoff.as_ref())];
        if own.holds.is_empty() {
            clauses.push(Clause::NoHold);
        }
        clauses.extend(own.holds.iter().map(Clause::Hold));
        clauses
    }
}

/// Asks each rule of the process, and BMDB itself.
pub(crate) async fn read(source: &Source, machine: MachineId, process: &str) -> Result<Why, Failure> {
    let mut explained: Vec<(StoredRule, Explanation)> = Vec::new();
    let mut unread = Vec::new();
    for rule in source.reader().rules(process).await? {
        match rule.explain(machine).await {
            Ok(explanation) => explained.push((rule, explanation)),
            Err(error @ Error::UnknownMachine { .. }) => return Err(error.into()),
            Err(error) => unread.push(unasked(&error)),
        }
    }
    // Where no rule could be asked, BMDB's own reasons are all that can be said.
    let obstacles = source.bmdb.obstacles(process, machine).await?;
    let at = source.bmdb.now().await?;
    // By several rules, as in a rolling update, it is eligible if it is by one.
    explained.sort_by_key(|(_, explanation)| (!explanation.eligible, unmet(explanation)));
    Ok(Why {
        explained,
        unread,
        obstacles,
        at,
    })
}

fn unmet(explanation: &Explanation) -> usize {
    explanation.clauses.iter().filter(|clause| !clause.met).count()
}
