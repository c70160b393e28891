//! What goes over the wire, read in the server's own log and held against what CockroachDB takes.
//!
//! CockroachDB cannot be run here. These rules are what its documentation forbids or leaves undefined; each has a statement that breaks it, so that
//! a rule that cannot go red is seen.

mod acts;
mod lists;

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::time::Duration;

use bmdb::{
    Error, Hold, Observation, Until, Work, WorkId, agent_heartbeat, agent_started, machine, os_installation_request,
    tag,
};
use harness::{Backend, TestDatabase, ada, of, until};
use regex::Regex;
use sea_orm::ActiveValue::Set;

use crate::world::{AgentRecovery, AgentStart, LONG, Survey, connect_to, kill_session, provide, tamper};

/// A rule: its name, what breaks it, what pardons a match, and a statement that breaks it.
struct Rule {
    name: &'static str,
    breaks: &'static str,
    unless: Option<&'static str>,
    example: &'static str,
}

const fn rule(name: &'static str, breaks: &'static str, example: &'static str) -> Rule {
    Rule {
        name,
        breaks,
        unless: None,
        example,
    }
}

const RULES: &[Rule] = &[
    rule("advisory locks", r"\bpg_(try_)?advisory_", "SELECT pg_advisory_lock(1)"),
    rule(
        "notifications",
        r"\b(LISTEN|UNLISTEN|NOTIFY)\b|\bpg_notify\(",
        "LISTEN work",
    ),
    rule(
        "skipping locks",
        r"\bSKIP LOCKED\b|\bNOWAIT\b",
        "SELECT a FROM t FOR UPDATE SKIP LOCKED",
    ),
    rule(
        "shared row locks",
        r"\bFOR (KEY )?SHARE\b|\bFOR NO KEY UPDATE\b",
        "SELECT a FROM t WHERE k = $1 FOR KEY SHARE",
    ),
    rule(
        "system columns",
        r"\b(xmin|xmax|cmin|cmax|ctid|tableoid)\b",
        "SELECT ctid FROM t",
    ),
    rule(
        "deferred constraints",
        r"\bDEFERRABLE\b|\bINITIALLY (DEFERRED|IMMEDIATE)\b|\bSET CONSTRAINTS\b",
        "SET CONSTRAINTS ALL DEFERRED",
    ),
    rule(
        "other clocks than now()",
        r"\b(clock_timestamp|statement_timestamp|timeofday)\(|\bLOCALTIMESTAMP\b",
        "SELECT clock_timestamp()",
    ),
    rule(
        "stars",
        r"\b(SELECT|RETURNING) (DISTINCT )?(\w+\.)?\*",
        "SELECT * FROM t",
    ),
    rule(
        "uncast aggregates",
        r"(^|[^(])\b(SUM|AVG|EXTRACT|date_part) ?\(",
        "SELECT SUM(a) FROM t",
    ),
    Rule {
        name: "uncast counts",
        breaks: r"\bCOUNT ?\(",
        unless: Some(r"\bCAST\( ?COUNT ?\(|\bCOUNT\(S?\*?\) > 0\b"),
        example: "SELECT count(a) FROM t",
    },
    rule("division", r"[\w)] ?/ ?[\w($]", "SELECT a / b FROM t"),
    Rule {
        name: "settings",
        breaks: r"^(SET|RESET|DISCARD|DEALLOCATE)\b|\bset_config\(",
        unless: Some(r"^SET search_path\b"),
        example: "SET statement_timeout = 0",
    },
    Rule {
        name: "isolation in a statement",
        breaks: r"\bISOLATION LEVEL\b",
        // What `explain` reads at one moment, on PostgreSQL; CockroachDB's transactions are all SERIALIZABLE.
        unless: Some(r"^SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY$"),
        example: "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    },
    rule(
        "administration",
        r"^(VACUUM|CLUSTER|REINDEX|LOCK|COPY|DECLARE|FETCH|DO|CALL|TRUNCATE)\b",
        "LOCK TABLE t",
    ),
    Rule {
        name: "limits on writes",
        breaks: r"^(UPDATE|DELETE)\b.*\b(LIMIT|ORDER BY)\b",
        unless: Some(r"\bSELECT\b"),
        example: "DELETE FROM t ORDER BY a LIMIT 1",
    },
    rule("two statements at once", r";\s*\S", "SELECT a FROM t; SELECT b FROM t"),
    rule("bare literals", r"^SELECT 1( AS \w+)?$", "SELECT 1"),
    rule(
        "one table written twice",
        r"^WITH\b.*\b(UPDATE|INTO|DELETE FROM) work\b.*\b(UPDATE|INTO|DELETE FROM) work\b",
        "WITH a AS (DELETE FROM work), b AS (DELETE FROM work) SELECT c FROM a",
    ),
    rule(
        "words of CockroachDB only",
        r"\bAS OF SYSTEM TIME\b|^UPSERT\b|\bcrdb_internal\b|\bcluster_logical_timestamp\b",
        "UPSERT INTO t VALUES (1)",
    ),
    rule(
        "enumerated types",
        r"^(CREATE|ALTER|DROP) TYPE\b",
        "CREATE TYPE mood AS ENUM ('sad')",
    ),
    rule(
        "narrow or serial columns",
        r"^(CREATE|ALTER)\b.*\b(\w*serial|smallint|integer|int|int4|real|money|json|timestamp without)\b",
        "CREATE TABLE IF NOT EXISTS t (a integer PRIMARY KEY)",
    ),
    Rule {
        name: "schema changes that cannot be repeated",
        breaks: r"^(CREATE (UNIQUE )?(TABLE|INDEX)|DROP (TABLE|INDEX))\b",
        unless: Some(r"\bIF (NOT )?EXISTS\b"),
        example: "CREATE TABLE t (a BIGINT PRIMARY KEY)",
    },
    rule(
        "renames and type changes",
        r"^ALTER\b.*\b(RENAME|TYPE)\b",
        "ALTER TABLE t RENAME a TO b",
    ),
    Rule {
        name: "tables without a key",
        breaks: r"^CREATE TABLE\b",
        unless: Some(r"(?i)\bPRIMARY KEY\b"),
        example: "CREATE TABLE IF NOT EXISTS t (a BIGINT)",
    },
];

/// What PostgreSQL's dialect may say that CockroachDB's does not: the lines that `Dialect::Cockroach` leaves out; an end with the next claim, which
/// are two statements there; and where a hint lies, by which PostgreSQL finds it again within a statement, as CockroachDB does by its key.
const POSTGRES_ONLY: &[&str] = &[
    "shared row locks",
    "skipping locks",
    "one table written twice",
    "system columns",
    // A new connection raises `synchronous_commit`, which CockroachDB has not.
    "settings",
];

fn broken(statement: &str) -> Vec<&'static str> {
    let strings = Regex::new(r"'(?:[^']|'')*'").expect("is a pattern");
    let spaces = Regex::new(r"\s+").expect("is a pattern");
    let plain = strings.replace_all(statement, "'S'").replace('"', "");
    let plain = spaces.replace_all(plain.trim(), " ");
    let matches = |pattern: &str| Regex::new(&format!("(?i){pattern}")).expect(pattern).is_match(&plain);
    RULES
        .iter()
        .filter(|rule| matches(rule.breaks) && !rule.unless.is_some_and(matches))
        .map(|rule| rule.name)
        .collect()
}

