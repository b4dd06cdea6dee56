//! The place of `http` in a build without the feature `server`: no repository is served over the
//! network.
//!
//! The server has no values, so what would use one is compiled and never runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::model::name::TeamName;
use crate::ops::repository::Repository;
use crate::registry::LastChange;

/// The files of a certificate.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate and those of the authorities between, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// The options of a server.
pub struct HttpOptions {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The certificate; `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// True if plain HTTP is allowed on an address that others reach.
    pub insecure_http: bool,
    /// True if each request is logged.
    pub access_log: bool,
    /// The address on which the numbers of the server are served.
    pub metrics: Option<SocketAddr>,
    /// True if clients get no URLs of the bucket, so that all bytes go through the server.
    pub proxy_bytes: bool,
}

/// A repository to be served.
pub(crate) struct Team {
    pub(crate) name: TeamName,
    pub(crate) repository: Arc<Repository>,
    pub(crate) changed: watch::Receiver<LastChange>,
    pub(crate) nudge: Box<dyn Fn() + Send + Sync>,
}

/// A running server: there is none.
pub(crate) enum HttpServer {}

impl HttpServer {
    pub(crate) fn start(options: &HttpOptions, teams: Vec<Team>) -> Result<Self> {
        let HttpOptions { listen, tls, insecure_http, access_log, metrics, proxy_bytes } = options;
        tracing::debug!(
            insecure_http,
            access_log,
            ?metrics,
            proxy_bytes,
            "options that are of no use"
        );
        let keys = tls.as_ref().map(|TlsFiles { certificate, key }| (certificate, key));
        for Team { name, repository, changed, nudge } in teams {
            tracing::debug!(%name, root = ?repository.layout.root, "not served: {:?}", changed);
            nudge();
        }
        Err(Error::left_out(&format!("{listen} cannot be served ({keys:?})"), "server"))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match *self {}
    }

    pub(crate) fn reload_if_changed(&self) {
        match *self {}
    }

    pub(crate) fn drain(self, _: Duration) {
        match self {}
    }
}
