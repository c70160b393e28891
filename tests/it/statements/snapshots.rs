//! What each call sends, kept whole in files: a reviewer of a change to the protocol reads their diff. `snapshots/sql/<call>.<dialect>.sql` has the statements of one
//! call in their order, without BEGIN and COMMIT; of a list of values, the first is kept for all.
//!
//! `BMDB_TEST_UPDATE=1` writes them anew.

mod acts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bmdb::{
    Config, Error, Facts, MachineFilter, MachineId, MachineState, Observation, Session, Work, WorksOf, agent_heartbeat,
    agent_started, hardware_report, machine, provided, tag,
};
use futures_util::future::join_all;
use harness::{Backend, TestDatabase, ada, of};
use regex::Regex;
use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait, DatabaseConnection};
use tokio::process::Command;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::claims::rules::of_provider;
use crate::world::{AgentStart, Survey, kill_session, tamper};

/// The statements of each call, in the order in which they were first sent.
type Calls = BTreeMap<String, Vec<String>>;

/// Says to the process that is to make the calls where, and to which file it is to write what they sent.
const DATABASE: &str = "BMDB_TEST_CALLS_ON";
const RESULT: &str = "BMDB_TEST_CALLS_TO";

/// Hears the driver, which tells of each statement, from whichever thread.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Whose statements they are. None: they are the test's own.
    call: Option<String>,
    calls: Calls,
    heard: u64,
}

