//! The protocol holds in every state of the quick runs, and these runs are not vacuous.

use std::collections::BTreeSet;

use bmdb_model::catalog::QUICK;
use bmdb_model::{Until, search};

#[test]
fn every_state_of_the_quick_runs_keeps_every_property() {
    let mut never_seen: Option<BTreeSet<&str>> = None;
    for run in &QUICK {
        let report = search(run.config, 2, Until::Complete);
        println!("{}: {report}", run.name);
        assert_eq!(report.broken_names(), [""; 0], "{}", run.name);
        let unseen: BTreeSet<&str> = report.unseen().into_iter().collect();
        never_seen = Some(match never_seen {
            None => unseen,
            Some(before) => &before & &unseen,
        });
    }
    let never_seen: Vec<&str> = never_seen.into_iter().flatten().collect();
    assert_eq!(never_seen, [""; 0], "these must happen in one run or another");
}
