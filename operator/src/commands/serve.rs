//! The web console, until Ctrl-C or until a service manager ends it.

use bmdb::CancellationToken;
use serde_json::json;

use crate::answer::{Answer, Table, err};
use crate::cli::Global;
use crate::cli::serve::Serve;
use crate::cli::settings::{self, Setting};
use crate::commands::collect::stopped;
use crate::failure::Failure;
use crate::metrics::Exporter;
use crate::serve::access::{Access, Tokens};
use crate::serve::{CONNECTIONS, Server, Settings};
use crate::source::Source;

pub(super) async fn run(global: &Global, mut serve: Serve) -> Result<Answer, Failure> {
    let mut global = global.clone();
    let settings = settings::settle(&mut global, &mut serve)?;
    if serve.print_settings {
        return Ok(print(&settings));
    }
    let access = match &serve.token_file {
        Some(file) => Access::signed_in(Tokens::read(file)?, serve.public_host.clone()),
        None => Access::loopback(name_of_user(serve.by.as_deref())?),
    };
    access.check(serve.listen)?;
    let Source { bmdb, reader } = Source::open_for(&global, CONNECTIONS).await?;
    let database = bmdb.name().to_owned();
    let (main, other) = (bmdb.clone(), reader.clone());
    let server = Server::bind(Settings {
        bmdb,
        reader,
        listen: serve.listen,
        access,
        write: !serve.read_only,
        collect: !serve.no_collector && !serve.read_only,
        portals: serve.portal,
        metrics: serve.metrics.then(Exporter::install).transpose()?,
    })
    .await?;
    let address = server.address();
    err(&format!("The console of {database} is at http://{address}/"));
    tell_manager(&[sd_notify::NotifyState::Ready]);
    let stop = CancellationToken::new();
    let ended = {
        let mut running = std::pin::pin!(server.run(stop.clone()));
        tokio::select! {
            ended = &mut running => ended,
            signal = stopped() => {
                signal?;
                tell_manager(&[sd_notify::NotifyState::Stopping]);
                stop.cancel();
                running.await
            }
        }
    };
    if let Some(other) = other {
        other.close().await;
    }
    main.close().await;
    ended?;
    Ok(Answer::new("The console has ended.", json!({"ended": true})))
}

/// Which settings are in force, and where each comes from.
fn print(settings: &[Setting]) -> Answer {
    let mut table = Table::new(&["setting", "value", "from"]);
    for setting in settings {
        let value = match setting.value.as_str() {
            "" => "-".to_owned(),
            value => value.to_owned(),
        };
        table.row([setting.name.to_owned(), value, setting.from.clone()]);
    }
    let settings: Vec<_> = settings
        .iter()
        .map(|setting| json!({"name": setting.name, "value": setting.value, "from": setting.from}))
        .collect();
    Answer::new("The settings of `bmdb serve`.", json!({"settings": settings})).table(table)
}

/// Whom acts are written down under where nobody signs in.
fn name_of_user(by: Option<&str>) -> Result<String, Failure> {
    let user = std::env::var("USER").ok();
    let named = by.map(str::to_owned).or(user).filter(|name| !name.trim().is_empty());
    named.ok_or_else(|| Failure::usage("nobody was named who acts. Give --by NAME or set BMDB_OPERATOR"))
}

/// A service manager that waits to hear it, if one started this.
fn tell_manager(state: &[sd_notify::NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(error = &error as &dyn std::error::Error, "no service manager was told");
    }
}
