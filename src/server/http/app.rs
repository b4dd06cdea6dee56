//! The served repositories. Before a request reaches one, its key is looked up, and it is refused if
//! there is no room for it.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::middleware::Next;
use axum::response::IntoResponse;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use lru::LruCache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_blocking;

use super::TlsFiles;
use super::access_cache::{AccessCache, BELIEVED};
use super::counters::{CallName, Counters, route_of};
use crate::error::{Error, Kind, Result};
use crate::model::access::Principal;
use crate::model::api_key::ApiKey;
use crate::model::digest::Digest;
use crate::model::name::{TeamName, UserName};
use crate::model::object::PackId;
use crate::ops::repository::Repository;
use crate::registry::{Changes, LastChange};
use crate::server::status;

/// The number of keys that are remembered.
const KEYS: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is above 0");
/// The number of replies to waits for changes that are kept.
const CHANGES: NonZeroUsize = NonZeroUsize::new(64).expect("it is above 0");
/// The number of requests that are worked on or wait for a thread; more get 503. Requests that wait
/// for a change do not count.
const REQUESTS: usize = 512;
/// The bytes of bodies that are in memory at once, in KiB: 1 GiB.
const BODIES_KIB: usize = 1 << 20;
/// The time in which the body of a request must arrive.
const BODY_TIME: Duration = Duration::from_secs(60);
/// The number of keys that are looked up at once.
const LOOK_UPS: usize = 16;
/// The time that a request waits for the look-up of its key.
const LOOK_UP_TIME: Duration = Duration::from_secs(10);
/// The requests of one user in a second on average, and at once.
const RATE: NonZeroU32 = NonZeroU32::new(5_000).expect("it is above 0");
const BURST: NonZeroU32 = NonZeroU32::new(20_000).expect("it is above 0");
/// The number of users above which the limiter forgets idle ones.
const LIMITED_USERS: usize = 10_000;

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
    /// Its name in URLs.
    pub(crate) name: TeamName,
    /// The repository.
    pub(crate) repository: Arc<Repository>,
    /// The newest entry of its change log.
    pub(crate) changed: watch::Receiver<LastChange>,
    /// Has dead bytes freed soon.
    pub(crate) nudge: Box<dyn Fn() + Send + Sync>,
}

/// A served repository.
pub(super) struct Served {
    pub(super) team: Team,
    believed: Mutex<LruCache<Digest, (Instant, Option<Principal>)>>,
    /// Bounds the look-ups of keys, which requests without a right may cause.
    look_ups: Semaphore,
    /// The packs that are being received.
    pub(super) receiving: Mutex<HashSet<PackId>>,
    /// Changes to reply with, by the newest change that a client knows and the newest that
    /// there is. Thousands of clients ask for the same at once.
    pub(super) changes: tokio::sync::Mutex<LruCache<(u64, u64), Arc<Changes>>>,
    /// The rows that decide the rights of users.
    pub(super) access_cache: AccessCache,
    /// The time at which the store's credentials could not sign a URL.
    pub(super) signing_failed: Mutex<Option<Instant>>,
}

/// The state of the server.
pub(super) struct App {
    teams: BTreeMap<TeamName, Arc<Served>>,
    pub(super) draining: AtomicBool,
    /// Ends waits for changes.
    ending: watch::Sender<bool>,
    permits: Arc<Semaphore>,
    /// The room for the bodies of requests, in KiB.
    bodies: Arc<Semaphore>,
    limiter: DefaultKeyedRateLimiter<UserName>,
    access_log: bool,
    pub(super) counters: Counters,
    pub(super) proxy_bytes: bool,
}

/// A reply before any service: a refusal in one line of text.
#[derive(Debug)]
pub(super) struct Refusal(Box<Response<Body>>);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        *self.0
    }
}

