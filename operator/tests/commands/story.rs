//! A night: why is this machine stuck, who has it, drain it, break a dead component, put the machine back, and read who did what.

use harness::{on_each_backend, until};
use std::time::Duration;

use crate::rig::{bmdb, component, done};

on_each_backend! {
    async fn a_stuck_machine_is_understood_drained_and_put_back(db: TestDatabase) {
        let url = db.url().to_owned();
        let holder = component(&db).await;
        let work = holder.claim(0).await;
        work.progress(&"3/5 waiting for power").await.unwrap();
        let (id, fence, holder_machine) = (work.id().to_string(), work.fence().to_string(), work.machine());

        let why = done(&url, &["machine", "why", "OAK-1", "install"]);
        assert!(why.out.contains("install by shepherd-oak for"), "{}", why.out);
        let works = done(&url, &["work", "ls"]);
        assert_eq!(works.sentence(), "1 work goes on; none is stuck.");
        assert!(works.out.contains("3/5 waiting for power") && works.out.contains(&id), "{}", works.out);

        let drained = done(&url, &["machine", "drain", "OAK-1", "--reason", "replacing a disk", "--ticket", "OPS-4471"]);
        assert_eq!(drained.sentence(), "OAK-1 is held; 1 work is asked to stop. It is drained when they have ended.");
        until("the holder has been asked", Duration::from_secs(30), async || work.stop().is_cancelled()).await;

        // It does not let go, so it needs somebody.
        let attention = bmdb(&url, &["attention"]);
        assert_eq!((attention.status, attention.sentence()), (1, "1 thing needs a person."), "{attention:?}");
        assert!(attention.out.contains("was asked to stop: replacing a disk"), "{}", attention.out);
        let shown = done(&url, &["work", "show", &id]);
        let next = format!("bmdb work break {id} --expect-fence {fence}");
        assert!(shown.out.contains(&next), "{}", shown.out);

        // Decided on what is not so any more, nothing is done.
        let stale = bmdb(&url, &["work", "break", &id, "--expect-fence", "7", "--reason", "it hangs"]);
        assert_eq!(stale.status, 3, "{stale:?}");
        assert!(stale.err.contains(&format!("nothing was done: work {id} is not held with fence 7; its fence is {fence}")), "{stale:?}");
        let broken = done(&url, &["work", "break", &id, "--expect-fence", &fence, "--reason", "it hangs"]);
        assert!(broken.sentence().starts_with("The session of shepherd-oak is broken."), "{broken:?}");
        until("its holder knows", Duration::from_secs(30), async || holder.session.lost().is_cancelled()).await;
        drop(work);
        holder.bmdb.close().await;
        let collected = done(&url, &["collect", "--once"]);
        assert_eq!(collected.sentence(), "1 session is expired, which freed 1 work.");

        let shown = done(&url, &["machine", "show", "OAK-1"]);
        assert_eq!(shown.sentence(), "Nobody works on OAK-1: it is held.");
        assert!(shown.out.contains("nobody: held by ada") && shown.out.contains("OPS-4471") && shown.out.contains("expired"), "{}", shown.out);
        let why = done(&url, &["machine", "why", "OAK-1", "install"]);
        assert!(why.sentence().starts_with("OAK-1 is not eligible for install: 1 of "), "{}", why.out);
        assert!(why.out.contains(&format!("a person: bmdb machine release-hold {}", holder_machine)), "{}", why.out);
        done(&url, &["machine", "release-hold", "OAK-1", "--reason", "the disk is in"]);
        let why = done(&url, &["machine", "why", "OAK-1", "install"]);
        assert!(why.sentence().starts_with("OAK-1 is eligible for install") || why.sentence().starts_with("Nothing of BMDB's own keeps OAK-1"), "{why:?}");

        let acts = done(&url, &["operation", "ls", "--machine", "OAK-1"]);
        let verbs: Vec<_> = acts.out.lines().filter(|line| line.contains(" ada ")).map(|line| line.split_whitespace().nth(2).unwrap_or_default()).collect();
        assert_eq!(verbs, ["lift-hold", "break-session", "drain-machine"], "{}", acts.out);
        let all = done(&url, &["operation", "ls", "-o", "json"]).json();
        let reasons: Vec<_> = all["answer"]["operations"].as_array().unwrap().iter().map(|act| act["reason"].as_str().unwrap().to_owned()).collect();
        assert_eq!(reasons, ["the disk is in", "it hangs", "replacing a disk"]);
        let history = done(&url, &["machine", "history", "OAK-1"]);
        assert_eq!(history.sentence(), "OAK-1 was claimed 1 time; 0 works failed.");
    }

    async fn a_parked_machine_is_told_of_and_runs_again(db: TestDatabase) {
        let url = db.url().to_owned();
        let holder = component(&db).await;
        for _ in 0..2 {
            let work = holder.claim(1).await;
            work.fail("no image for this board").await.unwrap();
        }
        let attention = bmdb(&url, &["attention"]);
        assert_eq!(attention.status, 1);
        assert!(attention.out.contains(&format!("OAK-2 is parked for install: no image for this board
    next: bmdb backoff clear {} install", holder.machines[1])), "{}", attention.out);
        let parked = done(&url, &["machine", "ls", "--state", "parked", "--process", "install"]);
        assert_eq!(parked.sentence(), "1 machine in all.");
        assert!(parked.out.contains("■ parked install"), "{}", parked.out);
        done(&url, &["backoff", "run-now", "OAK-2", "install", "--reason", "one more try"]);
        let again = bmdb(&url, &["backoff", "run-now", "OAK-2", "install", "--reason", "one more try"]);
        assert_eq!((again.status, again.out.as_str()), (4, ""), "{again:?}");
        holder.claim(1).await.fail("no image still").await.unwrap();
        done(&url, &["backoff", "clear", "OAK-2", "install", "--reason", "the image is there"]);
        assert_eq!(done(&url, &["attention"]).sentence(), "Nothing needs a person.");
        assert_eq!(done(&url, &["backoff", "ls"]).sentence(), "0 backoffs; none waits for a person.");
    }

    async fn a_session_is_expired_only_by_who_knows_what_it_holds(db: TestDatabase) {
        let url = db.url().to_owned();
        let holder = component(&db).await;
        let work = holder.session.claim(&holder.install).await.unwrap().expect("it is eligible");
        let session = holder.session.id().to_string();
        let refused = bmdb(&url, &["session", "expire", &session, "--yes", "0", "--reason", "its host burns"]);
        assert_eq!(refused.status, 3, "{refused:?}");
        assert!(refused.err.contains("holds 1 work by now, not 0. Look again, and say --yes 1"), "{refused:?}");
        assert!(!holder.session.lost().is_cancelled());
        done(&url, &["session", "expire", &session, "--yes", "1", "--reason", "its host burns"]);
        until("it knows", Duration::from_secs(30), async || holder.session.lost().is_cancelled()).await;
        drop(work);
        let listed = done(&url, &["session", "ls", "--silent"]);
        assert!(listed.out.contains(&session) && listed.out.contains("✕ silent"), "{}", listed.out);
        let dry = done(&url, &["collect", "--dry-run"]);
        assert!(dry.sentence().starts_with("1 session would be expired") && dry.out.contains("shepherd-oak"), "{}", dry.out);
        assert!(done(&url, &["status"]).out.contains("✕ 1 session is silent. next: bmdb session ls --silent"));
    }
}
