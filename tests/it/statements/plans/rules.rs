//! What must hold for every statement, with the exceptions and their reasons.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

use super::log::Execution;
use super::scene::{REFRESH, Seen};

/// A table of more rows is not read from one end to the other.
pub(crate) const FEW_ROWS: u32 = 1000;
/// The pages that an operation may touch, at any size of the fleet.
const BUFFERS: u64 = 120;
/// After five executions on a connection the server may plan for all values at once.
const BOTH_KINDS_OF_PLANS: usize = 6;

/// An operation that may touch more pages, and why.
const MORE_BUFFERS: &[(&str, u64, &str)] = &[
    ("claim many", 700, "it takes ten machines"),
    ("cancel many", 700, "it ends ten works"),
    (
        "remove a machine",
        400,
        "it deletes from nine tables, and asks the catalogue which others refer to machines",
    ),
    ("list holds", 1200, A_PAGE),
    ("list holds from the middle", 1200, A_PAGE),
    ("list backoffs", 1200, A_PAGE),
    (
        "list sessions",
        20_000,
        "it has a thousand sessions, each with its lease and ten works, which are counted",
    ),
    ("list backoffs from the middle", 1200, A_PAGE),
    ("list works", 12_000, OF_MANY_TABLES),
    ("list works from the middle", 12_000, OF_MANY_TABLES),
    ("list machines", 8000, OF_MANY_TABLES),
    ("list machines from the middle", 8000, OF_MANY_TABLES),
    ("list held machines", 12_000, OF_MANY_TABLES),
    (
        "claim with a filter",
        30_000,
        "it walks the fleet until it has met nine that are eligible, from a random start",
    ),
    (
        "claim that searches",
        1_000_000,
        "it walks the fleet until it has met five hundred that are eligible, from a random start and up to it",
    ),
    (
        "collect",
        1500,
        "a sweep reads every session and its lease, a page for each hundred of them, notes what it has seen of those that wait to be expired, and expires some \
         in one transaction, at fewer pages each than to close one takes",
    ),
];

const OF_MANY_TABLES: &str =
    "it has a thousand rows, for each of which some more tables are looked into by key, a few pages each";
const A_PAGE: &str = "it has a thousand rows, each on a page of its own where machines came at random";

/// A large table that one statement may read whole, and why.
const MAY_SCAN: &[(&str, &[&str], &str)] = &[
    (
        "m.machine_id IN (SELECT DISTINCT machine_id FROM work_hold",
        &["machine"],
        "a page of a thousand: a hundred thousand machines stand on 820 pages, sooner read than a thousand of them looked up one by one",
    ),
    (
        "FROM session s LEFT JOIN session_lease l",
        &["session", "session_lease"],
        "a sweep looks at every lease: an index on the deadline would cost each heartbeat more than it would save here",
    ),
    (
        r#"WITH candidates AS ((SELECT "machine"."machine_id" FROM "machine" INNER JOIN "machine_provided""#,
        &["machine_agent_started", "work", "work_backoff", "work_hold"],
        "from some random starts a search meets tens of thousands of machines before its five hundred, and to read whole what excludes some of them costs \
         less than to look each of them up (seen: the keys of a tag, 7,280 pages for 50,945 machines; all holds, 25 pages for 63,478)",
    ),
];

/// A lock that keeps others from referring to the row, and why.
const MAY_EXCLUDE_REFERENCES: &[(&str, &str)] = &[(
    "SELECT session_id FROM session WHERE session_id ",
    "whoever closes or expires a session deletes its row next, which takes this lock anyway, and must first wait for those who refer to it: claims and \
     bodies hold FOR KEY SHARE, which the weaker FOR NO KEY UPDATE would let pass",
)];

/// What the rules need to know of the database.
pub(crate) struct Tables {
    /// Those with more than a few rows.
    pub(crate) large: BTreeSet<String>,
    /// Those that foreign keys refer to.
    pub(crate) referred_to: BTreeSet<String>,
}

