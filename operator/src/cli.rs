//! What may be said to `bmdb`: the tree from which help, man pages and completions are made.

use std::path::PathBuf;

use bmdb::{SessionId, WorkId};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::answer::{Format, Output};
use crate::cli::values::{Span, session, span, time, work};

pub mod reference;
pub mod values;

/// The exit statuses, as the help says them.
pub const EXIT: &str = "\
Exit status:
  0  done, or nothing to tell
  1  something needs somebody
  2  the command was not right
  3  refused: it is not as you thought, or not any more
  4  there is no such thing
  5  the login may not do that
  6  the database does not answer, or not as it should";

/// See what goes on in a fleet, why a machine is not worked on, and act on it.
#[derive(Clone, Debug, Parser)]
#[command(name = "bmdb", version, after_help = EXIT, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Where the database is: sqlite://FILE or postgres://USER@HOST:PORT/DATABASE
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "BMDB_DATABASE_URL",
        hide_env_values = true
    )]
    pub(crate) database: Option<String>,
    /// The same database by a login that can only read: rules are asked there. Needed on a server where --database can do more
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "BMDB_READ_DATABASE_URL",
        hide_env_values = true
    )]
    pub(crate) read_database: Option<String>,
    /// How the answer is written
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// Write only ASCII
    #[arg(long, global = true)]
    pub(crate) ascii: bool,
}

impl Global {
    /// How answers are to be written.
    #[must_use]
    pub fn format(&self) -> Format {
        Format {
            output: self.output,
            ascii: self.ascii || std::env::var("TERM").is_ok_and(|term| term == "dumb"),
        }
    }
}

/// Why somebody acts: without it nothing is written.
#[derive(Args, Clone, Debug)]
pub struct Reason {
    /// Why. It is kept, and the component sees it
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Where people can read more
    #[arg(long, value_name = "TICKET")]
    pub(crate) ticket: Option<String>,
    /// Who does it. By default BMDB_OPERATOR, or the user of this shell
    #[arg(long, value_name = "NAME", env = "BMDB_OPERATOR")]
    pub(crate) by: Option<String>,
}

/// How much of a list is shown.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Fill a SQLite file with a fleet, run components on it, and say where to look, until Ctrl-C
    #[command(
        after_help = "It never touches the database that BMDB_DATABASE_URL names.\n\nExamples:\n  bmdb demo\n  bmdb demo --keep fleet.sqlite --for 2m"
    )]
    Demo(Demo),
    /// What goes on: machines, works, sessions, and where each process stands
    #[command(after_help = "Example:\n  bmdb status")]
    Status,
    /// What needs a person, each with the command for the next step
    #[command(
        after_help = "Example, for cron:\n  bmdb attention >/tmp/attention || mail -s 'the fleet needs you' ops </tmp/attention"
    )]
    Attention {
        /// Work held for longer is told of
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = span)]
        longer_than: Span,
    },
    /// What a machine's id, a provider's id, an address or any other id names
    #[command(after_help = "Example:\n  bmdb whatis OAK-4177")]
    Whatis {
        /// A uuid, a provider's id, or an address
        #[arg(value_name = "TEXT")]
        text: String,
    },
    /// Machines: find, explain, hold, drain
    #[command(subcommand)]
    Machine(Machine),
    /// Works: who holds which machine, for how long
    #[command(subcommand)]
    Work(Work),
    /// Sessions: which components are alive
    #[command(subcommand)]
    Session(Session),
    /// Processes: what there is to do, and by which rules
    #[command(subcommand)]
    Process(Process),
    /// Backoffs: which machines a process leaves alone after failures
    #[command(subcommand)]
    Backoff(Backoff),
    /// What operators have done
    #[command(subcommand)]
    Operation(Operation),
    /// Expire the sessions of dead components, until Ctrl-C
    #[command(after_help = "Examples:\n  bmdb collect\n  bmdb collect --dry-run")]
    Collect {
        /// Expire those that are dead now, and end
        #[arg(long)]
        once: bool,
        /// Only say whose deadline has passed
        #[arg(long, conflicts_with = "once")]
        dry_run: bool,
    },
    /// What is wrong with the database itself: its schema, rights, rows, clock and settings, each with its mend
    #[command(
        after_help = "It only reads. Exit status 1 if it has found something, or could not look.\n\nExample, for cron:\n  bmdb doctor >/tmp/doctor || mail -s 'the database of the fleet' ops </tmp/doctor"
    )]
    Doctor,
    /// The schema: make it, move it along its steps
    #[command(subcommand)]
    Migrate(Migrate),
    /// Print a shell's completions
    #[command(after_help = "Example:\n  bmdb completions bash >/etc/bash_completion.d/bmdb")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a folder
    #[command(after_help = "Example:\n  bmdb man /usr/local/share/man/man1")]
    Man {
        /// The folder
        folder: PathBuf,
    },
}

