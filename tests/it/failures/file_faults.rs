//! Faults of SQLite's file: another process holds it, it is full, read-only, damaged, or somebody removes or replaces it while it is open.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bmdb::{Bmdb, Config, ConfigError, Error, Unfinished, Work, agent_started, machine};
use harness::{Backend, NOT_DURABLE, SmallDisk, TestDatabase, bounded, check_history, of, until};
use sea_orm::sqlx::{Connection, Executor, SqliteConnection};
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, RuntimeErr, Statement};

use crate::failures::crash::Component;
use crate::failures::server_faults::{NOISE, Scene, claim, connect, takes_over, within};
use crate::world::{AgentStart, LONG, events, row_counts};

const INTERVAL: Duration = Duration::from_secs(4);
/// For how long a statement waits for the file, and for how long a call tries again.
const WAIT: Duration = Duration::from_millis(200);
const BUDGET: Duration = Duration::from_millis(600);

/// A component that waits for the file no longer than [`BUDGET`].
async fn impatient(db: &TestDatabase) -> Scene {
    let config = Config::new(db.url(), "test", bmdb::runtime_info!())
        .interval(INTERVAL)
        .statement_timeout(WAIT)
        .acquire_timeout(WAIT)
        .retry_budget(BUDGET);
    Scene::of(Bmdb::connect(config).await.unwrap(), db, 2).await
}

/// A process that has begun to write and does not go on.
struct Holder(SqliteConnection);

impl Holder {
    async fn of(db: &TestDatabase) -> Self {
        let mut connection = SqliteConnection::connect(db.url()).await.unwrap();
        connection.execute("BEGIN IMMEDIATE").await.unwrap();
        Self(connection)
    }

    async fn lets_go(mut self) {
        self.0.execute("ROLLBACK").await.unwrap();
        self.0.close().await.unwrap();
    }
}

/// SQLite's primary result code (sqlite.org/rescode.html).
fn code_of(error: &Error) -> Option<i32> {
    let Error::Database { source, .. } = error else {
        return None;
    };
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = source else {
        return None;
    };
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

pub(crate) fn file_of(db: &TestDatabase) -> PathBuf {
    let path = db.url().trim_start_matches("sqlite://");
    PathBuf::from(path.split('?').next().unwrap())
}

/// With what SQLite keeps beside the file.
pub(crate) fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", file.display()))
}

