//! Acts on a process, a session, a machine and history as wholes, and what they refuse.

use std::time::Duration;

use harness::{on_each_backend, until};

use crate::rig::{bmdb, component, done};

on_each_backend! {
    async fn a_paused_process_says_so_everywhere_until_it_is_resumed(db: TestDatabase) {
        let url = db.url().to_owned();
        let holder = component(&db).await;
        let work = holder.claim(0).await;
        let paused = done(&url, &["process", "pause", "install", "--for", "2h", "--and-stop", "--reason", "the image does not boot", "--ticket", "OPS-7"]);
        assert_eq!(paused.sentence(), "install is paused for 2 h. 1 work is asked to stop.");
        assert!(paused.out.contains("undo: bmdb process resume install --reason"), "{}", paused.out);
        until("it hears of it", Duration::from_secs(30), async || work.stop().is_cancelled()).await;
        work.cancel().await.unwrap();
        assert!(holder.session.claim(&holder.install).await.unwrap().is_none());

        assert!(done(&url, &["process", "ls"]).out.contains("⊘ paused by ada"));
        let shown = done(&url, &["process", "show", "install"]);
        assert!(shown.out.contains("⊘ Nobody claims for it: paused by ada, OPS-7 ") && shown.out.contains(": the image does not boot."), "{}", shown.out);
        let json = done(&url, &["process", "show", "install", "-o", "json"]).json();
        assert_eq!(json["answer"]["pause"]["paused_by"], "ada");
        let why = done(&url, &["machine", "why", "OAK-1", "install"]);
        assert!(why.out.contains("the process is not paused") && why.out.contains("paused by ada") && why.out.contains("by itself in "), "{}", why.out);
        assert!(why.sentence().starts_with("OAK-1 is not eligible for install: 1 of "), "{}", why.out);

        let again = bmdb(&url, &["process", "pause", "install", "--for", "1h", "--reason", "me too"]);
        assert_eq!(again.status, 3, "{again:?}");
        assert!(again.err.contains("process install is paused already by ada until ") && again.err.contains("; resume it first"), "{again:?}");
        done(&url, &["process", "resume", "install", "--reason", "the image is mended"]);
        let resumed = bmdb(&url, &["process", "resume", "install", "--reason", "the image is mended"]);
        assert_eq!((resumed.status, resumed.err.contains("nothing was done: install is not paused")), (4, true), "{resumed:?}");
        holder.claim(0).await.cancel().await.unwrap();
        let acts = done(&url, &["operation", "ls"]);
        for verb in ["pause-process", "ask-all-to-stop", "resume-process"] {
            assert!(acts.out.contains(verb), "{verb}: {}", acts.out);
        }
    }

    async fn a_session_is_drained_and_says_so(db: TestDatabase) {
        let url = db.url().to_owned();
        let holder = component(&db).await;
        let work = holder.claim(0).await;
        let session = holder.session.id().to_string();
        let drained = done(&url, &["session", "drain", &session, "--reason", "its host is to restart"]);
        assert_eq!(drained.sentence(), "shepherd-oak takes no new work from its next heartbeat on. It holds 1 work.");
        until("it takes no more", Duration::from_secs(30), async || {
            matches!(holder.session.claim(&holder.install).await, Err(::bmdb::Error::Draining { .. }))
        }).await;
        assert!(done(&url, &["session", "ls"]).out.contains("⊘ draining"));
        assert!(done(&url, &["session", "show", &session]).out.contains("⊘ it takes no new work, for it is drained: its host is to restart"));
        assert!(!work.stop().is_cancelled(), "what it holds goes on");
        work.cancel().await.unwrap();
        let nobody = bmdb(&url, &["session", "drain", "0b6e51f2-8f3a-4c8e-9a57-0c2f6d1e7b11", "--reason", "none"]);
        assert_eq!(nobody.status, 4, "{nobody:?}");
    }

    async fn a_machine_is_removed_once_nobody_works_on_it(db: TestDatabase) {
        let url = db.url().to_owned();
        let holder = component(&db).await;
        let work = holder.claim(0).await;
        let refused = bmdb(&url, &["machine", "remove", "OAK-1", "--reason", "sent back"]);
        assert_eq!(refused.status, 3, "{refused:?}");
        assert!(refused.err.contains("cannot be removed: shepherd-oak works on it for install; drain it first"), "{refused:?}");
        work.cancel().await.unwrap();
        let removed = done(&url, &["machine", "remove", "OAK-1", "--reason", "sent back"]);
        assert_eq!(removed.sentence(), format!("OAK-1 is removed. Its history stays, under its id {}.", holder.machines[0]));
        assert_eq!(bmdb(&url, &["machine", "show", "OAK-1"]).status, 4);
    }

    async fn an_inventory_is_imported_by_who_knows_how_many_it_has(db: TestDatabase) {
        let url = db.url().to_owned();
        let holder = component(&db).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("inventory.csv");
        std::fs::write(&file, "provider,provider_id,address\noak,OAK-1,192.0.2.1\noak,OAK-9,192.0.2.9\n,nobody's,\noak,OAK-9,\noak,OAK-8\nelm,ELM-8,\n").unwrap();
        let file = file.to_str().unwrap();
        let looked = bmdb(&url, &["machine", "import", file]);
        assert_eq!(looked.status, 1, "some lines are wrong: {looked:?}");
        assert!(looked.sentence().ends_with("has 3 machines. Nothing was written: --yes 3 adds those that are not there yet."), "{looked:?}");
        assert!(looked.out.contains("it has 2 values, the header 3") && looked.out.contains("the name of a provider"), "{}", looked.out);
        assert!(looked.err.contains("1 line names a machine that stands before it, and counts once"), "{looked:?}");
        let refused = bmdb(&url, &["machine", "import", file, "--yes", "4"]);
        assert_eq!((refused.status, refused.err.contains("has 3 machines, not 4")), (3, true), "{refused:?}");
        let list = async || holder.bmdb.machines(::bmdb::MachineFilter::new()).await.unwrap().rows.len();
        assert_eq!(list().await, 3, "nothing was written");
        let imported = bmdb(&url, &["machine", "import", file, "--yes", "3"]);
        assert_eq!(imported.sentence(), "2 machines are added, 1 was there already.");
        assert_eq!(list().await, 5);
        for (text, expected) in [("provider,name\n", "has a column \"name\""), ("provider,address\n", "has no column provider_id"), ("", "has no column provider")] {
            std::fs::write(file, text).unwrap();
            let wrong = bmdb(&url, &["machine", "import", file]);
            assert!(wrong.status == 2 && wrong.err.contains(expected), "{text:?}: {wrong:?}");
        }
        let missing = bmdb(&url, &["machine", "import", "/nowhere.csv"]);
        assert_eq!(missing.status, 2, "{missing:?}");
    }

    async fn history_is_pruned_by_who_knows_how_much_that_is(db: TestDatabase) {
        let url = db.url().to_owned();
        let holder = component(&db).await;
        holder.claim(0).await.cancel().await.unwrap();
        let none = done(&url, &["prune", "--older-than", "90d", "--reason", "we keep a quarter"]);
        assert!(none.sentence().starts_with("No claim ended before 20") && none.sentence().ends_with(": there is nothing to prune."), "{none:?}");
        let young = bmdb(&url, &["prune", "--older-than", "2h", "--reason", "we keep a quarter"]);
        assert!(young.status == 2 && young.err.contains("at least a day ago"), "{young:?}");
        let ago = if db.backend() == harness::Backend::Sqlite { "'2020-01-01 00:00:00.000'" } else { "'2020-01-01'" };
        sea_orm::ConnectionTrait::execute_unprepared(&db.raw().await, &format!("UPDATE work_history SET at = {ago}")).await.unwrap();
        let looked = done(&url, &["prune", "--older-than", "90d", "--reason", "we keep a quarter"]);
        assert!(looked.sentence().starts_with("2 events of claims that ended before 20") && looked.sentence().ends_with(" would go. Nothing was deleted."), "{looked:?}");
        let next = looked.out.lines().find_map(|line| line.strip_prefix("next: bmdb prune --before ")).expect("it says what to do");
        let (before, rest) = next.split_once(' ').unwrap();
        assert!(rest.starts_with("--yes 2 "), "{next}");
        for wrong in ["1", "3"] {
            let refused = bmdb(&url, &["prune", "--before", before, "--yes", wrong, "--reason", "we keep a quarter"]);
            assert_eq!((refused.status, refused.err.contains(&format!("2 events would go, not {wrong}"))), (3, true), "{refused:?}");
        }
        let loose = bmdb(&url, &["prune", "--older-than", "90d", "--yes", "2", "--reason", "we keep a quarter"]);
        assert_eq!(loose.status, 2, "with a time that moves, a number means nothing: {loose:?}");
        let pruned = done(&url, &["prune", "--before", before, "--yes", "2", "--reason", "we keep a quarter"]);
        assert_eq!(pruned.sentence(), "2 events are deleted.");
        assert!(holder.bmdb.history(holder.machines[0]).await.unwrap().rows.is_empty());
    }
}
