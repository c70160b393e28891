//! Directs the show: starts the components, kills one, watches until nothing is left to do, and stops the rest.

pub(crate) mod provider;
pub(crate) mod report;
pub(crate) mod watch;

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bmdb::{Bmdb, CancellationToken};
use bmdb_migration::{Destroy, Migrator, MigratorTrait};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::cli::{Cli, Kind};
use crate::component::{DRAIN, GRACE};
use crate::processes::{NEVER_HEARD, SILENT};
use crate::show::provider::World;
use crate::show::watch::{Bars, Snapshot, held_by};
use crate::talk::{self, Talk};
use crate::{Ended, Failure, reception};

/// How often the database is looked at.
const LOOKS_EVERY: Duration = Duration::from_millis(250);

/// Who takes part. The first one is killed.
const CAST: [(&str, Kind); 3] = [
    ("agent-start-1", Kind::AgentStart),
    ("agent-start-2", Kind::AgentStart),
    ("agent-recovery-1", Kind::AgentRecovery),
];

/// Brings the schema up to date, or makes it anew, and says what was applied.
///
/// # Errors
/// The migrator's; among them its refusal to destroy what was not made here.
pub(crate) async fn migrate(cli: &Cli, talk: &Talk) -> Result<(), Failure> {
    let url = &cli.database;
    let applied = if cli.fresh {
        bmdb_migration::fresh(url, Destroy::OnlyInDevelopment).await?
    } else {
        bmdb_migration::up(url, None).await?
    };
    // Whoever made all of the schema may throw it away again.
    if applied.len() == Migrator::migrations().len() {
        bmdb_migration::mark_development(url).await?;
    }
    talk.say(&match applied.as_slice() {
        [] => format!("{}: the schema is up to date", cli.database_name()),
        [first, .., last] => format!(
            "{}: applied {} migrations, {first} to {last}",
            cli.database_name(),
            applied.len()
        ),
        [one] => format!("{}: applied the migration {one}", cli.database_name()),
    });
    Ok(())
}

/// Runs the components to the end and prints the report.
///
/// # Errors
/// When the time limit passes, a component ends by itself, or the database fails us.
pub(crate) async fn run(bmdb: &Bmdb, cli: &Cli, talk: &Talk, stop: &CancellationToken) -> Result<Ended, Failure> {
    let world = World::default();
    let before = Snapshot::read(bmdb).await?;
    if before.left() == 0 {
        talk.say(
            "nothing is left to do: every machine's agent was heard and has installed its system (--fresh starts over)",
        );
        talk::print(&report::write(bmdb, &before, world.counts()).await?)?;
        return Ok(Ended::Done);
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let provider = listener.local_addr()?;
    let session = bmdb.start_session().await?;
    let mut background = JoinSet::new();
    background.spawn(world.clone().serve(listener));
    let mut show = Show {
        bmdb,
        cli,
        talk,
        parallel: parallel(cli, before.left()),
        cast: Vec::new(),
        output: JoinSet::new(),
    };
    let over = CancellationToken::new();
    let ended = tokio::select! {
        heard = reception::run(&session, &world, &over) => heard.map(|()| Ended::Done).map_err(Failure::from),
        ended = show.play(provider, stop) => ended,
    };
    show.end().await;
    session.close().await?;
    let after = Snapshot::read(bmdb).await?;
    talk::print(&report::write(bmdb, &after, world.counts()).await?)?;
    ended
}

/// A twelfth of the fleet, so that a small one can be watched and a large one does not take long.
fn parallel(cli: &Cli, machines: u64) -> u16 {
    let of_fleet = u16::try_from(machines / 12).unwrap_or(u16::MAX);
    cli.parallel.unwrap_or(of_fleet.clamp(4, 64))
}

/// The components while they run.
struct Show<'a> {
    bmdb: &'a Bmdb,
    cli: &'a Cli,
    talk: &'a Talk,
    parallel: u16,
    cast: Vec<Actor>,
    /// Passes on what the components say.
    output: JoinSet<()>,
}

