//! The demo's web console.

use std::net::{Ipv4Addr, SocketAddr};

use bmdb::{Bmdb, CancellationToken};

use crate::demo::account::Account;
use crate::failure::Failure;
use crate::serve::access::Access;
use crate::serve::{CONNECTIONS, Server, Settings};
use crate::source::connect;

/// Where people look first; where somebody else listens there, a free port is taken.
const PORT: u16 = 8080;

/// Listens, and says where.
pub(super) async fn listen(url: &str, account: &Account) -> Result<(Server, Bmdb), Failure> {
    let bmdb = connect(url, CONNECTIONS).await?;
    let settings = |port| Settings {
        bmdb: bmdb.clone(),
        reader: None,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        access: Access::loopback("you".to_owned()),
        write: true,
        // The components collect.
        collect: false,
        portals: Vec::new(),
        metrics: None,
    };
    let server = match Server::bind(settings(PORT)).await {
        Ok(server) => server,
        Err(_taken) => Server::bind(settings(0)).await?,
    };
    account.line(&format!("Look at it: http://{}/", server.address()));
    Ok((server, bmdb))
}

/// Serves until it is told to stop.
pub(super) async fn serve(server: Server, bmdb: Bmdb, stop: CancellationToken) -> Result<(), Failure> {
    let served = server.run(stop).await;
    bmdb.close().await;
    served
}
