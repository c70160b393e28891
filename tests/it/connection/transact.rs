//! Transactions: retries, swallowed errors, lost commits, dropped futures.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bmdb::{
    Error, MachineId, Unfinished, agent_heartbeat, agent_started, machine, os_installation_request, provided, tag,
};
use harness::{Backend, TestDatabase, of, on_each_backend, on_postgres, until};
use sea_orm::ActiveValue::Set;
use sea_orm::{ConnectionTrait, EntityTrait, PaginatorTrait, TransactionTrait};

use crate::claims::stress::idle_in_transaction;
use crate::world::{AgentStart, LONG, config, connect, provide, session, tamper};

/// The generation of the machine's installation request, raised by one.
async fn raise(tx: &bmdb::Tx, machine: MachineId) -> Result<i64, Error> {
    let row = tag::get::<os_installation_request::Entity>(tx, machine)
        .await?
        .expect("there is a request");
    let next = row.generation + 1;
    let row = os_installation_request::ActiveModel {
        machine_id: Set(machine),
        generation: Set(next),
        raw: Set(vec![]),
    };
    tag::set::<os_installation_request::Entity>(tx, row).await?;
    Ok(next)
}

async fn request(session: &bmdb::Session, machine: MachineId) {
    let row = os_installation_request::ActiveModel {
        machine_id: Set(machine),
        generation: Set(0),
        raw: Set(vec![]),
    };
    session
        .transact(async |tx| tag::set::<os_installation_request::Entity>(tx, row.clone()).await)
        .await
        .unwrap();
}

async fn generation(db: &TestDatabase) -> i64 {
    os_installation_request::Entity::find()
        .one(&db.raw().await)
        .await
        .unwrap()
        .expect("there is a request")
        .generation
}

