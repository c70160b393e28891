//! What a claim chooses from, and what it does next when it has taken nothing: decided without a database.

use std::time::Duration;

use bmdb_entity::MachineId;
use sea_orm::{DbErr, QueryResult};

use crate::db::dialect::Dialect;
use crate::runtime::retry::{pause_after, pause_for_a_search};

/// How many candidates a claim reads in each part, beside those that it wants to take.
const SPARE_CANDIDATES: u64 = 8;

/// How many machines a search finds in each part.
pub(crate) const SEARCH_LIMIT: u64 = 500;

/// What a claim chooses from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CandidateSource {
    /// What others have found, of which there is probably enough: the claim takes, and does nothing else.
    HintsOnly,
    /// What others have found, of which there may be nothing left: the claim says so, removes what it disproves, and takes the search lease.
    HintsThenSearch,
    /// The whole fleet, in the search of this number; what is found and not taken is left as hints.
    Search(i64),
    /// The whole fleet, for this claim alone: it has a filter or an order of its own.
    Scan,
    /// One machine.
    Machine(MachineId),
}

impl CandidateSource {
    const MOST_SKIPPED: u64 = 8;

    /// Whether it is what others have found.
    pub(crate) fn is_by_hints(self) -> bool {
        matches!(self, Self::HintsOnly | Self::HintsThenSearch)
    }

    /// How many candidates a claim of `count` machines reads in each part: before and after its start.
    pub(crate) fn window(self, count: u64) -> u64 {
        match self {
            Self::Search(_) => std::cmp::max(SEARCH_LIMIT, count),
            Self::HintsOnly | Self::HintsThenSearch | Self::Scan | Self::Machine(_) => count + SPARE_CANDIDATES,
        }
    }

    /// Whether there may be more candidates than those so many that a claim of `count` machines has read.
    pub(crate) fn may_have_more(self, candidates: u64, count: u64) -> bool {
        candidates >= self.window(count)
    }

    /// How many hints it reads in each part, those that it may pass over among them.
    pub(crate) fn scan_limit(self, count: u64) -> u64 {
        self.window(count) + Self::MOST_SKIPPED
    }

    /// Whether a claim from it can be made in one statement with the end of a work, of the claim's own session or not.
    pub(crate) fn shares_a_statement(self, is_its_own: bool, dialect: Dialect) -> bool {
        // CockroachDB modifies a table once in a statement at most (its issue 70731).
        is_its_own && self.is_by_hints() && dialect != Dialect::Cockroach
    }

    /// How many hints after its start a claim passes over. Without, a machine would be the first one as seldom as its key is near the one
    /// before it: of a hundred machines, some one in ten thousand claims, and not in a hundred.
    pub(crate) fn skip(self) -> u64 {
        match self {
            Self::HintsOnly => fastrand::u64(0..=Self::MOST_SKIPPED),
            Self::HintsThenSearch | Self::Search(_) | Self::Scan | Self::Machine(_) => 0,
        }
    }
}

/// The searches for a process, as an attempt to claim found them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SearchProgress {
    begun: i64,
    ended: i64,
}

impl SearchProgress {
    /// Its columns.
    pub(crate) const COLUMNS: &str = "work_retrieval.begun AS bmdb_begun, work_retrieval.ended AS bmdb_ended";

    /// `None`: the process has no row.
    pub(crate) fn read(row: &QueryResult) -> Result<Option<Self>, DbErr> {
        let Some(begun) = row.try_get("", "bmdb_begun")? else {
            return Ok(None);
        };
        Ok(Some(Self {
            begun,
            ended: row.try_get("", "bmdb_ended")?,
        }))
    }

    /// The search that has begun by now, if none was begun since.
    pub(crate) fn now(&self) -> i64 {
        self.begun
    }

    /// Whether a search that began after that one has ended.
    pub(crate) fn has_ended_since(&self, begun: i64) -> bool {
        self.ended > begun
    }
}

/// What an attempt to claim tells of the candidates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttemptReport {
    /// There may be more than it has read.
    pub(crate) more: bool,
    /// Some of them were eligible.
    pub(crate) eligible: bool,
    /// Nobody may claim for the process.
    pub(crate) paused: bool,
    /// The number of the search whose lease this claim has taken: it is to make it.
    pub(crate) search_lease: Option<i64>,
    pub(crate) searches: Option<SearchProgress>,
}

/// What a claim does that has taken nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// It chooses once more.
    Retry(CandidateSource),
    /// It adds the row that counts the process's searches, and chooses once more from what it has chosen from.
    EnsureSearchRow,
    /// Nothing was there.
    NothingThere,
}

