//! The components of the demo. Most run as tasks, each with a connection and sessions of its own; the one that dies is a process of its own.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bmdb::sea_orm::EntityTrait;
use bmdb::{
    Bmdb, CancellationToken, Config, Facts, MachineId, Observation, Process, Runner, Session, Worker, WorkerOptions,
    agent_heartbeat, agent_started, os_installation_request, runtime_info, tag,
};

use crate::demo::account::pause;
use crate::demo::machines::{self, UNREACHABLE};
use crate::demo::processes::{
    AgentRecovery, AgentStart, FirmwareUpdate, HardwareSurvey, Installer, OsInstall, Recoverer, Starter, Surveyor,
    is_heard,
};
use crate::failure::{Failure, Kind};

/// Where the component that dies finds the demo's file. Not what commands read: that may name a database that matters.
pub(super) const FILE: &str = "BMDB_DEMO_FILE";

/// The component that dies.
pub(super) const MORTAL: &str = "shepherd-1";
/// The components that are tasks.
pub(super) const TASKS: [&str; 4] = ["shepherd-2", "recovery-1", "installer-1", "surveyor-1"];

/// How long one heartbeat keeps a session alive. 10 seconds by default; short here, so that a death is soon noticed.
const INTERVAL: Duration = Duration::from_secs(3);
/// How long works have to end by themselves at the end, and then once told to stop.
const DRAIN: Duration = Duration::from_millis(500);
const GRACE: Duration = Duration::from_secs(1);

/// A connection of a component of its own.
///
/// # Errors
/// The database's.
pub(super) async fn connect(url: &str, name: &str) -> Result<Bmdb, Failure> {
    let config = Config::new(url, name, runtime_info!())
        .interval(INTERVAL)
        .max_connections(2);
    Ok(Bmdb::connect(config).await?)
}

/// Runs the component with this name until told to stop.
///
/// # Errors
/// The database's, as far as it does not pass by itself.
pub(super) async fn run(url: String, name: String, stop: CancellationToken) -> Result<(), Failure> {
    let bmdb = connect(&url, &name).await?;
    let runner = Runner::new(bmdb.clone()).drain(DRAIN).grace(GRACE);
    let runner = match name.as_str() {
        "recovery-1" => with(runner, &bmdb, AgentRecovery, Recoverer, 3).await?,
        "installer-1" => with(runner, &bmdb, OsInstall, Installer, 8).await?,
        "surveyor-1" => with(runner, &bmdb, HardwareSurvey, Surveyor, 2).await?,
        _ => with(runner, &bmdb, AgentStart, Starter, 4).await?,
    };
    let ran = runner.run(stop).await;
    bmdb.close().await;
    ran?;
    Ok(())
}

async fn with<P, W>(runner: Runner, bmdb: &Bmdb, process: P, worker: W, parallel: usize) -> Result<Runner, Failure>
where
    P: Process,
    W: Worker<Process = P>,
{
    let process = bmdb.register(process).await?;
    let poll = Duration::from_millis(500);
    let options = WorkerOptions {
        parallel,
        poll,
        ..WorkerOptions::default()
    };
    Ok(runner.worker(&process, worker, options))
}

/// Starts this command again, as the component that dies. It ends when its stdin does, so that it never outlives the demo.
///
/// # Errors
/// The system's.
pub(super) fn start_mortal(url: &str) -> Result<Child, Failure> {
    let started = std::env::current_exe().and_then(|this| {
        let mut command = Command::new(this);
        command.args(["demo", "--component", MORTAL]).env(FILE, url);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    });
    started.map_err(|error| {
        Failure::new(
            Kind::Unreachable,
            format!("cannot start a component as a process: {error}"),
        )
    })
}

/// Fires `stop` when stdin ends. In a thread of its own, for such a read cannot be canceled.
pub(super) fn stop_with_parent(stop: CancellationToken) {
    std::thread::spawn(move || {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1)) {}
        stop.cancel();
    });
}

/// Where agents report in, machines are delivered and customers ask for systems: facts, for which nobody needs a work.
pub(super) struct Reception {
    pub(super) bmdb: Bmdb,
    pub(super) session: Session,
    /// The machines whose system may be asked for anew, the next one last.
    pub(super) installed: Vec<MachineId>,
}

impl Reception {
    /// Listens until told to stop.
    ///
    /// # Errors
    /// The database's, or that the session is lost.
    pub(super) async fn run(self, stop: CancellationToken) -> Result<(), Failure> {
        // Nobody runs it, which a person shall see.
        self.bmdb.register(FirmwareUpdate).await?;
        let (mut number, mut round) = (machines::AT_FIRST, 0_u32);
        let mut asked = self.installed.iter().rev();
        while pause(&stop, Duration::from_secs(1)).await {
            round += 1;
            self.hear().await?;
            if round.is_multiple_of(4) && number < machines::MOST {
                machines::deliver(&self.bmdb, &self.session, number).await?;
                number += 1;
            }
            if round.is_multiple_of(2)
                && let Some(machine) = asked.next()
            {
                self.ask_anew(*machine).await?;
            }
        }
        self.session.close().await?;
        self.bmdb.close().await;
        Ok(())
    }

    /// Every agent that is alive is heard, if it is the one that was started.
    async fn hear(&self) -> Result<(), Failure> {
        let agents = agent_started::Entity::find().all(self.bmdb.reads()).await;
        let agents = agents.map_err(|_unread| Failure::new(Kind::Unreachable, "the demo's agents cannot be read"))?;
        let heard = agents.into_iter().filter(|agent| is_heard(&agent.public_key));
        let heard = heard.filter(|agent| agent.public_key != UNREACHABLE.as_bytes());
        let observations = heard.map(|agent| {
            let facts = Facts::from(agent_heartbeat::row());
            Observation::new(agent.machine_id, facts).only_if(agent_started::row(agent.public_key))
        });
        self.session.state(observations).await?;
        Ok(())
    }

    /// The next generation of its system is asked for.
    async fn ask_anew(&self, machine: MachineId) -> Result<(), Failure> {
        let body = async |tx: &bmdb::Tx| {
            let before = tag::get::<os_installation_request::Entity>(tx, machine).await?;
            let generation = before.map_or(1, |request| request.generation + 1);
            let mut row = machines::asked_for(generation);
            row.machine_id = bmdb::sea_orm::ActiveValue::Set(machine);
            tag::set::<os_installation_request::Entity>(tx, row).await
        };
        self.session.transact(body).await?;
        Ok(())
    }
}