#[test]
fn each_rule_goes_red() {
    for rule in RULES {
        assert!(
            broken(rule.example).contains(&rule.name),
            "{} does not see {}",
            rule.name,
            rule.example
        );
    }
    for good in [
        "SELECT w.work_id FROM work w WHERE w.session_id = $1",
        "UPDATE machine SET fence = greatest(machine.fence + 1, CAST(extract(epoch FROM now()) * 1000 AS BIGINT)) WHERE machine_id = $1",
        "INSERT INTO a (b) SELECT b FROM c WHERE true ON CONFLICT (b) DO UPDATE SET b = excluded.b",
        "SELECT CAST(COUNT(a) AS BIGINT) FROM t",
        "BEGIN",
    ] {
        assert_eq!(broken(good), Vec::<&str>::new(), "{good}");
    }
}

/// Every public operation once, by a component at `url`; `raw` is for tampering.
pub(crate) async fn everything(url: &str, raw: &sea_orm::DatabaseConnection) {
    let bmdb = connect_to(url).await;
    let session = bmdb.start_session().await.unwrap();
    let machines = provide(&session, 16).await;
    let machine = machines[0];
    session.transact(machine::create).await.unwrap();
    let new = machine::NewMachine::new("test", "extra").hardware_report(vec![1]);
    session
        .transact(async |tx| machine::import(tx, std::slice::from_ref(&new)).await)
        .await
        .unwrap();
    let request = os_installation_request::ActiveModel {
        machine_id: Set(machine),
        generation: Set(1),
        raw: Set(vec![]),
    };
    session
        .transact(async |tx| tag::set::<os_installation_request::Entity>(tx, request.clone()).await)
        .await
        .unwrap();
    session
        .transact(async |tx| tag::delete::<os_installation_request::Entity>(tx, machine).await)
        .await
        .unwrap();

    let heard = Observation::new(machine, agent_heartbeat::row());
    session
        .state([heard.clone().only_if(agent_started::row(*b"key")), heard])
        .await
        .unwrap();

    let work = session
        .claim(&of::<AgentStart>(&session).await)
        .on(machine)
        .await
        .unwrap()
        .expect("it is eligible");
    work.progress(&1).await.unwrap();
    work.transact(async |tx| agent_heartbeat::set(tx, machine).await)
        .await
        .unwrap();
    assert!(ada(&bmdb).ask_to_stop(work.id()).await.unwrap());
    until("a heartbeat brings it", LONG, async || work.stop().is_cancelled()).await;
    work.finish(async |tx| agent_started::set(tx, machine, *b"key").await)
        .await
        .unwrap();
    session
        .claim(&of::<AgentStart>(&session).await)
        .await
        .unwrap()
        .expect("it is eligible")
        .fail("a test")
        .await
        .unwrap();
    session
        .claim(&of::<AgentStart>(&session).await)
        .await
        .unwrap()
        .expect("it is eligible")
        .cancel()
        .await
        .unwrap();
    let works = session.claim_many(&of::<Survey>(&session).await, 3).await.unwrap();
    for ended in Work::fail_many(works, "a test").await {
        ended.unwrap();
    }
    let works = session.claim_many(&of::<Survey>(&session).await, 2).await.unwrap();
    for ended in Work::done_many(works).await {
        ended.unwrap();
    }
    let next = session
        .claim(&of::<Survey>(&session).await)
        .await
        .unwrap()
        .expect("it is always eligible");
    let next = next
        .fail("a test")
        .then(session.claim(&of::<Survey>(&session).await))
        .await
        .unwrap()
        .unwrap();
    drop(
        next.expect("another is eligible")
            .done()
            .then(session.claim(&of::<Survey>(&session).await))
            .await
            .unwrap()
            .unwrap(),
    );
    // Many at once, which share statements.
    let survey = of::<Survey>(&session).await;
    let claims = futures_util::future::join_all((0..10).map(|_| session.claim(&survey).into_future())).await;
    let claimed = claims.into_iter().filter_map(Result::unwrap);
    let cycles = claimed.map(|work| work.done().then(session.claim(&survey)));
    let next = futures_util::future::join_all(cycles).await;
    let next = next.into_iter().filter_map(|next| next.unwrap().unwrap());
    for ended in futures_util::future::join_all(next.map(|work| work.cancel().into_future())).await {
        ended.unwrap();
    }
    session
        .transact(async |tx| machine::hint(tx, "survey", machine).await)
        .await
        .unwrap();
    assert!(
        session
            .claim(&of::<AgentRecovery>(&session).await)
            .await
            .unwrap()
            .is_none()
    );

    of::<AgentRecovery>(&bmdb).await.count().await.unwrap();
    let start = of::<AgentStart>(&bmdb).await;
    start.explain_many(&[machine, machine]).await.unwrap();
    start.eligible(10).await.unwrap();
    for rule in bmdb.rules(AgentStart::NAME).await.unwrap() {
        // On a server it is refused to who may write.
        let _refused = rule.count().await;
        let _refused = rule.eligible(10).await;
    }
    bmdb.obstacles(AgentStart::NAME, machine).await.unwrap();
    bmdb.collector().forget_unused_rules().await.unwrap();
    let page = bmdb.history(machine).limit(1).await.unwrap();
    let more = page.next.expect("its end follows");
    bmdb.history(machine).after(more).await.unwrap();
    for until in [
        Until::For(Duration::from_secs(1)),
        Until::Time((std::time::SystemTime::now() + Duration::from_secs(60)).into()),
        Until::Open,
    ] {
        ada(&bmdb).place_hold(machine, Hold::new().until(until)).await.unwrap();
        ada(&bmdb)
            .drain_machine(machine, Hold::new().until(until))
            .await
            .unwrap();
        // A span is longer each time, by the time between.
        let again = ada(&bmdb).place_hold(machine, Hold::new().until(until)).await;
        assert_eq!(again.is_ok(), matches!(until, Until::For(_)), "{again:?}");
    }
    let first = bmdb.sessions().limit(1).await.unwrap();
    let last = first.rows[0].session;
    bmdb.sessions().after(last).await.unwrap();
    bmdb::machine::find(bmdb.reads(), "test", "m0").await.unwrap();
    lists::list_states(&bmdb, machine).await;
    bmdb.holds(None).await.unwrap();
    bmdb.holds(None).after((machine, String::new())).await.unwrap();
    ada(&bmdb).lift_hold(machine, None).await.unwrap();
    ada(&bmdb).run_now(machine, AgentStart::NAME).await.unwrap();
    for of in [Some(machine), None] {
        let page = bmdb.operations(of).limit(1).await.unwrap();
        let more = page.next.expect("there were two");
        bmdb.operations(of).after(more).await.unwrap();
    }
    bmdb.backoffs(Some(machine)).await.unwrap();
    ada(&bmdb).clear_backoff(machine, AgentStart::NAME).await.unwrap();
    assert!(!ada(&bmdb).ask_to_stop(WorkId::random()).await.unwrap());

    let dead = connect_to(url).await.start_session().await.unwrap();
    let _held = dead
        .claim(&of::<AgentStart>(&dead).await)
        .await
        .unwrap()
        .expect("it is eligible");
    assert_eq!(
        ada(&bmdb).break_holder(WorkId::random(), bmdb::Fence(1)).await.unwrap(),
        None
    );
    assert!(ada(&bmdb).break_session(dead.id()).await.unwrap().is_some());
    acts::act(&bmdb, &session).await;
    kill_session(raw, &dead).await;
    let mut collector = bmdb.collector();
    until("the session is expired", LONG, async || {
        !collector.sweep().await.unwrap().expired.is_empty()
    })
    .await;
    session.transact(async |_tx| Ok::<_, Error>(())).await.unwrap();
    session.close().await.unwrap();
    bmdb.close().await;
}

