//! What the command line says.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Shows the whole life of work on a fleet of machines: no server, no arguments.
///
/// Migrates the database, imports an inventory, then runs components as OS processes on a simulated provider: some machines fail at first, some
/// agents die and are recovered, and one component is killed with SIGKILL while it holds work, which the others take over. The report on stdout
/// is read from the database; progress goes to stderr. Times that are minutes in production are seconds here.
///
/// Run it again on the same database: nothing is imported twice, nothing is done twice.
#[derive(Debug, Parser)]
#[command(name = "fleet", version)]
pub(crate) struct Cli {
    /// Where the database is: sqlite://FILE or postgres://USER@HOST:PORT/DATABASE. The default is a file in the current folder.
    #[arg(
        long,
        value_name = "URL",
        env = "BMDB_DATABASE_URL",
        hide_env_values = true,
        default_value = "sqlite://fleet.sqlite"
    )]
    pub(crate) database: String,

    /// Start over: destroy what an earlier run left. Refused where the database was not made by this command.
    #[arg(long)]
    pub(crate) fresh: bool,

    /// The machines: a CSV file with a header, or JSON lines. The default is an invented fleet of 48.
    ///
    /// Known fields are provider, provider_id (or hwid), reservation, address and location. All others are kept as the machine's hardware report.
    #[arg(long, value_name = "FILE")]
    pub(crate) inventory: Option<PathBuf>,

    /// Invent this many machines instead of reading an inventory.
    #[arg(long, value_name = "N", conflicts_with = "inventory", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) generate: Option<u64>,

    /// The provider of machines whose inventory does not name one.
    #[arg(long, value_name = "NAME", default_value = "inventory")]
    pub(crate) provider: String,

    /// Stop after the import; print its rate and the memory it took.
    #[arg(long)]
    pub(crate) import_only: bool,

    /// On how many machines each component works at once. By default it grows with the fleet, from 4 to 64.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) parallel: Option<u16>,

    /// Do not kill a component.
    #[arg(long)]
    pub(crate) no_kill: bool,

    /// Give up after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub(crate) limit: Duration,

    /// Be a component; the command starts itself again with this.
    #[arg(long, hide = true, requires_all = ["name", "provider_address", "parallel"])]
    pub(crate) component: Option<Kind>,

    /// The component's name.
    #[arg(long, hide = true)]
    pub(crate) name: Option<String>,

    /// Where the simulated provider listens.
    #[arg(long, hide = true)]
    pub(crate) provider_address: Option<SocketAddr>,
}

/// The components that the command starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Starts agents.
    AgentStart,
    /// Recovers machines whose agents are silent.
    AgentRecovery,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("expected a whole number from 1 to 86400".to_owned()),
    }
}

impl Cli {
    /// The database's name for people: no user, no password, no parameters.
    pub(crate) fn database_name(&self) -> String {
        let bare = self.database.split('?').next().unwrap_or_default();
        match url::Url::parse(bare) {
            Ok(url) if url.scheme() != "sqlite" => {
                let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                format!(
                    "{}://{}{port}{}",
                    url.scheme(),
                    url.host_str().unwrap_or_default(),
                    url.path()
                )
            }
            // A SQLite URL is a path; there is nobody to log in as.
            _ if bare.starts_with("sqlite:") => bare.to_owned(),
            _ => "the database".to_owned(),
        }
    }
}
