//! Processes as values: each value's rule has hints and statements of its own, what is wrong with one is told when it is registered, and what the database keeps
//! of it says the same as the code.

mod by_name;

use std::collections::HashSet;
use std::time::Duration;

use bmdb::{
    Backoff, Eligible, Error, MachineId, Process, Registered, Session, agent_heartbeat, agent_started, machine,
    provided,
};
use bmdb_entity::{process, process_rule, work_candidate, work_retrieval};
use futures_util::future::join_all;
use harness::{Backend, TestDatabase, of, on_each_backend};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ColumnTrait, DatabaseConnection, EntityTrait, PaginatorTrait, QueryFilter};

use crate::input::hostile::log::Kept;
use crate::world::{AgentStart, connect, provide, row_counts, session, tamper};

/// Its machines are one provider's, and none that has an agent.
#[derive(Clone, Default)]
pub(crate) struct Start {
    provider: String,
}

pub(crate) fn of_provider(provider: &str) -> Start {
    Start {
        provider: provider.to_owned(),
    }
}

impl Process for Start {
    const NAME: &'static str = "start";
    const BACKOFF: Backoff = Backoff::constant(Duration::from_secs(300));
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines
            .when("is of our provider", provided::Column::Provider.eq(&*self.provider))
            .lacks::<agent_started::Entity>()
    }
}

/// So many machines of a provider.
pub(crate) async fn provide_of(session: &Session, provider: &str, count: usize) -> Vec<MachineId> {
    let new: Vec<machine::NewMachine> = (0..count)
        .map(|nth| machine::NewMachine::new(provider, format!("{provider}-{nth}")))
        .collect();
    let made = session.transact(async |tx| {
        let mut made = Vec::with_capacity(new.len());
        for new in &new {
            made.push(machine::provide(tx, new.clone()).await?);
        }
        Ok::<_, Error>(made)
    });
    made.await.unwrap()
}

/// Claims and ends until nothing is there. The machines, and whether each was of this provider.
async fn work_off(session: &Session, start: &Registered<Start>) -> Vec<(MachineId, bool)> {
    let mut done = Vec::new();
    let mut next = session.claim(start).await.unwrap();
    while let Some(work) = next {
        done.push((work.machine(), work.provider == start.process().provider));
        let end = work.done().stating(agent_started::row(*b"key"));
        next = end.then(session.claim(start)).await.unwrap().unwrap();
    }
    done
}

async fn rules_of(raw: &DatabaseConnection, name: &str) -> Vec<process_rule::Model> {
    let rules = process_rule::Entity::find().filter(process_rule::Column::Process.eq(name));
    rules.all(raw).await.unwrap()
}

