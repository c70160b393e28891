//! The demo: what it promises to show stands in its database, and nothing of it is left behind.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use bmdb::entity::work_history::{self, Event};
use bmdb::{Bmdb, Config};
use harness::until;
use sea_orm::EntityTrait;

use crate::rig::{bmdb, done};

/// A demo that runs, and where its file is.
struct Demo {
    child: Child,
    said: BufReader<ChildStdout>,
    file: PathBuf,
}

impl Demo {
    /// Starts it as somebody does whose shell names a database of consequence.
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bmdb"))
            .arg("demo")
            .args(arguments)
            .env("BMDB_DATABASE_URL", "postgres://nobody@127.0.0.1:1/production")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        let file = first.trim_end().rsplit(' ').next().unwrap();
        let file = PathBuf::from(file);
        Self { child, said, file }
    }

    fn url(&self) -> String {
        format!("sqlite://{}", self.file.display())
    }

    /// Waits for a line with this in it, and answers it.
    fn line(&mut self, with: &str) -> String {
        let mut line = String::new();
        while self.said.read_line(&mut line).unwrap() > 0 {
            if line.contains(with) {
                return line;
            }
            line.clear();
        }
        panic!("it has ended without a word of {with:?}");
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Everything it says until it ends, and its exit status.
    fn end(&mut self) -> (String, Option<i32>) {
        let mut rest = String::new();
        while self.said.read_line(&mut rest).unwrap() > 0 {}
        (rest, self.child.wait().unwrap().code())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // A test that fails leaves none running.
        let _over = self.child.kill().and_then(|()| self.child.wait());
        if let Some(folder) = self
            .file
            .parent()
            .filter(|folder| folder.to_string_lossy().contains("bmdb-demo-"))
        {
            let _gone = std::fs::remove_dir_all(folder);
        }
    }
}

/// Whether a machine was claimed by another component after its holder's session had been expired.
async fn is_taken_over(bmdb: &Bmdb) -> bool {
    let rows = work_history::Entity::find().all(bmdb.reads()).await.unwrap();
    let expired = rows.iter().filter(|row| row.event == Event::Expired);
    expired.into_iter().any(|row| {
        rows.iter().any(|next| {
            next.event == Event::Started
                && (next.machine_id, &next.slot) == (row.machine_id, &row.slot)
                && next.fence > row.fence
                && next.component_name != row.component_name
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_what_it_promises_and_leaves_nothing_behind() {
    let mut demo = Demo::start(&[]);
    demo.line("brings in 300 machines");
    let url = demo.url();
    let bmdb = Bmdb::connect(Config::new(&url, "a test", "")).await.unwrap();
    until(
        "a dead component's machine is taken over",
        Duration::from_secs(120),
        async || is_taken_over(&bmdb).await,
    )
    .await;
    bmdb.close().await;
    until("a machine is parked", Duration::from_secs(120), async || {
        let parked = done(
            &url,
            &["machine", "ls", "--state", "parked", "--process", "agent-recovery"],
        );
        parked.out.contains("OAK-4107")
    })
    .await;
    let held = done(&url, &["machine", "ls", "--state", "held"]);
    assert!(held.out.contains("ELM-4160"), "{}", held.out);
    until("an operator has acted twice", Duration::from_secs(120), async || {
        let acts = done(&url, &["operation", "ls"]);
        acts.out.contains("OPS-4471") && acts.out.contains("ask-to-stop")
    })
    .await;
    let attention = crate::rig::bmdb(&url, &["attention"]);
    let unrun = done(&url, &["process", "show", "firmware-update"]);
    assert!(unrun.out.contains("flashes firmware"), "{}", unrun.out);
    assert!(
        attention.out.contains("OAK-4107 is parked for agent-recovery"),
        "{}",
        attention.out
    );

    demo.signal("-INT");
    let told = Instant::now();
    let (rest, status) = demo.end();
    assert_eq!(status, Some(0), "{rest}");
    assert!(
        rest.ends_with("The demo has ended, and its file is removed.\n"),
        "{rest}"
    );
    assert!(told.elapsed() < Duration::from_secs(15), "{:?}", told.elapsed());
    assert!(!demo.file.parent().unwrap().exists());
}

#[test]
fn a_demo_that_is_killed_leaves_a_file_that_can_be_read() {
    let mut demo = Demo::start(&[]);
    demo.line("is killed with SIGKILL");
    demo.signal("-KILL");
    assert_eq!(demo.end().1, None);
    let status = done(&demo.url(), &["status"]);
    assert!(status.out.contains("agent-start"), "{}", status.out);
    std::fs::remove_dir_all(demo.file.parent().unwrap()).unwrap();
}

#[test]
fn a_demo_ends_by_itself_and_keeps_a_file_that_was_named() {
    let folder = std::env::temp_dir().join(format!("bmdb-kept-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("fleet.sqlite");
    let mut demo = Demo::start(&["--for", "4s", "--keep", file.to_str().unwrap()]);
    assert_eq!(demo.file, file);
    let (rest, status) = demo.end();
    assert_eq!(status, Some(0), "{rest}");
    assert!(
        rest.ends_with(&format!("The demo has ended. Its file is {}.\n", file.display())),
        "{rest}"
    );
    assert!(
        done(&demo.url(), &["machine", "show", "OAK-4107"])
            .out
            .contains("OAK-4107")
    );
    let again = bmdb("", &["demo", "--for", "4s", "--keep", file.to_str().unwrap()]);
    assert_eq!(again.status, 2, "{again:?}");
    assert!(
        again.err.contains("is there already") && Path::new(&file).exists(),
        "{again:?}"
    );
    std::fs::remove_dir_all(&folder).unwrap();
}
