//! What holds for every request and every answer: the host it was meant for, where it comes from, and what the browser may do with the answer.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;

use crate::failure::{Failure, Kind};
use crate::serve::access::{Access, By};
use crate::serve::console::Console;
use crate::serve::trouble;

/// No page of the console needs more than this.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'";

const HEADERS: [(&str, &str); 5] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// Refuses what was meant for another host, or was sent by another site.
pub(in crate::serve) async fn guard(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response {
    let refused = match () {
        () if !console.access.knows_host(request.headers()) => Some(
            "nothing was done: this console is not known under that host. Reach it as localhost, or name the host with --public-host",
        ),
        () if *request.method() != Method::GET && !is_own(request.headers()) => {
            Some("nothing was done: another site sent this. Acts are only taken from pages of this console")
        }
        () => None,
    };
    let mut answer = match refused {
        Some(text) => trouble::page(&console, None, &Failure::new(Kind::NotAllowed, text)),
        None => next.run(request).await,
    };
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    answer
}

impl Access {
    /// Whether the request was meant for us: a name that another site has pointed at the loopback is none of ours.
    fn knows_host(&self, headers: &HeaderMap) -> bool {
        let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else {
            return false;
        };
        let name = without_port(host);
        let is_loopback = ["localhost", "127.0.0.1", "[::1]"].contains(&name);
        match &self.by {
            By::Loopback { .. } => is_loopback,
            By::Token { .. } => {
                self.hosts.is_empty() || is_loopback || self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(name))
            }
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

/// Whether a page of ours sent it, or no page did: browsers say where a request comes from, and no site can have them say otherwise.
fn is_own(headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    let site = text(&HeaderName::from_static("sec-fetch-site"));
    let same_host = |origin: &[u8]| {
        let host = text(&HOST).unwrap_or_default();
        [&b"http://"[..], b"https://"]
            .iter()
            .any(|scheme| origin.strip_prefix(*scheme) == Some(host))
    };
    match (site, text(&ORIGIN)) {
        (Some(site), _) => site == b"same-origin" || site == b"none",
        (None, Some(origin)) => same_host(origin),
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_part_of_a_host() {
        let hosts = ["localhost:80", "localhost", "[::1]:8080", "[::1]", "evil:x", ":80"].map(without_port);
        assert_eq!(hosts, ["localhost", "localhost", "[::1]", "[::1]", "evil:x", ":80"]);
    }

    #[test]
    fn another_site_is_told_by_either_header() {
        let says = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            is_own(&pairs.collect())
        };
        assert!(says(&[("host", "a:1"), ("sec-fetch-site", "same-origin")]));
        assert!(says(&[("host", "a:1"), ("origin", "http://a:1")]));
        assert!(says(&[("host", "a:1")]));
        assert!(!says(&[
            ("host", "a:1"),
            ("sec-fetch-site", "same-site"),
            ("origin", "http://a:1")
        ]));
        assert!(!says(&[("host", "a:1"), ("sec-fetch-site", "cross-site")]));
        assert!(!says(&[("host", "a:1"), ("origin", "http://b:1")]));
        assert!(!says(&[("host", "a:1"), ("origin", "null")]));
    }
}
