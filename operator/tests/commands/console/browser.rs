//! The console in a real browser: nothing that its policy forbids, nothing that scrolls sideways, and what changes changes in place.
//!
//! Needs Debian's packages `chromium` and `chromium-driver`. Where they cannot be had, `BMDB_TEST_BROWSER=skip` says so.

use std::process::Stdio;
use std::time::Duration;

use harness::{Backend, TestDatabase, until};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::console::client::{Console, request};
use crate::console::fleet::fleet;

const PATIENCE: Duration = Duration::from_secs(60);

/// A browser, by the protocol of WebDriver.
struct Browser {
    _driver: Child,
    /// The browser itself.
    process: u64,
    host: String,
    session: String,
}

impl Browser {
    async fn open() -> Option<Self> {
        if std::env::var("BMDB_TEST_BROWSER").is_ok_and(|said| said == "skip") {
            eprintln!("BROWSER: NOT TESTED (BMDB_TEST_BROWSER=skip)");
            return None;
        }
        let mut command = Command::new("chromedriver");
        command
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut driver = command.spawn().unwrap_or_else(|error| {
            panic!("no chromedriver: {error}. Install chromium and chromium-driver, or set BMDB_TEST_BROWSER=skip")
        });
        let mut said = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = said.next_line().await.unwrap().expect("chromedriver starts");
            if let Some((_, port)) = line.split_once("successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        let mut browser = Self {
            _driver: driver,
            process: 0,
            host: format!("127.0.0.1:{port}"),
            session: String::new(),
        };
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu"];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let begun = browser.call("POST", "/session", &wanted).await;
        browser.process = begun["capabilities"]["goog:processID"]
            .as_u64()
            .expect("it is a process");
        browser.session = format!("/session/{}", begun["sessionId"].as_str().expect("it has an id"));
        Some(browser)
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let (body, host) = (body.to_string(), &self.host);
        let length = body.len();
        let head = format!(
            "{method} {}{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n",
            self.session
        );
        let answer = request(host, &format!("{head}{body}")).await;
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        answer.json()["value"].clone()
    }

    async fn go(&self, console: &Console, path: &str) {
        let url = format!("http://{}{path}", console.host);
        self.call("POST", "/url", &json!({"url": url})).await;
    }

    async fn ask(&self, script: &str) -> Value {
        self.call(
            "POST",
            "/execute/sync",
            &json!({"script": format!("return {script}"), "args": []}),
        )
        .await
    }

    async fn wide(&self, width: u32) {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500});
        let command = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics});
        self.call("POST", "/goog/cdp/execute", &command).await;
    }

    async fn press(&self, keys: &str) {
        let presses: Vec<_> = keys
            .chars()
            .flat_map(|key| {
                [
                    json!({"type": "keyDown", "value": key}),
                    json!({"type": "keyUp", "value": key}),
                ]
            })
            .collect();
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": presses}]});
        self.call("POST", "/actions", &actions).await;
    }

    /// Waits until an expression says so.
    async fn until(&self, what: &str, script: &str) {
        until(what, PATIENCE, async || self.ask(script).await == json!(true)).await;
    }
}

impl Drop for Browser {
    /// The browser is a child of its driver, and would outlive a test that fails.
    fn drop(&mut self) {
        let killed = std::process::Command::new("kill")
            .arg(self.process.to_string())
            .stderr(Stdio::null())
            .status();
        assert!(
            killed.is_ok() || std::thread::panicking(),
            "the browser cannot be ended"
        );
    }
}

#[tokio::test]
async fn a_browser_shows_every_page_and_keeps_it_true() {
    let Some(browser) = Browser::open().await else { return };
    let db = TestDatabase::migrated(Backend::Sqlite).await;
    let fleet = fleet(&db, 40).await;
    let console = Console::start(&db, &[]).await;
    let work = &fleet.works[0];
    let machine = format!("/machines/{}", work.machine());
    let (session, hold) = (format!("/sessions/{}", fleet.session.id()), format!("{machine}/hold"));
    let pages = [
        "/fleet",
        "/attention",
        "/machines",
        &machine,
        "/works",
        "/sessions",
        &session,
        "/processes",
        "/processes/install",
        "/actions",
        "/collector",
        "/schema",
        &hold,
    ];
    for path in pages {
        for width in [1440, 390, 320] {
            browser.wide(width).await;
            browser.go(&console, path).await;
            let over = browser
                .ask("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                .await;
            assert_eq!(over, json!(0), "{path} scrolls sideways at {width}");
        }
        if path != hold {
            browser
                .until(
                    "it is live",
                    "document.getElementById('live-word').textContent === 'Live'",
                )
                .await;
        }
    }
    let log = browser.call("POST", "/se/log", &json!({"type": "browser"})).await;
    assert_eq!(log, json!([]), "the browser has something to say");

    // What changes changes in place: what was unfolded stays so, and so does what has the focus.
    browser.wide(1440).await;
    browser.go(&console, &machine).await;
    browser
        .ask("document.querySelectorAll('.why > details').forEach((it) => { it.name = ''; it.open = true; })")
        .await;
    browser.ask("document.querySelector('#slots a').focus()").await;
    work.progress(&"step 5 of 5, done soon").await.unwrap();
    browser
        .until(
            "it shows the progress",
            "document.getElementById('slots').textContent.includes('step 5 of 5')",
        )
        .await;
    let open = "[...document.querySelectorAll('.why > details')].every((it) => it.open)";
    assert_eq!(browser.ask(open).await, json!(true));
    assert_eq!(
        browser.ask("document.activeElement.closest('#slots') !== null").await,
        json!(true)
    );

    // Paused, nothing changes.
    browser.press(".").await;
    browser
        .until(
            "it says so",
            "document.getElementById('live-word').textContent.startsWith('Paused at ')",
        )
        .await;
    browser.press(".").await;
    browser
        .until(
            "it goes on",
            "document.getElementById('live-word').textContent === 'Live'",
        )
        .await;

    // Keys.
    browser.press("t").await;
    assert_eq!(
        browser.ask("document.documentElement.dataset.theme").await,
        json!("light")
    );
    browser.press("gm").await;
    browser
        .until("it has gone to the machines", "location.pathname === '/machines'")
        .await;
    assert_eq!(
        browser.ask("document.documentElement.dataset.theme").await,
        json!("light"),
        "the server keeps the theme"
    );
    browser.press("jj").await;
    let second = "document.querySelectorAll('[data-row]')[1].classList.contains('here')";
    assert_eq!(browser.ask(second).await, json!(true));
    browser.press("?").await;
    assert_eq!(browser.ask("document.getElementById('keys').open").await, json!(true));

    // A console that has gone is not shown as if it were there.
    browser.go(&console, "/fleet").await;
    browser
        .until(
            "it is live",
            "document.getElementById('live-word').textContent === 'Live'",
        )
        .await;
    drop(console);
    browser
        .until(
            "it says that it is stale",
            "document.getElementById('live').classList.contains('stale') && document.title.startsWith('(stale)')",
        )
        .await;
    browser.call("DELETE", "", &json!({})).await;
}
