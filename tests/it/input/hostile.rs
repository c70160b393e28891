//! Hostile texts in every field that a user can give: each is stored and read back byte for byte, or refused before anything is written, and on
//! every database alike. None can forge a line of a log.

pub(crate) mod log;

use bmdb::{
    Bmdb, Eligible, Error, Hold, MachineId, Process, Session, Unfinished, agent_started, machine, provided, tag,
};
use bmdb_entity::process;
use harness::{ada, of, on_each_backend};
use sea_orm::ActiveValue::Set;
use sea_orm::{DatabaseConnection, EntityTrait};

use crate::world::{Survey, connect, provide, row_counts, session, tamper};

const fn filled<const LENGTH: usize>(bytes: &'static [u8; LENGTH]) -> &'static str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("ASCII is text"),
    }
}

const TEXTS: [&str; 24] = [
    "",
    " ",
    "plain-Name_1.0",
    "\0",
    "nul\0inside",
    "two\r\n2026-11-23T00:00:00Z ERROR bmdb: forged",
    "\u{202e}drowssap\u{2066}",
    "line\u{2028}separator\u{85}",
    "'; DROP TABLE work; --",
    "\"; DELETE FROM session; /*",
    "%s%n%x{}{0}{:?}$1?:name",
    "{now}{share}{lock}{time $1}{after $1}",
    "\\'\\\"\\\\\\u0000",
    "*",
    "👩\u{200d}🚀 🔧 \u{10ffff}\u{ffff}",
    "e\u{301} \u{e9} \u{feff}",
    "\x1b[31mred\x1b[0m\x07\x08\x7f\u{9b}2J",
    "<script>alert(1)</script>&amp;",
    " leads and trails ",
    filled(&[b'a'; 64]),
    filled(&[b'a'; 65]),
    filled(&[b'x'; 1024]),
    filled(&[b'x'; 4096]),
    filled(&[b'x'; 10_240]),
];

fn without_nul(text: &str, longest: usize) -> bool {
    !text.contains('\0') && text.len() <= longest
}

fn says_something(text: &str) -> bool {
    !text.trim().is_empty() && without_nul(text, 4096)
}

fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(good)
}

/// What came of giving a text to a field: what is stored now, or the refusal.
struct Given<'a> {
    raw: &'a DatabaseConnection,
    rows: Vec<u64>,
    text: &'a str,
}

impl Given<'_> {
    async fn to(&self, field: &str, may_hold: bool, outcome: Result<String, Error>) {
        let what = format!("{field} and {:?}", self.text.chars().take(40).collect::<String>());
        match outcome {
            Ok(stored) => {
                assert!(may_hold, "{what}: taken");
                assert_eq!(stored, self.text, "{what}: altered");
            }
            Err(error) => {
                assert!(!may_hold, "{what}: refused with {error:?}");
                let typed = matches!(error, Error::Invalid { .. } | Error::Config(_));
                assert!(typed, "{what}: refused by the database with {error:?}");
                let shown = error.to_string();
                assert!(
                    shown.len() < 1000 && !shown.chars().any(char::is_control),
                    "{what}: {shown}"
                );
                assert_eq!(row_counts(self.raw).await, self.rows, "{what}: written all the same");
            }
        }
    }
}

async fn tagged(session: &Session, machine: MachineId) -> provided::Model {
    let row = session
        .transact(async |tx| tag::get::<provided::Entity>(tx, machine).await)
        .await;
    row.unwrap().expect("the machine is provided")
}

