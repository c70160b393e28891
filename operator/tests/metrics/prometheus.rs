//! Debian's Prometheus: the server and `promtool`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bmdb_operator::metrics::Exporter;
use serde_json::Value;

/// Where a program of it is: where `BMDB_TEST_PROMETHEUS_BIN` says, where `tests/run` has put it, or installed.
fn program(name: &str) -> PathBuf {
    let given = std::env::var_os("BMDB_TEST_PROMETHEUS_BIN").map(PathBuf::from);
    let ours = crate::files::root().join("target/prometheus/usr/bin");
    let places = given.into_iter().chain([ours, PathBuf::from("/usr/bin")]);
    let found = places.map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!("there is no {name}: tests/run gets it, or name its folder in BMDB_TEST_PROMETHEUS_BIN")
    })
}

/// Runs `promtool`, which must find nothing wrong.
pub(crate) fn promtool(arguments: &[&str], folder: &Path, input: &str) {
    let mut command = Command::new(program("promtool"));
    let command = command
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .expect("it reads");
    let ended = child.wait_with_output().expect("it ends");
    let said = [ended.stdout, ended.stderr].concat();
    assert!(
        ended.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&said)
    );
}

/// `promtool check metrics` also calls what is only bad style an error.
pub(crate) fn check_metrics(text: &str) {
    promtool(&["check", "metrics"], Path::new("."), text);
}

/// A server that scrapes this process each second and evaluates our alerts. Dropping it ends it.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

fn free_port() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a port");
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Answers every request with the metrics.
fn answer(stream: &mut TcpStream, exporter: &Exporter) -> std::io::Result<()> {
    let mut request = [0; 4096];
    if stream.read(&mut request)? == 0 {
        return Ok(());
    }
    let text = exporter.render();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    )
}

impl Server {
    pub(crate) fn scraping(exporter: &Exporter) -> Self {
        let (listener, metrics) = free_port();
        let exporter = exporter.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // Who does not wait for the answer asks again.
                drop(answer(&mut stream, &exporter));
            }
        });
        let folder = tempfile::tempdir().expect("there is room");
        let rules = crate::files::root().join("operator/deploy/prometheus/alerts.yml");
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{:?}]\nscrape_configs:\n  - job_name: bmdb\n    static_configs: [{{ targets: [\"{metrics}\"] }}]\n",
            rules.display().to_string()
        );
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config).expect("it can be written");
        let (listener, address) = free_port();
        drop(listener);
        let log = std::fs::File::create(folder.path().join("log")).expect("it can be written");
        let child = Command::new(program("prometheus"))
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it runs");
        Self {
            child,
            address,
            _folder: folder,
        }
    }

    /// What it answers to a request; none as long as it is not up.
    fn get(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        // 1.0: in one piece.
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (_, body) = text.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }

    /// The series that a query finds now.
    ///
    /// # Panics
    /// If it is no query.
    pub(crate) fn ask(&self, query: &str) -> Vec<Value> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let Some(answer) = self.get(&format!("/api/v1/query?query={escaped}")) else {
            return Vec::new();
        };
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// Each rule that was evaluated: its name, health, and what went wrong.
    pub(crate) fn rules(&self) -> Vec<(String, String, String)> {
        let answer = self.get("/api/v1/rules").unwrap_or_default();
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        let rules = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rules = rules.map(|rule| (text(&rule["name"]), text(&rule["health"]), text(&rule["lastError"])));
        rules.filter(|(_, health, _)| health != "unknown").collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
