//! A server that speaks TLS and knows its clients by certificate.

use super::{Certificates, Server, Setup, TEMPLATE, certificates, make_cluster, start};

/// A server of a test's own that speaks TLS and knows its clients by certificate; it ends with the test process.
#[derive(Debug)]
pub struct TlsServer {
    server: Server,
    certificates: Certificates,
}

impl TlsServer {
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
        server.make_template().await;
        server
            .statement(&format!("CREATE ROLE {} SUPERUSER LOGIN", certificates::CLIENT))
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

    /// The certificates, as PEM files.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }
}
