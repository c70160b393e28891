//! What may be said of processes.

use clap::Subcommand;

use crate::cli::{End, Reason};

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Process {
    /// List processes by slot, with where their machines stand
    #[command(after_help = "Example:\n  bmdb process ls")]
    Ls,
    /// A process: its slot, its rules clause by clause, how many machines are eligible
    #[command(after_help = "Example:\n  bmdb process show install")]
    Show {
        /// The process
        #[arg(value_name = "PROCESS")]
        process: String,
    },
    /// Have nobody claim for a process. Work that goes on goes on
    #[command(
        after_help = "Examples:\n  bmdb process pause install --for 2h --reason 'the new image does not boot'\n  \
            bmdb process pause install --and-stop --reason 'it wipes the wrong disk' --ticket OPS-4510"
    )]
    Pause {
        /// The process
        #[arg(value_name = "PROCESS")]
        process: String,
        #[command(flatten)]
        end: End,
        /// Ask all its works to stop as well
        #[arg(long)]
        and_stop: bool,
        #[command(flatten)]
        reason: Reason,
    },
    /// End the pause of a process
    #[command(after_help = "Example:\n  bmdb process resume install --reason 'the image is mended'")]
    Resume {
        /// The process
        #[arg(value_name = "PROCESS")]
        process: String,
        #[command(flatten)]
        reason: Reason,
    },
}