/// Everything that does not hold of what was seen.
pub(crate) fn broken(seen: &[Seen], tables: &Tables) -> Vec<String> {
    let mut broken = BTreeSet::new();
    for seen in seen {
        let operation = seen.operation;
        let exception = MORE_BUFFERS.iter().find(|(name, ..)| *name == operation);
        let most = exception.map_or(BUFFERS, |(_, most, _)| *most);
        if seen.buffers() > most {
            let pages = seen.buffers();
            broken.insert(format!(
                "{operation} touches {pages} pages, {most} may be:\n{}",
                seen.dearest()
            ));
        }
        if operation != REFRESH && seen.repeated() < BOTH_KINDS_OF_PLANS {
            broken.insert(format!("{operation} ran {} times on one connection", seen.repeated()));
        }
        for execution in seen.runs.iter().flatten() {
            let scanned = scanned(execution, &tables.large);
            broken.extend(scanned.map(|table| {
                format!(
                    "{operation} reads all of {table}:\n{}\n{}",
                    execution.text,
                    execution.tree()
                )
            }));
            let locked = excluded(&execution.text, &tables.referred_to);
            broken.extend(locked.map(|table| format!("{operation} locks {table} FOR UPDATE: {}", execution.text)));
        }
    }
    broken.into_iter().collect()
}

/// The large tables that a statement reads whole and should not.
fn scanned<'e>(execution: &'e Execution, large: &BTreeSet<String>) -> impl Iterator<Item = &'e str> {
    let may = MAY_SCAN.iter().find(|(text, ..)| execution.text.contains(text));
    let may = may.map_or(&[][..], |(_, tables, _)| *tables);
    let scanned = execution.scanned().into_iter();
    scanned.filter(move |table| large.contains(*table) && !may.contains(table))
}

/// The tables that foreign keys refer to and a statement locks FOR UPDATE, which waits for everybody who refers to the row, and has everybody who is
/// about to refer to it wait: two who do so in different orders wait for each other. FOR NO KEY UPDATE excludes other writers only.
fn excluded<'t>(text: &str, referred_to: &'t BTreeSet<String>) -> impl Iterator<Item = &'t String> {
    static LOCK: LazyLock<Regex> = LazyLock::new(|| {
        let pattern = r"\bFOR UPDATE\b(?: OF (?<named>[\w, ]+?)(?: SKIP LOCKED| NOWAIT|[;)]|$))?";
        Regex::new(pattern).expect("is a pattern")
    });
    static FROM: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"(?:FROM|JOIN) "?(\w+)"?"#).expect("is a pattern"));
    let may = MAY_EXCLUDE_REFERENCES
        .iter()
        .any(|(pardoned, _)| text.trim().starts_with(pardoned));
    let mut locked: BTreeSet<String> = BTreeSet::new();
    for found in LOCK.captures_iter(text).filter(|_| !may) {
        match found.name("named") {
            Some(names) => locked.extend(names.as_str().split(',').map(|name| name.trim().to_owned())),
            // Every table of the statement, as far as can be told from its text.
            None => locked.extend(FROM.captures_iter(text).map(|found| found[1].to_owned())),
        }
    }
    referred_to.iter().filter(move |table| locked.contains(*table))
}

#[test]
fn a_lock_that_excludes_references_is_seen() {
    let referred_to = BTreeSet::from(["machine".to_owned(), "session".to_owned()]);
    let excluded = |text: &str| excluded(text, &referred_to).cloned().collect::<Vec<_>>();
    assert_eq!(
        excluded("SELECT fence FROM machine WHERE machine_id = $1 FOR UPDATE"),
        ["machine"]
    );
    assert_eq!(
        excluded(r#"SELECT a FROM "machine" JOIN work ON true FOR UPDATE OF work, machine SKIP LOCKED"#),
        ["machine"]
    );
    assert_eq!(
        excluded("SELECT s.session_id FROM work w JOIN session s ON true FOR UPDATE"),
        ["session"]
    );
    for good in [
        "SELECT fence FROM machine WHERE machine_id = $1 FOR NO KEY UPDATE",
        "SELECT a FROM machine JOIN work_candidate ON true FOR UPDATE OF work_candidate SKIP LOCKED",
        "SELECT session_id FROM session WHERE session_id = $1 FOR KEY SHARE",
        "SELECT machine_id FROM work WHERE session_id = $1 FOR UPDATE",
    ] {
        assert_eq!(excluded(good), Vec::<String>::new(), "{good}");
    }
}
