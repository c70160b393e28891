//! SQLite: all who have a file open share one file, one `-wal` and one `-shm`, or are refused. A file with other names, one that is mounted by itself, and one
//! of which somebody removes or replaces a part while it is open.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use bmdb::{Bmdb, Config, Error, Unfinished, agent_started, machine};
use harness::{SmallDisk, TestDatabase, bounded, of};

use crate::failures::crash::Component;
use crate::failures::file_faults::{file_of, sqlite, with_suffix};
use crate::failures::server_faults::{NOISE, Scene, claim, within};
use crate::world::{AgentStart, sessions};

const INTERVAL: Duration = Duration::from_secs(4);
/// For how long a component waits for a file that others have open.
const PATIENCE: Duration = Duration::from_millis(300);

async fn connect(file: &Path) -> Result<Bmdb, Error> {
    let url = format!("sqlite://{}", file.display());
    let config = Config::new(url, "test", "").interval(INTERVAL);
    Bmdb::connect(config.acquire_timeout(PATIENCE).statement_timeout(PATIENCE)).await
}

/// Refused, with a text that says this.
#[track_caller]
fn is_refused(answer: Result<Bmdb, Error>, words: &str) {
    match answer {
        Err(error @ Error::UnsafeFile { .. }) => assert!(error.to_string().contains(words), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_another_name_is_refused_by_both() {
    bounded(async {
        let db = sqlite().await;
        let scene = Scene::on(&db, INTERVAL, 1).await;
        let work = claim(&scene.session).await;
        let file = file_of(&db);
        let other = file.with_file_name("other.sqlite");
        fs::hard_link(&file, &other).unwrap();
        for name in [&file, &other] {
            is_refused(connect(name).await, "hard links");
            let url = format!("sqlite://{}", name.display());
            for refused in [bmdb_migration::up(&url, None).await.map(drop), bmdb_migration::status(&url).await.map(drop)] {
                let refused = refused.expect_err("a migrator shares no log with components either");
                assert!(matches!(&refused, bmdb_migration::Error::UnsafeFile { reason, .. } if reason.contains("hard links")), "{refused}");
            }
        }
        assert!(!with_suffix(&other, "-wal").exists(), "nothing was written");
        // Who has it open already shares all with those who came before.
        let machine = work.machine();
        work.finish(async |tx| agent_started::set(tx, machine, *b"key").await)
            .await
            .unwrap();
        fs::remove_file(&other).unwrap();
        connect(&file).await.unwrap().close().await;
        scene.ends_well().await;
    })
    .await;
}

/// The output of a component that cannot connect.
fn fails(disk: &SmallDisk, file: &Path) -> Output {
    let url = format!("sqlite://{}", file.display());
    let mut component = disk.enter(env!("CARGO_BIN_EXE_component"));
    let output = component.args([&url, "4000", "hold"]).output().unwrap();
    assert!(!output.status.success());
    output
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_mounted_by_itself_is_refused_and_its_folder_is_not() {
    bounded(async {
        let db = sqlite().await;
        let scene = Scene::on(&db, INTERVAL, 1).await;
        let work = claim(&scene.session).await;
        let file = file_of(&db);
        let disk = SmallDisk::of(1);
        let place = tempfile::TempDir::new().unwrap();
        let (alone, folder) = (place.path().join("a file.sqlite"), place.path().join("folder"));
        fs::write(&alone, "").unwrap();
        fs::create_dir(&folder).unwrap();
        disk.mount(&file, &alone);
        disk.mount(file.parent().unwrap(), &folder);

        let refused = fails(&disk, &alone);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(
            said.contains("UnsafeFile") && said.contains("mount its folder"),
            "{said}"
        );
        assert!(refused.stdout.is_empty(), "it has claimed nothing");

        let url = format!("sqlite://{}", folder.join(file.file_name().unwrap()).display());
        let mut other = Component::start_on(&disk, &url, INTERVAL, &["hold"]);
        let machine = work.machine();
        // It waits until the machine is let go of.
        are_there(&scene, 2).await;
        let fence = work.fence();
        work.cancel().await.unwrap();
        let said = other.says("claimed").await;
        let words: Vec<&str> = said.split(' ').collect();
        assert_eq!(words[1], machine.to_string());
        assert!(words[2].parse::<i64>().unwrap() > fence.0, "{said}");
    })
    .await;
}

async fn are_there(scene: &Scene, count: u64) {
    harness::until("the sessions are there", crate::world::LONG, async || {
        sessions(&scene.raw).await == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_symbolic_link_is_the_file_it_leads_to_for_as_long_as_it_does() {
    bounded(async {
        let (db, second) = (sqlite().await, sqlite().await);
        let scene = Scene::on(&db, INTERVAL, 1).await;
        let work = claim(&scene.session).await;
        let folder = tempfile::TempDir::new().unwrap();
        let link = folder.path().join("link.sqlite");
        std::os::unix::fs::symlink(file_of(&db), &link).unwrap();
        let bmdb = connect(&link).await.unwrap();
        let session = bmdb.start_session().await.unwrap();
        assert!(
            session
                .claim(&of::<AgentStart>(&session).await)
                .await
                .unwrap()
                .is_none(),
            "it is held"
        );
        work.cancel().await.unwrap();
        let _held = session.claim(&of::<AgentStart>(&session).await).await.unwrap().unwrap();
        assert!(!with_suffix(&link, "-wal").exists());

        let new = folder.path().join("new");
        std::os::unix::fs::symlink(file_of(&second), &new).unwrap();
        fs::rename(&new, &link).unwrap();
        let refused = session.transact(machine::create).await;
        assert!(
            matches!(&refused, Err(Error::FileReplaced { file }) if *file == link),
            "{refused:?}"
        );
        within(NOISE, session.lost().cancelled()).await;
        assert!(!scene.session.lost().is_cancelled(), "the file itself is what it was");
    })
    .await;
}

/// A component a part of whose file somebody takes away.
async fn is_lost_when(damage: impl FnOnce(&Path)) -> (TestDatabase, Scene) {
    let db = sqlite().await;
    let scene = Scene::on(&db, INTERVAL, 3).await;
    let work = claim(&scene.session).await;
    scene.sees_a_heartbeat().await;
    // It looks at the file after each heartbeat; let that be over.
    tokio::time::sleep(Duration::from_millis(200)).await;
    damage(&file_of(&db));
    let refused = scene.session.transact(machine::create).await;
    assert!(matches!(refused, Err(Error::FileReplaced { .. })), "{refused:?}");
    within(NOISE / 3, scene.session.lost().cancelled()).await;
    let refused = scene.session.claim(&of::<AgentStart>(&scene.session).await).await;
    assert!(matches!(refused, Err(Error::SessionExpired { .. })), "{refused:?}");
    let refused = work.finish(async |_tx| Ok::<_, Error>(())).await;
    assert!(
        matches!(refused, Err(Unfinished::Over(Error::SessionExpired { .. }))),
        "{refused:?}"
    );
    let refused = scene.bmdb.start_session().await;
    assert!(matches!(refused, Err(Error::FileReplaced { .. })), "{refused:?}");
    (db, scene)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_file_ends_the_session_at_its_next_heartbeat() {
    bounded(async {
        let db = sqlite().await;
        let scene = Scene::on(&db, INTERVAL, 1).await;
        let work = claim(&scene.session).await;
        fs::remove_file(file_of(&db)).unwrap();
        let refused = work.progress(&1).await;
        assert!(matches!(refused, Err(Error::FileReplaced { .. })), "{refused:?}");
        let began = Instant::now();
        // The next heartbeat is due in a third of the interval.
        within(INTERVAL / 3 + NOISE / 3, scene.session.lost().cancelled()).await;
        eprintln!("lost after {:?}, interval {INTERVAL:?}", began.elapsed());
        assert!(
            work.stop().is_cancelled() && !file_of(&db).exists(),
            "nobody has made a new one"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_file_ends_the_session_which_writes_nothing_into_the_new_one() {
    bounded(async {
        let other = sqlite().await;
        let new = file_of(&other);
        let (db, _scene) = is_lost_when(|file| {
            for suffix in ["-wal", "-shm"] {
                fs::remove_file(with_suffix(file, suffix)).unwrap();
            }
            fs::rename(&new, file).unwrap();
        })
        .await;
        // Whoever comes now works on the new one.
        let scene = Scene::on(&db, INTERVAL, 1).await;
        assert_eq!((scene.machines().await, sessions(&scene.raw).await), (1, 1));
        let work = claim(&scene.session).await;
        work.cancel().await.unwrap();
        scene.ends_well().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_after_the_log_of_writes_was_removed_is_refused_until_those_are_gone_who_had_it_open() {
    bounded(async {
        let removed = [&["-wal"][..], &["-shm"], &["-wal", "-shm"]];
        futures_util::future::join_all(removed.map(is_refused_after_removing)).await;
    })
    .await;
}

async fn is_refused_after_removing(suffixes: &[&str]) {
    let db = sqlite().await;
    let file = file_of(&db);
    let Scene {
        bmdb: before,
        session,
        raw,
        ..
    } = Scene::on(&db, INTERVAL, 1).await;
    let work = claim(&session).await;
    for suffix in suffixes {
        fs::remove_file(with_suffix(&file, suffix)).unwrap();
    }
    is_refused(connect(&file).await, "its -wal or -shm was removed");
    let refused = session.transact(machine::create).await;
    // It may have looked by itself.
    assert!(
        matches!(refused, Err(Error::FileReplaced { .. } | Error::SessionExpired { .. })),
        "{refused:?}"
    );
    within(NOISE, session.lost().cancelled()).await;
    let (machine, fence) = (work.machine(), work.fence());
    drop(work);
    session.close().await.unwrap();
    before.close().await;
    raw.close().await.unwrap();

    let bmdb = connect(&file).await.unwrap();
    let session = bmdb.start_session().await.unwrap();
    let mut collector = bmdb.collector();
    harness::until("the lost session is expired", 3 * INTERVAL + NOISE, async || {
        !collector.sweep().await.unwrap().expired.is_empty()
    })
    .await;
    let again = crate::failures::server_faults::takes_over(&session, INTERVAL).await;
    assert!(again.machine() == machine && again.fence() > fence);
    again.cancel().await.unwrap();
    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_writes_that_was_replaced_ends_the_session() {
    bounded(async {
        let replace = |suffix: &'static str| {
            move |file: &Path| {
                let part = with_suffix(file, suffix);
                let copy: PathBuf = with_suffix(file, "-copy");
                fs::copy(&part, &copy).unwrap();
                fs::rename(&copy, &part).unwrap();
            }
        };
        for suffix in ["-wal", "-shm"] {
            let (_db, _scene) = is_lost_when(replace(suffix)).await;
        }
        // Who moves the folder takes the file away from those who will come by its name.
        let (_db, _scene) = is_lost_when(|file| {
            let folder = file.parent().unwrap();
            fs::rename(folder, with_suffix(folder, "-moved")).unwrap();
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn components_that_come_and_go_find_the_file_as_they_left_it() {
    bounded(async {
        let db = sqlite().await;
        for _ in 0..3 {
            let all = futures_util::future::join_all((0..4).map(|_| connect_patiently(&db))).await;
            for bmdb in all {
                let session = bmdb.start_session().await.unwrap();
                session.close().await.unwrap();
                bmdb.close().await;
            }
            assert!(
                !with_suffix(&file_of(&db), "-wal").exists(),
                "the last one has tidied up"
            );
        }
    })
    .await;
}

async fn connect_patiently(db: &TestDatabase) -> Bmdb {
    Bmdb::connect(Config::new(db.url(), "test", "").interval(INTERVAL))
        .await
        .unwrap()
}
