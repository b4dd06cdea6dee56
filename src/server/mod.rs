//! FACE 2, HTTP: the registry and the drafts for other processes.
//!
//! It holds routes, statuses and the shutdown of a server. It does not depend on the kernel.
//! Invariant: every request that was accepted gets its reply before the server ends, unless that
//! takes longer than a deadline.

#[cfg(feature = "server")]
mod http;
#[cfg(not(feature = "server"))]
#[path = "http_absent.rs"]
mod http;
#[cfg(feature = "server")]
mod metrics;
#[cfg(not(feature = "server"))]
#[path = "metrics_absent.rs"]
mod metrics;
mod reply;
mod status;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::Response;
use axum::routing::post;
pub use http::{HttpOptions, TlsFiles};
pub(crate) use http::{HttpServer, Team};
pub(crate) use metrics::serve_metrics;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::error::{Error, IoContext, Result};
use crate::ops::repository::Repository;
use crate::ops::stats::stats;
use crate::protocol::drafts::DraftHandler;
use crate::protocol::socket::SocketPath;
use crate::protocol::{RPC_PATH, Service, decode_call, decode_request, encode_value};
use crate::registry::{Call, LastChange, NamesCall, Registry, dispatch};
use reply::{Active, answer, not_here, respond, wait_for_change};

/// The maximum length of a request: a batch of new objects is far shorter.
const REQUEST_MAX_BYTES: usize = 256 << 20;
/// The time that a server that ends waits for requests under way.
const DRAIN_DEADLINE: Duration = Duration::from_secs(60);
/// The time that it then waits for its threads.
const END_DEADLINE: Duration = Duration::from_secs(5);
/// The maximum number of requests that run at once. A request that waits for a change does not
/// count.
const BLOCKING_THREADS: usize = 64;

/// The services of a server; one that is `None` is not offered.
#[derive(Clone, Default)]
pub(crate) struct Services {
    /// The registry.
    pub(crate) registry: Option<Arc<dyn Registry>>,
    /// The newest entry of the registry's change log.
    pub(crate) changed: Option<watch::Receiver<LastChange>>,
    /// The drafts.
    pub(crate) drafts: Option<Arc<dyn DraftHandler>>,
    /// The repository whose statistics are served.
    pub(crate) stats: Option<Arc<Repository>>,
}

#[derive(Clone)]
struct Shared {
    services: Services,
    /// The number of requests that must get their replies before the server ends.
    active: Arc<AtomicUsize>,
}

/// A running server; dropping it ends it.
pub(crate) struct Server {
    socket: PathBuf,
    runtime: Option<Runtime>,
    active: Arc<AtomicUsize>,
}

impl Server {
    /// Starts a server on a Unix socket that only this user may use. The caller holds a lock that
    /// excludes other servers on it: an existing socket belongs to a dead process and is removed.
    ///
    /// # Errors
    /// Fails if the socket cannot be made.
    pub(crate) fn start(socket: &Path, services: Services) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("server")
            .enable_all()
            .build()
            .map_err(|e| Error::io("cannot start the server's threads", e))?;
        match fs::remove_file(socket) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).at("remove", socket);
            }
            _ => {}
        }
        let listener = {
            let _entered = runtime.enter();
            let listen = SocketPath::of(socket).and_then(|short| UnixListener::bind(short.path()));
            listen.at("listen on", socket)?
        };
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(socket, private).at("protect", socket)?;
        let active = Arc::new(AtomicUsize::new(0));
        let served = services.stats.clone().map(metrics::router).unwrap_or_default();
        let shared = Shared { services, active: Arc::clone(&active) };
        let router = Router::new()
            .route(RPC_PATH, post(rpc))
            .layer(DefaultBodyLimit::max(REQUEST_MAX_BYTES))
            .with_state(shared)
            .merge(served);
        runtime.spawn(async move {
            if let Err(e) = axum::serve(listener, router).await {
                tracing::error!("the server ended: {e}");
            }
        });
        Ok(Self { socket: socket.to_owned(), runtime: Some(runtime), active })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // New clients no longer find it; the requests under way get their replies.
        if let Err(e) = fs::remove_file(&self.socket) {
            tracing::debug!("cannot remove {}: {e}", self.socket.display());
        }
        let deadline = Instant::now() + DRAIN_DEADLINE;
        while self.active.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if let Some(runtime) = self.runtime.take() {
            // The last owner may be a task of another runtime, and tokio panics if a runtime is
            // dropped there.
            let ending = std::thread::spawn(move || runtime.shutdown_timeout(END_DEADLINE));
            if ending.join().is_err() {
                tracing::error!("the server on {} did not shut down", self.socket.display());
            }
        }
    }
}

/// Handles a request to any service.
async fn rpc(State(shared): State<Shared>, body: Bytes) -> Response<Body> {
    let (service, call) = match decode_request(&body) {
        Ok((service, call)) => (service, body.slice_ref(call)),
        Err(e) => return respond(&Err(e), None),
    };
    match service {
        Service::Registry => match decode_call(&call) {
            Ok(call) => registry(shared, call).await,
            Err(e) => respond(&Err(e), None),
        },
        Service::Drafts => {
            let active = Active::begin(&shared.active);
            answer(move || (drafts(shared.services.drafts, &call), Some(active))).await
        }
        Service::Stats => {
            answer(move || (encode_stats(shared.services.stats.as_deref()), None)).await
        }
        Service::Session | Service::Janitor => respond(&Err(not_here()), None),
    }
}

async fn registry(shared: Shared, mut call: Call) -> Response<Body> {
    // A shutdown may interrupt a wait for a change; it lets any other request finish.
    let mut active = None;
    match &mut call {
        Call::Names(NamesCall::ChangesAfter { after, wait_milliseconds }) => {
            if let Some(changed) = shared.services.changed {
                wait_for_change(changed, *after, std::mem::take(wait_milliseconds)).await;
            }
        }
        _ => active = Some(Active::begin(&shared.active)),
    }
    answer(move || {
        let registry = shared.services.registry.ok_or_else(not_here);
        (registry.and_then(|registry| dispatch(&*registry, call)), active)
    })
    .await
}

fn drafts(drafts: Option<Arc<dyn DraftHandler>>, call: &[u8]) -> Result<Vec<u8>> {
    let drafts = drafts.ok_or_else(not_here)?;
    encode_value(&drafts.call(decode_call(call)?)?)
}

fn encode_stats(repository: Option<&Repository>) -> Result<Vec<u8>> {
    encode_value(&stats(repository.ok_or_else(not_here)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_may_be_the_last_to_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let server = Server::start(&socket, Services::default()).unwrap();
        let tasks = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tasks.block_on(async move { drop(server) });
        assert!(!socket.exists());
    }
}
