//! How machines, works and processes are listed: by state, by name, page by page.

use std::collections::BTreeSet;
use std::time::Duration;

use bmdb::machine::{self, NewMachine};
use bmdb::{Backoff, Eligible, Hold, MachineFilter, MachineId, MachineState, Process, WorksOf, provided};
use harness::{ada, of, on_each_backend};

use crate::world::{Survey, connect, provide, tamper};

/// Parks at the first failure.
struct Fragile;

impl Process for Fragile {
    const NAME: &'static str = "fragile";
    const DESCRIPTION: &'static str = "Breaks at once";
    const BACKOFF: Backoff = Backoff::NONE.max_attempts(1);
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines
    }
}

/// Waits for an hour.
struct Patient;

impl Process for Patient {
    const NAME: &'static str = "patient";
    const BACKOFF: Backoff = Backoff::constant(Duration::from_secs(3600));
    type Item = provided::Model;

    fn eligible(&self, machines: Eligible) -> Eligible {
        machines
    }
}

on_each_backend! {
    async fn machines_are_found_by_how_they_stand(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let session = bmdb.start_session().await.unwrap();
        let machines = provide(&session, 6).await;
        let (fragile, patient) = (bmdb.register(Fragile).await.unwrap(), bmdb.register(Patient).await.unwrap());
        let (survey_in, fragile_in, patient_in) = (
            session.claim(&of::<Survey>(&session).await).on(machines[0]).await.unwrap().expect("it is eligible"),
            session.claim(&fragile).on(machines[1]).await.unwrap().expect("it is eligible"),
            session.claim(&patient).on(machines[2]).await.unwrap().expect("it is eligible"),
        );
        fragile_in.fail("broken").await.unwrap();
        patient_in.fail("no answer").await.unwrap();
        ada(&bmdb).place_hold(machines[3], Hold::new()).await.unwrap();
        ada(&bmdb).place_hold(machines[4], Hold::new().slot("survey")).await.unwrap();
        ada(&bmdb).place_hold(machines[5], Hold::new()).await.unwrap();
        let raw = db.raw().await;
        let over = format!("UPDATE work_hold SET until = '2020-01-01 00:00:00.000' WHERE machine_id = {}", harness::literal(&raw, machines[5].0));
        tamper(&raw, &over).await;

        let found = async |filter: MachineFilter| {
            let page = bmdb.machines(filter).await.unwrap();
            page.rows.into_iter().map(|row| row.machine).collect::<BTreeSet<MachineId>>()
        };
        let these = |nths: &[usize]| nths.iter().map(|nth| machines[*nth]).collect::<BTreeSet<_>>();
        let filter = MachineFilter::new;
        assert_eq!(found(filter()).await, these(&[0, 1, 2, 3, 4, 5]));
        assert_eq!(found(filter().state(MachineState::InWork)).await, these(&[0]));
        assert_eq!(found(filter().state(MachineState::InWork).process("fragile")).await, these(&[]));
        assert_eq!(found(filter().state(MachineState::Parked)).await, these(&[1]));
        assert_eq!(found(filter().state(MachineState::BackingOff)).await, these(&[2]));
        assert_eq!(found(filter().state(MachineState::BackingOff).process("fragile")).await, these(&[]));
        assert_eq!(found(filter().state(MachineState::Held)).await, these(&[3, 4]));
        assert_eq!(found(filter().state(MachineState::Held).process("patient")).await, these(&[3]));
        assert_eq!(found(filter().state(MachineState::Held).process("survey")).await, these(&[3, 4]));
        assert_eq!(found(filter().ids([machines[2], machines[4]])).await, these(&[2, 4]));
        assert_eq!(found(filter().ids([])).await, these(&[]));
        assert_eq!(found(filter().provider("nobody")).await, these(&[]));

        let processes = bmdb.processes().await.unwrap();
        let counts = |name: &str| {
            let process = processes.iter().find(|process| process.process == name).expect("it is registered");
            (process.in_work, process.backing_off, process.parked, process.held, process.rules)
        };
        assert_eq!(counts("survey"), (1, 0, 0, 2, 1));
        assert_eq!(counts("fragile"), (0, 0, 1, 1, 1));
        assert_eq!(counts("patient"), (0, 1, 0, 1, 1));
        assert_eq!(processes.iter().find(|process| process.process == "fragile").unwrap().description, "Breaks at once");

        let works = bmdb.works(WorksOf::All).await.unwrap().rows;
        assert_eq!(works.len(), 1);
        assert_eq!((works[0].work, works[0].machine, works[0].process.as_str(), works[0].fence), (survey_in.id(), machines[0], "survey", survey_in.fence()));
        assert!(works[0].left().expect("it has a deadline") > chrono::TimeDelta::zero() && works[0].age() >= chrono::TimeDelta::zero());
        for (of, many) in [
            (WorksOf::Machines(vec![machines[0], machines[1]]), 1),
            (WorksOf::Machines(vec![machines[1]]), 0),
            (WorksOf::Machines(Vec::new()), 0),
            (WorksOf::Session(session.id()), 1),
            (WorksOf::Session(bmdb::SessionId::random()), 0),
            (WorksOf::Process("survey".to_owned()), 1),
            (WorksOf::Process("fragile".to_owned()), 0),
            (WorksOf::Work(survey_in.id()), 1),
            (WorksOf::Work(bmdb::WorkId::random()), 0),
        ] {
            assert_eq!(bmdb.works(of.clone()).await.unwrap().rows.len(), many, "{of:?}");
        }
    }

    async fn machines_are_found_by_what_people_call_them(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let session = bmdb.start_session().await.unwrap();
        let new = [
            NewMachine::new("oak", "i-1").address("192.0.2.1").location("fra2/r14"),
            NewMachine::new("elm", "i-1").address("192.0.2.2"),
            NewMachine::new("oak", "192.0.2.1"),
        ];
        session.transact(async |tx| machine::import(tx, &new).await).await.unwrap();
        let named = async |name: &str| {
            let page = bmdb.machines(MachineFilter::new().name(name)).await.unwrap();
            let called = page.rows.into_iter().map(|row| (row.provider.unwrap(), row.provider_id.unwrap()));
            called.collect::<BTreeSet<_>>()
        };
        let pairs = |them: &[(&str, &str)]| them.iter().map(|(provider, id)| ((*provider).to_owned(), (*id).to_owned())).collect::<BTreeSet<_>>();
        assert_eq!(named("i-1").await, pairs(&[("elm", "i-1"), ("oak", "i-1")]));
        assert_eq!(named("192.0.2.1").await, pairs(&[("oak", "i-1"), ("oak", "192.0.2.1")]));
        assert_eq!(named("i-%").await, pairs(&[]), "a name is no pattern");
        let oak = bmdb.machines(MachineFilter::new().provider("oak").name("i-1")).await.unwrap().rows.remove(0);
        assert_eq!((oak.address.as_deref(), oak.location.as_deref()), (Some("192.0.2.1"), Some("fra2/r14")));
    }

    async fn pages_of_machines_and_works_have_each_once(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let session = bmdb.start_session().await.unwrap();
        let machines: BTreeSet<_> = provide(&session, 7).await.into_iter().collect();
        let held = session.claim_many(&of::<Survey>(&session).await, 7).await.unwrap();
        assert_eq!(held.len(), 7);
        let (mut seen, mut page) = (Vec::new(), bmdb.machines(MachineFilter::new()).limit(3).await.unwrap());
        loop {
            seen.extend(page.rows.iter().map(|row| row.machine));
            let Some(last) = page.next else { break };
            page = bmdb.machines(MachineFilter::new()).after(last).limit(3).await.unwrap();
        }
        assert_eq!(seen.len(), 7);
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), machines);
        let (mut seen, mut page) = (Vec::new(), bmdb.works(WorksOf::All).limit(3).await.unwrap());
        loop {
            seen.extend(page.rows.iter().map(|row| row.machine));
            let Some(last) = page.next else { break };
            page = bmdb.works(WorksOf::All).after(last).limit(3).await.unwrap();
        }
        assert_eq!(seen.len(), 7);
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), machines);
    }

    async fn a_work_that_cannot_be_read_hides_no_other(db: TestDatabase) {
        let (bmdb, raw) = (connect(&db).await, db.raw().await);
        let session = bmdb.start_session().await.unwrap();
        let machines = provide(&session, 3).await;
        let held = session.claim_many(&of::<Survey>(&session).await, 3).await.unwrap();
        assert_eq!(held.len(), 3);
        let odd = match db.backend() {
            harness::Backend::Sqlite => "'no time'",
            harness::Backend::Postgres => "'infinity'",
        };
        tamper(&raw, &format!("UPDATE work SET claimed_at = {odd} WHERE machine_id = {}", harness::literal(&raw, machines[1].0))).await;
        let page = bmdb.works(WorksOf::All).await.unwrap();
        assert_eq!(page.rows.len() + page.unreadable.len(), 3);
        assert!(page.unreadable.iter().all(|row| row.row.starts_with(&machines[1].to_string())), "{:?}", page.unreadable);
    }
}
