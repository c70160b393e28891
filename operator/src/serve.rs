//! The web console: what the command line tells, as pages that stay true while they are looked at.
//!
//! One way through: a request becomes a [`page::Page`], which is read through the same [`facts`](crate::facts) as the command line into a [`view::View`]; a view is
//! written as HTML, as JSON, or as a stream of the parts that have changed. What acts goes through [`access::Writer`], which only a request that may write makes.

pub(crate) mod access;
mod assets;
mod console;
mod counts;
mod frame;
mod live;
mod page;
mod pages;
mod parts;
mod results;
mod router;
mod trouble;
mod view;
mod writes;

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bmdb::{Bmdb, CancellationToken};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::failure::{Failure, Kind};
use crate::metrics::Exporter;
use crate::serve::access::Access;
use crate::serve::console::Console;

/// How long requests that are under way have to end. A service manager waits for longer.
const DRAIN: Duration = Duration::from_secs(5);

/// How many connections a console has: pages, counts and acts each need one; more would only wait in the database.
pub(crate) const CONNECTIONS: u32 = 6;

/// What a console is made of.
pub(crate) struct Settings {
    /// What is read, and written where the login may.
    pub(crate) bmdb: Bmdb,
    /// A login that can only read, on which rules may be run.
    pub(crate) reader: Option<Bmdb>,
    /// Where it listens. Port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// Who may come in, and what they may do.
    pub(crate) access: Access,
    /// Whether anything can be written at all.
    pub(crate) write: bool,
    /// Whether it runs a collector beside.
    pub(crate) collect: bool,
    /// Hosts of which an https address becomes a link.
    pub(crate) portals: Vec<String>,
    /// What a monitoring system is told, if it is told anything.
    pub(crate) metrics: Option<Exporter>,
}

/// A console that listens and does not serve yet.
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    console: Arc<Console>,
    collect: bool,
}

impl Server {
    /// Takes the port, so that a mistake is told before anything else.
    pub(crate) async fn bind(settings: Settings) -> Result<Self, Failure> {
        settings.access.check(settings.listen)?;
        let cannot = |error: std::io::Error| {
            let text = format!(
                "cannot listen at {}: {error}. Choose another with --listen",
                settings.listen
            );
            Failure::new(Kind::Usage, text)
        };
        let listener = TcpListener::bind(settings.listen).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let collect = settings.collect;
        Ok(Self {
            listener,
            address,
            console: Arc::new(Console::new(settings)),
            collect,
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is told to stop; then ends its streams, gives what is under way [`DRAIN`], and leaves the database open.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), Failure> {
        let console = self.console;
        let mut beside = JoinSet::new();
        beside.spawn(counts::keep(Arc::clone(&console), stop.clone()));
        if self.collect {
            beside.spawn(console.source.bmdb.collector().run(stop.clone()));
        }
        // Streams end with this, or no drain would.
        let streams = console.stop.clone();
        let told = {
            let stop = stop.clone();
            async move {
                stop.cancelled().await;
                streams.cancel();
            }
        };
        let router = router::router(Arc::clone(&console));
        let serving = axum::serve(self.listener, router).with_graceful_shutdown(told);
        let mut serving = std::pin::pin!(serving.into_future());
        let served = tokio::select! {
            served = &mut serving => served,
            () = stop.cancelled() => match tokio::time::timeout(DRAIN, serving).await {
                Ok(served) => served,
                Err(_late) => {
                    tracing::warn!("requests were still under way when the console ended");
                    Ok(())
                }
            },
        };
        stop.cancel();
        console.stop.cancel();
        console.live.end().await;
        while let Some(ended) = beside.join_next().await {
            if let Err(error) = ended {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a loop of the console panicked"
                );
            }
        }
        served.map_err(|error| Failure::new(Kind::Unreachable, format!("the console cannot serve: {error}")))
    }
}
