//! One client's connection and the one to the server that belongs to it.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncRead, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::wire::{Message, message, untagged, without_options};
use super::{Bound, Fate, Fault, Passing, Shared, lock};

const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// Serves one client until it, the server, a fault or the proxy ends the connection. Dropping this closes both sockets.
pub(super) async fn serve(shared: Arc<Shared>, number: u64, client: TcpStream) {
    let mut cut = shared.cut.subscribe();
    tokio::select! {
        _cut = cut.changed() => {}
        // Whatever goes wrong here, the client and the server see a connection that has ended, as they would without us.
        _ended = talk(&shared, number, client) => {}
    }
}

async fn talk(shared: &Shared, number: u64, mut client: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut hello = untagged(&mut client).await?;
    while hello.starts_with(&SSL_REQUEST) {
        client.write_all(b"N").await?;
        hello = untagged(&mut client).await?;
    }
    if shared.drops_options.load(Ordering::Relaxed) {
        hello = without_options(&hello);
    }
    let server = TcpStream::connect(shared.server()).await?;
    server.set_nodelay(true)?;
    let (client_says, client) = client.into_split();
    let (server_says, mut server) = server.into_split();
    let length = u32::try_from(hello.len() + 4).map_err(io::Error::other)?;
    server
        .write_all(&[&length.to_be_bytes(), hello.as_slice()].concat())
        .await?;
    let mut readers = JoinSet::new();
    Connection {
        shared,
        number,
        client,
        server,
        from_client: read(&mut readers, client_says),
        from_server: read(&mut readers, server_says),
        state: b'I',
        // The server answers the start of a connection too.
        unanswered: 1,
        prepared: HashMap::new(),
    }
    .run()
    .await
}

