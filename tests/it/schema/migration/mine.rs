//! A migrator of a user's own beside BMDB's: one guard, records of their own, BMDB's steps first and undone last.

use bmdb_migration::{Destroy, Error, MigrationTrait, MigratorTrait};
use harness::{Mine, TestDatabase, on_each_backend};

use super::process::{migrator, out, run, talk};
use super::schema::{dump, texts};
use super::{ROWS, execute, names};

const RACK: [&str; 2] = ["m20261130_000001_create_rack", "m20261130_000002_index_rack_name"];

/// The command line of the crate with tables of its own.
async fn mine(db: &TestDatabase, arguments: &[&str]) -> (Vec<String>, String, bool) {
    let mut command = migrator(arguments);
    command.env("WITH_MINE", "1").env("DATABASE_URL", db.url());
    let done = run(command).await;
    (
        out(&done).lines().map(str::to_owned).collect(),
        talk(&done),
        done.status.success(),
    )
}

fn both() -> Vec<String> {
    names().into_iter().chain(RACK.map(str::to_owned)).collect()
}

on_each_backend! {
    async fn steps_of_ones_own_come_after_ours_and_go_before_them(db: TestDatabase) {
        let db = db.empty_beside().await;
        assert_eq!(bmdb_migration::up_with::<Mine>(db.url()).await.expect("machine is there before rack"), both());
        let complete = dump(&db).await;
        assert_eq!(bmdb_migration::up_with::<Mine>(db.url()).await.expect("again"), [""; 0]);
        assert_eq!(bmdb_migration::up(db.url(), None).await.expect("without them"), [""; 0]);
        let connection = db.raw().await;
        assert_eq!(texts(&connection, "SELECT CAST(version AS TEXT) FROM my_migrations ORDER BY 1").await, RACK);
        let ours = texts(&connection, "SELECT CAST(version AS TEXT) FROM seaql_migrations ORDER BY 1").await;
        assert_eq!(ours, names(), "each has a record of its own");

        // BMDB alone refuses what would leave rack without machines.
        let refused = bmdb_migration::fresh(db.url(), Destroy::Anyway).await.expect_err("rack refers to machine");
        assert!(matches!(refused, Error::Referenced { .. }), "{refused}");

        // The last steps are the crate's own.
        let (undone, said, good) = mine(&db, &["down", "-n", "3"]).await;
        assert!(good, "{said}");
        assert_eq!(undone, [RACK[1], RACK[0], names().last().expect("there are steps")]);
        let (applied, said, good) = mine(&db, &["up", "-n", "2"]).await;
        assert!(good, "{said}");
        assert_eq!(applied, [names().last().expect("there are steps"), RACK[0]]);
        assert_eq!(mine(&db, &["up"]).await.0, [RACK[1]]);
        assert_eq!(dump(&db).await, complete);
        let (status, said, _) = mine(&db, &["status"]).await;
        assert_eq!(status, both().iter().map(|name| format!("applied {name}")).collect::<Vec<_>>(), "{said}");

        // Rows of either are only destroyed where somebody said so.
        execute(&connection, ROWS).await;
        execute(&connection, &["INSERT INTO rack SELECT machine_id, 'r1' FROM machine"]).await;
        let before = dump(&db).await;
        for verb in ["down", "fresh", "reset"] {
            let (_, said, good) = mine(&db, &[verb]).await;
            assert!(!good && said.contains("rack (1 row)"), "{verb}: {said}");
        }
        assert_eq!(dump(&db).await, before);
        let (applied, said, good) = mine(&db, &["fresh", "--yes-destroy-data"]).await;
        assert!(good, "{said}");
        assert_eq!((applied, dump(&db).await), (both(), complete));
        assert!(texts(&connection, "SELECT name FROM rack").await.is_empty());
        let (undone, said, good) = mine(&db, &["reset"]).await;
        assert!(good && undone.len() == both().len(), "{said}");
        let left = dump(&db).await;
        assert!(!left.iter().any(|line| line.contains("rack") || line.contains("_migrations") || line.contains("machine")), "{left:#?}");
    }
}

struct Shared;

impl MigratorTrait for Shared {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        Mine::migrations()
    }
}

#[tokio::test]
async fn a_migrator_without_a_record_of_its_own_is_refused() {
    let db = TestDatabase::empty(harness::Backend::Sqlite).await;
    let refused = bmdb_migration::up_with::<Shared>(db.url())
        .await
        .expect_err("the record is BMDB's");
    assert!(
        matches!(&refused, Error::SharedRecord { record } if record == "seaql_migrations"),
        "{refused}"
    );
}
