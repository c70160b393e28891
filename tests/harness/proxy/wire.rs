//! Messages of the protocol, whole and one at a time.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// One message: its letter, and everything after its length.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) tag: u8,
    pub(super) body: Vec<u8>,
}

impl Message {
    pub(super) fn new(tag: u8, body: impl Into<Vec<u8>>) -> Self {
        Self { tag, body: body.into() }
    }

    /// An error from the server.
    pub(super) fn error(severity: &str, sqlstate: &str) -> Self {
        let text = format!("S{severity}\0V{severity}\0C{sqlstate}\0Mthe test's proxy says so\0\0");
        Self::new(b'E', text)
    }

    /// The server is ready for the next: idle (`I`), in a transaction (`T`), or in one that has failed (`E`).
    pub(super) fn ready(state: u8) -> Self {
        Self::new(b'Z', [state])
    }

    pub(super) fn query(sql: &str) -> Self {
        Self::new(b'Q', format!("{sql}\0"))
    }

    pub(super) fn append_to(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.tag);
        let length = u32::try_from(self.body.len() + 4).expect("no test sends 4 GiB");
        bytes.extend(length.to_be_bytes());
        bytes.extend(&self.body);
    }

    /// The first text in the body.
    pub(super) fn text(&self) -> &str {
        text(&self.body).0
    }

    /// The first two texts in the body: the name and the query of a Parse, the portal and the statement of a Bind.
    pub(super) fn two_texts(&self) -> (&str, &str) {
        let (first, rest) = text(&self.body);
        (first, text(rest).0)
    }

    /// The types that a Parse declares for its parameters.
    pub(super) fn types(&self) -> Vec<u32> {
        let (_, rest) = text(&self.body);
        let (_, mut rest) = text(rest);
        let count = number(&mut rest).unwrap_or_default();
        let oid = |_| Some(u32::from_be_bytes(part(&mut rest)?));
        (0..count).map_while(oid).collect()
    }

    /// The values of a Bind.
    pub(super) fn values(&self) -> Vec<Option<Vec<u8>>> {
        let (_, rest) = text(&self.body);
        let (_, mut rest) = text(rest);
        let formats = number(&mut rest).unwrap_or_default();
        rest = rest.get(2 * usize::from(formats)..).unwrap_or_default();
        let count = number(&mut rest).unwrap_or_default();
        let value = |_| {
            // NULL has the length -1.
            let Ok(length) = usize::try_from(i32::from_be_bytes(part(&mut rest)?)) else {
                return Some(None);
            };
            let (value, others) = rest.split_at_checked(length)?;
            rest = others;
            Some(Some(value.to_vec()))
        };
        (0..count).map_while(value).collect()
    }

    /// An error's code.
    pub(super) fn code(&self) -> Option<String> {
        let mut fields = self.body.split(|byte| *byte == 0);
        let code = fields.find_map(|field| field.strip_prefix(b"C"))?;
        Some(String::from_utf8_lossy(code).into_owned())
    }

    /// An error with another text and all else the same.
    pub(super) fn translated(&self) -> Self {
        let fields = self.body.split(|byte| *byte == 0).filter(|field| !field.is_empty());
        let mut body = Vec::new();
        for field in fields {
            body.extend::<&[u8]>(match field[0] {
                b'S' => b"SFEHLER",
                b'M' => b"Mandere Worte",
                _ => field,
            });
            body.push(0);
        }
        body.push(0);
        Self::new(self.tag, body)
    }

    /// A Parse of the same name and parameters with another query.
    pub(super) fn with_query(&self, sql: &str) -> Self {
        let (name, rest) = text(&self.body);
        let (_, parameters) = text(rest);
        let mut body = format!("{name}\0{sql}\0").into_bytes();
        body.extend(parameters);
        Self::new(self.tag, body)
    }
}

fn text(bytes: &[u8]) -> (&str, &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]).unwrap_or_default();
    (text, bytes.get(end + 1..).unwrap_or_default())
}

/// The first bytes, which are taken off the others.
fn part<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

fn number(bytes: &mut &[u8]) -> Option<u16> {
    part(bytes).map(u16::from_be_bytes)
}

/// Reads one message. Not cancel safe.
pub(super) async fn message(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Message> {
    let tag = from.read_u8().await?;
    Ok(Message {
        tag,
        body: untagged(from).await?,
    })
}

/// Reads one message that has no letter, as the first ones of a client. Not cancel safe.
pub(super) async fn untagged(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let length = usize::try_from(length).unwrap_or_default().saturating_sub(4);
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok(body)
}

/// The start of a connection without its options.
pub(super) fn without_options(hello: &[u8]) -> Vec<u8> {
    let (version, mut rest) = hello.split_at(hello.len().min(4));
    let mut others = version.to_vec();
    while !rest.is_empty() {
        let (name, value) = text(rest);
        let (value, more) = text(value);
        if name.is_empty() {
            break;
        }
        if name != "options" {
            others.extend(format!("{name}\0{value}\0").as_bytes());
        }
        rest = more;
    }
    others.push(0);
    others
}
