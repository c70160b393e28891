//! What may be said of sessions.

use bmdb::SessionId;
use clap::Subcommand;

use crate::cli::Reason;
use crate::cli::values::session;

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Session {
    /// List sessions, silent ones first
    #[command(after_help = "Example:\n  bmdb session ls --silent")]
    Ls {
        /// Only those whose deadline has passed
        #[arg(long)]
        silent: bool,
    },
    /// A session: whose it is, whether it is alive, what it holds
    #[command(after_help = "Example:\n  bmdb session show a91f0c9b-3d0e-4c1e-8a27-5f0a8c7a0002")]
    Show {
        /// The session
        #[arg(value_parser = session)]
        session: SessionId,
    },
    /// Have a session take no new work. What it holds goes on to its end
    #[command(
        after_help = "Example:\n  bmdb session drain a91f0c9b-3d0e-4c1e-8a27-5f0a8c7a0002 --reason 'its host is to restart'"
    )]
    Drain {
        /// The session
        #[arg(value_parser = session)]
        session: SessionId,
        #[command(flatten)]
        reason: Reason,
    },
    /// Break a session: all that it holds is lost to it, and free once it can believe in nothing any more
    #[command(
        after_help = "Example:\n  bmdb session expire a91f0c9b-3d0e-4c1e-8a27-5f0a8c7a0002 --yes 3 --reason 'its host burns'"
    )]
    Expire {
        /// The session
        #[arg(value_parser = session)]
        session: SessionId,
        /// How many works it was seen to hold: where it is found to hold another number, nothing is done
        #[arg(long, value_name = "COUNT")]
        yes: u64,
        #[command(flatten)]
        reason: Reason,
    },
}
