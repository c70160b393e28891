//! Bad input: a typed error that says what was wrong and what to do, and nothing written.

use std::time::Duration;

use bmdb::{
    Backoff, Bmdb, Config, ConfigError, Eligible, Error, Hold, MachineId, Process, Unfinished, Until, agent_heartbeat,
    machine,
};
use harness::{Backend, PATIENCE, TestDatabase, ada, of, on_each_backend, until};
use sea_orm::prelude::DateTimeUtc;

use crate::world::{
    AgentStart, LONG, Survey, chain, config, connect, kill_session, provide, row_counts, session, tamper,
};

/// The longest time that BMDB counts with.
const CENTURY: Duration = Duration::from_secs(100 * 366 * 86_400);

fn years_from_now(time: DateTimeUtc) -> i64 {
    let now: DateTimeUtc = std::time::SystemTime::now().into();
    (time - now).num_days() / 365
}

async fn refused(config: Config) -> Error {
    Bmdb::connect(config)
        .await
        .map(drop)
        .expect_err("it cannot be connected")
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_before_anything_is_opened() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("bmdb.sqlite");
    let url = format!("sqlite://{}?mode=rwc", file.display());
    let with = |config: Config| refused(config);
    let zero = with(Config::new(&url, "test", "").interval(Duration::ZERO)).await;
    assert!(
        matches!(
            zero,
            Error::Config(ConfigError::Setting {
                setting: "interval",
                ..
            })
        ),
        "{zero:?}"
    );
    assert_eq!(zero.to_string(), "interval is \"0ns\"; expected 100ms to 1h");
    let scheme = with(Config::new("mysql://root:canary@localhost/bmdb", "test", "")).await;
    assert!(
        matches!(scheme, Error::Config(ConfigError::Scheme { .. })),
        "{scheme:?}"
    );
    assert!(chain(&scheme).contains("expected sqlite, postgres or postgresql"));
    let nonsense = with(Config::new("canary", "test", "")).await;
    assert!(
        matches!(nonsense, Error::Config(ConfigError::Url { .. })),
        "{nonsense:?}"
    );
    let remote = with(Config::new("postgres://u:canary@db.example/bmdb", "test", "")).await;
    assert!(
        matches!(remote, Error::Config(ConfigError::Plaintext { .. })),
        "{remote:?}"
    );
    for error in [zero, scheme, nonsense, remote] {
        assert!(!format!("{} {error:?}", chain(&error)).contains("canary"));
    }
    assert!(!file.exists(), "nothing was opened");
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_named_with_the_reason() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("postgres://user:canary@127.0.0.1:{nobody}/bmdb");
    let started = std::time::Instant::now();
    let error = refused(Config::new(url, "test", "").acquire_timeout(PATIENCE)).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(started.elapsed() < PATIENCE / 2, "a refusal is not waited for");
    let text = chain(&error);
    assert!(text.contains(&format!("postgres://127.0.0.1:{nobody}/bmdb")), "{text}");
    assert!(text.contains("refused"), "{text}");
    assert!(!format!("{text} {error:?}").contains("canary"), "{text} {error:?}");

    let folder = tempfile::TempDir::new().unwrap();
    let missing = format!("sqlite://{}", folder.path().join("missing.sqlite").display());
    let error = refused(Config::new(missing, "test", "")).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    let garbage = folder.path().join("garbage.sqlite");
    std::fs::write(
        &garbage,
        "this is not a database, and long enough to be seen as none. ".repeat(99),
    )
    .unwrap();
    let error = refused(Config::new(format!("sqlite://{}", garbage.display()), "test", "")).await;
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(chain(&error).contains("not a database"), "{}", chain(&error));
}

#[tokio::test]
async fn an_unmigrated_database_is_refused_and_not_altered() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let db = TestDatabase::empty(backend).await;
        let error = refused(config(&db)).await;
        assert!(
            matches!(error, Error::NotMigrated { ref missing, .. } if missing.len() == bmdb::MIGRATIONS.len()),
            "{error:?}"
        );
        assert!(error.to_string().contains("run `bmdb-migration up`"), "{error}");
        let half = bmdb_migration::up(db.url(), Some(5)).await.unwrap();
        let error = refused(config(&db)).await;
        assert!(
            matches!(error, Error::NotMigrated { ref missing, .. } if missing.len() == bmdb::MIGRATIONS.len() - half.len()),
            "{error:?}"
        );
    }
}

#[test]
fn the_connector_was_built_for_the_migrations_that_there_are() {
    use bmdb_migration::MigratorTrait;
    let steps: Vec<_> = bmdb_migration::Migrator::migrations()
        .iter()
        .map(|step| step.name().to_owned())
        .collect();
    assert_eq!(steps, bmdb::MIGRATIONS);
}

