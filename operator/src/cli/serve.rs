//! What `bmdb serve` takes.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::cli::settings::Given;

/// The console's settings. Each is a flag, a variable, or a key of the file that --settings names.
#[derive(Args, Clone, Debug)]
pub(crate) struct Serve {
    /// A file with settings, in TOML: what neither a flag nor a variable says, it says. Its keys are the flags
    #[arg(long, value_name = "FILE", env = "BMDB_SETTINGS")]
    pub(crate) settings: Option<PathBuf>,
    /// Say which settings are in force and where each comes from, without secrets, and end
    #[arg(long)]
    pub(crate) print_settings: bool,
    /// A file that holds the URL of --database, which may have a password in it
    #[arg(long, value_name = "FILE", env = "BMDB_DATABASE_FILE")]
    pub(crate) database_file: Option<PathBuf>,
    /// A file that holds the URL of --read-database
    #[arg(long, value_name = "FILE", env = "BMDB_READ_DATABASE_FILE")]
    pub(crate) read_database_file: Option<PathBuf>,
    /// Where it listens. Elsewhere than on the loopback it needs --token-file
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "BMDB_LISTEN",
        default_value = "127.0.0.1:8080"
    )]
    pub(crate) listen: SocketAddr,
    /// Who may sign in: a line each of NAME, read or write, and the SHA-256 of a token
    #[arg(long, value_name = "FILE", env = "BMDB_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The names that people reach it by, as behind a proxy. Others are refused
    #[arg(long, value_name = "NAME", env = "BMDB_PUBLIC_HOST", value_delimiter = ',')]
    pub(crate) public_host: Vec<String>,
    /// Hosts of which an https address in the database becomes a link, such as that of the tickets
    #[arg(long, value_name = "HOST", env = "BMDB_PORTALS", value_delimiter = ',')]
    pub(crate) portal: Vec<String>,
    /// Offer no acts, whatever a token allows
    #[arg(long, env = "BMDB_READ_ONLY")]
    pub(crate) read_only: bool,
    /// Run no collector: for a login that can only read, or where others do
    #[arg(long, env = "BMDB_NO_COLLECTOR")]
    pub(crate) no_collector: bool,
    /// Who acts where nobody signs in. By default BMDB_OPERATOR, or the user of this shell
    #[arg(long, value_name = "NAME", env = "BMDB_OPERATOR")]
    pub(crate) by: Option<String>,
    /// Keep metrics, and tell them at /metrics to who may read the console
    #[arg(long, env = "BMDB_METRICS")]
    pub(crate) metrics: bool,
    #[arg(skip)]
    pub(crate) given: Given,
}