/// Reads messages in a task of its own, because half a message must not be lost when something else happens.
fn read(readers: &mut JoinSet<()>, from: impl AsyncRead + Unpin + Send + 'static) -> mpsc::Receiver<Message> {
    let (sender, receiver) = mpsc::channel(64);
    readers.spawn(async move {
        let mut from = BufReader::new(from);
        while let Ok(message) = message(&mut from).await {
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    receiver
}

struct Connection<'a> {
    shared: &'a Shared,
    number: u64,
    client: OwnedWriteHalf,
    server: OwnedWriteHalf,
    from_client: mpsc::Receiver<Message>,
    from_server: mpsc::Receiver<Message>,
    /// What the server said last of its transaction: `I`, `T` or `E`.
    state: u8,
    /// How many times the server will yet say that it is ready.
    unanswered: u32,
    /// Each prepared statement by its name.
    prepared: HashMap<String, Prepared>,
}

#[derive(Clone, Default)]
struct Prepared {
    sql: String,
    /// The OIDs of its parameters' types, as far as the client declared them.
    types: Vec<u32>,
}

type Flow = io::Result<ControlFlow<()>>;

impl Connection<'_> {
    async fn run(&mut self) -> io::Result<()> {
        // What the client has sent since it last waited for an answer.
        let mut sent = Vec::new();
        loop {
            tokio::select! {
                message = self.from_server.recv() => {
                    let Some(message) = message else { return Ok(()) };
                    self.hear(&message);
                    let translates = message.tag == b'E' && self.shared.translates.load(Ordering::Relaxed);
                    let message = if translates { self.translated(&message) } else { message };
                    write(&mut self.client, &[message]).await?;
                }
                message = self.from_client.recv() => {
                    let Some(message) = message else { return Ok(()) };
                    // A query and a Sync are what the server answers; a password is answered too.
                    let asks = matches!(message.tag, b'Q' | b'S' | b'p' | b'X' | b'H');
                    sent.push(self.noted(message));
                    if asks && self.decide(std::mem::take(&mut sent)).await?.is_break() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn hear(&mut self, message: &Message) {
        if let (b'Z', Some(state)) = (message.tag, message.body.first()) {
            self.state = *state;
            self.unanswered = self.unanswered.saturating_sub(1);
        }
    }

    fn translated(&self, error: &Message) -> Message {
        lock(&self.shared.translated).extend(error.code());
        error.translated()
    }

    /// Remembers what is prepared, and changes its text if the test wants that.
    fn noted(&mut self, message: Message) -> Message {
        if message.tag != b'P' {
            return message;
        }
        let (name, sql) = message.two_texts();
        let prepared = Prepared {
            sql: sql.to_owned(),
            types: message.types(),
        };
        self.prepared.insert(name.to_owned(), prepared);
        match self.shared.rewritten(sql) {
            Some(other) => message.with_query(&other),
            None => message,
        }
    }

    async fn decide(&mut self, sent: Vec<Message>) -> Flow {
        self.shared.round_trips.fetch_add(1, Ordering::Relaxed);
        let Some((sql, values)) = self.executed(&sent) else {
            self.pass(&sent).await?;
            return Ok(ControlFlow::Continue(()));
        };
        let commits = self.commits(sql.trim());
        let fate = self.shared.fate_of(&Passing {
            connection: self.number,
            sql: &sql,
            commits,
            values: &values,
        });
        match fate {
            Fate::Pass => {}
            Fate::Delay(time) => tokio::time::sleep(time).await,
            Fate::Wait(word) => {
                let _said_or_gone = word.await;
            }
            Fate::Fail(fault) => {
                // What was sent before this one is answered first.
                while self.unanswered > 0 {
                    let message = self.from_server.recv().await.ok_or(io::ErrorKind::UnexpectedEof)?;
                    self.hear(&message);
                    write(&mut self.client, &[message]).await?;
                }
                return self.fail(fault, &sent, commits).await;
            }
        }
        self.pass(&sent).await?;
        Ok(ControlFlow::Continue(()))
    }

    async fn pass(&mut self, messages: &[Message]) -> io::Result<()> {
        let asks = messages
            .iter()
            .filter(|message| matches!(message.tag, b'Q' | b'S'))
            .count();
        self.unanswered += u32::try_from(asks).map_err(io::Error::other)?;
        write(&mut self.server, messages).await
    }

    /// The text of the statement that is executed by what was sent, if any is, and what it is sent with.
    fn executed(&self, sent: &[Message]) -> Option<(String, Vec<Bound>)> {
        if let Some(query) = sent.iter().find(|message| message.tag == b'Q') {
            return Some((query.text().to_owned(), Vec::new()));
        }
        let bound = sent.iter().find(|message| message.tag == b'B')?;
        let executes = sent.iter().any(|message| message.tag == b'E');
        let (_, name) = bound.two_texts();
        executes.then(|| {
            let Prepared { sql, types } = self.prepared.get(name).cloned().unwrap_or_default();
            let declared = types.into_iter().chain(std::iter::repeat(0));
            let values = bound.values().into_iter().zip(declared);
            (sql, values.map(|(bytes, oid)| Bound { oid, bytes }).collect())
        })
    }

    /// COMMIT, or a write that is a transaction of its own.
    fn commits(&self, sql: &str) -> bool {
        let verb = sql.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        verb == "COMMIT" || self.state == b'I' && matches!(verb.as_str(), "WITH" | "INSERT" | "UPDATE" | "DELETE")
    }

    async fn fail(&mut self, fault: Fault, sent: &[Message], commits: bool) -> Flow {
        match fault {
            Fault::Refused(sqlstate) => {
                let state = self.state;
                if commits && state != b'I' {
                    self.ask(&[Message::query("ROLLBACK")]).await?;
                } else if state == b'T' {
                    // What the server makes of it is what any error does: the transaction has failed.
                    self.ask(&[Message::query("this is not SQL")]).await?;
                }
                self.answer("ERROR", sqlstate).await
            }
            Fault::Disowned(sqlstate) => {
                self.ask(sent).await?;
                self.answer("ERROR", sqlstate).await
            }
            Fault::DropBefore => Ok(ControlFlow::Break(())),
            Fault::DropAfter => {
                self.ask(sent).await?;
                Ok(ControlFlow::Break(()))
            }
            Fault::Late(time) => {
                self.client.shutdown().await?;
                // Our reading half goes with the closed channel; the client sees the end of the connection.
                self.from_client.close();
                tokio::time::sleep(time).await;
                self.ask(sent).await?;
                Ok(ControlFlow::Break(()))
            }
            Fault::HalfOpen => std::future::pending().await,
            Fault::Terminated => {
                write(&mut self.client, &[Message::error("FATAL", "57P01")]).await?;
                Ok(ControlFlow::Break(()))
            }
        }
    }

    /// Has the server do this and keeps its answer from the client.
    async fn ask(&mut self, messages: &[Message]) -> io::Result<()> {
        self.pass(messages).await?;
        while self.unanswered > 0 {
            let message = self.from_server.recv().await.ok_or(io::ErrorKind::UnexpectedEof)?;
            self.hear(&message);
        }
        Ok(())
    }

    async fn answer(&mut self, severity: &str, sqlstate: &str) -> Flow {
        let answer = [Message::error(severity, sqlstate), Message::ready(self.state)];
        write(&mut self.client, &answer).await?;
        Ok(ControlFlow::Continue(()))
    }
}

async fn write(to: &mut OwnedWriteHalf, messages: &[Message]) -> io::Result<()> {
    let mut bytes = Vec::new();
    for message in messages {
        message.append_to(&mut bytes);
    }
    to.write_all(&bytes).await
}
