//! Acts through forms, and what was decided on that has changed.

use std::time::Duration;

use harness::{on_each_backend, until};

use crate::console::client::Console;
use crate::console::fleet::fleet;
use crate::console::html::check;

on_each_backend! {
    async fn an_act_says_what_it_did_and_what_has_changed_is_not_acted_on(db: TestDatabase) {
        let fleet = fleet(&db, 40).await;
        let console = Console::start(&db, &[]).await;
        let reason = [("reason", "replacing a disk"), ("ticket", "OPS-1")];

        // A hold, for a while, on a slot.
        let machine = fleet.parked;
        let hold = format!("/machines/{machine}/hold");
        let silent = console.act(&hold, &[("reason", " ... ")]).await;
        assert_eq!(silent.status, 400, "{silent:?}");
        let odd = console.act(&hold, &[("reason", "a disk"), ("span", "soon")]).await;
        assert_eq!(odd.status, 400, "{odd:?}");
        assert!(fleet.bmdb.holds(Some(machine)).await.unwrap().rows.is_empty());
        let held = console.act(&hold, &[reason[0], reason[1], ("slot", "os"), ("span", "2h")]).await;
        assert_eq!(held.status, 303, "{held:?}");
        let page = console.get(held.location()).await;
        check(&page.body);
        assert!(page.body.contains("role=\"status\"") && page.body.contains("is held for 2h. To undo it, release the hold."), "{}", page.body);
        let placed = fleet.bmdb.holds(Some(machine)).await.unwrap().rows;
        assert_eq!((placed[0].placed_by.as_str(), placed[0].ticket.as_deref(), placed[0].slot.as_str()), ("ada", Some("OPS-1"), "os"));
        assert!(placed[0].until.is_some());
        // A result is told where an act leads, and cannot be made up in an address.
        let forged = console.get(&format!("/machines/{machine}?done=The+fleet+is+deleted")).await;
        assert!(!forged.body.contains("deleted"), "{}", forged.body);

        // The hold that was looked at is released, and no other.
        let release = format!("/machines/{machine}/release?slot=os");
        let form = console.get(&release).await;
        let bob = fleet.bmdb.operator("bob", "a fan").unwrap();
        bob.lift_hold(machine, Some("os")).await.unwrap();
        bob.place_hold(machine, bmdb::Hold::new().slot("os")).await.unwrap();
        let refused = console.send_form(&release, &form, &reason).await;
        assert_eq!(refused.status, 409, "{refused:?}");
        assert!(refused.body.contains("bob has placed another hold on slot os since: a fan"), "{}", refused.body);
        let released = console.act(&release, &reason).await;
        assert_eq!(released.status, 303, "{released:?}");
        assert!(fleet.bmdb.holds(Some(machine)).await.unwrap().rows.is_empty());

        // Backoffs: decided on after so many failures.
        let clear = format!("/machines/{machine}/backoff/clear?process=install");
        let stale = console.get(&clear).await.body.replace("name=\"failures\" value=\"2\"", "name=\"failures\" value=\"1\"");
        let form = crate::console::client::Answer { status: 200, headers: String::new(), body: stale };
        let refused = console.send_form(&clear, &form, &reason).await;
        assert_eq!(refused.status, 409, "{refused:?}");
        assert!(refused.body.contains("has failed 2 times"), "{}", refused.body);
        let run = console.act(&format!("/machines/{machine}/backoff/run-now?process=install"), &reason).await;
        assert_eq!(run.status, 303, "{run:?}");
        let cleared = console.act(&clear, &reason).await;
        assert_eq!(cleared.status, 303, "{cleared:?}");
        assert!(fleet.bmdb.backoffs(Some(machine)).await.unwrap().rows.is_empty());
        assert_eq!(console.get(&clear).await.status, 404, "there is nothing to clear any more");

        // Drained, it is asked to stop.
        let work = &fleet.works[0];
        let drained = console.act(&format!("/machines/{}/drain", work.machine()), &[reason[0], ("slot", "")]).await;
        assert_eq!(drained.status, 303, "{drained:?}");
        assert!(console.get(drained.location()).await.body.contains("asked to stop. It is drained when they have ended."));
        until("the holder has been asked", Duration::from_secs(30), async || work.stop().is_cancelled()).await;
        let other = &fleet.works[1];
        let asked = console.act(&format!("/works/{}/ask-to-stop", other.id()), &reason).await;
        assert_eq!(asked.status, 303, "{asked:?}");
        until("the other has been asked", Duration::from_secs(30), async || other.stop().is_cancelled()).await;

        // Sessions: decided on with what they held.
        let session = fleet.session.id();
        let expire = format!("/sessions/{session}/expire");
        let form = console.get(&expire).await;
        let more = fleet.session.claim(&fleet.install).await.unwrap().expect("there are more");
        let refused = console.send_form(&expire, &form, &reason).await;
        assert_eq!(refused.status, 409, "{refused:?}");
        assert!(refused.body.contains("works by now, not"), "{}", refused.body);
        drop(more);

        // A holder is broken with the fence that it was seen with.
        let stuck = &fleet.stuck;
        let path = format!("/works/{}/break", stuck.id());
        let seen = format!("name=\"fence\" value=\"{}\"", stuck.fence());
        let stale = console.get(&path).await.body.replace(&seen, "name=\"fence\" value=\"7\"");
        let form = crate::console::client::Answer { status: 200, headers: String::new(), body: stale };
        let refused = console.send_form(&path, &form, &reason).await;
        assert_eq!(refused.status, 409, "{refused:?}");
        assert!(refused.body.contains(&format!("is not held with fence 7 any more. shepherd-oak holds it with fence {}", stuck.fence())), "{}", refused.body);
        assert!(!fleet.session.lost().is_cancelled());
        let broken = console.act(&path, &reason).await;
        assert_eq!(broken.status, 303, "{broken:?}");
        until("its holder knows", Duration::from_secs(30), async || fleet.session.lost().is_cancelled()).await;

        let acts = fleet.bmdb.operations(None).limit(100).await.unwrap().rows;
        let by_ada: Vec<_> = acts.iter().filter(|act| act.done_by == "ada").map(|act| act.verb.as_str()).rev().collect();
        assert_eq!(by_ada.len(), 7, "each act leaves its row, and what was refused none: {by_ada:?}");
    }

    async fn a_process_is_paused_and_resumed_and_a_session_drained(db: TestDatabase) {
        let fleet = fleet(&db, 10).await;
        let console = Console::start(&db, &[]).await;
        let reason = [("reason", "the image does not boot"), ("ticket", "OPS-7")];
        let paused = console.act("/processes/install/pause", &[reason[0], reason[1], ("span", "2h"), ("and-stop", "yes")]).await;
        assert_eq!(paused.status, 303, "{paused:?}");
        let page = console.get(paused.location()).await;
        check(&page.body);
        // At once, however old the counts are.
        assert!(page.body.contains("It is paused") && page.body.contains("the image does not boot") && page.body.contains("Resume it…"), "{}", page.body);
        assert!(page.body.contains("install is paused for 2h. Undo: resume it."), "{}", page.body);
        until("a holder has been asked", Duration::from_secs(30), async || fleet.works[0].stop().is_cancelled()).await;
        assert!(fleet.session.claim(&fleet.install).await.unwrap().is_none());
        for list in ["/fleet", "/processes"] {
            assert!(console.get(list).await.body.contains("paused"), "{list}");
        }
        let why = console.get(&format!("/machines/{}?why=install", fleet.held)).await;
        assert!(why.body.contains("the process is not paused") && why.body.contains("/processes/install/resume"), "{}", why.body);
        let again = console.act("/processes/install/pause", &[("reason", "me too"), ("span", "1h")]).await;
        assert_eq!(again.status, 409, "{again:?}");

        // The pause that was looked at is ended, and no other.
        let form = console.get("/processes/install/resume").await;
        let bob = fleet.bmdb.operator("bob", "a fan").unwrap();
        bob.resume_process("install").await.unwrap();
        bob.pause_process("install", bmdb::Until::Open).await.unwrap();
        let refused = console.send_form("/processes/install/resume", &form, &reason).await;
        assert_eq!(refused.status, 409, "{refused:?}");
        assert!(refused.body.contains("bob has paused install anew"), "{}", refused.body);
        let resumed = console.act("/processes/install/resume", &reason).await;
        assert_eq!(resumed.status, 303, "{resumed:?}");
        assert_eq!(console.get("/processes/install/resume").await.status, 404);
        assert_eq!(console.get("/processes/instal/pause").await.status, 404);

        let session = fleet.session.id();
        let drained = console.act(&format!("/sessions/{session}/drain"), &reason).await;
        assert_eq!(drained.status, 303, "{drained:?}");
        let page = console.get(drained.location()).await;
        check(&page.body);
        assert!(page.body.contains("draining") && page.body.contains("An operator drains it"), "{}", page.body);
        until("it takes no more", Duration::from_secs(30), async || {
            matches!(fleet.session.claim(&fleet.install).await, Err(bmdb::Error::Draining { .. }))
        }).await;
    }
}