/// Returns a reply of one line.
pub(super) fn refuse(status: StatusCode, words: &str) -> Refusal {
    let mut response = Response::new(Body::from(format!("{words}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    Refusal(Box::new(response))
}

/// Returns the reply for an error outside of the calls' protocol.
pub(super) fn refuse_error(error: &Error) -> Refusal {
    let status = StatusCode::from_u16(status::of(error.kind()));
    refuse(status.expect("the table holds statuses"), &error.message())
}

impl App {
    pub(super) fn new(teams: Vec<Team>, options: &HttpOptions) -> Self {
        let served = teams.into_iter().map(|team| {
            let (name, believed) = (team.name.clone(), Mutex::new(LruCache::new(KEYS)));
            let (receiving, signing_failed) = (Mutex::default(), Mutex::default());
            let look_ups = Semaphore::new(LOOK_UPS);
            let changes = tokio::sync::Mutex::new(LruCache::new(CHANGES));
            let access_cache = AccessCache::default();
            let served = Served {
                team,
                believed,
                look_ups,
                receiving,
                changes,
                access_cache,
                signing_failed,
            };
            (name, Arc::new(served))
        });
        Self {
            teams: served.collect(),
            draining: AtomicBool::new(false),
            ending: watch::Sender::new(false),
            permits: Arc::new(Semaphore::new(REQUESTS)),
            bodies: Arc::new(Semaphore::new(BODIES_KIB)),
            limiter: RateLimiter::keyed(Quota::per_second(RATE).allow_burst(BURST)),
            access_log: options.access_log,
            counters: Counters::default(),
            proxy_bytes: options.proxy_bytes,
        }
    }

    pub(super) fn teams(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.teams.values()
    }

    /// Ends all waits for changes, because the server ends.
    pub(super) fn end_waits(&self) {
        self.ending.send_replace(true);
    }

    /// Returns a signal of the server's end.
    pub(super) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// Returns the repository of a request, and the user that makes the request.
    ///
    /// # Errors
    /// 401 without an accepted key, and for a team that is not there; 429 above the user's rate; 503
    /// if the registry does not reply.
    pub(super) async fn enter(
        &self,
        team: &str,
        headers: &HeaderMap,
        from: SocketAddr,
    ) -> Result<(Arc<Served>, Principal), Refusal> {
        let digest = key_of(headers)?.digest();
        let served = team.parse::<TeamName>().ok().and_then(|team| self.teams.get(&team));
        // A team that is not there takes as long as a key that is not.
        let asked = served.or_else(|| self.teams.values().next());
        let principal = match asked {
            Some(asked) => asked.authenticate(digest).await?,
            None => None,
        };
        let (Some(served), Some(principal)) = (served, principal) else {
            tracing::info!(target: "audit", team, %from, outcome = "Denied", "key");
            return Err(refuse(StatusCode::UNAUTHORIZED, "the key is not accepted"));
        };
        if self.limiter.check_key(&principal.user).is_err() {
            return Err(refuse(StatusCode::TOO_MANY_REQUESTS, "too many requests"));
        }
        if self.limiter.len() > LIMITED_USERS {
            self.limiter.retain_recent();
        }
        Ok((Arc::clone(served), principal))
    }

    /// Takes room for a request that needs a thread.
    ///
    /// # Errors
    /// 503 if there is none.
    pub(super) fn admit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        permit.map_err(|_| refuse(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once"))
    }

    /// Reads the body of a request, whose length the headers must say.
    ///
    /// # Errors
    /// 411 without a length; 413 above `most` bytes; 503 if there is no room; 408 if it does not
    /// arrive in time.
    pub(super) async fn body(
        &self,
        headers: &HeaderMap,
        body: Body,
        most: usize,
    ) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
        let length =
            headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let length: usize =
            length.ok_or_else(|| refuse(StatusCode::LENGTH_REQUIRED, "the length is missing"))?;
        if length > most {
            return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, "the request is too long"));
        }
        let room = u32::try_from(length.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.bodies).try_acquire_many_owned(room);
        let room =
            room.map_err(|_| refuse(StatusCode::SERVICE_UNAVAILABLE, "too many bytes at once"))?;
        match tokio::time::timeout(BODY_TIME, to_bytes(body, most)).await {
            Ok(Ok(bytes)) => Ok((bytes, room)),
            _ => Err(refuse(StatusCode::REQUEST_TIMEOUT, "the request is incomplete")),
        }
    }

    /// Returns whether the server goes on, and all registries reply.
    pub(super) async fn is_ready(&self) -> bool {
        if self.draining.load(Ordering::SeqCst) {
            return false;
        }
        // A look-up of a key is bounded, and its result is remembered for a moment.
        let no_key = Digest::from_bytes([0; 32]);
        for served in self.teams.values() {
            if served.authenticate(no_key).await.is_err() {
                return false;
            }
        }
        true
    }
}

impl Served {
    /// Returns the user of a key; `None` if the key is not accepted.
    ///
    /// # Errors
    /// 503 if the registry does not reply.
    pub(super) async fn authenticate(
        self: &Arc<Self>,
        digest: Digest,
    ) -> Result<Option<Principal>, Refusal> {
        let known = self.lock().get(&digest).cloned();
        if let Some((_, principal)) = known.filter(|(since, _)| since.elapsed() < BELIEVED) {
            return Ok(principal);
        }
        let turn = tokio::time::timeout(LOOK_UP_TIME, self.look_ups.acquire()).await;
        let _turn =
            turn.map_err(|_| refuse(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once"))?;
        let served = Arc::clone(self);
        let asked = move || served.team.repository.registry.authenticate(digest);
        let found = match spawn_blocking(asked).await {
            Ok(found) => found.map_err(|e| refuse_error(&e))?,
            Err(_) => return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "the server ends")),
        };
        self.lock().put(digest, (Instant::now(), found.clone()));
        Ok(found)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<Digest, (Instant, Option<Principal>)>> {
        self.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the key in the headers of a request.
///
/// # Errors
/// 401 if there is none.
pub(super) fn key_of(headers: &HeaderMap) -> Result<ApiKey, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    // Two of them could be read in two ways, by a proxy and here.
    let (value, None) = (values.next(), values.next()) else {
        return Err(refuse(StatusCode::BAD_REQUEST, "the request has two keys"));
    };
    let text = value.and_then(|value| value.to_str().ok());
    let key = text.and_then(|text| text.strip_prefix("Bearer ")).map(|key| key.trim().parse());
    match key {
        Some(Ok(key)) => Ok(key),
        _ => Err(refuse(StatusCode::UNAUTHORIZED, "a key is needed: Authorization: Bearer af-…")),
    }
}

/// Writes the line of a change, or of a refusal, in the audit log.
pub(super) fn audit(
    team: &TeamName,
    user: &UserName,
    from: SocketAddr,
    call: &str,
    what: &str,
    failed: Option<Kind>,
) {
    let outcome = failed.map_or_else(|| "done".to_owned(), |kind| format!("{kind:?}"));
    tracing::info!(target: "audit", %team, %user, %from, call, what, outcome, "call");
}

/// Counts a request and its reply, and logs them if that is requested.
pub(super) async fn observe(
    State(app): State<Arc<App>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (route, since, under_way) = (route_of(&request), Instant::now(), app.counters.begin());
    let response = next.run(request).await;
    drop(under_way);
    let (status, took) = (response.status(), since.elapsed());
    let call = response.extensions().get::<CallName>().copied();
    app.counters.end(call, route, status, took);
    if app.access_log {
        let (status, took_ms) = (status.as_u16(), took.as_millis());
        let call = call.map(|call| call.0);
        tracing::info!(target: "access", %from, %method, path, call, status, took_ms, "request");
    }
    response
}
