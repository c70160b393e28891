//! Connections that are encrypted, to a server that proves who it is, by a component that does too.

use bmdb::{Bmdb, Config, Error};
use harness::TlsServer;

/// Opens the database and does something with it.
async fn use_it(config: Config) -> Result<(), Error> {
    let bmdb = Bmdb::connect(config).await?;
    let session = bmdb.start_session().await?;
    session.transact(bmdb::machine::create).await?;
    session.close().await
}

fn config(url: &str) -> Config {
    Config::new(url, "test", "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_proven_server_and_a_proven_client_meet() {
    let server = TlsServer::start().await;
    let files = server.certificates();
    let url = server.url("localhost");
    let proven = |url: &str| {
        config(url)
            .tls_root_certificate(files.authority_file())
            .tls_client(files.client_file(), files.client_key_file())
    };
    use_it(proven(&url)).await.expect("both are proven");
    let by_url = format!(
        "{url}?sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
        files.authority_file().display(),
        files.client_file().display(),
        files.client_key_file().display()
    );
    use_it(config(&by_url)).await.expect("the URL says the same");

    let without_client = config(&url).tls_root_certificate(files.authority_file());
    let without_authority =
        config(&format!("{url}?sslmode=verify-full")).tls_client(files.client_file(), files.client_key_file());
    let other_authority = proven(&url).tls_root_certificate(files.stranger_file());
    let other_name = proven(&server.url("127.0.0.1"));
    let plain = config(&format!("{url}?sslmode=disable"));
    for (wrong, why) in [
        (without_client, "the client shows no certificate"),
        (without_authority, "no public authority signed the server's certificate"),
        (other_authority, "the authority is another"),
        (other_name, "the certificate is for another name"),
        (plain, "the server takes this role only over TLS"),
    ] {
        let refused = use_it(wrong).await;
        assert!(matches!(refused, Err(Error::Unreachable { .. })), "{why}: {refused:?}");
    }
}

#[tokio::test]
async fn certificates_that_are_not_there_are_refused_before_connecting() {
    let url = "postgres://secured@localhost:1/bmdb";
    for wrong in [
        config(url).tls_root_certificate("/nowhere/authority.crt"),
        config(url).tls_client("/nowhere/client.crt", "/nowhere/client.key"),
        config(&format!("{url}?bmdb.tls_client_key=/nowhere/client.key")),
    ] {
        let refused = use_it(wrong).await;
        assert!(
            matches!(refused, Err(Error::Config(bmdb::ConfigError::Setting { .. }))),
            "{refused:?}"
        );
    }
}