pub(crate) async fn sqlite() -> TestDatabase {
    TestDatabase::migrated(Backend::Sqlite).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_holds_the_file_is_waited_for_in_bounds_and_costs_no_session() {
    bounded(async {
        let db = sqlite().await;
        let scene = impatient(&db).await;
        let work = claim(&scene.session).await;
        scene.sees_a_heartbeat().await;
        let holder = Holder::of(&db).await;
        let (refused, took) = within(BUDGET + NOISE, scene.session.transact(machine::create)).await;
        assert!(matches!(refused, Err(Error::Contended { .. })), "{refused:?}");
        eprintln!("a body was refused after {took:?}, budget {BUDGET:?}");
        let (refused, _) = within(
            BUDGET + NOISE,
            scene.session.claim(&of::<AgentStart>(&scene.session).await),
        )
        .await;
        assert!(matches!(refused, Err(Error::Contended { .. })), "{refused:?}");
        let (refused, _) = within(BUDGET + NOISE, work.finish(async |_tx| Ok::<_, Error>(()))).await;
        let Err(Unfinished::NotCommitted {
            work,
            error: Error::Contended { .. },
        }) = refused
        else {
            panic!("{refused:?}");
        };
        // Who only reads does not wait for a writer.
        let (count, took) = within(NOISE, of::<AgentStart>(&scene.bmdb).await.count()).await;
        assert_eq!(count.unwrap(), 1);
        assert!(took < BUDGET, "{took:?}");
        holder.lets_go().await;
        scene.sees_a_heartbeat().await;
        assert!(!scene.session.lost().is_cancelled());
        let machine = work.machine();
        work.finish(async |tx| agent_started::set(tx, machine, *b"key").await)
            .await
            .unwrap();
        assert_eq!(events(&scene.raw, machine).await, ["started", "finished"]);
        assert_eq!(scene.machines().await, 2);
        scene.ends_well().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_holds_the_file_for_too_long_costs_the_session_in_time() {
    bounded(async {
        let db = sqlite().await;
        let scene = impatient(&db).await;
        let watcher = connect(&db, INTERVAL).await;
        let work = claim(&scene.session).await;
        scene.sees_a_heartbeat().await;
        let last = Instant::now();
        let holder = Holder::of(&db).await;
        scene.session.lost().cancelled().await;
        eprintln!(
            "lost {:?} after the last heartbeat, interval {INTERVAL:?}",
            last.elapsed()
        );
        assert!(last.elapsed() <= INTERVAL, "{:?}", last.elapsed());
        let machine = work.machine();
        let fence = work.fence();
        let refused = work
            .finish(async |tx| agent_started::set(tx, machine, *b"late").await)
            .await;
        assert!(
            matches!(refused, Err(Unfinished::Over(Error::SessionExpired { .. }))),
            "{refused:?}"
        );
        holder.lets_go().await;
        let (mut collector, new) = (watcher.collector(), watcher.start_session().await.unwrap());
        until("the lost session is expired", 3 * INTERVAL + NOISE, async || {
            collector.sweep().await.unwrap().expired == [scene.session.id()]
        })
        .await;
        let mut again = takes_over(&new, INTERVAL).await;
        while again.machine() != machine {
            again.cancel().await.unwrap();
            again = takes_over(&new, INTERVAL).await;
        }
        assert!(again.fence() > fence);
        again.cancel().await.unwrap();
        assert_eq!(
            events(&scene.raw, machine).await,
            ["started", "expired", "started", "canceled"]
        );
        new.close().await.unwrap();
        scene.ends_well().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_database_is_told_at_once_and_what_it_refused_is_not_half_done() {
    bounded(async {
        let db = sqlite().await;
        let scene = Scene::on(&db, INTERVAL, 3).await;
        let work = claim(&scene.session).await;
        // Bodies and the library's own writes share the one connection that this limits.
        let limit = async |tx: &bmdb::Tx| {
            tx.execute_unprepared("PRAGMA max_page_count = 1").await.unwrap();
            Ok::<_, Error>(())
        };
        scene.session.transact(limit).await.unwrap();
        let before = row_counts(&scene.raw).await;
        let many = async |tx: &bmdb::Tx| {
            for _ in 0..1000 {
                machine::create(tx).await?;
            }
            Ok::<_, Error>(())
        };
        let (refused, took) = within(NOISE, scene.session.transact(many)).await;
        eprintln!("a body was refused after {took:?}");
        assert_eq!(refused.as_ref().err().and_then(code_of), Some(13), "{refused:?}");
        let (refused, _) = within(NOISE, work.finish(many)).await;
        let Err(Unfinished::NotCommitted { work, error }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(code_of(&error), Some(13), "{error:?}");
        assert_eq!(row_counts(&scene.raw).await, before, "nothing is half done");
        scene.sees_a_heartbeat().await;
        assert!(!work.stop().is_cancelled());
        let lift = async |tx: &bmdb::Tx| {
            tx.execute_unprepared("PRAGMA max_page_count = 1000000").await.unwrap();
            Ok::<_, Error>(())
        };
        scene.session.transact(lift).await.unwrap();
        let machine = work.machine();
        work.finish(many).await.unwrap();
        assert_eq!(events(&scene.raw, machine).await, ["started", "finished"]);
        assert_eq!(scene.machines().await, 1003);
        scene.ends_well().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_the_session_in_time_and_leaves_the_file_whole() {
    bounded(async {
        let db = sqlite().await;
        let scene = Scene::on(&db, INTERVAL, 1).await;
        let machine = scene.machines[0];
        scene.ends_well().await;
        // A log of writes takes some 4 MB before it is written back.
        let disk = SmallDisk::of(6);
        disk.take(&file_of(&db));
        let url = format!("sqlite://{}?mode=rw", disk.path("bmdb.sqlite").display());
        let mut component = Component::start_on(&disk, &url, INTERVAL, &["hold"]);
        component.says("claimed").await;
        disk.fill();
        let full = Instant::now();
        component.says("lost").await;
        eprintln!(
            "lost {:?} after the disk was full, interval {INTERVAL:?}",
            full.elapsed()
        );
        assert!(full.elapsed() <= INTERVAL + NOISE);
        component.tell("write");
        for _ in 0..4 {
            let line = component.says("refused").await;
            assert!(line.contains("SessionExpired"), "{line}");
        }
        disk.empty();
        drop(component);

        let copy = tempfile::TempDir::new().unwrap();
        for suffix in ["", "-wal"] {
            let name = format!("bmdb.sqlite{suffix}");
            disk.give(&name, &copy.path().join(&name));
        }
        let url = format!("sqlite://{}?mode=rw", copy.path().join("bmdb.sqlite").display());
        let bmdb = Bmdb::connect(Config::new(&url, "test", "").interval(INTERVAL))
            .await
            .unwrap();
        let session = bmdb.start_session().await.unwrap();
        let raw = sea_orm::Database::connect(&url).await.unwrap();
        assert_eq!(events(&raw, machine).await, ["started"], "nothing was written late");
        let mut collector = bmdb.collector();
        until("it is expired", 3 * INTERVAL + NOISE, async || {
            !collector.sweep().await.unwrap().expired.is_empty()
        })
        .await;
        let again = takes_over(&session, INTERVAL).await;
        again.cancel().await.unwrap();
        session.close().await.unwrap();
        assert_eq!(check_history(&raw).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_waits_for_the_disk_unless_the_configuration_gives_that_up() {
    const FULL: i64 = 2;
    const NORMAL: i64 = 1;
    let db = sqlite().await;
    for (setting, wanted) in [("", FULL), ("&bmdb.synchronous=full", FULL), (NOT_DURABLE, NORMAL)] {
        let config = Config::new(format!("{}{setting}", db.url()), "test", "");
        let bmdb = Bmdb::connect(config).await.unwrap();
        let session = bmdb.start_session().await.unwrap();
        // Bodies, claims and ends have one connection.
        let ask = async |tx: &bmdb::Tx| {
            let ask = Statement::from_string(tx.get_database_backend(), "PRAGMA synchronous");
            let row = tx.query_one_raw(ask).await?.unwrap();
            Ok::<i64, Error>(row.try_get_by_index(0)?)
        };
        assert_eq!(session.transact(ask).await.unwrap(), wanted, "{setting}");
        session.close().await.unwrap();
        bmdb.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_file_is_refused_before_anything_happens() {
    let db = sqlite().await;
    let before = fs::read(file_of(&db)).unwrap();
    let url = db.url().replace("mode=rwc", "mode=ro");
    assert_ne!(url, db.url());
    let config = Config::new(url, "test", "").interval(INTERVAL);
    let refused = Bmdb::connect(config).await.expect_err("nobody can write");
    assert!(matches!(refused, Error::Config(ConfigError::Url { .. })), "{refused:?}");
    assert!(refused.to_string().contains("mode=ro"), "{refused}");
    assert_eq!(fs::read(file_of(&db)).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_file_is_not_taken_for_a_database() {
    bounded(async {
        let db = sqlite().await;
        let file = file_of(&db);
        let whole = fs::read(&file).unwrap();
        for length in [100, 512, 4096, whole.len() / 2, whole.len() - 4096] {
            fs::write(&file, &whole[..length]).unwrap();
            let refused = Bmdb::connect(Config::new(db.url(), "test", "")).await;
            let refused = refused.expect_err("a part of it is missing");
            let Error::Unreachable { source, .. } = &refused else {
                panic!("{length} of {}: {refused:?}", whole.len());
            };
            assert!(source.to_string().contains("malformed"), "{source}");
            assert_eq!(fs::read(&file).unwrap(), whole[..length], "it is as it was");
        }
        fs::write(&file, []).unwrap();
        let refused = Bmdb::connect(Config::new(db.url(), "test", "")).await;
        assert!(matches!(refused, Err(Error::NotMigrated { .. })), "{refused:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_truncated_while_open_is_no_database_for_those_who_come() {
    bounded(async {
        let db = sqlite().await;
        let scene = Scene::on(&db, INTERVAL, 3).await;
        let work = claim(&scene.session).await;
        scene.sees_a_heartbeat().await;
        fs::File::options()
            .write(true)
            .open(file_of(&db))
            .unwrap()
            .set_len(4096)
            .unwrap();
        let refused = Bmdb::connect(Config::new(db.url(), "test", "")).await;
        assert!(matches!(refused, Err(Error::Unreachable { .. })), "{refused:?}");
        let (refused, _) = within(NOISE, scene.session.transact(machine::create)).await;
        assert!(refused.is_err(), "{refused:?}");
        is_given_up(scene, work).await;
    })
    .await;
}

/// A component notices, and never works on the file again.
async fn is_given_up(scene: Scene, work: Work<AgentStart>) {
    within(NOISE, scene.session.lost().cancelled()).await;
    assert!(work.stop().is_cancelled());
    for _ in 0..2 {
        let refused = scene.bmdb.start_session().await;
        assert!(matches!(refused, Err(Error::FileDamaged { .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_over_an_open_file_ends_the_session() {
    bounded(async {
        let db = sqlite().await;
        let scene = Scene::on(&db, INTERVAL, 1).await;
        let checkpoint = async || {
            scene
                .raw
                .execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)")
                .await
                .unwrap()
        };
        checkpoint().await;
        let backup = fs::read(file_of(&db)).unwrap();
        let grow = async |tx: &bmdb::Tx| {
            for _ in 0..500 {
                machine::create(tx).await?;
            }
            Ok::<_, Error>(())
        };
        scene.session.transact(grow).await.unwrap();
        checkpoint().await;
        let work = claim(&scene.session).await;
        assert!(fs::metadata(file_of(&db)).unwrap().len() > backup.len() as u64);
        // As cp does: the same file, with the content of another.
        fs::write(file_of(&db), &backup).unwrap();
        let (refused, _) = within(NOISE, scene.session.transact(machine::create)).await;
        assert!(refused.is_err(), "{refused:?}");
        is_given_up(scene, work).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_in_which_sqlite_finds_damage_ends_the_session_whoever_meets_it() {
    bounded(async {
        for reads in [false, true] {
            let db = sqlite().await;
            let scene = Scene::on(&db, LONG, 300).await;
            let work = claim(&scene.session).await;
            scene
                .raw
                .execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)")
                .await
                .unwrap();
            // As long as it was, with nothing in it but its first page.
            let file = file_of(&db);
            let mut content = fs::read(&file).unwrap();
            content[4096..].fill(0xff);
            fs::write(&file, &content).unwrap();
            if reads {
                let refused = of::<AgentStart>(&scene.bmdb).await.count().await;
                assert!(refused.is_err(), "{refused:?}");
            } else {
                // What it has in memory may be good; what another has written since, it reads anew.
                let all = async |tx: &bmdb::Tx| machine::Entity::find().all(tx).await.map(drop).map_err(Error::from);
                drop(scene.raw.execute_unprepared("PRAGMA user_version = 1").await);
                let refused = scene.session.transact(all).await;
                assert!(
                    matches!(refused, Err(Error::FileDamaged { source: Some(_), .. })),
                    "{refused:?}"
                );
            }
            is_given_up(scene, work).await;
        }
    })
    .await;
}