use bmdb::Process;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sql_is_what_cockroachdb_takes() {
    harness::bounded(async {
        let db = TestDatabase::empty(Backend::Postgres).await;
        let name = db.url().rsplit('/').next().expect("a URL has a path").to_owned();
        tamper(
            &db.raw().await,
            &format!("ALTER DATABASE {name} SET log_statement = 'all'"),
        )
        .await;
        bmdb_migration::up(db.url(), None).await.unwrap();
        let migrating: BTreeSet<String> = db.statements().await.into_iter().collect();
        everything(db.url(), &db.raw().await).await;
        acts::prune(db.url()).await;
        let all: BTreeSet<String> = db.statements().await.into_iter().collect();

        // The capture is whole: it holds a statement of each kind that the operations above need.
        for part in [
            "CREATE TABLE IF NOT EXISTS",
            "BEGIN",
            "COMMIT",
            "ROLLBACK",
            "INSERT INTO session ",
            "UPDATE session_lease SET deadline = greatest",
            "FOR KEY SHARE",
            "INSERT INTO work ",
            "INSERT INTO work_history",
            "UPDATE machine SET fence = greatest(machine.fence + 1, ",
            "DELETE FROM work ",
            "INSERT INTO work_backoff",
            "DELETE FROM work_backoff",
            "INSERT INTO work_hold",
            "DELETE FROM work_hold",
            "UPDATE work SET progress",
            "UPDATE work SET stop_requested",
            "UPDATE session_lease SET deadline = now()",
            "INSERT INTO session_sighting",
            "DELETE FROM session ",
            "INSERT INTO process",
            "INSERT INTO \"machine_provided\"",
            "EXISTS(SELECT",
        ] {
            assert!(
                all.iter().any(|statement| statement.contains(part)),
                "no statement with {part:?} among {}",
                all.len()
            );
        }
        let mut wrong = Vec::new();
        for statement in &all {
            // What this test itself did to look and to tamper.
            if statement.starts_with("ALTER DATABASE")
                || statement.contains("'2020-01-01")
                || statement.contains("interval_ms = 200")
            {
                continue;
            }
            // Of the migrator's own statements those that only PostgreSQL is sent.
            if migrating.contains(statement) && statement.contains("fillfactor") {
                continue;
            }
            let rules: Vec<_> = broken(statement)
                .into_iter()
                .filter(|rule| !POSTGRES_ONLY.contains(rule))
                .collect();
            if !rules.is_empty() {
                wrong.push(format!("{rules:?}: {statement}"));
            }
        }
        assert!(
            wrong.is_empty(),
            "{} of {} statements:\n{}",
            wrong.len(),
            all.len(),
            wrong.join("\n")
        );
    })
    .await;
}