on_each_backend! {
    async fn contended_increments_all_count(db: TestDatabase) {
        /// Hides the database's error from the library.
        #[derive(Debug)]
        struct Opaque;
        impl From<Error> for Opaque {
            fn from(_: Error) -> Self { Self }
        }
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        request(&session, machine).await;
        let runs = AtomicU32::new(0);
        let increments = (0..8).map(|_| async {
            for _ in 0..10 {
                session.transact(async |tx| {
                    runs.fetch_add(1, Ordering::Relaxed);
                    raise(tx, machine).await.map_err(|_hidden| Opaque)
                }).await.expect("it is run again until it commits");
            }
        });
        futures_util::future::join_all(increments).await;
        assert_eq!(generation(&db).await, 80);
        match db.backend() {
            Backend::Sqlite => assert_eq!(runs.into_inner(), 80, "one writer has no conflicts"),
            Backend::Postgres => assert!(runs.into_inner() > 80, "some run lost against another"),
        }
    }

    async fn a_swallowed_error_does_not_commit(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let outcome = session.transact(async |tx| {
            agent_heartbeat::set(tx, machine).await?;
            // The key exists: a violation, which the body ignores.
            let twice = machine::Entity::insert(machine::ActiveModel {
                machine_id: Set(machine), created_at: Set(chrono_now()), fence: Set(bmdb::Fence(0)),
            });
            assert!(twice.exec(tx).await.is_err());
            Ok::<_, Error>(())
        });
        let outcome = outcome.await;
        assert!(matches!(outcome, Err(Error::Poisoned { .. })), "{outcome:?}");
        assert_eq!(agent_heartbeat::Entity::find().count(&db.raw().await).await.unwrap(), 0);
    }

    async fn what_a_body_has_read_stays_so_until_it_writes(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        request(&session, machine).await;
        let runs = AtomicU32::new(0);
        let reads_and_writes = session.transact(async |tx| {
            let generation = raise(tx, machine).await?;
            runs.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Error>(generation)
        });
        assert_eq!(reads_and_writes.await.unwrap(), 1);
        // Another writes between what a body reads and what it writes.
        let raw = db.raw().await;
        let raised = session.transact(async |tx| {
            tag::get::<os_installation_request::Entity>(tx, machine).await?;
            if runs.fetch_add(1, Ordering::Relaxed) == 1 && db.backend() == Backend::Sqlite {
                let other = "PRAGMA busy_timeout = 100; UPDATE machine_os_installation_request SET generation = 70";
                let other = raw.execute_unprepared(other).await;
                assert!(other.is_err(), "this body has the only right to write");
            }
            raise(tx, machine).await
        });
        assert_eq!((raised.await.unwrap(), runs.into_inner()), (2, 2));
    }

    async fn an_error_inside_a_savepoint_may_be_handled(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        session.transact(async |tx| {
            agent_heartbeat::set(tx, machine).await?;
            let inner = tx.begin().await?;
            let twice = machine::Entity::insert(machine::ActiveModel {
                machine_id: Set(machine), created_at: Set(chrono_now()), fence: Set(bmdb::Fence(0)),
            });
            assert!(twice.exec(&inner).await.is_err());
            inner.rollback().await?;
            Ok::<_, Error>(())
        }).await.unwrap();
        assert_eq!(agent_heartbeat::Entity::find().count(&db.raw().await).await.unwrap(), 1);
    }

    async fn a_dropped_statement_does_not_commit(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let outcome = session.transact(async |tx| {
            let mut statement = Box::pin(agent_heartbeat::set(tx, machine));
            // Polled once, then dropped: it may or may not have run.
            let polled = futures_util::poll!(&mut statement);
            if polled.is_ready() {
                // It was faster than our poll; then it is not dropped half-way and there is nothing to see.
                return Err(Error::Draining { session: session.id() });
            }
            drop(statement);
            Ok::<_, Error>(())
        });
        let outcome = outcome.await;
        assert!(matches!(outcome, Err(Error::Poisoned { .. } | Error::Draining { .. })), "{outcome:?}");
        assert_eq!(agent_heartbeat::Entity::find().count(&db.raw().await).await.unwrap(), 0);
    }

    async fn a_body_that_outlives_its_sessions_trust_does_not_commit(db: TestDatabase) {
        let short = config(&db).interval(Duration::from_millis(1000));
        let session = bmdb::Bmdb::connect(short).await.unwrap().start_session().await.unwrap();
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        let outcome = session.transact(async |tx| {
            agent_heartbeat::set(tx, machine).await?;
            // Heartbeats find it gone, while this one does not look up.
            if db.backend() == Backend::Postgres {
                tamper(&raw, "UPDATE session_lease SET deadline = '2020-01-01 00:00:00.000'").await;
            }
            #[expect(clippy::disallowed_methods, reason = "this body is to keep its thread")]
            std::thread::sleep(Duration::from_millis(1500));
            Ok::<_, Error>(())
        });
        let outcome = outcome.await;
        assert!(matches!(outcome, Err(Error::SessionExpired { .. })), "{outcome:?}");
        assert_eq!(agent_heartbeat::Entity::find().count(&raw).await.unwrap(), 0);
    }

    async fn transactions_do_not_nest(db: TestDatabase) {
        let session = session(&db).await;
        let outcome = session.transact(async |_tx| session.transact(async |_tx| Ok::<_, Error>(())).await).await;
        assert!(matches!(outcome, Err(Error::Nested)), "{outcome:?}");
        provide(&session, 1).await;
        let registered = session.transact(async |_tx| session.bmdb().register(AgentStart).await.map(drop)).await;
        assert!(matches!(registered, Err(Error::Nested)), "{registered:?}");
        let start = of::<AgentStart>(&session).await;
        let claimed = session.transact(async |_tx| session.claim(&start).await.map(drop)).await;
        assert!(matches!(claimed, Err(Error::Nested)), "{claimed:?}");
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is eligible");
        let work = std::sync::Mutex::new(Some(work));
        let ended = session.transact(async |_tx| {
            let work = work.lock().unwrap().take().expect("the body runs once");
            Ok::<_, Error>(matches!(work.cancel().await, Err(bmdb::Unfinished::NotCommitted { error: Error::Nested, .. })))
        });
        assert!(ended.await.unwrap());
        let work = session.claim(&of::<AgentStart>(&session).await).await.unwrap();
        let work = work.as_ref();
        let progress = session.transact(async |_tx| match work {
            Some(work) => work.progress(&1).await,
            None => Ok(()),
        });
        let progress = progress.await;
        assert!(work.is_none() || matches!(progress, Err(Error::Nested)), "{progress:?}");
        let closed = session.transact(async |_tx| session.clone().close().await).await;
        assert!(matches!(closed, Err(Error::Nested)), "{closed:?}");
    }

    async fn a_body_that_excludes_claims_is_ordered_against_them(db: TestDatabase) {
        let (session, other) = (session(&db).await, self::session(&db).await);
        let machine = provide(&session, 1).await[0];
        other.claim(&of::<AgentStart>(&other).await).await.unwrap().expect("it is eligible").cancel().await.unwrap();
        let runs = AtomicU32::new(0);
        let claims = std::sync::Mutex::new(tokio::task::JoinSet::new());
        // Nobody works on it, so it is given away: unless somebody claims it meanwhile.
        let outcome = session.transact(async |tx| {
            machine::exclude_claims(tx, machine).await?;
            if bmdb_entity::work::Entity::find().count(tx).await? > 0 {
                return Ok(false);
            }
            if runs.fetch_add(1, Ordering::Relaxed) == 0 {
                let claim = other.claim(&of::<AgentStart>(&other).await).on(machine);
                claims.lock().unwrap().spawn(claim.into_future());
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            agent_started::set(tx, machine, *b"given away").await?;
            Ok::<_, Error>(true)
        });
        let given_away = outcome.await.unwrap();
        let claimed = claims.into_inner().unwrap().join_next().await.unwrap().unwrap().unwrap();
        assert_ne!(given_away, claimed.is_some(), "one of the two, never both and never neither");
    }

    async fn a_dropped_future_rolls_back_and_poisons_no_connection(db: TestDatabase) {
        // sqlx 0.9.0 (launchbadge/sqlx#4393): a BEGIN dropped half-way leaves the connection in an open transaction, and the next autocommit
        // write on it is acknowledged and never committed.
        let few = config(&db).max_connections(2);
        let session = bmdb::Bmdb::connect(few).await.unwrap().start_session().await.unwrap();
        let machine = provide(&session, 1).await[0];
        request(&session, machine).await;
        let mut committed = 0;
        for polls in 0..60_u32 {
            let mut future = Box::pin(session.transact(async |tx| raise(tx, machine).await));
            for _ in 0..polls / 4 {
                if let std::task::Poll::Ready(done) = futures_util::poll!(&mut future) {
                    done.unwrap();
                    break;
                }
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_micros(u64::from(polls) * 37)).await;
            }
            drop(future);
            committed = session.transact(async |tx| raise(tx, machine).await).await.unwrap();
        }
        assert_eq!(generation(&db).await, committed, "what was acknowledged is there for others");
        if db.backend() == Backend::Postgres {
            let raw = db.raw().await;
            until("no connection is left in a transaction", LONG, async || idle_in_transaction(&raw).await == 0).await;
        }
    }

    async fn a_panic_in_a_body_rolls_back(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let inner = session.clone();
        let panicking = tokio::task::JoinSet::from_iter([async move {
            inner.transact(async |tx| {
                agent_heartbeat::set(tx, machine).await?;
                if true { panic!("a test's panic"); }
                Ok::<_, Error>(())
            }).await
        }]);
        assert!(std::panic::AssertUnwindSafe(panicking.join_all()).catch().await);
        assert_eq!(agent_heartbeat::Entity::find().count(&db.raw().await).await.unwrap(), 0);
        session.transact(async |tx| agent_heartbeat::set(tx, machine).await).await.unwrap();
    }

    async fn tags_are_set_changed_read_and_deleted(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let key = session.transact(async |tx| {
            agent_started::set(tx, machine, *b"one").await?;
            agent_started::set(tx, machine, *b"two").await?;
            Ok::<_, Error>(tag::get::<agent_started::Entity>(tx, machine).await?.expect("it was set").public_key)
        });
        assert_eq!(key.await.unwrap(), b"two");
        let delete = async || session.transact(async |tx| tag::delete::<agent_started::Entity>(tx, machine).await).await;
        assert!(delete().await.unwrap());
        assert!(!delete().await.unwrap());
        let stranger = MachineId::random();
        let refused = session.transact(async |tx| agent_started::set(tx, stranger, *b"key").await).await;
        assert!(matches!(refused, Err(Error::UnknownMachine { machine }) if machine == stranger), "{refused:?}");
    }

    async fn a_transaction_can_be_spawned_with_borrowed_captures(db: TestDatabase) {
        let bmdb = connect(&db).await;
        let session = bmdb.start_session().await.unwrap();
        let counts = tokio::task::JoinSet::from_iter([async move {
            let wanted = String::from("test");
            let name = wanted.as_str();
            let owned = String::from("owned").into_bytes();
            let session = &session;
            session.transact(async |tx| {
                use sea_orm::{ColumnTrait, QueryFilter};
                let found = provided::Entity::find().filter(provided::Column::Provider.eq(name)).count(tx).await?;
                Ok::<_, Error>(found + owned.len() as u64)
            }).await
        }]);
        assert_eq!(counts.join_all().await.pop().unwrap().unwrap(), 5);
    }
}