struct Actor {
    name: &'static str,
    pid: u32,
    child: Child,
}

impl Show<'_> {
    async fn play(&mut self, provider: SocketAddr, stop: &CancellationToken) -> Result<Ended, Failure> {
        for (name, kind) in CAST {
            self.start(name, kind, provider)?;
        }
        self.talk.say(&format!(
            "{} components work on up to {} machines each. An agent is recovered if it is not heard for {} s after its start (30 min in \
             production), or silent for {} s (10 min)",
            self.cast.len(),
            self.parallel,
            NEVER_HEARD.as_secs(),
            SILENT.as_secs()
        ));
        let began = Instant::now();
        let mut bars = Bars::new(self.talk);
        let mut to_kill = !self.cli.no_kill;
        loop {
            let now = Snapshot::read(self.bmdb).await?;
            bars.show(&now);
            if now.left() == 0 {
                return Ok(Ended::Done);
            }
            if began.elapsed() > self.cli.limit {
                return Err(format!("gave up after {:?} with {} machines left", self.cli.limit, now.left()).into());
            }
            if to_kill && now.started * 4 >= now.machines {
                to_kill = !self.kill().await?;
            }
            for actor in &mut self.cast {
                if let Some(status) = actor.child.try_wait()? {
                    return Err(format!("{} ended by itself: {status}", actor.name).into());
                }
            }
            tokio::select! {
                () = stop.cancelled() => {
                    self.talk.say("stopping: the components end what they are at, or cancel it");
                    return Ok(Ended::Stopped);
                }
                () = tokio::time::sleep(LOOKS_EVERY) => {}
            }
        }
    }

    /// Starts a component as a process. The URL goes by the environment: everybody can read arguments, and it may carry a password.
    fn start(&mut self, name: &'static str, kind: Kind, provider: SocketAddr) -> Result<(), Failure> {
        let kind = clap::ValueEnum::to_possible_value(&kind).ok_or("the component has no name")?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--component", kind.get_name(), "--name", name])
            .args([
                "--provider-address",
                &provider.to_string(),
                "--parallel",
                &self.parallel.to_string(),
            ])
            .env("BMDB_DATABASE_URL", &self.cli.database)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(stderr) = child.stderr.take() {
            let talk = self.talk.clone();
            self.output.spawn(async move {
                let mut lines = BufReader::new(stderr).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    talk.say(&format!("[{name}] {line}"));
                }
            });
        }
        let pid = child.id().ok_or("the component ended at once")?;
        self.cast.push(Actor { name, pid, child });
        Ok(())
    }

    /// Kills the first component if it holds work. `false`: not now.
    async fn kill(&mut self) -> Result<bool, Failure> {
        let Actor { name, pid, child } = &mut self.cast[0];
        let (name, pid) = (*name, *pid);
        if held_by(self.bmdb, name, pid).await?.is_empty() {
            return Ok(false);
        }
        // SIGKILL: it has no time to say anything to anybody.
        child.kill().await?;
        let held = held_by(self.bmdb, name, pid).await?.len();
        self.cast.remove(0);
        self.talk.say(&format!("killed {name} (process {pid}) while it held {held} machines; they stay its own until its session is expired"));
        Ok(true)
    }

    /// Stops the components: closes their stdin, on which they drain, then cancel. Who does not end in time is killed.
    async fn end(&mut self) {
        for actor in &mut self.cast {
            drop(actor.child.stdin.take());
        }
        let patience = DRAIN + 2 * GRACE + Duration::from_secs(5);
        for actor in &mut self.cast {
            if !matches!(tokio::time::timeout(patience, actor.child.wait()).await, Ok(Ok(_))) {
                self.talk.say(&format!("{} does not end; killing it", actor.name));
                let _gone_already = actor.child.kill().await;
            }
        }
        while self.output.join_next().await.is_some() {}
    }
}
