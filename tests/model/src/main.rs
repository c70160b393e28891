//! Searches every published run completely and prints what was found; the exit status says whether it is what was expected.

use std::process::ExitCode;

use bmdb_model::{Report, Until, catalog, property, search};

const THREADS: usize = 2;

fn main() -> ExitCode {
    let mut as_expected = true;
    println!("Properties:");
    property::ALL.iter().for_each(|name| println!("  {name}"));
    println!("\nWhat holds:");
    for run in catalog::QUICK.iter().chain(&catalog::COMPLETE) {
        let report = search(run.config, THREADS, Until::Complete);
        print!("{}: {report}", run.name);
        as_expected &= report.broken.is_empty();
    }
    println!("\nWhat each mechanism is for:");
    for ablation in &catalog::ABLATIONS {
        let report = search(ablation.config, 1, Until::AnythingBroken);
        println!("without {:?}: {}", ablation.config.without, in_short(&report));
        as_expected &= report.broken_names() == [ablation.caught_by];
    }
    if as_expected {
        ExitCode::SUCCESS
    } else {
        println!("\nNOT AS EXPECTED");
        ExitCode::FAILURE
    }
}

fn in_short(report: &Report) -> String {
    let lengths = report
        .broken
        .iter()
        .map(|broken| format!("{} after {} steps", broken.property, broken.steps.len()));
    lengths.collect::<Vec<_>>().join("; ")
}
