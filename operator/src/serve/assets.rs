//! The style sheet and the script. Their addresses change with their text, so that browsers may keep them.

use std::sync::LazyLock;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

/// A file that the console carries.
pub(super) struct Asset {
    text: &'static str,
    kind: &'static str,
    /// Where it is.
    pub(super) path: String,
}

pub(super) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new(include_str!("assets/console.css"), "text/css; charset=utf-8", "css"));
pub(super) static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        include_str!("assets/console.js"),
        "text/javascript; charset=utf-8",
        "js",
    )
});
pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new(include_str!("assets/icon.svg"), "image/svg+xml", "svg"));

impl Asset {
    fn new(text: &'static str, kind: &'static str, ending: &str) -> Self {
        let digest = hex(&Sha256::digest(text));
        let path = format!("/assets/{}.{ending}", &digest[..16]);
        Self { text, kind, path }
    }

    fn answer(&self) -> Response {
        let headers = [
            (CONTENT_TYPE, self.kind),
            (CACHE_CONTROL, "public, max-age=31536000, immutable"),
        ];
        (headers, self.text).into_response()
    }
}

/// The file of this address, if it is one of this version.
pub(super) fn find(path: &str) -> Option<Response> {
    [&STYLE, &SCRIPT, &ICON]
        .into_iter()
        .find(|asset| asset.path == path)
        .map(|asset| asset.answer())
}

/// Bytes as people write them.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
