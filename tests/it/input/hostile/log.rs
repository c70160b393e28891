//! Lines of a log, as `tracing_subscriber` writes them and what is in them.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use bmdb::{Bmdb, Hold, Until, machine};
use harness::{Backend, TestDatabase, ada, of};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use super::{Survey, TEXTS, connect, provide, session};

/// Keeps what is written.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("nobody panics with it")).into_owned()
    }

    /// Keeps what this thread logs for as long as the answer lives: all of ours, all but the finest of others.
    pub(crate) fn listen(&self) -> tracing::subscriber::DefaultGuard {
        self.listen_with(tracing_subscriber::layer::Identity::new())
    }

    /// The same, beside somebody else who listens.
    pub(crate) fn listen_with<L>(&self, other: L) -> tracing::subscriber::DefaultGuard
    where
        L: tracing_subscriber::Layer<tracing_subscriber::Registry> + Send + Sync,
    {
        // No spans: sqlx carries them to threads of its own, where another subscriber would be asked for them.
        let wanted = filter_fn(|metadata| {
            metadata.is_event() && (metadata.target().starts_with("bmdb") || *metadata.level() <= tracing::Level::DEBUG)
        });
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(self.clone())
            .with_ansi(false);
        tracing::subscriber::set_default(tracing_subscriber::registry().with(other).with(lines).with(wanted))
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics with it").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Kept {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

// One thread runs the whole test, so that all of it is heard.
#[tokio::test]
async fn no_text_forges_a_line_of_the_log() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let db = TestDatabase::migrated(backend).await;
        let kept = Kept::default();
        let _listening = kept.listen();
        let (bmdb, session) = (connect(&db).await, session(&db).await);
        let machine = provide(&session, 1).await[0];
        let url_of = |name: &str| {
            db.url()
                .replace("test_", &format!("{name}_"))
                .replace("bmdb.sqlite", name)
        };
        for text in TEXTS.into_iter().filter(|text| text.len() < 1000) {
            let log = |what: &str, error: &(dyn std::error::Error + 'static)| {
                tracing::warn!(what, error, shown = %error, "a component says what went wrong");
            };
            for component in [text, "\u{202e}tsrif\u{2028}"] {
                match Bmdb::connect(bmdb::Config::new(db.url(), component, text)).await {
                    Ok(other) => other.start_session().await.unwrap().close().await.unwrap(),
                    Err(error) => log("connect", &error),
                }
            }
            if let Err(error) = Bmdb::connect(bmdb::Config::new(url_of(text), "test", "")).await {
                log("a URL", &error);
            }
            if let Err(error) = bmdb_migration::status(&url_of(text)).await {
                log("a URL of the migrator", &error);
            }
            let work = session
                .claim(&of::<Survey>(&session).await)
                .on(machine)
                .await
                .unwrap()
                .expect("it is eligible");
            if let Err(error) = work.progress(&text).await {
                log("work", &error);
            }
            let body =
                async |_: &bmdb::Tx| Err::<(), _>(bmdb::Error::from(sea_orm::DbErr::Custom("a body's own".to_owned())));
            drop(session.transact(body).await);
            match bmdb.operator(text, text).and_then(|operator| operator.ticket(text)) {
                Ok(operator) => {
                    operator.ask_to_stop(work.id()).await.unwrap();
                    operator
                        .place_hold(machine, Hold::new().until(Until::Open))
                        .await
                        .unwrap();
                }
                Err(error) => log("an operator", &error),
            }
            if let Err(error) = ada(&bmdb).lift_hold(machine, Some(text)).await {
                log("lifting", &error);
            }
            if let Err(error) = ada(&bmdb).clear_backoff(machine, text).await {
                log("clearing", &error);
            }
            let new = machine::NewMachine::new(text, text);
            for _ in 0..2 {
                if let Err(error) = session
                    .transact(async |tx| machine::provide(tx, new.clone()).await)
                    .await
                {
                    log("a machine", &error);
                }
            }
            let failed = work.fail(text).await;
            let explanation = of::<Survey>(&bmdb).await.explain(machine).await.unwrap().to_string();
            assert!(
                !explanation.lines().any(is_forged) && !explanation.contains(is_misleading),
                "{explanation}"
            );
            if let Err(unfinished) = failed {
                log("an end", &unfinished);
                let bmdb::Unfinished::NotCommitted { work, .. } = unfinished else {
                    panic!("it can be tried again")
                };
                work.cancel().await.unwrap();
            }
            ada(&bmdb).lift_hold(machine, None).await.unwrap();
            ada(&bmdb)
                .clear_backoff(machine, <Survey as bmdb::Process>::NAME)
                .await
                .unwrap();
        }
        let log = kept.text();
        assert!(
            log.contains("session started") && log.contains("a component says"),
            "it was heard"
        );
        assert!(log.contains("forged"), "the text is in the log");
        let forged: Vec<_> = log.lines().filter(|line| is_forged(line)).collect();
        assert!(forged.is_empty(), "{forged:#?}");
        let misleading: Vec<_> = log.lines().filter(|line| line.contains(is_misleading)).collect();
        assert!(misleading.is_empty(), "{misleading:#?}");
    }
}

/// A line that a text in [`TEXTS`] wants to be one.
fn is_forged(line: &str) -> bool {
    line.starts_with("2026-11-23T00:00:00Z ERROR") || line.starts_with("separator")
}

fn is_misleading(character: char) -> bool {
    matches!(
        character,
        '\x1b' | '\r' | '\0' | '\u{85}' | '\u{9b}' | '\u{202e}' | '\u{2028}' | '\u{2066}'
    )
}
