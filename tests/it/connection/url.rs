//! Every form of a URL that libpq takes leads component and migrator to the server.

use bmdb::{Bmdb, Config, Error};
use harness::{OwnServer, bounded};

use crate::world::sessions;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_form_of_a_good_url_connects() {
    bounded(async {
        let server = OwnServer::with_settings(&["listen_addresses=127.0.0.1,::1"]).await;
        let db = server.database();
        let (_, place) = db.url().split_once("127.0.0.1:").expect("a test's URL names its host");
        let (port, database) = place.split_once('/').expect("a test's URL names a database");
        let socket = server.socket().display().to_string();
        let encoded = socket.replace('/', "%2F");
        let raw = db.raw().await;
        for url in [
            format!("postgres://bmdb@[::1]:{port}/{database}"),
            format!("postgresql://bmdb:p%40@/{database}?host={socket}&port={port}"),
            format!("postgres://bmdb@{encoded}:{port}/{database}"),
            format!("postgres:///?host={encoded}&port={port}&dbname={database}&user=bmdb"),
            format!("postgres://bmdb@localhost:{port}/{database}?hostaddr=127.0.0.1&connect_timeout=5"),
            format!(
                "postgres://bmdb@127.0.0.1:{port}/{database}?channel_binding=prefer&target_session_attrs=read-write"
            ),
        ] {
            let bmdb = Bmdb::connect(Config::new(&url, "test", "")).await;
            let session = bmdb
                .unwrap_or_else(|error| panic!("{url}: {error:?}"))
                .start_session()
                .await
                .unwrap();
            assert_eq!(sessions(&raw).await, 1, "{url}");
            session.close().await.unwrap();
            assert!(bmdb_migration::up(&url, None).await.expect(&url).is_empty());
        }
        let standby = format!("{}?target_session_attrs=standby", db.url());
        let refused = Bmdb::connect(Config::new(&standby, "test", "")).await.map(drop);
        assert!(matches!(refused, Err(Error::Config(_))), "{refused:?}");
        let named = bmdb_migration::up(&format!("{}?gssencmode=disable", db.url()), None).await;
        assert!(
            named
                .expect_err("we do not take it")
                .to_string()
                .contains("\"gssencmode\"")
        );
    })
    .await;
}