on_each_backend! {
    async fn two_values_of_one_type_never_share_a_statement(db: TestDatabase) {
        let session = session(&db).await;
        let mut machines = provide_of(&session, "north", 100).await;
        machines.extend(provide_of(&session, "south", 100).await);
        let bmdb = session.bmdb();
        let starts = [bmdb.register(of_provider("north")).await.unwrap(), bmdb.register(of_provider("south")).await.unwrap()];
        assert_ne!(starts[0].digest(), starts[1].digest());
        let tasks = (0..64).map(|nth| work_off(&session, &starts[nth % 2]));
        let done: Vec<(MachineId, bool)> = join_all(tasks).await.into_iter().flatten().collect();
        assert!(done.iter().all(|(_, is_own)| *is_own), "a work has the other's provider");
        let done: HashSet<MachineId> = done.iter().map(|(machine, _)| *machine).collect();
        assert_eq!(done, machines.into_iter().collect(), "each was worked on");
    }

    /// With hints by name either would find the other's, and a claim could answer that nothing is eligible.
    async fn components_with_a_provider_each_work_off_all_of_theirs(db: TestDatabase) {
        let (one, other) = (session(&db).await, session(&db).await);
        let (north, south) = (provide_of(&one, "north", 120).await, provide_of(&one, "south", 40).await);
        let of_north = one.bmdb().register(of_provider("north")).await.unwrap();
        let of_south = other.bmdb().register(of_provider("south")).await.unwrap();
        let (done_north, done_south) = tokio::join!(work_off(&one, &of_north), work_off(&other, &of_south));
        assert_eq!((done_north.len(), done_south.len()), (north.len(), south.len()));
        assert_eq!((of_north.count().await.unwrap(), of_south.count().await.unwrap()), (0, 0));
    }

    /// One version of a rule finds what the other refuses; both claim all of theirs.
    async fn versions_of_a_rule_work_side_by_side(db: TestDatabase) {
        #[derive(Default)]
        struct Strict;
        impl Process for Strict {
            const NAME: &'static str = Start::NAME;
            type Item = provided::Model;
            fn eligible(&self, machines: Eligible) -> Eligible {
                machines.lacks::<agent_started::Entity>().has::<agent_heartbeat::Entity>()
            }
        }
        #[derive(Default)]
        struct Loose;
        impl Process for Loose {
            const NAME: &'static str = Start::NAME;
            type Item = provided::Model;
            fn eligible(&self, machines: Eligible) -> Eligible { machines.lacks::<agent_started::Entity>() }
        }
        let (old, new) = (session(&db).await, session(&db).await);
        let machines = provide(&old, 60).await;
        old.transact(async |tx| {
            for machine in &machines[..20] {
                agent_heartbeat::set(tx, *machine).await?;
            }
            Ok::<_, Error>(())
        }).await.unwrap();
        let (strict, loose) = (of::<Strict>(&old).await, of::<Loose>(&new).await);
        // The loose one finds all sixty, and gives back what it takes: to itself, and not to those who would refuse it.
        for _ in 0..3 {
            for ended in bmdb::Work::cancel_many(new.claim_many(&loose, 60).await.unwrap()).await {
                ended.unwrap();
            }
        }
        let mut taken = Vec::new();
        while let Some(work) = old.claim(&strict).await.unwrap() {
            taken.push(work);
        }
        assert_eq!(taken.len(), 20);
        let hints = |key: String| {
            let raw = db.raw();
            async move { work_candidate::Entity::find().filter(work_candidate::Column::Process.eq(key)).count(&raw.await).await.unwrap() }
        };
        assert_eq!(hints(format!("start@{}", strict.digest())).await, 0, "what is gone or unfit for it is no hint of its rule");
        assert!(hints(format!("start@{}", loose.digest())).await >= 40);
    }

    async fn an_equal_value_is_registered_once(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let (all, raw) = (join_all((0..20).map(|_| bmdb.register(of_provider("north")))).await, db.raw().await);
        let digests: HashSet<String> = all.into_iter().map(|start| start.unwrap().digest()).collect();
        assert_eq!(digests.len(), 1);
        let rules = rules_of(&raw, "start").await;
        assert_eq!((rules.len(), &rules[0].digest), (1, digests.iter().next().unwrap()));
        assert_eq!(rules[0].component, "test");
        // Another component's equal value is the same rule, and a known one asks the database no more.
        connect(&db).await.register(of_provider("north")).await.unwrap();
        tamper(&raw, "DELETE FROM process").await;
        bmdb.register(of_provider("north")).await.unwrap();
        assert!(rules_of(&raw, "start").await.is_empty(), "the rows of a process are gone with it");
    }

    async fn who_claims_for_a_process_whose_rows_are_gone_writes_them_again(db: TestDatabase) {
        let session = session(&db).await;
        provide_of(&session, "north", 3).await;
        let start = session.bmdb().register(of_provider("north")).await.unwrap();
        let raw = db.raw().await;
        for table in ["process", "work_candidate", "work_retrieval"] {
            tamper(&raw, &format!("DELETE FROM {table}")).await;
        }
        session.claim(&start).await.unwrap().expect("three are eligible").cancel().await.unwrap();
        assert_eq!(rules_of(&raw, "start").await.len(), 1);
        assert!(process::Entity::find_by_id("start").one(&raw).await.unwrap().is_some());
    }

    async fn what_is_wrong_with_a_rule_is_told_when_it_is_registered(db: TestDatabase) {
        /// Everything that it says is fine, but for its clause.
        struct Odd(&'static str, Expr);
        impl Process for Odd {
            const NAME: &'static str = "odd";
            type Item = provided::Model;
            fn eligible(&self, machines: Eligible) -> Eligible {
                machines.lacks::<agent_started::Entity>().when(self.0, self.1.clone())
            }
        }
        struct OfBench;
        impl Process for OfBench {
            const NAME: &'static str = "of-bench";
            type Item = machine::Model;
            fn eligible(&self, machines: Eligible) -> Eligible {
                machines.either(|one| one, |other| other.has::<crate::works::facts::machine_bench::Entity>())
            }
        }
        struct OtherSlot;
        impl Process for OtherSlot {
            const NAME: &'static str = "start";
            const SLOT: &'static str = "another";
            type Item = provided::Model;
            fn eligible(&self, machines: Eligible) -> Eligible { machines }
        }
        let (bmdb, raw) = (connect(&db).await, db.raw().await);
        bmdb.register(Start::default()).await.unwrap();
        let before = row_counts(&raw).await;

        let error = bmdb.register(OfBench).await.expect_err("nobody has made the table");
        assert!(matches!(&error, Error::MissingTable { process: "of-bench", table } if table == "machine_bench"), "{error}");

        let error = bmdb.register(Odd("asks for nothing there is", Expr::cust("no_such_column = 1"))).await.expect_err("there is no such column");
        assert!(matches!(&error, Error::RuleRefused { process: "odd", clause: Some(clause), .. } if clause == "asks for nothing there is"), "{error}");
        assert!(error.to_string().contains("asks for nothing there is"), "{error}");

        let above = |value: f64| Expr::col(machine::Column::Fence).gt(value);
        for value in [f64::NAN, f64::INFINITY] {
            let error = bmdb.register(Odd("is above", above(value))).await.expect_err("no text says it");
            assert!(matches!(&error, Error::Invalid { what: "a value of a rule", .. }), "{error}");
        }

        let error = bmdb.register(OtherSlot).await.expect_err("it would not exclude the others");
        assert!(matches!(&error, Error::SlotClash { slot, registered, .. } if slot == "another" && registered == "start"), "{error}");

        assert_eq!(row_counts(&raw).await, before, "nothing was written");
        bmdb.register(Odd("is above", above(0.5))).await.unwrap();
    }

    async fn a_handle_of_another_connection_is_refused(db: TestDatabase) {
        let (session, other) = (session(&db).await, connect(&db).await);
        provide(&session, 1).await;
        let start = of::<AgentStart>(&other).await;
        for refused in [
            session.claim(&start).await.map(drop),
            session.claim_many(&start, 3).await.map(drop),
        ] {
            assert!(matches!(refused, Err(Error::OtherDatabase { process: "agent-start" })), "{refused:?}");
        }
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is eligible");
        let next = work.cancel().then(session.claim(&start)).await.expect("the end is not at fault");
        assert!(matches!(next, Err(Error::OtherDatabase { .. })), "{next:?}");
    }

    async fn a_hint_by_name_reaches_each_rule(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide_of(&session, "north", 1).await[0];
        let north = session.bmdb().register(of_provider("north")).await.unwrap();
        let south = session.bmdb().register(of_provider("south")).await.unwrap();
        // A component that knows no rules has a row of the process's own, and another process has a name that begins alike.
        let raw = db.raw().await;
        tamper(&raw, "INSERT INTO work_retrieval SELECT 'start', begun, ended, began_at, until FROM work_retrieval WHERE process LIKE 'start@%' LIMIT 1").await;
        tamper(&raw, "INSERT INTO work_retrieval SELECT 'starter@0', begun, ended, began_at, until FROM work_retrieval WHERE process = 'start'").await;
        session.transact(async |tx| machine::hint(tx, "start", machine).await).await.unwrap();
        let hints = work_candidate::Entity::find().all(&raw).await.unwrap();
        let mut keys: Vec<_> = hints.into_iter().map(|hint| hint.process).collect();
        keys.sort();
        let mut expected = vec!["start".to_owned(), format!("start@{}", north.digest()), format!("start@{}", south.digest())];
        expected.sort();
        assert_eq!(keys, expected);
        tamper(&raw, "DELETE FROM work_candidate").await;
        session.transact(async |tx| south.hint(tx, machine).await).await.unwrap();
        let hints = work_candidate::Entity::find().all(&raw).await.unwrap();
        assert_eq!(hints.into_iter().map(|hint| hint.process).collect::<Vec<_>>(), [format!("start@{}", south.digest())]);
        let refused = session.transact(async |tx| machine::hint(tx, "no name", machine).await).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    }

    async fn rules_that_nobody_has_used_for_a_day_are_forgotten(db: TestDatabase) {
        let session = session(&db).await;
        provide_of(&session, "north", 30).await;
        provide_of(&session, "south", 3).await;
        let (bmdb, raw) = (session.bmdb(), db.raw().await);
        let (north, south) = (bmdb.register(of_provider("north")).await.unwrap(), bmdb.register(of_provider("south")).await.unwrap());
        for start in [&north, &south] {
            drop(session.claim(start).await.unwrap().expect("some are eligible"));
        }
        let collector = bmdb.collector();
        assert_eq!(collector.forget_unused_rules().await.unwrap(), [""; 0], "both were used today");
        let long_ago = "'2020-01-01 00:00:00.000'";
        let key = format!("start@{}", north.digest());
        tamper(&raw, &format!("UPDATE work_retrieval SET began_at = {long_ago} WHERE process = '{key}'")).await;
        assert_eq!(collector.forget_unused_rules().await.unwrap(), [""; 0], "somebody has registered it today");
        tamper(&raw, &format!("UPDATE process_rule SET used_at = {long_ago} WHERE digest = '{}'", north.digest())).await;
        // Of an older component that knows no rules.
        tamper(&raw, &format!("INSERT INTO work_retrieval (process, begun, ended, began_at, until) VALUES ('start', 1, 1, {long_ago}, {long_ago})")).await;
        tamper(&raw, "INSERT INTO work_candidate (process, machine_id, found_at) SELECT 'start', machine_id, created_at FROM machine").await;
        assert_eq!(collector.forget_unused_rules().await.unwrap(), ["start", key.as_str()]);
        let left = rules_of(&raw, "start").await;
        assert_eq!(left.iter().map(|rule| &rule.digest).collect::<Vec<_>>(), [&south.digest()]);
        for hint in work_candidate::Entity::find().all(&raw).await.unwrap() {
            assert_eq!(hint.process, format!("start@{}", south.digest()));
        }
        // Who has a handle goes on, and its rule is there again.
        assert_eq!(work_off(&session, &north).await.len(), 30);
        assert_eq!(rules_of(&raw, "start").await.len(), 2);
    }

    async fn the_numbers_of_searches_begin_at_the_clock(db: TestDatabase) {
        let (bmdb, raw) = (connect(&db).await, db.raw().await);
        bmdb.register(Start::default()).await.unwrap();
        let searches = work_retrieval::Entity::find().one(&raw).await.unwrap().expect("there is a row");
        let year_2020 = 1_577_836_800_000;
        assert!(searches.begun > year_2020 && searches.ended == 0, "{searches:?}");
    }

    async fn what_is_fresh_is_not_stale(db: TestDatabase) {
        #[derive(Default)]
        struct Fresh;
        impl Process for Fresh {
            const NAME: &'static str = "fresh";
            type Item = machine::Model;
            fn eligible(&self, machines: Eligible) -> Eligible {
                machines.fresh::<agent_heartbeat::Entity>(agent_heartbeat::Column::At, Duration::from_secs(600))
            }
        }
        let session = session(&db).await;
        let machines = provide(&session, 3).await;
        session.transact(async |tx| {
            agent_heartbeat::set(tx, machines[0]).await?;
            agent_heartbeat::set(tx, machines[1]).await
        }).await.unwrap();
        let raw = db.raw().await;
        let old = harness::literal(&raw, machines[1].0);
        tamper(&raw, &format!("UPDATE machine_agent_heartbeat SET at = '2020-01-01 00:00:00.000' WHERE machine_id = {old}")).await;
        let fresh = of::<Fresh>(&session).await;
        assert_eq!(fresh.eligible(10).await.unwrap(), [machines[0]]);
        let work = session.claim(&fresh).await.unwrap().expect("one is fresh");
        assert_eq!(work.machine(), machines[0]);
        assert!(work.get::<agent_heartbeat::Entity>().await.unwrap().is_some());
        assert!(work.get::<agent_started::Entity>().await.unwrap().is_none());
        assert_eq!(agent_heartbeat::Entity::find().count(work.reads()).await.unwrap(), 2);
        assert_eq!(fresh.eligible(10).await.unwrap(), []);
    }

    async fn many_machines_are_explained_together_each_for_itself(db: TestDatabase) {
        let session = session(&db).await;
        let machines = provide(&session, 4).await;
        let start = of::<AgentStart>(&session).await;
        let held = session.claim(&start).on(machines[1]).await.unwrap().expect("it is eligible");
        session.claim(&start).on(machines[2]).await.unwrap().expect("it is eligible").fail("no answer").await.unwrap();
        let stranger = MachineId::random();
        let asked = [machines[3], machines[1], stranger, machines[2], machines[1]];
        let explained = start.explain_many(&asked).await.unwrap();
        assert_eq!(explained.len(), asked.len());
        for (machine, explained) in asked.iter().zip(&explained) {
            match explained {
                Ok(explained) => assert_eq!(explained, &again(&start, *machine, explained).await),
                Err(error) => assert!(matches!(error, Error::UnknownMachine { machine } if *machine == stranger), "{error}"),
            }
        }
        let eligible: Vec<_> = explained.iter().map(|explained| explained.as_ref().ok().map(|it| it.eligible)).collect();
        assert_eq!(eligible, [Some(true), Some(false), None, Some(false), Some(false)]);
        assert_eq!(explained[1].as_ref().unwrap().holder.as_ref().unwrap().fence, held.fence());
        assert_eq!(explained[3].as_ref().unwrap().backoff.as_ref().unwrap().cause, "no answer");
        assert_eq!(start.explain_many(&[]).await.unwrap().len(), 0);
    }
}

/// The same, explained alone, but for its moment.
async fn again(start: &Registered<AgentStart>, machine: MachineId, together: &bmdb::Explanation) -> bmdb::Explanation {
    let mut alone = start.explain(machine).await.unwrap();
    alone.at = together.at;
    alone
}

// One thread runs the whole test, so that all of it is heard.
#[tokio::test]
async fn many_rules_of_one_process_are_told_of() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let bmdb = connect(&db).await;
    let kept = Kept::default();
    let _listening = kept.listen();
    for nth in 0..16 {
        bmdb.register(of_provider(&nth.to_string())).await.unwrap();
    }
    assert!(!kept.text().contains("many rules"), "{}", kept.text());
    bmdb.register(of_provider("one more")).await.unwrap();
    assert!(kept.text().contains("many rules"), "{}", kept.text());
    // Of those that nobody has a handle of, some are forgotten; the database has all.
    for nth in 0..100 {
        bmdb.register(of_provider(&nth.to_string())).await.unwrap();
    }
    assert_eq!(rules_of(&db.raw().await, "start").await.len(), 101);
}
