//! What came of one attempt to claim, and what of it is whose when several share it.

use bmdb_entity::WorkId;
use sea_orm::Condition;

use crate::rules::claim_plan::{AttemptReport, CandidateSource};
use crate::rules::process::Process;
use crate::store::candidate::ClaimedMachine;
use crate::store::end::EndRequest;
use crate::store::rule::Rule;

/// A claim, as the statements of one attempt need it.
#[derive(Clone, Copy)]
pub(crate) struct ClaimRequest<'a> {
    pub(crate) rule: &'a Rule,
    pub(crate) source: CandidateSource,
    /// What else a machine must meet.
    pub(crate) filter: &'a Condition,
    /// The ids of the works that are to be: one for each machine that it wants.
    pub(crate) works: &'a [WorkId],
    /// Works that are to end first.
    pub(crate) after: &'a [EndRequest],
    /// The search that had begun when the claim started.
    pub(crate) baseline: Option<i64>,
}

/// What came of it.
pub(crate) struct Attempt<P: Process> {
    /// The works that were to end first, as far as they were ours.
    pub(crate) ended: Vec<WorkId>,
    pub(crate) taken: Vec<ClaimedMachine<P>>,
    /// `None`: it did not ask.
    pub(crate) report: Option<AttemptReport>,
    /// That it took nothing says nothing of others: it was not made, was refused, or nobody knows what became of it.
    pub(crate) is_void: bool,
}

impl<P: Process> Attempt<P> {
    /// Something was eligible, and others were faster.
    pub(crate) fn lost_race() -> Self {
        Self {
            ended: Vec::new(),
            taken: Vec::new(),
            report: Some(AttemptReport::LOST_RACE),
            is_void: false,
        }
    }

    /// Another is to be made, as after a lost race, which this was not.
    pub(crate) fn void() -> Self {
        Self {
            is_void: true,
            ..Self::lost_race()
        }
    }

    /// It has taken effect.
    pub(crate) fn has_seen_searches(&self) -> bool {
        self.report.is_some_and(|report| report.searches.is_some())
    }

    /// Splits it among those who share the statement, in their order: `asked` says how many works each wants. One that follows an end in `to_end` gets a machine
    /// only if that end took effect; the search lease goes to the first that can take it.
    pub(crate) fn split(
        self,
        asked: impl Iterator<Item = (usize, bool)>,
        to_end: &[EndRequest],
    ) -> impl Iterator<Item = Self> {
        let took_some = !self.taken.is_empty();
        let (mut taken, mut search_lease) = (
            self.taken.into_iter(),
            self.report.and_then(|report| report.search_lease),
        );
        asked.enumerate().map(move |(place, (works, can_search))| {
            let left = to_end.get(place).map(|to_end| to_end.key.work);
            let ended: Vec<WorkId> = left.filter(|left| self.ended.contains(left)).into_iter().collect();
            let many = if left.is_some() { ended.len() } else { works };
            let taken: Vec<_> = taken.by_ref().take(many).collect();
            let report = match self.report {
                Some(report) => Some(AttemptReport {
                    search_lease: search_lease.take_if(|_| can_search),
                    ..report
                }),
                // There was something, which the others have.
                None if taken.is_empty() && took_some => Some(AttemptReport::LOST_RACE),
                None => None,
            };
            Self {
                ended,
                taken,
                report,
                is_void: self.is_void,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use bmdb_entity::{Fence, MachineId, machine};
    use chrono::DateTime;

    use super::*;
    use crate::rules::process::tests::Survey;
    use crate::store::candidate::Candidate;

    fn taken() -> ClaimedMachine<Survey> {
        let (machine_id, fence) = (MachineId::random(), Fence(1));
        ClaimedMachine {
            work: WorkId::random(),
            seen: Candidate {
                machine: machine_id,
                fence,
                failures: None,
                item: Ok(machine::Model {
                    machine_id,
                    created_at: DateTime::UNIX_EPOCH,
                    fence,
                }),
            },
        }
    }

    fn attempt(works: usize, report: Option<AttemptReport>) -> Attempt<Survey> {
        Attempt {
            ended: Vec::new(),
            taken: (0..works).map(|_| taken()).collect(),
            report,
            is_void: false,
        }
    }

    #[test]
    fn those_who_asked_first_get_what_they_asked_for() {
        let attempt = attempt(5, None);
        let all: Vec<WorkId> = attempt.taken.iter().map(|taken| taken.work).collect();
        let split: Vec<_> = attempt
            .split([(2, false), (2, false), (2, false)].into_iter(), &[])
            .collect();
        let works = split
            .iter()
            .map(|split| split.taken.iter().map(|taken| taken.work).collect());
        let works: Vec<Vec<WorkId>> = works.collect();
        assert_eq!(works, [&all[..2], &all[2..4], &all[4..]]);
    }

    #[test]
    fn who_gets_nothing_of_what_was_taken_has_lost_a_race() {
        let lost = |works, asked: usize| -> Vec<bool> {
            let split = attempt(works, None).split((0..asked).map(|_| (1, false)), &[]);
            split
                .map(|split| split.report.is_some_and(|report| report.eligible))
                .collect()
        };
        assert_eq!(lost(2, 3), [false, false, true]);
        assert_eq!(lost(0, 2), [false, false], "there was nothing");
    }

    #[test]
    fn the_search_lease_goes_to_one_claim_that_can_take_it() {
        let report = AttemptReport {
            search_lease: Some(7),
            eligible: false,
            ..AttemptReport::LOST_RACE
        };
        let leases = |asked: &[bool]| -> Vec<Option<i64>> {
            let asked = asked.iter().map(|can_search| (1, *can_search));
            attempt(0, Some(report))
                .split(asked, &[])
                .map(|split| split.report.and_then(|report| report.search_lease))
                .collect()
        };
        assert_eq!(leases(&[false, true, true]), [None, Some(7), None]);
        assert_eq!(leases(&[false]), [None]);
    }
}
