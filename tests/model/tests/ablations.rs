//! Each mechanism is needed, and the model sees what happens without it.

use bmdb_model::catalog::{ABLATIONS, FAIL_OVER};
use bmdb_model::config::Clock;
use bmdb_model::property::{I2, I3, I6};
use bmdb_model::{Config, Mechanism, Until, search};

#[test]
fn without_a_mechanism_its_property_breaks_and_no_other() {
    for ablation in &ABLATIONS {
        let Config { without, .. } = ablation.config;
        let report = search(ablation.config, 1, Until::AnythingBroken);
        assert_eq!(report.broken_names(), [ablation.caught_by], "without {without:?}");
        let steps = report.broken[0].steps.len();
        println!("without {without:?}: {} after {steps} steps", ablation.caught_by);
        if let Some(property) = ablation.leads_to {
            let report = search(ablation.config, 1, Until::IsBroken(property));
            let broken = report.broken.iter().find(|broken| broken.property == property);
            let steps = broken.expect("this is what it leads to").steps.len();
            println!("without {without:?}: and {property} after {steps} steps");
        }
    }
}

/// The lock of the work's row is redundant as long as a work's row goes only with its session, or by its own session's end.
#[test]
fn the_work_lock_guards_against_operators_who_delete_works() {
    let config = Config {
        bodies: true,
        clock: Clock::Steady,
        interval: 1,
        ..Config::core()
    };
    let deleting = config.without(&[Mechanism::BreakSession]);
    let names = search(deleting, 2, Until::Complete).broken_names();
    assert!(
        !names.contains(&I2),
        "with it no transaction of a work commits late: {names:?}"
    );
    let unlocked = config.without(&[Mechanism::WorkLock]);
    assert_eq!(search(unlocked, 2, Until::Complete).broken_names(), [""; 0]);
}

/// Whoever the database has forgotten believes on, and its fence is nobody else's: a resource that compares fences takes commands from the later one.
#[test]
fn an_asynchronous_fail_over_grants_no_fence_twice() {
    let names = search(FAIL_OVER, 2, Until::Complete).broken_names();
    assert!(names.contains(&I3) && !names.contains(&I6), "{names:?}");
}