#[derive(Default)]
struct Said {
    summary: String,
    statement: String,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.trim().clone_into(&mut self.statement),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "summary" {
            self.summary = format!("{value:?}");
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Ear {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        if event.metadata().target() != "sqlx::query" {
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        let statement = if said.statement.is_empty() {
            said.summary
        } else {
            said.statement
        };
        let mut state = self.0.lock().expect("nothing panics with it");
        state.heard += 1;
        let Some(call) = state.call.clone() else { return };
        // Whichever call needs one more connection sets it up.
        let is_set_up = statement.contains("current_setting(") && call != "connect";
        // A heartbeat comes when it is time; on a busy machine also after its session was closed.
        let is_heartbeat = ["SET deadline = max(", "SET deadline = greatest("]
            .iter()
            .any(|beat| statement.contains(beat));
        if is_set_up
            || (is_heartbeat && call != "heartbeat")
            || ["BEGIN", "COMMIT", "ROLLBACK"]
                .iter()
                .any(|word| statement.starts_with(word))
        {
            return;
        }
        let statements = state.calls.entry(call).or_default();
        let statement = in_short(&statement);
        if !statements.contains(&statement) {
            statements.push(statement);
        }
    }
}

/// Of a list of values the first.
fn in_short(statement: &str) -> String {
    let values =
        Regex::new(r"(VALUES )?(\((?:[^()]|\([^()]*\))*\))(?:, \((?:[^()]|\([^()]*\))*\))+").expect("is a pattern");
    let placeholder = Regex::new(r"\$\d+").expect("is a pattern");
    let like = |text: &str| placeholder.replace_all(text, "$$").into_owned();
    // Only of those that say the same.
    let shorter = values.replace_all(statement, |found: &regex::Captures<'_>| {
        let (all, first) = (&found[0], &found[2]);
        let rest = all.trim_start_matches("VALUES ");
        let count = like(rest).matches(&like(first)).count();
        let is_list = like(rest) == vec![like(first); count].join(", ");
        if is_list && first.contains('$') {
            format!("{}{first}, …", found.get(1).map_or("", |values| values.as_str()))
        } else {
            all.to_owned()
        }
    });
    let keys = Regex::new(r"(\$\d+)(?:, \$\d+){2,}\)").expect("is a pattern");
    keys.replace_all(&shorter, "$1, …)").into_owned()
}

impl Ear {
    /// Listens to one call, and to what it leaves to tasks.
    async fn to<T>(&self, call: &str, made: impl IntoFuture<Output = T>) -> T {
        self.0.lock().expect("nothing panics with it").call = Some(call.to_owned());
        let answer = made.await;
        loop {
            let heard = self.0.lock().expect("nothing panics with it").heard;
            tokio::time::sleep(Duration::from_millis(200)).await;
            let mut state = self.0.lock().expect("nothing panics with it");
            if state.heard == heard {
                state.call = None;
                return answer;
            }
        }
    }
}

async fn claimed<P: bmdb::Process + Default>(session: &Session) -> Work<P> {
    let claimed = session.claim(&of::<P>(session).await).await.unwrap();
    claimed.expect("there are machines enough")
}

/// Who claims seldom counts the hints after so long,
const UNTIL_HINTS_ARE_COUNTED: Duration = Duration::from_millis(5100);
/// and, when that has shown nothing new, not again for so long.
const HINTS_ARE_LEFT_ALONE: Duration = Duration::from_secs(28);

/// Makes each call once. `None`: it took so long that hints may have been refreshed in the middle of some.
async fn make_calls(ear: &Ear, url: &str, raw: &DatabaseConnection) -> Option<()> {
    // No heartbeat but those that are asked for.
    let config = || Config::new(url, "test", "").interval(Duration::from_secs(3600));
    let bmdb = ear.to("connect", bmdb::Bmdb::connect(config())).await.unwrap();
    let session = ear.to("start_session", bmdb.start_session()).await.unwrap();
    let new = |nth: usize| machine::NewMachine::new("a", nth.to_string());
    let one = session.transact(async |tx| machine::provide(tx, new(0)).await);
    let mut machines = vec![ear.to("machine_provide", one).await.unwrap()];
    let more = session.transact(async |tx| {
        let mut more = Vec::new();
        for nth in 1..40 {
            more.push(machine::provide(tx, new(nth)).await?);
        }
        Ok::<Vec<MachineId>, Error>(more)
    });
    machines.extend(more.await.unwrap());

    let start = ear.to("register", bmdb.register(AgentStart)).await.unwrap();
    let first = ear
        .to("claim_and_search", session.claim(&start))
        .await
        .unwrap()
        .expect("all are eligible");
    // Everything else is hinted at, so that what refreshes hints finds nothing new, and rests.
    tokio::time::sleep(UNTIL_HINTS_ARE_COUNTED).await;
    let refreshing = ear.to("claim_and_refresh_hints", session.claim(&start)).await;
    let refreshed = Instant::now();
    refreshing.unwrap().expect("all are eligible").cancel().await.unwrap();
    first.cancel().await.unwrap();
    let on = session.claim(&start).on(machines[20]);
    let work = ear.to("claim_on_a_machine", on).await.unwrap().expect("it is eligible");
    ear.to("work_cancel", work.cancel()).await.unwrap();
    let filtered = session
        .claim(&start)
        .filter(provided::Column::ProviderId.is_in(["31", "32", "33"]));
    let work = ear
        .to("claim_with_a_filter", filtered)
        .await
        .unwrap()
        .expect("some are eligible");
    work.cancel().await.unwrap();
    claimed::<AgentStart>(&session).await.cancel().await.unwrap();
    let work = ear
        .to("claim", session.claim(&start))
        .await
        .unwrap()
        .expect("all are eligible");
    ear.to("work_progress", work.progress(&1)).await.unwrap();
    ear.to("work_transact", work.transact(async |_tx| Ok::<_, Error>(())))
        .await
        .unwrap();
    ear.to("work_get", work.get::<provided::Entity>()).await.unwrap();
    ear.to("ask_to_stop", ada(&bmdb).ask_to_stop(work.id())).await.unwrap();
    let machine = work.machine();
    let finish = work.finish(async |tx| agent_started::set(tx, machine, *b"key").await);
    ear.to("work_finish", finish).await.unwrap();
    let works = ear.to("claim_many", session.claim_many(&start, 3)).await.unwrap();
    for ended in ear.to("fail_many", Work::fail_many(works, "a test")).await {
        ended.unwrap();
    }
    let works = session.claim_many(&start, 3).await.unwrap();
    for ended in ear.to("done_many", Work::done_many(works)).await {
        ended.unwrap();
    }
    let work = claimed::<AgentStart>(&session).await;
    ear.to("work_fail", work.fail("a test")).await.unwrap();
    let work = claimed::<AgentStart>(&session).await;
    ear.to("work_done", work.done()).await.unwrap();
    let work = claimed::<AgentStart>(&session).await;
    let facts = Facts::from(agent_started::row(*b"key")).and(agent_heartbeat::row());
    ear.to("work_done_stating", work.done().stating(facts)).await.unwrap();
    let runs = provided::ActiveModel {
        status: Set(provided::Status::Running),
        ..Default::default()
    };
    let work = claimed::<AgentStart>(&session).await;
    ear.to("work_done_updating", work.done().updating(runs)).await.unwrap();
    let work = claimed::<AgentStart>(&session).await;
    let then = work
        .done()
        .stating(agent_started::row(*b"key"))
        .then(session.claim(&start));
    let next = ear
        .to("done_then_claim", then)
        .await
        .unwrap()
        .unwrap()
        .expect("some are eligible");
    let then = next.fail("a test").then(session.claim(&start));
    let next = ear
        .to("fail_then_claim", then)
        .await
        .unwrap()
        .unwrap()
        .expect("some are eligible");
    ear.to("work_dropped", async { drop(next) }).await;
    if refreshed.elapsed() > HINTS_ARE_LEFT_ALONE {
        return None;
    }
    let beating = bmdb::Bmdb::connect(config().interval(Duration::from_secs(1)))
        .await
        .unwrap();
    let beats = beating.start_session().await.unwrap();
    ear.to("heartbeat", tokio::time::sleep(Duration::from_millis(400)))
        .await;
    beats.close().await.unwrap();

    let heard = Observation::new(machines[1], agent_heartbeat::row());
    let state = session.state([heard.clone().only_if(agent_started::row(*b"key")), heard]);
    ear.to("session_state", state).await.unwrap();
    let report = hardware_report::ActiveModel {
        machine_id: Set(machines[2]),
        raw: Set(vec![1]),
    };
    let set = session.transact(async |tx| tag::set::<hardware_report::Entity>(tx, report.clone()).await);
    ear.to("tag_set", set).await.unwrap();
    let update = session.transact(async |tx| tag::update::<hardware_report::Entity>(tx, report.clone()).await);
    ear.to("tag_update", update).await.unwrap();
    let delete = session.transact(async |tx| tag::delete::<hardware_report::Entity>(tx, machines[2]).await);
    ear.to("tag_delete", delete).await.unwrap();
    let exclude = session.transact(async |tx| machine::exclude_claims(tx, machines[2]).await);
    ear.to("machine_exclude_claims", exclude).await.unwrap();
    let hint = session.transact(async |tx| machine::hint(tx, "agent-start", machines[2]).await);
    ear.to("machine_hint", hint).await.unwrap();

    ear.to("count", start.count()).await.unwrap();
    ear.to("eligible", start.eligible(100)).await.unwrap();
    ear.to("explain", start.explain(machines[3])).await.unwrap();
    let rules = ear.to("rules", bmdb.rules("agent-start")).await.unwrap();
    // On a server this connection is told what it may do.
    let _refused = ear.to("rule_count", rules[0].count()).await;
    let _refused = ear.to("rule_eligible", rules[0].eligible(100)).await;
    ear.to("obstacles", bmdb.obstacles("agent-start", machines[3]))
        .await
        .unwrap();
    ear.to("history", bmdb.history(machine)).await.unwrap();
    acts::hold(ear, &bmdb, machines[3]).await;
    ear.to("operations", bmdb.operations(Some(machines[3]))).await.unwrap();
    ear.to("holds", bmdb.holds(None)).await.unwrap();
    ear.to("sessions", bmdb.sessions()).await.unwrap();
    ear.to("processes", bmdb.processes()).await.unwrap();
    ear.to("works", bmdb.works(WorksOf::All)).await.unwrap();
    let held = MachineFilter::new()
        .name("7")
        .state(MachineState::Held)
        .process("start");
    ear.to("machines", bmdb.machines(held)).await.unwrap();
    ear.to("machine_find", machine::find(bmdb.reads(), "a", "7"))
        .await
        .unwrap();
    ear.to("backoffs", bmdb.backoffs(None)).await.unwrap();
    let _drained = acts::act(ear, &bmdb, raw, &session, machines[3]).await;

    let [dead, broken] = [bmdb.start_session().await.unwrap(), bmdb.start_session().await.unwrap()];
    let held = (claimed::<Survey>(&dead).await, claimed::<Survey>(&broken).await);
    let work = &held.1;
    ear.to("break_holder", ada(&bmdb).break_holder(work.id(), work.fence()))
        .await
        .unwrap();
    ear.to("break_session", ada(&bmdb).break_session(broken.id()))
        .await
        .unwrap();
    kill_session(raw, &dead).await;
    let other = bmdb::Bmdb::connect(config()).await.unwrap();
    let mut collector = other.collector();
    ear.to("collect", async { collector.sweep().await.unwrap() }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    ear.to("collect_and_expire", async { collector.sweep().await.unwrap() })
        .await;
    bmdb.register(of_provider("unused")).await.unwrap();
    tamper(
        raw,
        "UPDATE process_rule SET used_at = '2020-01-01 00:00:00.000' WHERE process = 'start'",
    )
    .await;
    tamper(
        raw,
        "UPDATE work_retrieval SET began_at = '2020-01-01 00:00:00.000' WHERE process LIKE 'start@%'",
    )
    .await;
    ear.to("forget_unused_rules", collector.forget_unused_rules())
        .await
        .unwrap();
    ear.to("close_session", session.close()).await.unwrap();
    Some(())
}

/// In the process that makes the calls.
async fn say(url: &str, result: &str) {
    let ear = Ear::default();
    let heard = tracing_subscriber::registry().with(ear.clone());
    tracing::subscriber::set_global_default(heard).expect("nobody else has said so in this process");
    let raw = sea_orm::Database::connect(url).await.expect("it is there");
    let made = make_calls(&ear, url, &raw).await;
    let calls = std::mem::take(&mut ear.0.lock().expect("nothing panics with it").calls);
    let calls = made.map(|()| calls);
    std::fs::write(result, serde_json::to_string(&calls).expect("it is text")).expect("it can be written");
}

/// So often a machine that others keep busy may take too long.
const ATTEMPTS: usize = 3;

/// Has a process of its own make the calls, for only there all threads can be heard.
async fn heard_on(dialect: &'static str) -> Calls {
    for _ in 0..ATTEMPTS {
        let db = match dialect {
            "sqlite" => TestDatabase::migrated(Backend::Sqlite).await,
            "postgres" => TestDatabase::migrated(Backend::Postgres).await,
            _ => TestDatabase::with_cockroach_text().await,
        };
        let folder = tempfile::tempdir().expect("there is room");
        let result = folder.path().join("calls");
        let said = Command::new(std::env::current_exe().expect("it is running"))
            .args([
                "--exact",
                "statements::snapshots::what_each_call_sends_is_kept",
                "--nocapture",
            ])
            .env(DATABASE, db.url())
            .env(RESULT, &result)
            .output()
            .await
            .expect("it can be run");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
        let text = std::fs::read_to_string(&result).expect("it has written them");
        if let Some(calls) = serde_json::from_str(&text).expect("it is JSON") {
            return calls;
        }
    }
    panic!("the calls took longer than {HINTS_ARE_LEFT_ALONE:?}, {ATTEMPTS} times");
}

fn formatted(statements: &[String]) -> String {
    let options = sqlformat::FormatOptions {
        indent: sqlformat::Indent::Spaces(4),
        ..Default::default()
    };
    let one = |statement: &String| sqlformat::format(statement, &sqlformat::QueryParams::None, &options) + ";\n";
    statements.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("it/statements/snapshots/sql")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_each_call_sends_is_kept() {
    if let (Ok(url), Ok(result)) = (std::env::var(DATABASE), std::env::var(RESULT)) {
        return say(&url, &result).await;
    }
    let mut sent = BTreeMap::new();
    let heard = ["sqlite", "postgres", "cockroach"].map(|dialect| async move { (dialect, heard_on(dialect).await) });
    for (dialect, calls) in join_all(heard).await {
        for (call, statements) in calls {
            sent.insert(format!("{call}.{dialect}.sql"), formatted(&statements));
        }
    }
    let kept = |name: &str| std::fs::read_to_string(folder().join(name)).unwrap_or_default();
    if std::env::var("BMDB_TEST_UPDATE").is_ok() {
        // What is sent no more is kept no more.
        let _there_may_be_none = std::fs::remove_dir_all(folder());
        std::fs::create_dir_all(folder()).expect("it can be made");
        for (name, text) in &sent {
            std::fs::write(folder().join(name), text).expect("it can be written");
        }
    }
    let files = std::fs::read_dir(folder()).expect("they are kept");
    let files: Vec<_> = files
        .map(|file| {
            file.expect("it can be read")
                .file_name()
                .into_string()
                .expect("it is text")
        })
        .collect();
    let mut differ: Vec<&String> = files.iter().filter(|name| !sent.contains_key(*name)).collect();
    differ.extend(
        sent.iter()
            .filter(|(name, text)| kept(name) != **text)
            .map(|(name, _)| name),
    );
    for name in &differ {
        let sent = sent.get(*name).map_or("", String::as_str);
        let kept = kept(name);
        let new = sent.lines().filter(|line| !kept.lines().any(|kept| kept == *line));
        println!("{name} has new lines: {:#?}", new.collect::<Vec<_>>());
    }
    let help = "look at what has changed, and run this test with BMDB_TEST_UPDATE=1";
    assert!(
        differ.is_empty(),
        "other statements are sent than those that are kept: {differ:?}; {help}"
    );
    for call in [
        "claim",
        "claim_and_search",
        "heartbeat",
        "work_done",
        "collect_and_expire",
    ] {
        assert!(
            sent.contains_key(&format!("{call}.postgres.sql")),
            "{call} has sent nothing"
        );
    }
}
