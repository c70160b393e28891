//! What may be said to `bmdb`: the tree from which help, man pages and completions are made.

use std::path::PathBuf;

use bmdb::{SessionId, WorkId};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::answer::{Format, Output};
pub(crate) use crate::cli::demo::Demo;
pub(crate) use crate::cli::machine::{Hold, Machine, State, Which};
pub(crate) use crate::cli::process::Process;
pub(crate) use crate::cli::session::Session;
use crate::cli::values::{Span, session, span, time, work};

pub(crate) mod demo;
pub(crate) mod machine;
pub(crate) mod process;
pub mod reference;
pub(crate) mod serve;
pub(crate) mod session;
pub(crate) mod settings;
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
    /// Write only ASCII. Colours are only where a person looks, and nowhere with NO_COLOR
    #[arg(long, global = true)]
    pub(crate) ascii: bool,
}

impl Cli {
    /// What the command line says, or what is wrong with it.
    ///
    /// # Errors
    /// When it is not understood, or asks for the help.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let mut root = Self::command();
        let matches = root.clone().try_get_matches()?;
        let mut cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut root))?;
        if let (Command::Serve(serve), Some(given)) = (&mut cli.command, matches.subcommand_matches("serve")) {
            serve.given = settings::Given::of(given);
        }
        Ok(cli)
    }
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

/// Until when something lasts.
#[derive(Args, Clone, Copy, Debug)]
#[group(id = "end-options")]
pub(crate) struct End {
    /// For so long: 90s, 30m, 2h, 3d. By default until somebody ends it
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    pub(crate) span: Option<Span>,
    /// Until this time, such as 2026-12-01T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "span")]
    pub(crate) until: Option<chrono::DateTime<chrono::Utc>>,
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
    /// What goes on as it goes on, on a terminal of 80 by 24 or larger: processes, works, and what is chosen. It only reads
    #[command(
        after_help = "Keys: q quit, tab the other pane, / filter, enter open, w why, space pause, s sort, ? all of them.\n\nExample:\n  bmdb top"
    )]
    Top,
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
    /// Delete the history of claims that ended long ago. Without --yes it only says how much that is
    #[command(
        after_help = "It needs a login that may delete history, such as bmdb_migrator: a component's may not.\n\n\
            Examples:\n  bmdb prune --older-than 90d --reason 'we keep a quarter'\n  bmdb prune --before 2026-09-01T00:00:00Z --yes 48212 --reason 'we keep a quarter'"
    )]
    Prune {
        /// Say how much history of claims that ended longer ago there is, at least a day
        #[arg(long, value_name = "TIME", value_parser = span, required_unless_present = "before")]
        older_than: Option<Span>,
        /// The same, before this time. With --yes it is deleted
        #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "older_than")]
        before: Option<chrono::DateTime<chrono::Utc>>,
        /// How many events that was seen to be: with another number, nothing is done
        #[arg(long, value_name = "COUNT", requires = "before")]
        yes: Option<u64>,
        #[command(flatten)]
        reason: Reason,
    },
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
    /// Serve the web console, and run a collector, until Ctrl-C
    #[command(
        after_help = "Examples:\n  bmdb serve\n  bmdb serve --listen 0.0.0.0:8080 --token-file /etc/bmdb/tokens --public-host bmdb.example.com\n  bmdb serve --settings /etc/bmdb/serve.toml --print-settings"
    )]
    Serve(Box<serve::Serve>),
    /// What is wrong with the database itself: its schema, rights, rows, clock and settings, each with its mend
    #[command(
        after_help = "It only reads. Exit status 1 if it has found something, or could not look.\n\nExample, for cron:\n  bmdb doctor >/tmp/doctor || mail -s 'the database of the fleet' ops </tmp/doctor"
    )]
    Doctor,
    /// Write one archive for a bug report: versions, schema, what doctor and attention found, processes, sessions, works, acts, sizes
    #[command(
        after_help = "It has no password, nothing of the environment and, without --with-tags, no tag of a machine. What people and components wrote, such as \
            reasons, causes and progress, is in it: read it before you send it.\n\nExample:\n  bmdb bundle /tmp/bmdb.tar.gz"
    )]
    Bundle {
        /// The archive, a .tar.gz. It must not be there yet
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Also what providers said of the machines that it tells of: names, addresses, locations
        #[arg(long)]
        with_tags: bool,
    },
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
