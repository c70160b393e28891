//! A console that runs as operators run it, and a client of plain HTTP.

use std::process::Stdio;
use std::time::Duration;

use harness::TestDatabase;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A console of its own port. It ends with the test.
pub(crate) struct Console {
    pub(crate) child: Child,
    /// Such as `127.0.0.1:4711`.
    pub(crate) host: String,
    /// What it writes to stderr after its address.
    pub(crate) log: BufReader<tokio::process::ChildStderr>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Console {
    /// Starts one as ada, without a collector.
    pub(crate) async fn start(db: &TestDatabase, arguments: &[&str]) -> Self {
        let mut all = vec!["--no-collector"];
        all.extend(arguments);
        Self::start_with(db, &all).await
    }

    /// Starts one as ada.
    pub(crate) async fn start_with(db: &TestDatabase, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bmdb"));
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .env("BMDB_DATABASE_URL", db.url())
            .env("USER", "ada")
            .env_remove("BMDB_OPERATOR")
            .env_remove("BMDB_READ_DATABASE_URL")
            .env("RUST_LOG", "info,bmdb=debug,bmdb_operator=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("it was built");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut said = String::new();
        let host = loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, log.read_line(&mut line)).await;
            assert!(
                read.expect("it starts in time").expect("it can be read") > 0,
                "it ended: {said}"
            );
            if let Some((_, host)) = line.trim_end().split_once(" is at http://") {
                break host.trim_end_matches('/').to_owned();
            }
            said.push_str(&line);
        };
        Self { child, host, log }
    }

    /// Sends a request as it stands, and reads the whole answer.
    pub(crate) async fn send(&self, text: &str) -> Answer {
        request(&self.host, text).await
    }

    /// Asks for a page.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_with(path, "").await
    }

    /// With more lines in the head, each ending with `\r\n`.
    pub(crate) async fn get_with(&self, path: &str, lines: &str) -> Answer {
        let host = &self.host;
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n"
        ))
        .await
    }

    /// Sends a form.
    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.post_with(path, fields, "Sec-Fetch-Site: same-origin\r\n").await
    }

    pub(crate) async fn post_with(&self, path: &str, fields: &[(&str, &str)], lines: &str) -> Answer {
        let body: Vec<_> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        let body = body.join("&");
        let (host, length) = (&self.host, body.len());
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))
        .await
    }

    /// Opens a form and sends it with a reason, as a person does.
    pub(crate) async fn act(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let form = self.get(path).await;
        assert_eq!(form.status, 200, "{path}: {}", form.body);
        self.send_form(path, &form, fields).await
    }

    /// Sends a form that was opened, with what it carries unseen.
    pub(crate) async fn send_form(&self, path: &str, form: &Answer, fields: &[(&str, &str)]) -> Answer {
        let hidden = form.hidden();
        let mut all: Vec<(&str, &str)> = hidden
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        all.extend(fields);
        let path = path.split('?').next().unwrap_or_default();
        self.post(path, &all).await
    }
}

/// Sends a request as it stands, and reads the whole answer.
pub(crate) async fn request(host: &str, text: &str) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(host).await.expect("it listens");
        stream.write_all(text.as_bytes()).await.expect("it reads");
        let mut answer = Vec::new();
        // Not all servers close the connection when they are asked to.
        while !is_whole(&answer) && stream.read_buf(&mut answer).await.expect("it answers") > 0 {}
        Answer::parse(&answer)
    };
    let answered = timeout(PATIENCE, exchange).await;
    answered.unwrap_or_else(|_| panic!("no answer in time to {text}"))
}

/// Whether an answer has as much as its head says.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= head.len() + 4 + length)
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).expect("it is UTF-8");
        let (headers, body) = text.split_once("\r\n\r\n").expect("it has a head");
        let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok());
        Self {
            status: status.expect("it has a status"),
            headers: headers.to_lowercase(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Where it leads.
    pub(crate) fn location(&self) -> &str {
        let line = self.headers.lines().find_map(|line| line.strip_prefix("location: "));
        line.unwrap_or_else(|| panic!("it leads nowhere: {self:?}"))
    }

    /// What its form carries unseen.
    fn hidden(&self) -> Vec<(String, String)> {
        let inputs = self.body.split("<input type=\"hidden\" name=\"").skip(1);
        inputs
            .map(|rest| {
                let (name, rest) = rest.split_once("\" value=\"").expect("it has a value");
                let (value, _) = rest.split_once('"').expect("it ends");
                (
                    name.to_owned(),
                    value.replace("&quot;", "\"").replace("&lt;", "<").replace("&amp;", "&"),
                )
            })
            .collect()
    }
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
