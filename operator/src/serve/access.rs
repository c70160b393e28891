//! Who may come in, and what they may do there.
//!
//! On the loopback whoever reaches the port is who started the console; elsewhere people sign in with a token. Either way a handler asks for a [`Reader`] or a
//! [`Writer`], and gets none that the request does not earn: no handler can act without a [`Writer`] in its hands.

mod guard;
mod logins;
mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

pub(super) use guard::guard;
pub(crate) use tokens::Tokens;

use crate::failure::{Failure, Kind};
use crate::serve::access::logins::Logins;
use crate::serve::assets::hex;
use crate::serve::console::Console;
use crate::serve::trouble;

/// The cookie of who has signed in. Its prefix has browsers keep it to this host, and send it over TLS only, or to the loopback. It comes along when
/// somebody follows a link from a ticket; what acts needs a form of ours as well.
pub(super) const COOKIE_NAME: &str = "__Host-bmdb";

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// See everything.
    Read,
    /// Act as well.
    Write,
}

/// Who may come in.
pub(crate) struct Access {
    by: By,
    /// Names under which people reach the console. Empty: those of the loopback, or any where people sign in.
    hosts: Vec<String>,
    /// What tokens of forms are made with: those of another run of the console are none here.
    secret: [u8; 32],
}

enum By {
    /// Whoever reaches the port acts as this one.
    Loopback { name: String },
    /// Who has a token.
    Token { tokens: Tokens, logins: Logins },
}

impl Access {
    /// Whoever reaches the loopback, as `name`.
    pub(crate) fn loopback(name: String) -> Self {
        Self::new(By::Loopback { name }, Vec::new())
    }

    /// Who has one of these tokens, and reaches the console under one of these names, if any are given.
    pub(crate) fn signed_in(tokens: Tokens, hosts: Vec<String>) -> Self {
        let logins = Logins::default();
        Self::new(By::Token { tokens, logins }, hosts)
    }

    fn new(by: By, hosts: Vec<String>) -> Self {
        Self {
            by,
            hosts,
            secret: random(),
        }
    }

    /// Without tokens it stays on the loopback.
    pub(crate) fn check(&self, listen: SocketAddr) -> Result<(), Failure> {
        match &self.by {
            By::Loopback { .. } if !listen.ip().is_loopback() => Err(Failure::new(
                Kind::Usage,
                format!(
                    "{listen} can be reached by others, who would need no token: give --token-file FILE, or listen at 127.0.0.1"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Whether people sign in.
    pub(super) fn signs_in(&self) -> bool {
        matches!(self.by, By::Token { .. })
    }

    /// The cookie of who has this token.
    pub(super) fn sign_in(&self, token: &str) -> Option<String> {
        let By::Token { tokens, logins } = &self.by else {
            return None;
        };
        let (name, role) = tokens.holder(token)?;
        Some(logins.begin(name, role))
    }

    pub(super) fn sign_out(&self, headers: &HeaderMap) {
        if let (By::Token { logins, .. }, Some(cookie)) = (&self.by, cookie(headers, COOKIE_NAME)) {
            logins.end(cookie);
        }
    }

    /// Who sent this, if it is somebody.
    fn who(&self, headers: &HeaderMap) -> Option<Who> {
        match &self.by {
            By::Loopback { name } => Some(self.visitor(name.clone(), Role::Write, "loopback")),
            By::Token { tokens, logins } => {
                if let Some(cookie) = cookie(headers, COOKIE_NAME) {
                    let (name, role) = logins.find(cookie)?;
                    return Some(self.visitor(name, role, cookie));
                }
                let bearer = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
                let (name, role) = tokens.holder(bearer)?;
                Some(self.visitor(name, role, bearer))
            }
        }
    }

    fn visitor(&self, name: String, role: Role, credential: &str) -> Who {
        let form = Sha256::new()
            .chain_update(self.secret)
            .chain_update(credential)
            .finalize();
        Who {
            name,
            role,
            form: hex(&form),
            theme: None,
        }
    }
}

/// Who sent a request.
#[derive(Clone, Debug)]
pub(super) struct Who {
    /// Whom acts are written down under.
    pub(super) name: String,
    role: Role,
    /// What their forms carry, so that no other site can send one for them.
    form: String,
    /// The theme that they have chosen.
    pub(super) theme: Option<&'static str>,
}

impl Who {
    /// Whether their token allows it.
    pub(super) fn may_write(&self) -> bool {
        self.role == Role::Write
    }
}

/// Leave to see.
pub(super) struct Reader {
    pub(super) who: Who,
    /// Whether acts are to be offered.
    pub(super) may_write: bool,
    pub(super) theme: Option<&'static str>,
}

impl FromRequestParts<Arc<Console>> for Reader {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Response> {
        let Some(mut who) = console.access.who(&parts.headers) else {
            return Err(not_signed_in(parts));
        };
        who.theme = ["light", "dark"]
            .into_iter()
            .find(|theme| cookie(&parts.headers, "theme") == Some(theme));
        let may_write = console.write && who.may_write();
        let theme = who.theme;
        Ok(Self { who, may_write, theme })
    }
}

fn not_signed_in(parts: &Parts) -> Response {
    let path = parts.uri.path();
    if path.starts_with("/json/") || path.starts_with("/live/") {
        return (
            StatusCode::UNAUTHORIZED,
            "Sign in first, or send a token as Authorization: Bearer.\n",
        )
            .into_response();
    }
    Redirect::to("/sign-in").into_response()
}

/// Leave to act. The only thing in the console from which a [`bmdb::Operator`] comes.
pub(super) struct Writer {
    pub(super) who: Who,
    console: Arc<Console>,
}

impl FromRequestParts<Arc<Console>> for Writer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Response> {
        let Reader { who, may_write, .. } = Reader::from_request_parts(parts, console).await?;
        if !may_write {
            let text = if console.write {
                format!(
                    "{} may read but not write. Sign in with a token of the role write",
                    who.name
                )
            } else {
                "this console only reads: it was started with --read-only".to_owned()
            };
            return Err(trouble::page(
                console,
                Some(&who),
                &Failure::new(Kind::NotAllowed, text),
            ));
        }
        let console = Arc::clone(console);
        Ok(Self { who, console })
    }
}

impl Writer {
    /// What a form of theirs carries.
    pub(super) fn form_token(&self) -> &str {
        &self.who.form
    }

    /// Somebody who acts, for a reason, by a form that is theirs.
    pub(super) fn operator(&self, form: &str, reason: &str, ticket: Option<&str>) -> Result<bmdb::Operator, Failure> {
        if !bool::from(form.as_bytes().ct_eq(self.who.form.as_bytes())) {
            return Err(Failure::changed(
                "nothing was done: the form is not of this sign-in, or from before the console was started again. Open it once more",
            ));
        }
        if !reason.chars().any(char::is_alphanumeric) {
            return Err(Failure::usage(
                "nothing was done: give a reason. It is kept, and the component sees it",
            ));
        }
        let operator = self.console.source.bmdb.operator(self.who.name.as_str(), reason)?;
        Ok(match ticket.map(str::trim).filter(|ticket| !ticket.is_empty()) {
            Some(ticket) => operator.ticket(ticket)?,
            None => operator,
        })
    }
}

/// The value of a cookie.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers
        .get_all(COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|value| value.split("; "));
    let mut values = pairs.filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    values.next()
}

/// 244 bits that nobody can guess, in 32 bytes.
fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(Uuid::new_v4().as_bytes());
    bytes[16..].copy_from_slice(Uuid::new_v4().as_bytes());
    bytes
}
