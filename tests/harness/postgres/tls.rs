//! A server that speaks TLS and knows its clients by certificate.

use super::{Certificates, Server, TEMPLATE, certificates, start};

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
        let server = start(Some(&certificates)).await;
        server.statement(&format!("CREATE DATABASE {TEMPLATE}")).await;
        server
            .statement(&format!("CREATE ROLE {} SUPERUSER LOGIN", certificates::CLIENT))
            .await;
        let migrated = bmdb_migration::up(&server.url(TEMPLATE), None).await;
        migrated.expect("the schema can be made in a new database");
        Self { server, certificates }
    }

    /// The URL of the migrated database for the role that must show a certificate, under this name of the host.
    #[must_use]
    pub fn url(&self, host: &str) -> String {
        format!(
            "postgres://{}@{host}:{}/{TEMPLATE}",
            certificates::CLIENT,
            self.server.port
        )
    }

    /// The certificates, as PEM files.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }
}
