//! The simulated outside world: machines with slow management controllers, agents on them, and a provider that takes commands over TCP.
//!
//! It is deterministic by a machine's name: some machines fail their first starts, some agents die after their first start. It refuses
//! commands with a stale fence. A command whose sender dies before the answer is still on its way, and arrives at the worst moment: after the
//! machine's next holder has had its turn.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// After which an agent first reports in, and after which it has installed the system.
const BOOTS_IN: Duration = Duration::from_millis(500);
const INSTALLS_IN: Duration = Duration::from_millis(1500);

/// What a component asks of the provider; one line of JSON.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Command {
    /// Start an agent; the answer is its public key.
    StartAgent { machine: String, name: String, fence: i64 },
    /// Switch the machine off and on; whatever ran on it is gone.
    PowerCycle { machine: String, name: String, fence: i64 },
}

impl Command {
    fn target(&self) -> (&str, &str, i64) {
        match self {
            Self::StartAgent { machine, name, fence } | Self::PowerCycle { machine, name, fence } => {
                (machine, name, *fence)
            }
        }
    }
}

/// What the provider's answer carries: what was established, or the cause why not.
type Answer = Result<String, String>;

/// Sends one command and waits for the answer.
///
/// # Errors
/// The cause why it was not done, or why nobody knows whether it was.
pub(crate) async fn call(provider: SocketAddr, command: &Command) -> Answer {
    let call = async {
        let mut stream = TcpStream::connect(provider).await?;
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = String::new();
        if BufReader::new(stream).read_line(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok::<Answer, io::Error>(serde_json::from_str(&answer)?)
    };
    call.await
        .unwrap_or_else(|error| Err(format!("no answer from the provider: {error}")))
}

/// The outside world, as far as it is simulated.
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    machines: HashMap<String, Machine>,
    counts: Counts,
}

/// What the provider did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Commands that arrived.
    pub(crate) arrived: u64,
    /// Of those, refused because a newer fence had been seen.
    pub(crate) stale: u64,
}

#[derive(Default)]
struct Machine {
    /// The highest fence seen: commands below it come from an earlier holder.
    fence: i64,
    tried: u64,
    started: u64,
    agent: Option<Agent>,
    /// On its way, from a sender that died.
    late: Option<Command>,
}

struct Agent {
    key: String,
    started: Instant,
    dies: bool,
}

/// What an agent says.
#[derive(Clone, Debug)]
pub(crate) struct Beat {
    /// The machine, as the agent was told at its start.
    pub(crate) machine: String,
    /// Proves which start it is from.
    pub(crate) key: String,
    /// Whether the system is installed.
    pub(crate) installed: bool,
}

impl World {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("BUG: nothing panics while it holds this lock")
    }

    /// What the provider has done so far.
    pub(crate) fn counts(&self) -> Counts {
        self.state().counts
    }

    /// What the agents say now.
    pub(crate) fn beats(&self) -> Vec<Beat> {
        let state = self.state();
        let beat = |(machine, agent): (&String, &Agent)| {
            let age = agent.started.elapsed();
            (age >= BOOTS_IN && !agent.dies).then(|| Beat {
                machine: machine.clone(),
                key: agent.key.clone(),
                installed: age >= INSTALLS_IN,
            })
        };
        let agents = state
            .machines
            .iter()
            .filter_map(|(machine, state)| Some((machine, state.agent.as_ref()?)));
        agents.filter_map(beat).collect()
    }

    /// The machine has booted into its system; the agent is no more.
    pub(crate) fn retire(&self, beat: &Beat) {
        if let Some(machine) = self.state().machines.get_mut(&beat.machine) {
            machine.agent.take_if(|agent| agent.key == beat.key);
        }
    }

    /// Takes commands until dropped.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let mut calls = JoinSet::new();
        loop {
            tokio::select! {
                Ok((stream, _)) = listener.accept() => { calls.spawn(self.clone().answer(stream)); }
                Some(_) = calls.join_next() => {}
            }
        }
    }

    async fn answer(self, stream: TcpStream) -> io::Result<()> {
        let (from, mut to) = stream.into_split();
        let mut from = BufReader::new(from);
        let mut line = String::new();
        from.read_line(&mut line).await?;
        let command: Command = serde_json::from_str(&line)?;
        let (machine, name, _) = command.target();
        let (machine, chance) = (machine.to_owned(), chance_of(name));
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(500 + chance % 1000)) => {}
            _ = from.read_u8() => {
                self.state().machines.entry(machine).or_default().late = Some(command);
                return Ok(());
            }
        }
        let answer = self.state().arrive(&command);
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        to.write_all(&line).await
    }
}

impl State {
    /// A command arrives, and after it the one of an earlier sender that was still on its way.
    fn arrive(&mut self, command: &Command) -> Answer {
        let (machine, _, fence) = command.target();
        let answer = self.obey(command);
        let machine = self.machines.entry(machine.to_owned()).or_default();
        if let Some(late) = machine.late.take_if(|late| late.target().2 < fence) {
            // Nobody is there to be told.
            let _refused = self.obey(&late);
        }
        answer
    }

    fn obey(&mut self, command: &Command) -> Answer {
        let (machine, name, fence) = command.target();
        self.counts.arrived += 1;
        let machine = self.machines.entry(machine.to_owned()).or_default();
        if fence < machine.fence {
            self.counts.stale += 1;
            return Err(format!(
                "refused: fence {fence} is stale, {} has been seen",
                machine.fence
            ));
        }
        machine.fence = fence;
        match command {
            Command::StartAgent { .. } => machine.start_agent(name, fence),
            Command::PowerCycle { .. } => {
                machine.agent = None;
                Ok("power-cycled".to_owned())
            }
        }
    }
}

impl Machine {
    fn start_agent(&mut self, name: &str, fence: i64) -> Answer {
        self.tried += 1;
        let (fails, dies) = match chance_of(name) % 12 {
            0 => (2, false),
            1 => (1, false),
            2 | 3 => (0, true),
            _ => (0, false),
        };
        if self.tried <= fails {
            return Err(format!("the management controller of {name} does not answer"));
        }
        let key = format!("{name} with fence {fence}");
        self.started += 1;
        let dies = dies && self.started == 1;
        self.agent = Some(Agent {
            key: key.clone(),
            started: Instant::now(),
            dies,
        });
        Ok(key)
    }
}

/// Some number that a machine's name decides.
fn chance_of(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
