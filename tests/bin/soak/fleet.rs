//! The component processes of a soak: started, killed, frozen, and listened to.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::component::now;
use crate::ledger::Ledger;

/// One component: a process, and after it is killed the next.
struct Component {
    url: String,
    process: usize,
    child: Child,
    wakes: Option<Instant>,
}

pub(crate) struct Fleet {
    components: Vec<Component>,
    interval: Duration,
    seed: u64,
    started: usize,
    says: mpsc::Receiver<(usize, String)>,
    sayer: mpsc::Sender<(usize, String)>,
    listeners: Vec<JoinHandle<()>>,
    /// Which process was killed when.
    pub(crate) kills: Vec<(usize, u128)>,
    /// From when until when some process was frozen.
    pub(crate) freezes: Vec<(u128, u128)>,
}

impl Fleet {
    pub(crate) fn start(urls: impl IntoIterator<Item = String>, interval: Duration, seed: u64) -> Self {
        let (sayer, says) = mpsc::channel();
        let mut fleet = Self {
            components: Vec::new(),
            interval,
            seed,
            started: 0,
            says,
            sayer,
            listeners: Vec::new(),
            kills: Vec::new(),
            freezes: Vec::new(),
        };
        for url in urls {
            let (process, child) = fleet.spawn(&url);
            fleet.components.push(Component {
                url,
                process,
                child,
                wakes: None,
            });
        }
        fleet
    }

    fn spawn(&mut self, url: &str) -> (usize, Child) {
        let process = self.started;
        self.started += 1;
        let itself = std::env::current_exe().expect("we were started from a file");
        let mut child = Command::new(itself)
            .args(["component", url, &format!("soak-{process}")])
            .args([
                self.interval.as_millis().to_string(),
                (self.seed + process as u64).to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("we can be started again");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let sayer = self.sayer.clone();
        self.listeners.push(std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sayer.send((process, line)).is_err() {
                    return;
                }
            }
        }));
        (process, child)
    }

    /// Takes down everything that was said so far.
    pub(crate) fn listen(&self, ledger: &mut Ledger) {
        for (process, line) in self.says.try_iter() {
            ledger.hear(process, &line);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.components.len()
    }

    /// Kills a component's process and starts the next.
    pub(crate) fn kill(&mut self, place: usize) {
        let url = self.components[place].url.clone();
        let component = &mut self.components[place];
        self.kills.push((component.process, now()));
        component.child.kill().expect("our own child can be killed");
        component.child.wait().expect("our own child can be waited for");
        let (process, child) = self.spawn(&url);
        let component = &mut self.components[place];
        (component.process, component.child, component.wakes) = (process, child, None);
    }

    /// Stops a component's process for so long.
    pub(crate) fn freeze(&mut self, place: usize, time: Duration, ledger: &mut Ledger) {
        let component = &mut self.components[place];
        if component.wakes.is_none() {
            ledger.froze(component.process, now());
            signal(&component.child, "STOP");
            self.freezes.push((now(), now() + time.as_millis()));
            component.wakes = Some(Instant::now() + time);
        }
    }

    /// Lets those go on whose time has come.
    pub(crate) fn wake(&mut self, at: Instant) {
        for component in &mut self.components {
            if component.wakes.is_some_and(|wakes| wakes <= at) {
                signal(&component.child, "CONT");
                component.wakes = None;
            }
        }
    }

    /// Ends them all, as if by a power cut.
    pub(crate) fn end(&mut self, ledger: &mut Ledger) {
        for component in &mut self.components {
            self.kills.push((component.process, now()));
            component.child.kill().expect("our own child can be killed");
            component.child.wait().expect("our own child can be waited for");
        }
        // Their last words are in the pipes.
        for listener in self.listeners.drain(..) {
            listener.join().expect("a listener does not panic");
        }
        self.listen(ledger);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for component in &mut self.components {
            if let Err(error) = component.child.kill() {
                eprintln!("a component is left: {error}");
            }
        }
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("sh")
        .args(["-c", "kill -\"$0\" \"$1\"", name, &child.id().to_string()])
        .status();
    assert!(sent.expect("sh can be started").success(), "{name} was not sent");
}