impl AttemptReport {
    /// Something was eligible, and others were faster.
    pub(crate) const LOST_RACE: Self = Self {
        more: false,
        eligible: true,
        paused: false,
        search_lease: None,
        searches: None,
    };

    /// What a claim does next that has chosen from `source`, was told this, and has taken nothing. `searched`: a search that began after its first look
    /// has ended.
    pub(crate) fn next(&self, source: CandidateSource, searched: bool) -> Step {
        match (source, self.search_lease) {
            _ if self.paused => Step::NothingThere,
            (_, Some(number)) => Step::Retry(CandidateSource::Search(number)),
            // Others were faster.
            (CandidateSource::Search(_), _) if self.eligible => Step::Retry(CandidateSource::HintsThenSearch),
            (_, _) if self.eligible => Step::Retry(source),
            (CandidateSource::HintsOnly, _) => Step::Retry(CandidateSource::HintsThenSearch),
            (CandidateSource::HintsThenSearch, _) if self.searches.is_none() => Step::EnsureSearchRow,
            // There may be more hints, or somebody is searching.
            (CandidateSource::HintsThenSearch, _) if !searched || self.more => Step::Retry(source),
            _ => Step::NothingThere,
        }
    }

    /// How long it pauses before it chooses from `next`, after so many rounds. `None`: it is to search itself, or there is more than it has read.
    pub(crate) fn pause(&self, next: CandidateSource, rounds: u32, elapsed: Duration) -> Option<Duration> {
        if self.search_lease.is_some() || self.more {
            None
        } else if next == CandidateSource::HintsThenSearch && !self.eligible {
            Some(pause_for_a_search(elapsed))
        } else {
            Some(pause_after(rounds))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: AttemptReport = AttemptReport {
        more: false,
        eligible: false,
        paused: false,
        search_lease: None,
        searches: Some(SearchProgress { begun: 7, ended: 7 }),
    };
    const ELIGIBLE: AttemptReport = AttemptReport {
        eligible: true,
        ..REPORT
    };

    #[test]
    fn a_claim_looks_at_more_than_it_wants_on_both_sides_of_its_start() {
        for count in [1, 10, 1000] {
            for source in [
                CandidateSource::HintsOnly,
                CandidateSource::HintsThenSearch,
                CandidateSource::Scan,
            ] {
                assert_eq!(source.window(count), count + SPARE_CANDIDATES);
                assert_eq!(
                    source.scan_limit(count),
                    count + SPARE_CANDIDATES + CandidateSource::MOST_SKIPPED
                );
            }
            assert!(CandidateSource::Search(1).window(count) >= std::cmp::max(SEARCH_LIMIT, count));
        }
    }

    #[test]
    fn there_may_be_more_when_a_claim_saw_all_that_it_looks_at() {
        let window = CandidateSource::HintsThenSearch.window(3);
        let may = |candidates, count| CandidateSource::HintsThenSearch.may_have_more(candidates, count);
        assert!(may(window, 3) && may(window + 1, 3));
        assert!(!may(0, 3) && !may(window - 1, 3) && !may(window, 4));
    }

    #[test]
    fn only_who_takes_from_plenty_passes_over_some() {
        let skips = |source: CandidateSource| (0..1000).map(move |_| source.skip());
        let mut of_plenty: Vec<u64> = skips(CandidateSource::HintsOnly).collect();
        of_plenty.sort();
        of_plenty.dedup();
        assert_eq!(of_plenty, (0..=CandidateSource::MOST_SKIPPED).collect::<Vec<_>>());
        assert!(
            [
                CandidateSource::HintsThenSearch,
                CandidateSource::Scan,
                CandidateSource::Search(1)
            ]
            .into_iter()
            .all(|source| skips(source).all(|skip| skip == 0))
        );
    }

    #[test]
    fn who_has_the_search_lease_searches() {
        for source in [CandidateSource::HintsOnly, CandidateSource::HintsThenSearch] {
            for report in [REPORT, ELIGIBLE] {
                let report = AttemptReport {
                    search_lease: Some(8),
                    ..report
                };
                assert_eq!(report.next(source, true), Step::Retry(CandidateSource::Search(8)));
            }
        }
    }

    #[test]
    fn who_has_more_to_look_at_does_not_pause() {
        let is_at_once = |more, search_lease| {
            let report = AttemptReport {
                more,
                search_lease,
                ..REPORT
            };
            report
                .pause(CandidateSource::HintsThenSearch, 1, Duration::ZERO)
                .is_none()
        };
        assert!(is_at_once(false, Some(8)) && is_at_once(true, None));
        assert!(!is_at_once(false, None));
    }

    #[test]
    fn who_waits_for_a_search_asks_seldom_and_who_lost_a_race_soon() {
        let longest = |report: AttemptReport, next: CandidateSource| {
            let pauses = (0..100).map(|_| report.pause(next, 1, Duration::from_secs(80)));
            pauses.flatten().max().expect("it pauses")
        };
        let soon = Duration::from_millis(2);
        assert!(longest(REPORT, CandidateSource::HintsThenSearch) > Duration::from_secs(1));
        assert!(longest(ELIGIBLE, CandidateSource::HintsThenSearch) <= soon);
        assert!(longest(REPORT, CandidateSource::Scan) <= soon);
    }

    #[test]
    fn who_lost_a_race_chooses_again() {
        let machine = CandidateSource::Machine(MachineId::random());
        for source in [
            CandidateSource::HintsOnly,
            CandidateSource::HintsThenSearch,
            CandidateSource::Scan,
            machine,
        ] {
            assert_eq!(ELIGIBLE.next(source, true), Step::Retry(source));
            assert_eq!(AttemptReport::LOST_RACE.next(source, true), Step::Retry(source));
        }
        assert_eq!(
            ELIGIBLE.next(CandidateSource::Search(7), true),
            Step::Retry(CandidateSource::HintsThenSearch)
        );
    }

    #[test]
    fn who_has_looked_everywhere_finds_nothing() {
        for source in [
            CandidateSource::Search(7),
            CandidateSource::Scan,
            CandidateSource::Machine(MachineId::random()),
        ] {
            assert_eq!(REPORT.next(source, false), Step::NothingThere);
        }
        assert_eq!(REPORT.next(CandidateSource::HintsThenSearch, true), Step::NothingThere);
        assert_eq!(
            REPORT.next(CandidateSource::HintsOnly, true),
            Step::Retry(CandidateSource::HintsThenSearch)
        );
    }

    #[test]
    fn nothing_is_there_for_a_process_that_is_paused() {
        // Whatever else the claim was told: it is not to try again, nor to search, nor to wait for a search.
        for told in [REPORT, ELIGIBLE, AttemptReport { more: true, ..REPORT }] {
            let paused = AttemptReport { paused: true, ..told };
            for source in [
                CandidateSource::HintsThenSearch,
                CandidateSource::Scan,
                CandidateSource::Search(7),
            ] {
                assert_eq!(paused.next(source, false), Step::NothingThere);
            }
        }
    }

    #[test]
    fn who_has_seen_a_part_of_the_hints_looks_at_others() {
        let more = AttemptReport { more: true, ..REPORT };
        assert_eq!(
            more.next(CandidateSource::HintsThenSearch, true),
            Step::Retry(CandidateSource::HintsThenSearch)
        );
    }

    #[test]
    fn who_found_no_hints_waits_for_a_search() {
        assert_eq!(
            REPORT.next(CandidateSource::HintsThenSearch, false),
            Step::Retry(CandidateSource::HintsThenSearch)
        );
        let none = AttemptReport {
            searches: None,
            ..REPORT
        };
        assert_eq!(
            none.next(CandidateSource::HintsThenSearch, false),
            Step::EnsureSearchRow
        );
    }

    #[test]
    fn a_search_counts_that_began_after_the_first_look() {
        let searches = SearchProgress { begun: 8, ended: 7 };
        assert_eq!(searches.now(), 8);
        assert!(searches.has_ended_since(6) && !searches.has_ended_since(7));
    }

    #[test]
    fn only_a_session_s_own_claim_by_hints_shares_a_statement_with_an_end() {
        let all = [
            CandidateSource::HintsOnly,
            CandidateSource::HintsThenSearch,
            CandidateSource::Scan,
            CandidateSource::Search(1),
            CandidateSource::Machine(MachineId::random()),
        ];
        for dialect in [Dialect::Postgres, Dialect::Sqlite] {
            assert_eq!(
                all.map(|source| source.shares_a_statement(true, dialect)),
                [true, true, false, false, false]
            );
        }
        assert_eq!(
            all.map(|source| source.shares_a_statement(true, Dialect::Cockroach)),
            [false; 5]
        );
        assert_eq!(
            all.map(|source| source.shares_a_statement(false, Dialect::Postgres)),
            [false; 5]
        );
    }
}
