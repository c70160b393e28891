//! The verbs of tags: a row that is set whole, and columns that are updated.

use bmdb::{Error, Facts, MachineId, Observation, Unfinished, Work, agent_heartbeat, provided, tag};
use futures_util::future::join_all;
use harness::{of, on_each_backend, until};
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::{EntityTrait, PaginatorTrait};

use crate::works::facts::{bench, claim, heard, machine_bench, make_bench, refused};
use crate::world::{LONG, Survey, events, provide, session, works};

on_each_backend! {
    async fn what_is_set_is_the_whole_row_and_what_is_updated_some_columns(db: TestDatabase) {
        let session = session(&db).await;
        let raw = db.raw().await;
        make_bench(&db, &raw).await;
        let machine = provide(&session, 1).await[0];
        let row = async || machine_bench::Entity::find_by_id(machine).one(&raw).await.unwrap().expect("it is there");
        let named = |row: machine_bench::ActiveModel| machine_bench::ActiveModel { machine_id: Set(machine), ..row };
        let set = async |row: machine_bench::ActiveModel| session.transact(async |tx| tag::set::<machine_bench::Entity>(tx, row.clone()).await).await;
        let update = async |row: machine_bench::ActiveModel| session.transact(async |tx| tag::update::<machine_bench::Entity>(tx, row.clone()).await).await;
        let runs = || machine_bench::ActiveModel { runs: Set(5), ..Default::default() };

        // Nothing is there yet.
        let missing = update(named(runs())).await;
        assert!(matches!(missing, Err(Error::TagMissing { tag: "machine_bench", machine: about }) if about == machine), "{missing:?}");
        let nobody = update(machine_bench::ActiveModel { machine_id: Set(MachineId::random()), ..runs() }).await;
        assert!(matches!(nobody, Err(Error::TagMissing { .. })), "{nobody:?}");
        let incomplete = set(named(runs())).await;
        assert!(matches!(incomplete, Err(Error::TagIncomplete { tag: "machine_bench", column: "name" })), "{incomplete:?}");
        let mut work = claim(&session).await;
        for (facts, is_missing) in [(Facts::updating(runs()), true), (Facts::from(runs()), false)] {
            let facts = Facts::from(agent_heartbeat::row()).and(facts);
            let is_right = |error: &Error| if is_missing {
                matches!(error, Error::TagMissing { tag: "machine_bench", machine: about } if *about == machine)
            } else {
                matches!(error, Error::TagIncomplete { tag: "machine_bench", column: "name" })
            };
            let (back, error) = refused(work.done().stating(facts.clone()).await);
            assert!(is_right(&error), "{error:?}");
            let (back, error) = refused(back.fail("a test").stating(facts.clone()).await);
            assert!(is_right(&error), "{error:?}");
            let (back, error) = refused(back.cancel().stating(facts.clone()).then(session.claim(&of::<Survey>(&session).await)).await.map(drop));
            assert!(is_right(&error), "{error:?}");
            let many = Work::done_many(vec![back]).stating(|_| facts.clone()).await.pop().expect("one answer");
            let (back, error) = refused(many);
            assert!(is_right(&error), "{error:?}");
            assert_eq!((events(&raw, machine).await.len(), heard(&raw).await, works(&raw).await), (1, 0, 1));
            work = back;
        }
        assert_eq!(machine_bench::Entity::find().count(&raw).await.unwrap(), 0);

        // Set whole: what can do without a value has none.
        let bare = || machine_bench::ActiveModel { note: NotSet, burst: NotSet, next_to: NotSet, ..bench(1) };
        work.done().stating(bench(1)).await.unwrap();
        assert_eq!(row().await.burst, Some(-7));
        set(named(bare())).await.unwrap();
        assert_eq!((row().await.burst, row().await.runs), (None, 1));
        set(named(bench(2))).await.unwrap();
        claim(&session).await.done().stating(bare()).await.unwrap();
        assert_eq!((row().await.burst, row().await.runs), (None, 1));

        // Updated: what is not set stays.
        set(named(bench(3))).await.unwrap();
        let before = row().await;
        update(named(runs())).await.unwrap();
        let now = row().await;
        assert!(now.seen_at >= before.seen_at);
        assert_eq!(now, machine_bench::Model { seen_at: now.seen_at, runs: 5, ..before.clone() });
        claim(&session).await.done().updating(machine_bench::ActiveModel { runs: Set(6), ..Default::default() }).await.unwrap();
        let now = row().await;
        assert_eq!(now, machine_bench::Model { seen_at: now.seen_at, runs: 6, ..before.clone() });
        let next = claim(&session).await.cancel().updating(runs()).then(session.claim(&of::<Survey>(&session).await)).await.unwrap().unwrap();
        next.expect("it is free again").fail("a test").updating(machine_bench::ActiveModel::default()).await.unwrap();
        let now = row().await;
        assert_eq!(now, machine_bench::Model { seen_at: now.seen_at, runs: 5, ..before });
    }

    async fn one_missing_row_spoils_no_other_end(db: TestDatabase) {
        let session = session(&db).await;
        let raw = db.raw().await;
        make_bench(&db, &raw).await;
        let machines = provide(&session, 12).await;
        session.transact(async |tx| {
            for (nth, machine) in machines.iter().enumerate() {
                if nth != 7 {
                    tag::set::<machine_bench::Entity>(tx, machine_bench::ActiveModel { machine_id: Set(*machine), ..bench(1) }).await?;
                }
            }
            Ok::<_, Error>(())
        }).await.unwrap();
        for way in 0..3 {
            let mut held = Vec::new();
            for _ in 0..12 {
                held.extend(session.claim(&of::<Survey>(&session).await).await.unwrap());
            }
            assert_eq!(held.len(), 12);
            held.sort_by_key(|work| machines.iter().position(|machine| *machine == work.machine()));
            let runs = || Facts::updating(machine_bench::ActiveModel { runs: Set(2 + way), ..Default::default() });
            let ends = match way {
                0 => join_all(held.into_iter().map(|work| async { work.cancel().stating(runs()).await })).await,
                1 => Work::cancel_many(held).stating(|_| runs()).await,
                // Half of them update, the others set.
                _ => Work::cancel_many(held).stating(|work| {
                    let place = machines.iter().position(|machine| *machine == work.machine()).unwrap_or_default();
                    if place % 2 == 1 { runs() } else { Facts::from(bench(2 + way)) }
                }).await,
            };
            for (nth, ended) in ends.into_iter().enumerate() {
                match ended {
                    Ok(()) => assert_ne!(nth, 7),
                    Err(Unfinished::NotCommitted { work, error: Error::TagMissing { tag: "machine_bench", machine } }) => {
                        assert_eq!((nth, machine), (7, machines[7]));
                        work.cancel().await.unwrap();
                    }
                    Err(other) => panic!("{nth}: {other:?}"),
                }
            }
            let rows = machine_bench::Entity::find().all(&raw).await.unwrap();
            assert_eq!(rows.iter().filter(|row| row.runs == 2 + way).count(), 11, "{rows:?}");
        }
    }

    async fn a_provider_id_that_another_has_is_told_by_every_verb(db: TestDatabase) {
        let session = session(&db).await;
        let raw = db.raw().await;
        let machines = provide(&session, 2).await;
        let row = |id: &str| provided::ActiveModel {
            machine_id: Set(machines[0]),
            provider: Set("test".to_owned()),
            provider_id: Set(id.to_owned()),
            status: Set(provided::Status::Running),
            ..Default::default()
        };
        let id = provided::ActiveModel { machine_id: Set(machines[0]), provider_id: Set("m1".to_owned()), ..Default::default() };
        for answer in [
            session.transact(async |tx| tag::set::<provided::Entity>(tx, row("m1")).await).await,
            session.transact(async |tx| tag::update::<provided::Entity>(tx, row("m1")).await).await,
            session.transact(async |tx| tag::update::<provided::Entity>(tx, id.clone()).await).await,
        ] {
            assert!(matches!(answer, Err(Error::DuplicateProviderId { machine, .. }) if machine == machines[1]), "{answer:?}");
        }
        // Stated without a transaction of one's own it is refused by the key, and told as the same.
        let is_told = |error: &Error| matches!(error, Error::DuplicateProviderId { machine, .. } if *machine == machines[1]);
        let claim = async || session.claim(&of::<Survey>(&session).await).on(machines[0]).await.unwrap().expect("it is always eligible");
        let facts = [Facts::from(row("m1")), Facts::updating(row("m1")), Facts::updating(id.clone())];
        for facts in &facts {
            let refused = claim().await.done().stating(facts.clone()).await;
            assert!(matches!(&refused, Err(Unfinished::NotCommitted { error, .. }) if is_told(error)), "{refused:?}");
            drop(refused);
            until("its work is let go of", LONG, async || works(&raw).await == 0).await;
            let refused = claim().await.done().stating(facts.clone()).then(session.claim(&of::<Survey>(&session).await)).await;
            assert!(matches!(&refused, Err(Unfinished::NotCommitted { error, .. }) if is_told(error)), "{refused:?}");
            drop(refused);
            until("its work is let go of", LONG, async || works(&raw).await == 0).await;
        }
        let observed = Observation::new(machines[0], row("m1"));
        let refused = session.state([observed.clone()]).await;
        assert!(refused.as_ref().is_err_and(is_told), "{refused:?}");
        session.transact(async |tx| tag::set::<provided::Entity>(tx, row("m0")).await).await.unwrap();
        session.transact(async |tx| tag::update::<provided::Entity>(tx, row("m9")).await).await.unwrap();
    }
}
