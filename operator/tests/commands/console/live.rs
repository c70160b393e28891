//! Pages while they are looked at, and the end of the console.

use std::time::Duration;

use harness::{Backend, TestDatabase};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::console::client::Console;
use crate::console::fleet::fleet;

const PATIENCE: Duration = Duration::from_secs(60);

/// A stream of events.
struct Stream(BufReader<TcpStream>);

impl Stream {
    async fn open(console: &Console, path: &str) -> Self {
        let mut stream = TcpStream::connect(&console.host).await.unwrap();
        let request = format!("GET /live{path} HTTP/1.1\r\nHost: {}\r\n\r\n", console.host);
        stream.write_all(request.as_bytes()).await.unwrap();
        Self(BufReader::new(stream))
    }

    /// The data of the next event of this kind whose data says this. `None`: the stream has ended.
    async fn next(&mut self, kind: &str, says: &str) -> Option<String> {
        let wait = async {
            let mut is_kind = false;
            loop {
                let mut line = String::new();
                if self.0.read_line(&mut line).await.unwrap_or_default() == 0 {
                    return None;
                }
                match line.trim_end().split_once(": ") {
                    Some(("event", event)) => is_kind = event == kind,
                    Some(("data", data)) if is_kind && data.contains(says) => return Some(data.to_owned()),
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("no event {kind} said {says:?}"))
    }
}

#[tokio::test]
async fn a_page_tells_what_changes_and_only_that() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let fleet = fleet(&db, 40).await;
    let console = Console::start(&db, &[]).await;
    let work = &fleet.works[0];
    let path = format!("/machines/{}", work.machine());
    let mut first = Stream::open(&console, &path).await;
    let mut second = Stream::open(&console, &path).await;
    for stream in [&mut first, &mut second] {
        let head = stream.next("part", "\"id\":\"head\"").await.unwrap();
        let head: serde_json::Value = serde_json::from_str(&head).unwrap();
        assert!(
            head["html"].as_str().unwrap().contains("<h1>") && head["digest"].is_string(),
            "{head}"
        );
        stream.next("beat", "").await.unwrap();
    }
    work.progress(&"step 4 of 5, booting").await.unwrap();
    for stream in [&mut first, &mut second] {
        let part = stream.next("part", "step 4 of 5, booting").await.unwrap();
        assert!(part.contains("\"id\":\"slots\""), "{part}");
    }
    // History and tags have not changed: of those, nothing is sent again.
    let mut beats = 0;
    while beats < 3 {
        let mut line = String::new();
        timeout(PATIENCE, first.0.read_line(&mut line)).await.unwrap().unwrap();
        beats += usize::from(line.starts_with("event: beat"));
        assert!(!line.contains("\"id\":\"side\""), "{line}");
    }
}

#[tokio::test]
async fn it_ends_in_time_with_streams_open_and_tells_them() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let _fleet = fleet(&db, 20).await;
    let mut console = Console::start(&db, &[]).await;
    let mut streams = Vec::new();
    for path in ["/fleet", "/machines", "/works"] {
        let mut stream = Stream::open(&console, path).await;
        stream.next("beat", "").await.unwrap();
        streams.push(stream);
    }
    assert_eq!(console.get("/healthz").await.body, "alive\n");
    assert_eq!(console.get("/readyz").await.body, "ready\n");
    let pid = console.child.id().unwrap().to_string();
    let told = std::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .unwrap();
    assert!(told.success());
    for stream in &mut streams {
        assert!(stream.next("bye", "").await.is_some());
        assert_eq!(stream.next("part", "").await, None);
    }
    let ended = timeout(Duration::from_secs(10), console.child.wait()).await;
    assert_eq!(ended.expect("it ends within ten seconds").unwrap().code(), Some(0));
}

#[tokio::test]
async fn it_ends_within_a_containers_grace_though_clients_do_not_read() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let fleet = fleet(&db, 200).await;
    let mut console = Console::start(&db, &["--metrics"]).await;
    let machine = format!("/live/machines/{}", fleet.works[0].machine());
    let mut clients = Vec::new();
    for path in ["/live/fleet", "/live/machines", "/live/works", &machine] {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // What it is sent stays with the console.
        socket.set_recv_buffer_size(1024).unwrap();
        let mut client = socket.connect(console.host.parse().unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", console.host);
        client.write_all(request.as_bytes()).await.unwrap();
        // The stream has begun; it is never read again.
        client.readable().await.unwrap();
        clients.push(client);
    }
    // Many pages are asked for on one connection, of which no answer is read; and one request never ends.
    let mut client = TcpStream::connect(&console.host).await.unwrap();
    let request = format!("GET /machines HTTP/1.1\r\nHost: {}\r\n\r\n", console.host);
    client.write_all(request.repeat(200).as_bytes()).await.unwrap();
    clients.push(client);
    let mut client = TcpStream::connect(&console.host).await.unwrap();
    client.write_all(b"GET /fleet HTTP/1.1\r\nHost: ").await.unwrap();
    clients.push(client);
    fleet.works[0].progress(&"step 4 of 5, booting").await.unwrap();

    let pid = console.child.id().unwrap().to_string();
    let told = std::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .unwrap();
    assert!(told.success());
    let ended = timeout(crate::deploy::grace() / 2, console.child.wait()).await;
    assert_eq!(ended.expect("it ends in half of the grace").unwrap().code(), Some(0));
    drop(clients);
}

#[tokio::test]
async fn it_is_not_ready_without_its_database() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let console = Console::start(&db, &[]).await;
    assert_eq!(console.get("/readyz").await.status, 200);
    let file = db.url().trim_start_matches("sqlite://").split('?').next().unwrap();
    std::fs::rename(file, format!("{file}.away")).unwrap();
    let mut status = 200;
    harness::until("it notices", PATIENCE, async || {
        status = console.get("/readyz").await.status;
        status != 200
    })
    .await;
    assert_eq!(status, 503);
    assert_eq!(console.get("/healthz").await.status, 200);
    let page = console.get("/sessions").await;
    assert_eq!(page.status, 503, "{page:?}");
    assert!(page.body.contains("This cannot be shown now"), "{page:?}");
}

#[tokio::test]
async fn its_collector_frees_what_the_dead_held() {
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let _fleet = fleet(&db, 20).await;
    let console = Console::start_with(&db, &[]).await;
    let page = console.get("/collector").await;
    assert!(page.body.contains("This console runs a collector."), "{}", page.body);
    harness::until("the silent session is expired", PATIENCE, async || {
        console.get("/json/collector").await.json()["answer"]["silent"] == serde_json::json!([])
    })
    .await;
    let works = console.get("/json/works").await.json();
    let left = works["answer"]["works"].as_array().unwrap();
    assert!(left.iter().all(|work| work["component"] == "shepherd-oak"), "{works}");
}
