//! What may be said of machines.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::{End, Limit, Reason};

/// A state that machines are listed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    /// Somebody works on it
    InWork,
    /// A process leaves it alone for a while
    BackingOff,
    /// A process leaves it alone until a person has looked
    Parked,
    /// It, or a slot of it, is held
    Held,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Machine {
    /// List machines
    #[command(
        after_help = "Examples:\n  bmdb machine ls --state parked --process install\n  bmdb machine ls --provider equinix --limit 500"
    )]
    Ls {
        /// Only those in this state
        #[arg(long, value_enum)]
        state: Option<State>,
        /// Only those in that state for this process
        #[arg(long, value_name = "NAME", requires = "state")]
        process: Option<String>,
        /// Only this provider's
        #[arg(long, value_name = "NAME")]
        provider: Option<String>,
        /// Only those after this one, by id: the last of the page before
        #[arg(long, value_name = "MACHINE")]
        after: Option<uuid::Uuid>,
        #[command(flatten)]
        limit: Limit,
    },
    /// Who may touch a machine now, and what has happened on it
    #[command(after_help = "Example:\n  bmdb machine show OAK-4177")]
    Show {
        #[command(flatten)]
        machine: Which,
    },
    /// Why a process works on a machine, or does not: by the very rule that claims use
    #[command(after_help = "Example:\n  bmdb machine why OAK-4177 install")]
    Why {
        #[command(flatten)]
        machine: Which,
        /// The process
        #[arg(value_name = "PROCESS")]
        process: String,
    },
    /// What has happened on a machine, claim by claim
    #[command(after_help = "Example:\n  bmdb machine history OAK-4177 --limit 200")]
    History {
        #[command(flatten)]
        machine: Which,
        #[command(flatten)]
        limit: Limit,
    },
    /// Keep everybody from claiming a machine. Work that goes on goes on
    #[command(
        after_help = "Example:\n  bmdb machine hold OAK-4177 --reason 'replacing a disk' --ticket OPS-4471 --for 2h"
    )]
    Hold {
        #[command(flatten)]
        machine: Which,
        #[command(flatten)]
        hold: Hold,
        #[command(flatten)]
        reason: Reason,
    },
    /// Lift a hold
    #[command(after_help = "Example:\n  bmdb machine release-hold OAK-4177 --reason 'the disk is in'")]
    ReleaseHold {
        #[command(flatten)]
        machine: Which,
        /// Only the hold on this slot. Without it, the one on the whole machine
        #[arg(long, value_name = "SLOT")]
        slot: Option<String>,
        #[command(flatten)]
        reason: Reason,
    },
    /// Hold a machine and ask all who work on it to stop
    #[command(after_help = "Example:\n  bmdb machine drain OAK-4177 --reason 'replacing a disk' --ticket OPS-4471")]
    Drain {
        #[command(flatten)]
        machine: Which,
        #[command(flatten)]
        hold: Hold,
        #[command(flatten)]
        reason: Reason,
    },
    /// Remove a machine that nobody works on. Its history stays
    #[command(
        after_help = "Example:\n  bmdb machine remove OAK-4177 --reason 'sent back to the provider' --ticket OPS-4502"
    )]
    Remove {
        #[command(flatten)]
        machine: Which,
        #[command(flatten)]
        reason: Reason,
    },
    /// Add the machines of an inventory that are not there yet. Without --yes it only says what it would do
    #[command(
        after_help = "The file is CSV with a header: provider, provider_id, and where they are known address, location, reservation.\n\n\
            Examples:\n  bmdb machine import inventory.csv\n  bmdb machine import inventory.csv --yes 1204"
    )]
    Import {
        /// The inventory
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// How many machines it was seen to have: with another number, nothing is done
        #[arg(long, value_name = "COUNT")]
        yes: Option<u64>,
    },
    /// Add a machine that a provider gave us
    #[command(after_help = "Example:\n  bmdb machine add --provider oak --provider-id OAK-4177 --address 192.0.2.7")]
    Add {
        /// The provider's name
        #[arg(long, value_name = "NAME")]
        provider: String,
        /// What the provider calls it
        #[arg(long, value_name = "ID")]
        provider_id: String,
        /// Where it answers
        #[arg(long)]
        address: Option<String>,
        /// Where it stands
        #[arg(long)]
        location: Option<String>,
        /// The provider's reservation
        #[arg(long)]
        reservation: Option<String>,
    },
}

/// A machine, as people name it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Which {
    /// The machine: its id, its provider's id of it, or its address
    #[arg(value_name = "MACHINE")]
    pub(crate) machine: String,
}

/// What a hold is to be.
#[derive(Args, Clone, Debug)]
#[group(id = "hold-options")]
pub(crate) struct Hold {
    /// Hold only this slot
    #[arg(long, value_name = "SLOT")]
    pub(crate) slot: Option<String>,
    #[command(flatten)]
    pub(crate) end: End,
}
