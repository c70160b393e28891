//! Who starts a server, starts it again, and ends it when the test process has ended, be it by SIGKILL.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::binaries::we_are_root;
use super::{Binaries, Setup, run};

/// Starts the server `$3..` in the folder `$1`, and again with each line of standard input, once the one before has ended. When standard input
/// ends, which is when the test process has, everything goes. With a size `$2` in megabytes there is a small disk at `disk` in the folder.
const KEEPER: &str = r#"
folder=$1; size=$2; shift 2
if [ -n "$size" ]; then
    mkdir "$folder/disk"
    mount -t tmpfs -o "size=${size}m" none "$folder/disk" || exit
    chown --reference="$folder" "$folder/disk"
fi
serve() {
    "$@" >"$folder/log" 2>&1 &
    server=$!
}
forget() {
    # What libfaketime leaves of a server that ends in a hurry.
    rm -f "/dev/shm/faketime_shm_$server" "/dev/shm/sem.faketime_sem_$server"
}
serve "$@"
while read -r _again; do
    wait "$server"
    forget
    serve "$@"
done
# A server that has only just been started does not listen yet.
while kill -QUIT "$server" 2>/dev/null; do sleep 0.05; done
wait
forget
[ -z "$size" ] || umount "$folder/disk"
rm -rf "$folder"
"#;

/// The keeper of one server.
#[derive(Debug)]
pub(crate) struct Keeper {
    port: u16,
    folder: PathBuf,
    /// Held for its standard input: the server ends when that closes, which the system does when we end.
    child: Child,
}

impl Keeper {
    /// Starts the server; [`answers`](Self::answers) says when it has started.
    pub(super) fn start(
        binaries: &Binaries,
        folder: PathBuf,
        port: u16,
        settings: Vec<String>,
        setup: &Setup<'_>,
    ) -> Self {
        let mut keeper = Command::new(if setup.disk.is_some() { "unshare" } else { "sh" });
        if setup.disk.is_some() {
            // The disk is mounted where nobody else sees it, so that it goes with the last process there.
            keeper.args(["--mount", "--propagation=private"]);
            if !we_are_root() {
                keeper.args(["--user", "--map-root-user"]);
            }
            keeper.arg("sh");
        }
        keeper.args(["-c", KEEPER, "keeper"]).arg(&folder);
        keeper.arg(setup.disk.map(|size| size.to_string()).unwrap_or_default());
        if setup.disk.is_some() && !we_are_root() {
            // There we look like root, whom PostgreSQL refuses.
            keeper.args(["unshare", "--user", "--map-user=1000", "--map-group=1000"]);
        }
        let postgres = binaries.command_in(&setup.environment, "postgres");
        keeper.arg(postgres.get_program()).args(postgres.get_args());
        for (name, value) in postgres.get_envs() {
            if let Some(value) = value {
                keeper.env(name, value);
            }
        }
        keeper.arg("-D").arg(folder.join("data"));
        let own = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            format!("unix_socket_directories={}", folder.display()),
        ];
        for setting in own.into_iter().chain(SETTINGS.map(str::to_owned)).chain(settings) {
            keeper.arg("-c").arg(setting);
        }
        // A group of its own, so that Ctrl-C at the terminal ends the tests and lets the keeper clean up.
        keeper
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let child = keeper.spawn().expect("sh can be started");
        Self { port, folder, child }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the server again; the one before has ended.
    pub(super) fn again(&self) {
        // Its last words are not those of the next.
        fs::remove_file(self.folder.join("log")).expect("it wrote a log");
        let told = self.child.stdin.as_ref().map(|mut input| input.write_all(b"again\n"));
        told.expect("its input is open").expect("the keeper reads its input");
    }

    /// Waits until the server answers; the error is its log.
    pub(super) async fn answers(&self) -> Result<(), String> {
        let url = format!("postgres://bmdb@127.0.0.1:{}/postgres", self.port);
        let asked = Instant::now();
        loop {
            if self.owns_its_port() && run(&url, "SELECT").await.is_ok() {
                return Ok(());
            }
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            if log.contains("database system is shut down") || asked.elapsed() > crate::PATIENCE {
                return Err(log);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether the server that answers on our port is ours: the fourth line of its pid file is its port.
    fn owns_its_port(&self) -> bool {
        let file = self.pid_file();
        file.lines().nth(3) == Some(self.port.to_string().as_str())
    }

    /// The process that the others of the server are children of, as its pid file says; the file is there also after a crash.
    pub(super) fn postmaster(&self) -> Option<u32> {
        self.pid_file().lines().next()?.trim().parse().ok()
    }

    fn pid_file(&self) -> String {
        fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default()
    }
}

/// Ends the server and waits until its folder is gone.
impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("a keeper is left: {error}");
        }
    }
}

/// Nothing here outlives the process, so nothing need reach the disk; plans must not depend on when a vacuum came by.
const SETTINGS: [&str; 8] = [
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "autovacuum=off",
    // `TestDatabase::statements` reads this form.
    "log_line_prefix=%d|",
    "max_connections=1000",
    "shared_buffers=64MB",
    "timezone=UTC",
];