on_postgres! {
    async fn isolation_is_the_librarys_own_whatever_the_url_says(db: TestDatabase) {
        let url = format!("{}?options=-c%20default_transaction_isolation%3Dread%5C%20uncommitted", db.url());
        let bmdb = bmdb::Bmdb::connect(bmdb::Config::new(url, "test", "")).await.unwrap();
        let session = bmdb.start_session().await.unwrap();
        let isolation = session.transact(async |tx| {
            let statement = sea_orm::Statement::from_string(tx.get_database_backend(), "SHOW transaction_isolation");
            Ok::<_, Error>(tx.query_one_raw(statement).await?.unwrap().try_get_by_index::<String>(0)?)
        });
        assert_eq!(isolation.await.unwrap(), "serializable");
    }

    async fn a_schema_change_under_open_connections_is_survived(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        let read = async || session.transact(async |tx| tag::get::<provided::Entity>(tx, machine).await).await;
        read().await.unwrap().expect("it is there");
        // A type that SeaORM reads as well, but not by the plan that it has prepared.
        tamper(&raw, "ALTER TABLE machine_provided ALTER COLUMN address TYPE varchar(4096)").await;
        let row = read().await.unwrap().expect("it is there");
        assert_eq!(row.address.as_deref(), Some("192.0.2.0"));
    }

    async fn a_body_runs_again_when_its_connection_is_killed(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        let runs = AtomicU32::new(0);
        session.transact(async |tx| {
            if runs.fetch_add(1, Ordering::Relaxed) == 0 {
                let statement = sea_orm::Statement::from_string(tx.get_database_backend(), "SELECT pg_backend_pid()");
                let pid: i32 = tx.query_one_raw(statement).await?.unwrap().try_get_by_index(0)?;
                tamper(&raw, &format!("SELECT pg_terminate_backend({pid})")).await;
            }
            agent_heartbeat::set(tx, machine).await
        }).await.unwrap();
        assert_eq!(runs.into_inner(), 2);
    }

    async fn a_conflict_at_commit_runs_again(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        fail_at_commit(&raw, "machine_agent_heartbeat", "40001", 2).await;
        let runs = AtomicU32::new(0);
        session.transact(async |tx| {
            runs.fetch_add(1, Ordering::Relaxed);
            agent_heartbeat::set(tx, machine).await
        }).await.unwrap();
        assert_eq!(runs.into_inner(), 3);
    }

    async fn conflicts_without_end_are_given_up_in_time(db: TestDatabase) {
        let impatient = config(&db).retry_budget(Duration::from_millis(500));
        let session = bmdb::Bmdb::connect(impatient).await.unwrap().start_session().await.unwrap();
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        fail_at_commit(&raw, "machine_agent_heartbeat", "40001", 1_000_000).await;
        let outcome = session.transact(async |tx| agent_heartbeat::set(tx, machine).await).await;
        assert!(matches!(outcome, Err(Error::Contended { attempts: 3.., .. })), "{outcome:?}");
        assert_eq!(agent_heartbeat::Entity::find().count(&raw).await.unwrap(), 0);
    }

    async fn a_rule_that_is_broken_at_commit_refuses_it(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        let mut work = session.claim(&of::<AgentStart>(&session).await).await.unwrap().expect("it is eligible");
        // Of a check, an exclusion, a trigger's own word, a trigger that divides by zero.
        for code in ["23514", "23P01", "P0001", "22012"] {
            fail_at_commit(&raw, "machine_agent_heartbeat", code, 1000).await;
            let outcome = session.transact(async |tx| agent_heartbeat::set(tx, machine).await).await;
            assert!(matches!(outcome, Err(Error::Database { .. })), "{code}: {outcome:?}");
            let runs = AtomicU32::new(0);
            let unfinished = work.finish(async |tx| {
                runs.fetch_add(1, Ordering::Relaxed);
                agent_heartbeat::set(tx, machine).await
            });
            let Err(Unfinished::NotCommitted { work: kept, error: Error::Database { .. } }) = unfinished.await else {
                panic!("{code}: the server has said that it rolled back");
            };
            assert_eq!(runs.into_inner(), 1, "{code}");
            work = kept;
        }
        work.done().await.unwrap();
        assert_eq!(agent_heartbeat::Entity::find().count(&raw).await.unwrap(), 0);
    }

    async fn a_commit_whose_answer_is_lost_is_unknown(db: TestDatabase) {
        let session = session(&db).await;
        let machine = provide(&session, 1).await[0];
        let raw = db.raw().await;
        // The server ends the connection while COMMIT runs.
        fail_at_commit(&raw, "machine_agent_heartbeat", "57P01", 1).await;
        let outcome = session.transact(async |tx| agent_heartbeat::set(tx, machine).await).await;
        assert!(matches!(outcome, Err(Error::CommitUnknown { .. })), "{outcome:?}");
    }
}

