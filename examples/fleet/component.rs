//! One component as a process of the operating system: a [`Runner`] with one worker.

use std::io::Read;
use std::time::Duration;

use bmdb::{Bmdb, CancellationToken, Config, Runner, WorkerOptions, runtime_info};

use crate::Failure;
use crate::cli::{Cli, Kind};
use crate::processes::{AgentRecovery, AgentStart, Recoverer, Starter};

/// How long one heartbeat keeps a component's session alive. 10 seconds by default; short here, so that a death is noticed soon.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long running work has to end by itself on shutdown, and then after it was told to stop.
pub(crate) const DRAIN: Duration = Duration::from_secs(3);
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// Works until told to stop: by a signal, or because whoever started us has closed our stdin, if only by dying.
///
/// # Errors
/// When the database cannot be opened, or what the [`Runner`] cannot mend.
pub(crate) async fn run(kind: Kind, cli: &Cli, stop: &CancellationToken) -> Result<(), Failure> {
    let (Some(name), Some(provider), Some(parallel)) = (&cli.name, cli.provider_address, cli.parallel) else {
        return Err("a component needs --name, --provider-address and --parallel".into());
    };
    stop_with_parent(stop.clone());
    let bmdb = Bmdb::connect(Config::new(&cli.database, name, runtime_info!()).interval(INTERVAL)).await?;
    let runner = Runner::new(bmdb.clone()).drain(DRAIN).grace(GRACE);
    let options = WorkerOptions {
        parallel: parallel.into(),
        poll: Duration::from_millis(300),
        ..Default::default()
    };
    let runner = match kind {
        Kind::AgentStart => runner.worker(&bmdb.register(AgentStart).await?, Starter(provider), options),
        Kind::AgentRecovery => runner.worker(&bmdb.register(AgentRecovery).await?, Recoverer(provider), options),
    };
    let counts = runner.run(stop.clone()).await;
    bmdb.close().await;
    for (process, counts) in counts? {
        tracing::info!(process, ?counts, "component ends");
    }
    Ok(())
}

/// A thread of its own, for a read of stdin cannot be canceled and would keep the runtime from ending.
fn stop_with_parent(stop: CancellationToken) {
    std::thread::spawn(move || {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1)) {}
        stop.cancel();
    });
}
