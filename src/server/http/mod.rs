//! HTTP on the network: repositories for users with keys.
//!
//! It holds routes, keys, bounds and the shutdown of the server. What a request may do is decided
//! by `model::access` and `registry::guard`. Invariant: no request is served before its key was
//! accepted, and a name that is not there gets the same reply as a wrong key.

mod access_cache;
mod app;
mod counters;
mod range;
mod rest;
mod rights;
mod rpc;
mod store;
mod tls;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::{any, get, post};
use axum_server::Handle;
use hyper_util::rt::TokioTimer;
use tokio::runtime::Runtime;

use app::App;
pub use app::HttpOptions;
pub(crate) use app::Team;
use tls::Tls;
pub use tls::TlsFiles;

use crate::error::{AccessHint, Error, Kind, Result};
use crate::server::metrics;

/// The number of threads that may wait for a disk, a database or a store at once.
const BLOCKING_THREADS: usize = 128;
/// The time in which the first request of a connection, and then each further one, must begin and
/// its headers arrive: longer than clients keep a connection that they do not use.
const FIRST_REQUEST_TIME: Duration = Duration::from_secs(10);
const HEADERS_TIME: Duration = Duration::from_secs(75);
/// The room for the headers of a request.
const HEADERS_MAX_BYTES: usize = 32 << 10;
/// The maximum number of headers of a request.
const HEADERS_MAX: usize = 64;
/// The time that the runtime gets to end once its requests have ended.
const END_DEADLINE: Duration = Duration::from_secs(5);
/// The time in which registries must reply for the server to be ready.
const READY_TIME: Duration = Duration::from_secs(2);
/// The interval between two looks whether all requests have their replies.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A running server.
pub(crate) struct HttpServer {
    address: SocketAddr,
    handle: Handle<SocketAddr>,
    app: Arc<App>,
    tls: Option<Tls>,
    runtime: Runtime,
}

impl HttpServer {
    /// Listens, and serves `teams` from now on.
    ///
    /// # Errors
    /// [`Kind::Usage`] for plain HTTP on an address that others reach, and for certificates that
    /// cannot be used; errors of the host.
    pub(crate) fn start(options: &HttpOptions, teams: Vec<Team>) -> Result<Self> {
        refuse_plain(options)?;
        let tls = options.tls.clone().map(Tls::open).transpose()?;
        let cannot = |e| {
            Error::io(format!("cannot listen on {}", options.listen), e)
                .hint(AccessHint::ListenElsewhere)
        };
        let listener = TcpListener::bind(options.listen).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("serve")
            .enable_all()
            .build()
            .map_err(|e| Error::io("cannot start the server's threads", e))?;
        let app = Arc::new(App::new(teams, options));
        if let Some(address) = options.metrics {
            let app = Arc::clone(&app);
            metrics::serve(address, move || metrics::text_of(app.counters.registry()))?;
        }
        let service = router(&app).into_make_service_with_connect_info::<SocketAddr>();
        let handle = Handle::new();
        let entered = runtime.enter();
        macro_rules! serve {
            ($server:expr) => {{
                let mut server = $server.map_err(cannot)?.handle(handle.clone());
                let mut http = server.http_builder().http1();
                http.timer(TokioTimer::new()).header_read_timeout(HEADERS_TIME);
                http.max_buf_size(HEADERS_MAX_BYTES).max_headers(HEADERS_MAX);
                let server = server.http1_only().first_request_timeout(FIRST_REQUEST_TIME);
                runtime.spawn(async move {
                    if let Err(e) = server.serve(service).await {
                        tracing::error!("the server ended: {e}");
                    }
                });
            }};
        }
        match &tls {
            Some(tls) => serve!(axum_server::from_tcp_rustls(listener, tls.config())),
            None => serve!(axum_server::from_tcp(listener)),
        }
        drop(entered);
        Ok(Self { address, handle, app, tls, runtime })
    }

    /// Returns the address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads the certificate again if its files have changed. Connections that exist keep the old
    /// one, and so does the server if the new one cannot be used.
    pub(crate) fn reload_if_changed(&self) {
        if let Some(tls) = &self.tls {
            tls.reload_if_changed();
        }
    }

    /// Reports that it is not ready any more, waits for requests under way, and ends.
    pub(crate) fn drain(self, patience: Duration) {
        self.app.draining.store(true, Ordering::SeqCst);
        self.app.end_waits();
        self.handle.graceful_shutdown(Some(patience));
        let deadline = Instant::now() + patience;
        while self.handle.connection_count() > 0 && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
        self.runtime.shutdown_timeout(END_DEADLINE);
    }
}

/// Refuses to send keys in clear over a network, unless that is requested.
fn refuse_plain(options: &HttpOptions) -> Result<()> {
    if options.tls.is_some() || options.insecure_http || options.listen.ip().is_loopback() {
        return Ok(());
    }
    let what =
        format!("{} is reached by others, who could read keys in plain HTTP", options.listen);
    Err(Error::new(Kind::Usage, what).hint(AccessHint::Encrypt))
}

fn router(app: &Arc<App>) -> Router {
    let team = Router::new()
        .route("/rpc", post(rpc::rpc))
        .route("/store/grants", post(store::grants))
        .route("/store/packs/{shard}/{name}", any(store::object))
        .merge(rest::routes());
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/api/v1/openapi.json", get(rest::openapi))
        .route("/api/v1/whoami", get(rpc::whoami))
        .nest("/api/v1/{team}", team)
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is nothing here\n") })
        .layer(middleware::from_fn_with_state(Arc::clone(app), app::observe))
        .with_state(Arc::clone(app))
}

/// Reports whether requests can be served: the server does not end, and all registries reply soon.
async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    match tokio::time::timeout(READY_TIME, app.is_ready()).await {
        Ok(true) => (StatusCode::OK, "ready\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    }
}
