//! Every page, in each of the ways in which it is told.

use std::time::Duration;

use harness::{Backend, TestDatabase, on_each_backend};

use crate::console::client::Console;
use crate::console::fleet::{CAUSE, fleet};
use crate::console::html::check;

on_each_backend! {
    async fn every_page_is_well_formed_and_says_what_is_so(db: TestDatabase) {
        let fleet = fleet(&db, 200).await;
        let console = Console::start(&db, &["--portal", "tickets.example.com"]).await;
        let (stuck, session) = (fleet.stuck.id(), fleet.session.id());
        let pages = [
            ("/fleet".to_owned(), "among 250 machines"),
            ("/attention".to_owned(), "was asked to stop: <bdi class=\"long\">BMC answers 503"),
            ("/machines".to_owned(), "The first 50 machines of more, by id."),
            ("/machines?state=parked&process=install".to_owned(), "1 machine matches in all."),
            ("/machines?q=OAK-0007".to_owned(), "198.51.100.7"),
            (format!("/machines/{}", fleet.stuck.machine()), "does not let go of slot"),
            (format!("/machines/{}?why=install", fleet.parked), "it is not parked"),
            (format!("/machines/{}", fleet.held), "<a href=\"https://tickets.example.com/OPS-3902\""),
            (format!("/machines/{}/history", fleet.parked), "It was claimed 2 times; 2 works failed."),
            ("/works".to_owned(), "are stuck."),
            ("/works?stuck=yes".to_owned(), "only stuck ones"),
            (format!("/works/{stuck}"), "it was asked to stop and goes on."),
            ("/sessions".to_owned(), "1 session is alive; 1 is silent."),
            (format!("/sessions/{session}"), "It is alive"),
            ("/processes".to_owned(), "4 processes in 3 slots"),
            ("/processes/install".to_owned(), "is of oak"),
            ("/actions".to_owned(), "break-session"),
            (format!("/actions?machine={}", fleet.held), "place-hold"),
            ("/collector".to_owned(), "1 session is silent"),
            ("/schema".to_owned(), "steps are applied."),
            (format!("/machines/{}/hold", fleet.held), "until it is released"),
            (format!("/works/{stuck}/break"), "Break the session of"),
        ];
        for (path, says) in &pages {
            let page = console.get(path).await;
            assert_eq!(page.status, 200, "{path}: {}", page.body);
            check(&page.body);
            assert!(page.body.contains(says), "{path} does not say {says:?}: {}", page.body);
        }
        for (path, _) in &pages[..20] {
            let twin = console.get(&format!("/json{path}")).await;
            assert_eq!(twin.status, 200, "{path}: {}", twin.body);
            let twin = twin.json();
            assert!(twin["answer"].is_object() && twin["at"].is_string() && twin["source"].is_string(), "{path}: {twin}");
        }
        let folded = console.get(&format!("/machines/{}", fleet.parked)).await;
        assert!(folded.body.contains(&format!("All {} characters", CAUSE.chars().count())), "{}", folded.body);
        // To look at it with a browser: BMDB_TEST_LOOK=600 cargo test -p bmdb-operator every_page -- --nocapture
        if let Ok(seconds) = std::env::var("BMDB_TEST_LOOK") {
            eprintln!("LOOK http://{}/", console.host);
            tokio::time::sleep(Duration::from_secs(seconds.parse().expect("it is a number"))).await;
        }
    }
}

#[tokio::test]
async fn what_is_not_there_says_what_to_do() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let console = Console::start(&db, &[]).await;
    let nobody = "7c1de0a4-52bf-4f0e-9d3b-0a6c1f5be812";
    for (path, status, says) in [
        ("/nothing".to_owned(), 404, "There is no page /nothing."),
        (format!("/machines/{nobody}"), 404, "It may have been removed"),
        ("/machines/OAK-1".to_owned(), 404, "is no id: ids are like"),
        (format!("/works/{nobody}"), 404, "it has ended, or never was"),
        (format!("/sessions/{nobody}"), 404, "it was closed or has expired"),
        (
            "/processes/nothing".to_owned(),
            404,
            "no process \"nothing\" is registered".to_owned().leak(),
        ),
        ("/fleet?state=parked".to_owned(), 400, "This page takes no"),
        ("/machines?state=lost".to_owned(), 400, "There is no state"),
    ] {
        let page = console.get(&path).await;
        assert_eq!(page.status, status, "{path}: {}", page.body);
        check(&page.body);
        let text = page.body.replace("&quot;", "\"").replace("No process", "no process");
        assert!(text.contains(says), "{path}: {text}");
        let twin = console.get(&format!("/json{path}")).await;
        assert_eq!(twin.status, status);
        assert!(twin.json()["error"]["text"].is_string());
    }
    for path in [
        "/fleet",
        "/attention",
        "/machines",
        "/works",
        "/sessions",
        "/processes",
        "/actions",
        "/collector",
    ] {
        let page = console.get(path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        check(&page.body);
        assert!(
            page.body.contains("class=\"empty\""),
            "{path} does not say why it is empty: {}",
            page.body
        );
    }
}

#[tokio::test]
async fn one_field_finds_whatever_has_a_name() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let fleet = fleet(&db, 40).await;
    let console = Console::start(&db, &[]).await;
    let (machine, work, session) = (fleet.held, fleet.stuck.id(), fleet.session.id());
    for (text, leads) in [
        ("".to_owned(), "/machines".to_owned()),
        (machine.to_string(), format!("/machines/{machine}")),
        (work.to_string(), format!("/works/{work}")),
        (session.to_string(), format!("/sessions/{session}")),
        ("install".to_owned(), "/processes/install".to_owned()),
        ("nothing".to_owned(), "/machines?q=nothing".to_owned()),
    ] {
        let found = console.get(&format!("/find?q={text}")).await;
        assert_eq!((found.status, found.location()), (303, leads.as_str()), "{text}");
    }
    let by_provider = console.get("/find?q=OAK-0003").await;
    assert!(by_provider.location().starts_with("/machines/"), "{by_provider:?}");
}
