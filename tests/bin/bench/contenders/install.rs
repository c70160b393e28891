//! Makes the peers' programs: none of them is part of this workspace or its build.
//!
//! Everything goes to `peers/` in the target folder; a second run finds it there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

use crate::Failure;

/// Where they are kept: packages with locked dependencies, outside of the workspace.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");
/// What the pinned versions want.
const NODE: u32 = 20;
/// A copy of the lockfile that was installed, to see when it is another.
const INSTALLED: &str = "installed.json";

/// Somebody else's system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Program {
    GraphileWorker,
    PgBoss,
    Apalis,
}

/// Programs that can be started.
pub(crate) struct Programs {
    node: PathBuf,
    apalis: PathBuf,
}

impl Programs {
    /// Installs what these need.
    pub(crate) fn install(wanted: &BTreeSet<Program>) -> Result<Self, Failure> {
        let bench = std::env::current_exe()?;
        let target = bench.ancestors().nth(2).ok_or("the bench is in no target folder")?;
        let folder = target.join("peers");
        let programs = Self {
            node: folder.join("node"),
            apalis: folder.join("apalis/release/bmdb-peer-apalis"),
        };
        if wanted.contains(&Program::GraphileWorker) || wanted.contains(&Program::PgBoss) {
            programs.install_node()?;
        }
        if wanted.contains(&Program::Apalis) {
            eprintln!("building apalis-postgres");
            let mut build = Command::new("cargo");
            build.args(["build", "--release", "--locked", "--quiet", "--manifest-path"]);
            build.arg(format!("{SOURCES}/apalis/Cargo.toml"));
            build.arg("--target-dir").arg(folder.join("apalis"));
            done(build, "it builds the peer apalis-postgres")?;
        }
        Ok(programs)
    }

    fn install_node(&self) -> Result<(), Failure> {
        let why = "it runs the peers graphile-worker and pg-boss";
        let asked = Command::new("node").arg("--version").output();
        let asked = asked.map_err(|error| missing("node", why, &error))?;
        let version = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        let major = version
            .trim_start_matches('v')
            .split('.')
            .next()
            .and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < NODE) {
            return Err(
                format!("the peers graphile-worker and pg-boss need Node.js {NODE} or later, not {version}").into(),
            );
        }
        let sources = Path::new(SOURCES).join("node");
        fs::create_dir_all(&self.node)?;
        for name in [
            ".npmrc",
            "graphile-worker.js",
            "package-lock.json",
            "package.json",
            "peer.js",
            "pg-boss.js",
        ] {
            fs::copy(sources.join(name), self.node.join(name))?;
        }
        let lock = fs::read(self.node.join("package-lock.json"))?;
        if fs::read(self.node.join(INSTALLED)).is_ok_and(|installed| installed == lock) {
            return Ok(());
        }
        eprintln!("installing graphile-worker and pg-boss");
        let mut install = Command::new("npm");
        install.arg("ci").current_dir(&self.node);
        done(install, "it installs the peers graphile-worker and pg-boss")?;
        fs::write(self.node.join(INSTALLED), lock)?;
        Ok(())
    }

    /// The command that starts one; it takes its arguments next.
    pub(crate) fn command(&self, program: Program) -> tokio::process::Command {
        let script = match program {
            Program::Apalis => return tokio::process::Command::new(&self.apalis),
            Program::GraphileWorker => "graphile-worker.js",
            Program::PgBoss => "pg-boss.js",
        };
        let mut command = tokio::process::Command::new("node");
        command.arg(script).current_dir(&self.node);
        command
    }
}

/// Runs a command that talks to whoever looks on.
fn done(mut command: Command, why: &str) -> Result<(), Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).stdout(io::stderr()).status();
    let status = status.map_err(|error| missing(&name, why, &error))?;
    if !status.success() {
        return Err(format!("`{name}` failed ({status}); {why}").into());
    }
    Ok(())
}

fn missing(name: &str, why: &str, error: &io::Error) -> String {
    format!("`{name}` cannot be started ({error}); {why}")
}