on_each_backend! {
    async fn a_component_and_its_info_are_kept_or_refused(db: TestDatabase) {
        let (bmdb, raw) = (connect(&db).await, db.raw().await);
        for text in TEXTS {
            let given = Given { raw: &raw, rows: row_counts(&raw).await, text };
            let plain = (1..=200).contains(&text.chars().count()) && !text.chars().any(char::is_control);
            let named = bmdb::Config::new(db.url(), text, "");
            let outcome = started(&bmdb, named).await.map(|held| held.component_name);
            given.to("a component", plain, outcome).await;
            let given = Given { rows: row_counts(&raw).await, ..given };
            let informed = bmdb::Config::new(db.url(), "test", text);
            let outcome = started(&bmdb, informed).await.map(|held| held.runtime_info);
            given.to("a runtime info", without_nul(text, 4096), outcome).await;
        }
    }

    async fn what_is_said_of_work_is_kept_or_refused(db: TestDatabase) {
        let (bmdb, session, raw) = (connect(&db).await, session(&db).await, db.raw().await);
        let machine = provide(&session, 1).await[0];
        for text in TEXTS {
            let work = session.claim(&of::<Survey>(&session).await).on(machine).await.unwrap().expect("it is eligible");
            let given = Given { raw: &raw, rows: row_counts(&raw).await, text };
            let holder = async || of::<Survey>(&bmdb).await.explain(machine).await.unwrap().holder.expect("it is held");

            let outcome = match bmdb.operator("ada", text) {
                Ok(ada) => ada.ask_to_stop(work.id()).await,
                Err(error) => Err(error),
            };
            let stored = holder().await.stop_requested.unwrap_or_default();
            given.to("a reason to stop", says_something(text), outcome.map(|_| stored)).await;

            let outcome = work.progress(&text).await;
            let stored = holder().await.progress.and_then(|value| value.as_str().map(str::to_owned));
            given.to("progress", !text.contains('\0'), outcome.map(|()| stored.unwrap_or_default())).await;
            let outcome = work.progress(&serde_json::json!({"fields": [{text: true}]})).await;
            let stored = holder().await.progress.and_then(|value| Some(value["fields"][0].as_object()?.keys().next()?.clone()));
            given.to("a name in progress", !text.contains('\0'), outcome.map(|()| stored.unwrap_or_default())).await;

            match work.fail(text).await {
                Ok(()) => {
                    let cause = bmdb.history(machine).await.unwrap().rows.pop().and_then(|event| event.cause);
                    given.to("a cause", without_nul(text, 4096), Ok(cause.unwrap_or_default())).await;
                    assert_eq!(bmdb.backoffs(Some(machine)).await.unwrap().rows[0].cause, text);
                    assert!(ada(&bmdb).clear_backoff(machine, Survey::NAME).await.unwrap());
                }
                Err(Unfinished::NotCommitted { work, error }) => {
                    given.to("a cause", without_nul(text, 4096), Err(error)).await;
                    work.cancel().await.unwrap();
                }
                Err(gone) => panic!("{gone:?}"),
            }
        }
    }

    async fn what_operators_say_is_kept_or_refused(db: TestDatabase) {
        let (bmdb, session, raw) = (connect(&db).await, session(&db).await, db.raw().await);
        let machine = provide(&session, 1).await[0];
        session.claim(&of::<Survey>(&session).await).on(machine).await.unwrap().expect("it is eligible").cancel().await.unwrap();
        for text in TEXTS {
            let given = Given { raw: &raw, rows: row_counts(&raw).await, text };
            let held = async |by: &str, reason: &str, ticket: &str| {
                bmdb.operator(by, reason)?.ticket(ticket)?.place_hold(machine, Hold::new()).await?;
                let mut holds = bmdb.holds(Some(machine)).await?.rows;
                ada(&bmdb).lift_hold(machine, None).await?;
                Ok::<_, Error>(holds.pop().expect("it was placed"))
            };
            let outcome = held("ada", text, "OPS-1").await.map(|hold| hold.reason);
            given.to("the reason of an operator", says_something(text), outcome).await;
            let outcome = held(text, "moving", "OPS-1").await.map(|hold| hold.placed_by);
            given.to("the name of an operator", says_something(text), outcome).await;
            let outcome = held("ada", "moving", text).await.map(|hold| hold.ticket.expect("it was given"));
            given.to("a ticket", says_something(text), outcome).await;
            let latest = bmdb.operations(Some(machine)).await.unwrap().rows;
            if says_something(text) {
                assert!(latest.iter().any(|act| act.ticket.as_deref() == Some(text) && act.verb == "place-hold"), "{text:?}");
            }

            let given = Given { rows: row_counts(&raw).await, ..given };
            // A name that no process has is refused for that; anything else for not being a name.
            match bmdb.operator("ada", "moving").unwrap().place_hold(machine, Hold::new().slot(text)).await {
                Err(Error::UnknownSlot { .. }) if is_name(text) => {}
                outcome => given.to("the slot of a hold", is_name(text), outcome.map(|()| String::new())).await,
            }
            let outcome = ada(&bmdb).lift_hold(machine, Some(text)).await;
            given.to("the slot of a lifted hold", is_name(text), outcome.map(|_| text.to_owned())).await;
            match ada(&bmdb).clear_backoff(machine, text).await {
                Err(Error::UnknownProcess { .. }) if is_name(text) => {}
                outcome => given.to("the process of a backoff", is_name(text), outcome.map(|_| String::new())).await,
            }
        }
    }

    async fn what_is_known_of_machines_is_kept_or_refused(db: TestDatabase) {
        let (session, raw) = (session(&db).await, db.raw().await);
        let tagged_one = provide(&session, 1).await[0];
        let is_id = |text: &str| !text.is_empty() && without_nul(text, 1024);
        for (nth, text) in TEXTS.into_iter().enumerate() {
            let plain = || machine::NewMachine::new(format!("p{nth}"), "plain");
            type Read = fn(provided::Model) -> String;
            let fields: [(&str, bool, machine::NewMachine, Read); 5] = [
                ("a provider", is_id(text), machine::NewMachine::new(text, "plain"), |row| row.provider),
                ("a provider id", is_id(text), machine::NewMachine::new(format!("p{nth}"), text), |row| row.provider_id),
                ("a reservation", without_nul(text, 4096), machine::NewMachine::new(format!("p{nth}"), "r").reservation(text), |row| row.reservation.unwrap()),
                ("an address", without_nul(text, 4096), machine::NewMachine::new(format!("p{nth}"), "a").address(text), |row| row.address.unwrap()),
                ("a location", without_nul(text, 4096), machine::NewMachine::new(format!("p{nth}"), "l").location(text), |row| row.location.unwrap()),
            ];
            for (field, may_hold, new, read) in fields {
                let given = Given { raw: &raw, rows: row_counts(&raw).await, text };
                let batch = [plain(), new.clone()];
                let imported = session.transact(async |tx| machine::import(tx, &batch).await).await;
                if let Err(error) = imported {
                    given.to(field, may_hold, Err(error)).await;
                    let outcome = session.transact(async |tx| machine::provide(tx, new.clone()).await).await;
                    given.to(field, may_hold, outcome.map(|_| text.to_owned())).await;
                    continue;
                }
                // Found again under its identity, whatever is in it.
                let outcome = session.transact(async |tx| machine::provide(tx, new.clone()).await).await;
                let Err(error @ Error::DuplicateProviderId { machine, .. }) = outcome else { panic!("{field}: {outcome:?}") };
                assert!(!error.to_string().chars().any(char::is_control), "{error}");
                given.to(field, may_hold, Ok(read(tagged(&session, machine).await))).await;
            }

            let given = Given { raw: &raw, rows: row_counts(&raw).await, text };
            let row = |status, address| provided::ActiveModel {
                machine_id: Set(tagged_one),
                provider: Set("test".to_owned()),
                provider_id: Set("m0".to_owned()),
                reservation: Set(None),
                address: Set(address),
                location: Set(None),
                status: Set(status),
            };
            let set = async |row: provided::ActiveModel| session.transact(async |tx| tag::set::<provided::Entity>(tx, row.clone()).await).await;
            let outcome = set(row(provided::Status::Running, Some(text.to_owned()))).await;
            let stored = tagged(&session, tagged_one).await.address.unwrap_or_default();
            given.to("a column of a tag", !text.contains('\0'), outcome.map(|()| stored)).await;
            let outcome = set(row(provided::Status::Unknown(text.to_owned()), None)).await;
            let stored = tagged(&session, tagged_one).await.status.to_string();
            given.to("a word in a tag", !text.contains('\0'), outcome.map(|()| stored)).await;
        }
    }

    async fn bytes_are_kept_as_they_are(db: TestDatabase) {
        let session = session(&db).await;
        let bytes: Vec<u8> = (0..=u8::MAX).chain([0, 0xff, 0xfe, b'\'', 0]).collect();
        for bytes in [bytes, Vec::new()] {
            let new = machine::NewMachine::new("bytes", bytes.len().to_string()).hardware_report(bytes.clone());
            let machine = session.transact(async |tx| machine::provide(tx, new.clone()).await).await.unwrap();
            session.transact(async |tx| agent_started::set(tx, machine, bytes.clone()).await).await.unwrap();
            let stored = session
                .transact(async |tx| {
                    let report = tag::get::<bmdb::hardware_report::Entity>(tx, machine).await?;
                    let started = tag::get::<agent_started::Entity>(tx, machine).await?;
                    Ok::<_, Error>((report.unwrap().raw, started.unwrap().public_key))
                })
                .await
                .unwrap();
            assert_eq!(stored, (bytes.clone(), bytes));
        }
    }

    async fn progress_that_nobody_could_read_is_refused(db: TestDatabase) {
        let (bmdb, session) = (connect(&db).await, session(&db).await);
        let machine = provide(&session, 1).await[0];
        let work = session.claim(&of::<Survey>(&session).await).on(machine).await.unwrap().expect("it is eligible");
        let nested = |depth: usize| (0..depth).fold(serde_json::json!(1), |inner, _| serde_json::json!([inner]));
        for value in [nested(200), serde_json::json!("x".repeat(70_000)), serde_json::json!(["\0"])] {
            let refused = work.progress(&value).await;
            assert!(matches!(refused, Err(Error::Invalid { what: "progress", .. })), "{refused:?}");
            of::<Survey>(&bmdb).await.explain(machine).await.expect("what is there can be read");
        }
        work.progress(&nested(100)).await.unwrap();
        assert_eq!(of::<Survey>(&bmdb).await.explain(machine).await.unwrap().holder.unwrap().progress, Some(nested(100)));
    }

    async fn names_of_processes_are_kept_or_refused(db: TestDatabase) {
        let (session, raw) = (session(&db).await, db.raw().await);
        provide(&session, 1).await;
        macro_rules! each {
            ($($nth:literal)*) => {$(
                // A component writes a process once, so each has one of its own.
                let another = self::session(&db).await;
                let given = Given { raw: &raw, rows: row_counts(&raw).await, text: TEXTS[$nth] };
                let outcome = registered::<Named<$nth>>(&another, &raw).await;
                given.to("the name of a process", is_name(TEXTS[$nth]), outcome.map(|row| row.name)).await;
                let given = Given { rows: row_counts(&raw).await, ..given };
                let outcome = registered::<Slotted<$nth>>(&another, &raw).await;
                given.to("the name of a slot", is_name(TEXTS[$nth]), outcome.map(|row| row.slot)).await;
                let given = Given { rows: row_counts(&raw).await, ..given };
                let outcome = registered::<Described<$nth>>(&another, &raw).await;
                given.to("a description", without_nul(TEXTS[$nth], 4096), outcome.map(|row| row.description)).await;
                another.close().await.unwrap();
                tamper(&raw, "DELETE FROM process").await;
            )*};
        }
        each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23);
    }
}