fn chrono_now() -> sea_orm::prelude::DateTimeUtc {
    std::time::SystemTime::now().into()
}

/// Makes the next `times` commits that write `table` fail with this SQLSTATE. `57P01` ends the connection.
pub(crate) async fn fail_at_commit(raw: &sea_orm::DatabaseConnection, table: &str, code: &str, times: u32) {
    let deed = if code == "57P01" {
        "PERFORM pg_terminate_backend(pg_backend_pid());".to_owned()
    } else {
        format!("RAISE EXCEPTION 'restart transaction' USING ERRCODE = '{code}';")
    };
    for sql in [
        // A sequence is not rolled back with the commit that it makes fail.
        "CREATE SEQUENCE IF NOT EXISTS failures".to_owned(),
        "ALTER SEQUENCE failures RESTART".to_owned(),
        format!("DROP TRIGGER IF EXISTS fail_at_commit ON {table}"),
        format!(
            "CREATE OR REPLACE FUNCTION fail_at_commit() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN IF nextval('failures') <= {times} THEN {deed} END IF; RETURN NULL; END $$"
        ),
        format!(
            "CREATE CONSTRAINT TRIGGER fail_at_commit AFTER INSERT OR UPDATE OR DELETE ON {table} DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION fail_at_commit()"
        ),
    ] {
        tamper(raw, &sql).await;
    }
}

/// Whether a future panics.
trait Panics: Sized {
    async fn catch(self) -> bool;
}

impl<F: Future> Panics for std::panic::AssertUnwindSafe<F> {
    async fn catch(self) -> bool {
        futures_util::FutureExt::catch_unwind(self).await.is_err()
    }
}
