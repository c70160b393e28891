//! What all requests share.

use bmdb::CancellationToken;

use crate::metrics::Exporter;
use crate::serve::Settings;
use crate::serve::access::Access;
use crate::serve::counts::Cache;
use crate::serve::live::Hub;
use crate::serve::results::Results;
use crate::source::Source;

/// One console on one database.
pub(super) struct Console {
    pub(super) source: Source,
    pub(super) access: Access,
    /// Whether anything can be written at all.
    pub(super) write: bool,
    /// Whether this console runs a collector.
    pub(super) collect: bool,
    /// Hosts of which an https address becomes a link.
    pub(super) portals: Vec<String>,
    /// What a monitoring system is told.
    pub(super) metrics: Option<Exporter>,
    /// What is too much to be read for each request.
    pub(super) counts: Cache,
    /// The pages that somebody looks at.
    pub(super) live: Hub,
    /// What acts have answered.
    pub(super) results: Results,
    /// Streams end.
    pub(super) stop: CancellationToken,
}

impl Console {
    pub(super) fn new(settings: Settings) -> Self {
        let Settings {
            bmdb,
            reader,
            listen: _,
            access,
            write,
            collect,
            portals,
            metrics,
        } = settings;
        Self {
            source: Source { bmdb, reader },
            access,
            write,
            collect,
            portals,
            metrics,
            counts: Cache::default(),
            live: Hub::default(),
            results: Results::default(),
            stop: CancellationToken::new(),
        }
    }
}