macro_rules! process {
    ($name:ident, $($constant:ident = $value:expr),+) => {
        #[derive(Default)]
        struct $name<const NTH: usize>;
        impl<const NTH: usize> Process for $name<NTH> {
            $(const $constant: &'static str = $value;)+
            type Item = machine::Model;
            fn eligible(&self, machines: Eligible) -> Eligible {
                machines
            }
        }
    };
}

process!(Named, NAME = TEXTS[NTH], SLOT = "slot");
process!(Slotted, NAME = "slotted", SLOT = TEXTS[NTH]);
process!(Described, NAME = "described", DESCRIPTION = TEXTS[NTH]);

/// The row of a process that was claimed for.
async fn registered<P: Process + Default>(
    session: &Session,
    raw: &DatabaseConnection,
) -> Result<process::Model, Error> {
    let process = session.bmdb().register(P::default()).await?;
    let work = session.claim(&process).await?.expect("it is eligible");
    work.cancel().await.unwrap();
    Ok(process::Entity::find_by_id(P::NAME)
        .one(raw)
        .await
        .unwrap()
        .expect("it was registered"))
}

/// What an operator sees of a session that a component with this configuration starts.
async fn started(operator: &Bmdb, config: bmdb::Config) -> Result<bmdb::HeldBySession, Error> {
    let bmdb = Bmdb::connect(config).await?;
    let session = bmdb.start_session().await?;
    let held = ada(operator).break_session(session.id()).await?;
    session.close().await.unwrap();
    bmdb.close().await;
    Ok(held.expect("it was started"))
}