on_each_backend! {
    async fn a_newer_schema_is_refused_only_if_it_took_something_away(db: TestDatabase) {
        let raw = db.raw().await;
        tamper(&raw, "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20990101_000001_create_something', 0)").await;
        Bmdb::connect(config(&db)).await.expect("a step that only adds does not matter");
        tamper(&raw, "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20990101_000002_contract_something', 0)").await;
        let error = refused(config(&db)).await;
        assert!(matches!(error, Error::SchemaNewer { ref step, .. } if step == "m20990101_000002_contract_something"), "{error:?}");
        assert!(error.to_string().contains("update the component"), "{error}");
    }

    async fn names_that_are_none_are_refused(db: TestDatabase) {
        macro_rules! named {
            ($type:ident, $name:expr, $slot:expr) => {
                struct $type;
                impl Process for $type {
                    const NAME: &'static str = $name;
                    const SLOT: &'static str = $slot;
                    type Item = machine::Model;
                    fn eligible(&self, machines: Eligible) -> Eligible { machines }
                }
            };
        }
        named!(Empty, "", "slot");
        named!(Injection, "'; DROP TABLE work; --", "slot");
        named!(Long, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "slot");
        named!(Everything, "everything", "*");
        let session = session(&db).await;
        provide(&session, 1).await;
        let raw = db.raw().await;
        let before = row_counts(&raw).await;
        for error in [
            session.bmdb().register(Empty).await.map(drop),
            session.bmdb().register(Injection).await.map(drop),
            session.bmdb().register(Long).await.map(drop),
            session.bmdb().register(Everything).await.map(drop),
        ] {
            let error = error.expect_err("the name is not valid");
            assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
            assert!(error.to_string().contains("expected 1 to 64 of the characters"), "{error}");
        }
        assert_eq!(row_counts(&raw).await, before);
    }

    async fn a_slot_clash_is_refused(db: TestDatabase) {
        #[derive(Default)]
        struct Impostor;
        impl Process for Impostor {
            const NAME: &'static str = "agent-start";
            const SLOT: &'static str = "another";
            type Item = machine::Model;
            fn eligible(&self, machines: Eligible) -> Eligible { machines }
        }
        let session = session(&db).await;
        provide(&session, 2).await;
        session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is eligible").cancel().await.unwrap();
        let raw = db.raw().await;
        let before = row_counts(&raw).await;
        // In the same component, and in another.
        let stranger = self::session(&db).await;
        for error in [session.bmdb().register(Impostor).await, stranger.bmdb().register(Impostor).await] {
            let error = error.expect_err("the slot differs");
            assert!(matches!(error, Error::SlotClash { .. }), "{error:?}");
            assert!(error.to_string().starts_with("process agent-start has slot another here, but test registered it with slot agent"), "{error}");
        }
        let after = row_counts(&raw).await;
        assert_eq!((after[1], &after[2..]), (before[1] + 1, &before[2..]), "only the second session is new");
    }

    async fn a_backoff_that_makes_no_sense_is_refused(db: TestDatabase) {
        #[derive(Default)]
        struct Shrinking;
        impl Process for Shrinking {
            const NAME: &'static str = "shrinking";
            const BACKOFF: Backoff = Backoff::exponential(Duration::from_secs(60), 0.5, Duration::from_secs(120));
            type Item = machine::Model;
            fn eligible(&self, machines: Eligible) -> Eligible { machines }
        }
        let session = session(&db).await;
        provide(&session, 1).await;
        let raw = db.raw().await;
        let before = row_counts(&raw).await;
        let error = session.bmdb().register(Shrinking).await.expect_err("its exponent is below one");
        assert!(matches!(error, Error::InvalidBackoff { process: "shrinking", .. }), "{error:?}");
        assert!(chain(&error).contains("its exponent is 0.5; expected a finite number of at least 1"), "{}", chain(&error));
        assert_eq!(row_counts(&raw).await, before);
    }

    async fn a_time_of_a_process_that_is_for_ever_is_refused(db: TestDatabase) {
        #[derive(Default)]
        struct Frozen;
        impl Process for Frozen {
            const NAME: &'static str = "frozen";
            const COOL_DOWN: Duration = Duration::MAX;
            type Item = machine::Model;
            fn eligible(&self, machines: Eligible) -> Eligible { machines }
        }
        #[derive(Default)]
        struct Endless;
        impl Process for Endless {
            const NAME: &'static str = "endless";
            const MAX_RUN: Option<Duration> = Some(Duration::MAX);
            type Item = machine::Model;
            fn eligible(&self, machines: Eligible) -> Eligible { machines }
        }
        #[derive(Default)]
        struct Patient;
        impl Process for Patient {
            const NAME: &'static str = "patient";
            const COOL_DOWN: Duration = CENTURY;
            const MAX_RUN: Option<Duration> = Some(CENTURY);
            const BACKOFF: Backoff = Backoff::constant(Duration::MAX);
            type Item = machine::Model;
            fn eligible(&self, machines: Eligible) -> Eligible { machines }
        }
        let (bmdb, session) = (connect(&db).await, session(&db).await);
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        let before = row_counts(&raw).await;
        for error in [
            session.bmdb().register(Frozen).await.map(drop),
            bmdb.register(Frozen).await.map(drop),
        ] {
            let error = error.expect_err("nobody waits for so long");
            assert!(matches!(error, Error::InvalidTime { process: "frozen", setting: "COOL_DOWN", value: Duration::MAX, .. }), "{error:?}");
            assert!(error.to_string().ends_with("expected at most 3162240000s, which is a century"), "{error}");
        }
        let error = bmdb.register(Endless).await.expect_err("nothing runs for so long");
        assert!(matches!(error, Error::InvalidTime { process: "endless", setting: "MAX_RUN", .. }), "{error:?}");
        assert_eq!(row_counts(&raw).await, before);
        // What is just not too long is as good as any.
        let work = session.claim(&of::<Patient>(&session).await).await.unwrap().expect("it is fit");
        work.fail("a test").await.unwrap();
        let backoff = bmdb.backoffs(Some(machine)).await.unwrap().rows.remove(0);
        assert_eq!(backoff.last_interval_seconds.unsigned_abs(), CENTURY.as_secs());
        assert!(years_from_now(backoff.until.expect("it ends")) > 99);
    }

    async fn a_cool_down_that_somebody_wrote_keeps_nobody_from_being_expired(db: TestDatabase) {
        let (bmdb, dead) = (connect(&db).await, session(&db).await);
        let machine = provide(&dead, 1).await[0];
        let raw = db.raw().await;
        let _held = dead.claim(&of::<AgentStart>(&dead).await).await.unwrap().expect("it is eligible");
        tamper(&raw, &format!("UPDATE process SET cool_down_ms = {}", i64::MAX)).await;
        kill_session(&raw, &dead).await;
        let mut collector = bmdb.collector();
        until("it is expired", LONG, async || !collector.sweep().await.unwrap().expired.is_empty()).await;
        let hold = bmdb.holds(Some(machine)).await.unwrap().rows.remove(0);
        assert!(years_from_now(hold.until.expect("it ends")) > 99);
    }

    async fn a_hold_until_no_database_can_say_when_is_refused(db: TestDatabase) {
        let (bmdb, session) = (connect(&db).await, session(&db).await);
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        let before = row_counts(&raw).await;
        let ada = ada(&bmdb);
        let held = |until| ada.place_hold(machine, Hold::new().until(until));
        let time = |text: &str| Until::Time(text.parse::<DateTimeUtc>().expect("a time"));
        for until in [
            Until::For(Duration::MAX),
            Until::For(CENTURY + Duration::from_secs(1)),
            time("+10000-01-01T00:00:00Z"),
            time("-0001-01-01T00:00:00Z"),
            Until::Time(DateTimeUtc::MAX_UTC),
            Until::Time(DateTimeUtc::MIN_UTC),
        ] {
            let error = held(until).await.expect_err("it is too far away");
            assert!(matches!(error, Error::Invalid { what: "the end of a hold", .. }), "{error:?}");
        }
        assert_eq!(row_counts(&raw).await, before);
        for (until, years) in [(Until::For(CENTURY), 99..=101), (time("9999-12-31T23:59:59Z"), 7000..=8100)] {
            held(until).await.unwrap();
            let hold = bmdb.holds(Some(machine)).await.unwrap().rows.remove(0);
            assert!(years.contains(&years_from_now(hold.until.expect("it ends"))), "{hold:?}");
            assert!(session.claim(&of::<Survey>(&session).await).await.unwrap().is_none());
        }
    }

    async fn an_age_that_nothing_has_is_one_answer(db: TestDatabase) {
        #[derive(Default)]
        struct Ancient;
        impl Process for Ancient {
            const NAME: &'static str = "ancient";
            type Item = machine::Model;
            fn eligible(&self, machines: Eligible) -> Eligible {
                machines.stale::<agent_heartbeat::Entity>(agent_heartbeat::Column::At, Duration::MAX)
            }
        }
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        session.transact(async |tx| agent_heartbeat::set(tx, machine).await).await.unwrap();
        assert!(session.claim(&of::<Ancient>(&session).await).await.unwrap().is_none());
    }

    async fn a_cause_that_does_not_fit_is_refused_and_the_guard_comes_back(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 1).await;
        let raw = db.raw().await;
        let mut work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is eligible");
        let before = row_counts(&raw).await;
        for cause in ["no\0answer".to_owned(), "x".repeat(4097)] {
            let Err(Unfinished::NotCommitted { work: same, error: error @ Error::Invalid { what: "a cause", .. } }) = work.fail(&cause).await else {
                panic!("the cause is refused");
            };
            assert!(error.to_string().len() < 500, "a long cause is not repeated whole");
            work = same;
        }
        assert_eq!(row_counts(&raw).await, before);
        work.fail(bmdb::fit_cause(&"\0".repeat(9999))).await.unwrap();
    }

    async fn a_hold_that_holds_nothing_is_refused(db: TestDatabase) {
        let (bmdb, session) = (connect(&db).await, session(&db).await);
        let machine = provide(&session, 1).await[0];
        session.claim(&of::<Survey>(&session).await).await.unwrap().expect("it is eligible").cancel().await.unwrap();
        let raw = db.raw().await;
        let before = row_counts(&raw).await;
        let stranger = MachineId::random();
        for (by, reason, what) in [
            ("ada", " ", "the reason of an operator"),
            ("", "moving", "the name of an operator"),
            ("ada", "mov\0ing", "text without NUL"),
            ("ada", &"x".repeat(5000), "at most 4 kB"),
        ] {
            let error = bmdb.operator(by, reason).expect_err(what);
            assert!(matches!(error, Error::Invalid { .. }) && error.to_string().contains(what), "{error:?}");
        }
        let error = ada(&bmdb).ticket("").expect_err("it names nothing");
        assert!(error.to_string().contains("a ticket"), "{error}");
        for (machine, hold, what) in [
            (machine, Hold::new().slot("*"), "the name of a slot"),
            (machine, Hold::new().slot("surwey"), "no registered process has the slot \"surwey\"; known are: survey"),
            (stranger, Hold::new(), "there is no machine"),
        ] {
            for error in [
                ada(&bmdb).place_hold(machine, hold.clone()).await.expect_err(what),
                ada(&bmdb).drain_machine(machine, hold).await.expect_err(what),
            ] {
                assert!(matches!(error, Error::Invalid { .. } | Error::UnknownSlot { .. } | Error::UnknownMachine { .. }), "{error:?}");
                assert!(error.to_string().contains(what), "{error}");
            }
        }
        let unknown = ada(&bmdb).run_now(machine, "surwey").await.expect_err("there is no such process");
        assert_eq!(unknown.to_string(), "no process \"surwey\" is registered; known are: survey");
        let unknown = ada(&bmdb).clear_backoff(machine, "surwey").await.expect_err("there is no such process");
        assert_eq!(unknown.to_string(), "no process \"surwey\" is registered; known are: survey");
        assert_eq!(row_counts(&raw).await, before);
    }

    async fn a_provider_id_that_is_none_is_refused(db: TestDatabase) {
        let session = session(&db).await;
        provide(&session, 1).await;
        let raw = db.raw().await;
        let before = row_counts(&raw).await;
        let new = |provider: &str, id: &str| machine::NewMachine::new(provider, id);
        for wrong in [new("", "a"), new("test", ""), new("te\0st", "a"), new("test", &"x".repeat(2000))] {
            let one = session.transact(async |tx| machine::provide(tx, wrong.clone()).await.map(drop)).await;
            assert!(matches!(one, Err(Error::Invalid { .. })), "{one:?}");
            let many = session.transact(async |tx| machine::import(tx, &[new("test", "good"), wrong.clone()]).await.map(drop)).await;
            assert!(matches!(many, Err(Error::Invalid { .. })), "{many:?}");
        }
        let twice = session.transact(async |tx| machine::provide(tx, new("test", "m0")).await.map(drop)).await;
        assert!(matches!(twice, Err(Error::DuplicateProviderId { .. })), "{twice:?}");
        assert_eq!(row_counts(&raw).await, before);
    }

    async fn no_password_is_in_what_a_handle_shows(db: TestDatabase) {
        let url = match db.backend() {
            Backend::Sqlite => db.url().to_owned(),
            Backend::Postgres => db.url().replace("bmdb@", "bmdb:canary@"),
        };
        let bmdb = Bmdb::connect(Config::new(url, "test", "")).await.unwrap();
        let session = bmdb.start_session().await.unwrap();
        provide(&session, 1).await;
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is eligible");
        let shown = format!("{bmdb:?} {session:?} {work:?}");
        assert!(shown.contains("test") && !shown.contains("canary"), "{shown}");
    }
}
