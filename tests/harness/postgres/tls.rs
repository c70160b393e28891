//! A server that speaks TLS and knows its clients by certificate or password.

use super::{Certificates, Server, Setup, TEMPLATE, certificates, make_cluster, start};

/// A server of a test's own that speaks TLS and knows its clients by certificate or password; it ends when it is dropped.
#[derive(Debug)]
pub struct TlsServer {
    server: Server,
    certificates: Certificates,
}

/// The password of the role that has one.
const PASSWORD: &str = "nightingale-in-the-mine";

impl TlsServer {
    /// What stands before the `@` to get in with the right password.
    pub const LOGIN: &str = "locked:nightingale-in-the-mine";

    /// Starts it, with a migrated database.
    ///
    /// # Panics
    /// Panics if there are no programs for it (`tests/run` installs them).
    pub async fn start() -> Self {
        let certificates = Certificates::make();
        let server = start(Setup {
            cluster: Box::new(|binaries, folder| {
                make_cluster(binaries, folder);
                certificates.install(&folder.join("data"))
            }),
            ..Setup::default()
        })
        .await;
        server.make_templates().await;
        server
            .statement(&format!("CREATE ROLE {} SUPERUSER LOGIN", certificates::CLIENT))
            .await;
        let locked = certificates::LOCKED;
        server
            .statement(&format!("CREATE ROLE {locked} SUPERUSER LOGIN PASSWORD '{PASSWORD}'"))
            .await;
        Self { server, certificates }
    }

    /// The URL of the migrated database for the role that must show a certificate, under this name of the host.
    #[must_use]
    pub fn url(&self, host: &str) -> String {
        format!(
            "postgres://{}@{host}:{}/{TEMPLATE}",
            certificates::CLIENT,
            self.server.keeper.port()
        )
    }

    /// The URL of the migrated database for the role that has a password; [`LOGIN`](Self::LOGIN) opens it.
    #[must_use]
    pub fn locked_url(&self, login: &str) -> String {
        format!("postgres://{login}@127.0.0.1:{}/{TEMPLATE}", self.server.keeper.port())
    }

    /// The certificates, as PEM files.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }
}
