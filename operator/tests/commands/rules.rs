//! Rules are asked only by logins that can do nothing else.

use harness::{Backend, TestDatabase};

use crate::rig::{component, done};

#[tokio::test]
async fn a_rule_is_asked_by_a_login_that_can_only_read() {
    let db = TestDatabase::migrated(Backend::Postgres).await;
    let holder = component(&db).await;
    bmdb_migration::make_roles(db.url())
        .await
        .expect("an administrator can");
    let console = db.url().replace("bmdb@", "bmdb_console@");

    let alone = done(db.url(), &["machine", "why", "ELM-1", "install"]);
    assert_eq!(
        alone.sentence(),
        "Nothing of BMDB's own keeps ELM-1 from install; what its rule asks is not known here."
    );
    assert!(
        alone
            .err
            .contains("give --read-database with one that cannot, such as bmdb_console"),
        "{alone:?}"
    );
    let counted = done(db.url(), &["status"]);
    assert!(counted.out.contains("this login can do more than read"), "{counted:?}");

    let with_both = done(
        db.url(),
        &["machine", "why", "ELM-1", "install", "--read-database", &console],
    );
    assert_eq!(
        with_both.sentence(),
        "ELM-1 is not eligible for install: 1 of 6 clauses stands in the way. No earliest time."
    );
    assert!(with_both.out.contains("✕  is of oak"), "{}", with_both.out);
    let looking = done(&console, &["machine", "why", "OAK-1", "install"]);
    assert_eq!(
        looking.sentence(),
        "OAK-1 is eligible for install: nothing stands in the way."
    );
    let refused = crate::rig::bmdb(&console, &["machine", "hold", "OAK-1", "--reason", "x"]);
    assert!(matches!(refused.status, 5 | 6), "{refused:?}");
    assert!(holder.bmdb.holds(None).await.unwrap().rows.is_empty());
}