/// What is shown, and for how long.
#[derive(Args, Clone, Debug)]
pub(crate) struct Demo {
    /// Make this file, and keep it. By default a file in a temporary folder, removed at the end
    #[arg(long, value_name = "FILE")]
    pub(crate) keep: Option<PathBuf>,
    /// End by itself after so long: 20s, 5m. By default at Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    pub(crate) span: Option<Span>,
    /// Be a component of it
    #[arg(long, hide = true, value_name = "NAME")]
    pub(crate) component: Option<String>,
}

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
    /// For so long: 90s, 30m, 2h, 3d. By default until it is lifted
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    pub(crate) span: Option<Span>,
    /// Until this time, such as 2026-12-01T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "span")]
    pub(crate) until: Option<chrono::DateTime<chrono::Utc>>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Work {
    /// List works, the longest first
    #[command(after_help = "Examples:\n  bmdb work ls --stuck\n  bmdb work ls --process install --longer-than 30m")]
    Ls {
        /// Only this process's
        #[arg(long, value_name = "NAME")]
        process: Option<String>,
        /// Only this session's
        #[arg(long, value_name = "SESSION", value_parser = session, conflicts_with = "process")]
        session: Option<SessionId>,
        /// Only those held for longer
        #[arg(long, value_name = "TIME", value_parser = span)]
        longer_than: Option<Span>,
        /// Only those that were asked to stop, or whose session is silent
        #[arg(long)]
        stuck: bool,
        #[command(flatten)]
        limit: Limit,
    },
    /// A work: who holds it, since when, and how far it says it is
    #[command(after_help = "Example:\n  bmdb work show 0b6e51f2-8f3a-4c8e-9a57-0c2f6d1e7b11")]
    Show {
        /// The work
        #[arg(value_parser = work)]
        work: WorkId,
    },
    /// Ask who holds a work to stop. What it does then is its own decision
    #[command(
        after_help = "Example:\n  bmdb work ask-to-stop 0b6e51f2-8f3a-4c8e-9a57-0c2f6d1e7b11 --reason 'the rack moves'"
    )]
    AskToStop {
        /// The work
        #[arg(value_parser = work)]
        work: WorkId,
        #[command(flatten)]
        reason: Reason,
    },
    /// Break the session that holds a work: all that it holds is lost to it, and free once it can believe in nothing any more
    #[command(
        after_help = "Example:\n  bmdb work break 0b6e51f2-8f3a-4c8e-9a57-0c2f6d1e7b11 --expect-fence 1764543600123 --reason 'it does not let go'"
    )]
    Break {
        /// The work
        #[arg(value_parser = work)]
        work: WorkId,
        /// The fence that it was seen with: if it is another by now, nothing is done
        #[arg(long, value_name = "N")]
        expect_fence: i64,
        #[command(flatten)]
        reason: Reason,
    },
}

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
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Backoff {
    /// List backoffs: parked machines first
    #[command(after_help = "Example:\n  bmdb backoff ls --process install --parked")]
    Ls {
        /// Only this process's
        #[arg(long, value_name = "NAME")]
        process: Option<String>,
        /// Only machines that wait for a person
        #[arg(long)]
        parked: bool,
        #[command(flatten)]
        limit: Limit,
    },
    /// Forget how a process failed on a machine
    #[command(after_help = "Example:\n  bmdb backoff clear OAK-4177 install --reason 'the image is mended'")]
    Clear {
        #[command(flatten)]
        machine: Which,
        /// The process
        #[arg(value_name = "PROCESS")]
        process: String,
        #[command(flatten)]
        reason: Reason,
    },
    /// End the wait, and remember the failures
    #[command(after_help = "Example:\n  bmdb backoff run-now OAK-4177 install --reason 'one more try'")]
    RunNow {
        #[command(flatten)]
        machine: Which,
        /// The process
        #[arg(value_name = "PROCESS")]
        process: String,
        #[command(flatten)]
        reason: Reason,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Operation {
    /// List what operators have done, the latest first
    #[command(after_help = "Example:\n  bmdb operation ls --machine OAK-4177")]
    Ls {
        /// Only to this machine
        #[arg(long, value_name = "MACHINE")]
        machine: Option<String>,
        #[command(flatten)]
        limit: Limit,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Migrate {
    /// Apply the steps that are pending
    #[command(after_help = "Example:\n  bmdb migrate up --database sqlite://fleet.sqlite")]
    Up,
    /// Undo the last steps
    #[command(after_help = "Example:\n  bmdb migrate down --steps 1")]
    Down {
        /// How many
        #[arg(long, value_name = "N", default_value_t = 1)]
        steps: u32,
        /// Destroy rows, also in a database that is not marked as a development one
        #[arg(long)]
        yes_destroy_data: bool,
    },
    /// Show each step and whether it is applied. Exit status 1 if some are not
    #[command(after_help = "Example:\n  bmdb migrate status")]
    Status,
}
