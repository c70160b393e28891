//! Who comes in, what they may do, and what no other site can do through their browser.

use bmdb::machine::{self, NewMachine};
use bmdb::{Bmdb, Config};
use harness::{Backend, TestDatabase};
use tokio::io::AsyncReadExt;

use crate::console::client::Console;
use crate::console::fleet::fleet;
use crate::console::html::check;

const POLICY: &str = "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

#[tokio::test]
async fn nobody_reaches_the_loopback_by_another_name_or_from_another_site() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let fleet = fleet(&db, 20).await;
    let console = Console::start(&db, &[]).await;
    for host in [
        "evil.example.com",
        "127.0.0.1.evil.example.com",
        "localhost.evil.example.com:8080",
        "",
    ] {
        let answer = console
            .send(&format!(
                "GET /fleet HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert_eq!(answer.status, 403, "{host}: {answer:?}");
        assert!(answer.headers.contains(POLICY), "{answer:?}");
    }
    for host in ["localhost", "127.0.0.1:1", "[::1]:8080"] {
        let answer = console
            .send(&format!(
                "GET /schema HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert_eq!(answer.status, 200, "{host}: {answer:?}");
    }
    let path = format!("/machines/{}/hold", fleet.parked);
    let form = console.get(&path).await;
    let token = form.body.split("name=\"form\" value=\"").nth(1).unwrap();
    let token = &token[..64];
    let fields = [("form", token), ("reason", "somebody else wants it")];
    for lines in [
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Origin: https://evil.example.com\r\n",
        "Origin: null\r\n",
    ] {
        let answer = console.post_with(&path, &fields, lines).await;
        assert_eq!(answer.status, 403, "{lines}: {answer:?}");
        assert!(answer.body.contains("another site sent this"), "{answer:?}");
    }
    // From a page of ours, but not by a form that we gave.
    let without = console.post(&path, &fields[1..]).await;
    assert_eq!(without.status, 409, "{without:?}");
    let guessed = console.post(&path, &[("form", &"0".repeat(64)), fields[1]]).await;
    assert_eq!(guessed.status, 409, "{guessed:?}");
    assert!(fleet.bmdb.holds(Some(fleet.parked)).await.unwrap().rows.is_empty());
    let own = console.post(&path, &fields).await;
    assert_eq!(own.status, 303, "{own:?}");
}

#[tokio::test]
async fn people_sign_in_with_tokens_that_stand_nowhere() {
    use std::fmt::Write;
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let fleet = fleet(&db, 20).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let mut text = "# who may come in".to_owned();
    for (name, role) in [("ada", "write"), ("bob", "read")] {
        // As the guide says it: printf %s TOKEN | sha256sum
        let made = std::process::Command::new("sh")
            .args(["-c", &format!("printf %s secret-of-{name} | sha256sum")])
            .output()
            .unwrap();
        let digest = String::from_utf8(made.stdout).unwrap();
        write!(text, "\n{name} {role} {}", &digest[..64]).unwrap();
    }
    std::fs::write(&file, text).unwrap();
    let arguments = [
        "--token-file",
        file.to_str().unwrap(),
        "--public-host",
        "bmdb.example.com",
    ];
    let mut console = Console::start(&db, &arguments).await;

    let stranger = console.get("/fleet").await;
    assert_eq!((stranger.status, stranger.location()), (303, "/sign-in"));
    assert_eq!(console.get("/json/fleet").await.status, 401);
    assert_eq!(console.get("/live/fleet").await.status, 401);
    let form = console.get("/sign-in").await;
    check(&form.body);
    assert!(
        !form.body.contains("sqlite"),
        "a stranger learns nothing: {}",
        form.body
    );
    assert_eq!(console.post("/sign-in", &[("token", "guessed")]).await.status, 403);

    let signed_in = async |token: &str| {
        let answer = console.post("/sign-in", &[("token", token)]).await;
        assert_eq!(answer.status, 303, "{answer:?}");
        let cookie = answer
            .headers
            .lines()
            .find_map(|line| line.strip_prefix("set-cookie: "))
            .unwrap();
        assert!(
            cookie.starts_with("__host-bmdb=") && cookie.ends_with("; path=/; secure; httponly; samesite=lax"),
            "{cookie}"
        );
        let value = cookie["__host-bmdb=".len()..].split(';').next().unwrap();
        format!("Cookie: other=1; __Host-bmdb={value}\r\n")
    };
    let (ada, bob) = (signed_in("secret-of-ada").await, signed_in("secret-of-bob").await);
    let hold = format!("/machines/{}/hold", fleet.parked);
    let page = format!("/machines/{}", fleet.parked);
    let seen = console.get_with(&page, &bob).await;
    assert!(
        seen.status == 200 && !seen.body.contains("Hold…") && seen.body.contains(", may read"),
        "{}",
        seen.body
    );
    let seen = console.get_with(&page, &ada).await;
    assert!(
        seen.body.contains("Hold…") && seen.body.contains(", may write"),
        "{}",
        seen.body
    );
    for refused in [
        console.get_with(&hold, &bob).await,
        console
            .post_with(
                &hold,
                &[("reason", "x"), ("form", "")],
                &format!("{bob}Sec-Fetch-Site: same-origin\r\n"),
            )
            .await,
    ] {
        assert_eq!(refused.status, 403, "{refused:?}");
        assert!(refused.body.contains("may read but not write"), "{refused:?}");
    }
    let form = console.get_with(&hold, &ada).await;
    let token = &form.body.split("name=\"form\" value=\"").nth(1).unwrap()[..64];
    // A form of ada's is none of bob's, and the other way round.
    let lines = format!("{ada}Sec-Fetch-Site: same-origin\r\n");
    let held = console
        .post_with(&hold, &[("form", token), ("reason", "a disk")], &lines)
        .await;
    assert_eq!(held.status, 303, "{held:?}");
    let placed = fleet.bmdb.holds(Some(fleet.parked)).await.unwrap().rows;
    assert_eq!(placed[0].placed_by, "ada");
    let program = console
        .get_with("/json/fleet", "Authorization: Bearer secret-of-bob\r\n")
        .await;
    assert_eq!(program.status, 200);
    let wrong = console
        .get_with("/json/fleet", "Authorization: Bearer secret-of-eve\r\n")
        .await;
    assert_eq!(wrong.status, 401);

    let out = console.post_with("/sign-out", &[], &lines).await;
    assert_eq!(out.status, 303);
    assert_eq!(
        console.get_with("/fleet", &ada).await.status,
        303,
        "the cookie is worth nothing any more"
    );
    for host in ["bmdb.example.com", "bmdb.example.com:443"] {
        let answer = console
            .send(&format!(
                "GET /sign-in HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert_eq!(answer.status, 200, "{host}");
    }
    let other = console
        .send("GET /sign-in HTTP/1.1\r\nHost: evil.example.com\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(other.status, 403);

    // The log knows of a wrong token, and no token.
    console.child.start_kill().unwrap();
    let mut log = String::new();
    console.log.read_to_string(&mut log).await.unwrap();
    assert!(log.contains("a token that is nobody's"), "{log}");
    for secret in ["secret-of", "guessed", "__Host-bmdb", token] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
}

#[tokio::test]
async fn elsewhere_than_on_the_loopback_it_needs_tokens() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let refused = crate::rig::bmdb(db.url(), &["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.status, 2, "{refused:?}");
    assert!(
        refused.err.contains("give --token-file FILE, or listen at 127.0.0.1"),
        "{refused:?}"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    std::fs::write(&file, "ada write hunter2\n").unwrap();
    let refused = crate::rig::bmdb(db.url(), &["serve", "--token-file", file.to_str().unwrap()]);
    assert_eq!(refused.status, 2, "{refused:?}");
    assert!(
        refused.err.contains("line 1 is not NAME") && !refused.err.contains("hunter2"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_console_that_only_reads_offers_no_acts() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let fleet = fleet(&db, 20).await;
    let console = Console::start(&db, &["--read-only"]).await;
    let page = console.get(&format!("/machines/{}", fleet.held)).await;
    assert!(
        !page.body.contains("Hold…") && !page.body.contains("elease it…"),
        "{}",
        page.body
    );
    for path in [
        format!("/machines/{}/hold", fleet.held),
        format!("/works/{}/break", fleet.stuck.id()),
    ] {
        assert_eq!(console.get(&path).await.status, 403);
        let posted = console
            .post(&path, &[("reason", "x"), ("fence", "1"), ("form", "")])
            .await;
        assert_eq!(posted.status, 403, "{posted:?}");
    }
}

#[tokio::test]
async fn what_somebody_else_wrote_stays_text() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let config = Config::new(db.url(), "<script>alert(1)</script>", "\" onload=\"alert(1)");
    let bmdb = Bmdb::connect(config).await.unwrap();
    let session = bmdb.start_session().await.unwrap();
    let odd: String = "<img src=x onerror=alert(1)>\u{202e}\u{200b}\"'&;%00é\n\t\u{1b}[31m"
        .chars()
        .cycle()
        .take(1000)
        .collect();
    let odd: String = odd
        .chars()
        .scan(0, |bytes, letter| {
            *bytes += letter.len_utf8();
            (*bytes <= 1024).then_some(letter)
        })
        .collect();
    assert!(odd.len() > 1000, "{}", odd.len());
    let new = [NewMachine::new("</bdi><b>", odd.as_str())
        .address("javascript:alert(1)")
        .location("'; --")];
    session
        .transact(async |tx| machine::import(tx, &new).await)
        .await
        .unwrap();
    let id = machine::find(bmdb.reads(), "</bdi><b>", &odd).await.unwrap().unwrap();
    let ada = bmdb
        .operator("<b>eve</b>", "<script>alert(2)</script>\u{202e}")
        .unwrap();
    let ada = ada.ticket("javascript:alert(3)").unwrap();
    ada.place_hold(id, bmdb::Hold::new()).await.unwrap();
    let console = Console::start(&db, &["--portal", "tickets.example.com"]).await;
    let machine = format!("/machines/{id}");
    let session = format!("/sessions/{}", session.id());
    let release = format!("/machines/{id}/release");
    for path in [
        "/fleet",
        "/machines",
        "/sessions",
        "/actions",
        "/attention",
        "/machines?q=%3Cscript%3E",
        &machine,
        &session,
        &release,
    ] {
        let page = console.get(path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        check(&page.body);
        assert!(
            page.headers.contains(POLICY) && page.headers.contains("x-content-type-options: nosniff"),
            "{}",
            page.headers
        );
        assert!(
            page.headers.contains("referrer-policy: no-referrer") && page.headers.contains("cache-control: no-store"),
            "{}",
            page.headers
        );
        for bad in [
            "<script>",
            "<img",
            "<b>eve",
            "\u{202e}",
            "\u{200b}",
            "\u{1b}",
            "href=\"javascript",
            "onload=\"alert",
        ] {
            assert!(!page.body.contains(bad), "{path} has {bad:?}: {}", page.body);
        }
    }
}

#[tokio::test]
async fn rules_are_asked_by_the_login_that_can_only_read() {
    let db = TestDatabase::migrated(Backend::Postgres).await;
    let fleet = fleet(&db, 20).await;
    bmdb_migration::make_roles(db.url())
        .await
        .expect("an administrator can");
    let reader = db.url().replace("bmdb@", "bmdb_console@");
    let page = format!("/machines/{}?why=install", fleet.parked);

    let alone = Console::start(&db, &[]).await;
    let fleet_alone = alone.get("/fleet").await;
    assert!(
        fleet_alone.body.contains("give --read-database with one that cannot"),
        "{}",
        fleet_alone.body
    );
    let machine = alone.get(&page).await;
    assert!(
        machine.body.contains("it is not parked") && !machine.body.contains("is of oak"),
        "{}",
        machine.body
    );

    let both = Console::start(&db, &["--read-database", &reader]).await;
    let counted = both.get("/json/fleet").await.json();
    let install = counted["answer"]["processes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["process"] == "install");
    assert!(install.unwrap()["eligible"].is_string(), "{counted}");
    let machine = both.get(&page).await;
    assert!(machine.body.contains("is of oak"), "{}", machine.body);
    let held = both
        .act(&format!("/machines/{}/hold", fleet.parked), &[("reason", "a disk")])
        .await;
    assert_eq!(held.status, 303, "{held:?}");
}
