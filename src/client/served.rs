//! A repository on a server, over HTTPS.

use std::error::Error as StdError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Limited};
use hyper::body::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use super::wire::{ANSWER_MAX_BYTES, CALL_DEADLINE, Failure, runtime};
use crate::error::{AccessHint, Error, Kind, Result};
use crate::model::api_key::ApiKey;
use crate::model::server_url::{ServerUrl, TeamUrl};
use crate::protocol::served::{Cleaned, Janitor, JanitorCall, REPOSITORY_HEADER, Whoami};
use crate::protocol::{self, Service};
use crate::registry::{Call, NamesCall, Transport, guard};

/// The longest duration of an attempt to connect.
const CONNECT_DEADLINE: Duration = Duration::from_secs(4);
/// The time in which the reply to a look-up must begin.
const LOOK_UP_DEADLINE: Duration = Duration::from_secs(10);
/// The time from the beginning of an outage for which look-ups try the server again: it may be
/// starting. After that each tries once.
const READ_PATIENCE: Duration = Duration::from_secs(10);
/// The same time for calls that change something.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The time for which an idle connection is kept.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// The maximum number of idle connections.
const IDLE_CONNECTIONS: usize = 16;
/// The maximum length of a text that is shown of a reply that is not ours.
const WORDS_MAX: usize = 200;

/// A repository on a server, seen through one key.
pub struct ServedClient {
    url: TeamUrl,
    http: reqwest::Client,
    runtime: Arc<Runtime>,
    /// The time since which no call got a reply; `None` if the last one did.
    silent_since: Mutex<Option<Instant>>,
}

impl ServedClient {
    /// Returns a client of the repository with this id; `None`: of whichever is there. It makes no
    /// request yet.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if TLS cannot be set up.
    pub fn new(url: &TeamUrl, key: &ApiKey, id: Option<&str>) -> Result<Self> {
        let http = connector(key, id)?;
        let (url, runtime) = (url.clone(), runtime()?);
        Ok(Self { url, http, runtime, silent_since: Mutex::new(None) })
    }

    /// Makes a call to a service and returns the value of its reply.
    ///
    /// # Errors
    /// The server's error; [`Kind::Denied`] if it does not accept the key; [`Kind::Unavailable`]
    /// and [`Kind::TimedOut`] if it does not reply.
    pub fn ask<C: Serialize, V: DeserializeOwned>(&self, service: Service, call: &C) -> Result<V> {
        let request = Bytes::from(protocol::encode_request(service, call)?);
        protocol::decode_value(&self.send(&request, CALL_DEADLINE, READ_PATIENCE)?)
    }

    /// Sends a request until there is a reply, or the caller's patience is over.
    fn send(&self, request: &Bytes, limit: Duration, patience: Duration) -> Result<Vec<u8>> {
        let deadline = Instant::now() + patience;
        let (mut pause, longest) = PAUSES;
        loop {
            let done = self.runtime.block_on(self.exchange(request.clone(), limit));
            match done {
                Err(Failure::Silence(e)) if Instant::now() + pause < deadline => {
                    self.note(true);
                    tracing::debug!("asking {} again: {e}", self.url);
                }
                done => {
                    self.note(matches!(done, Err(Failure::Silence(_))));
                    return Ok(done?);
                }
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
    }

    async fn exchange(&self, request: Bytes, limit: Duration) -> Result<Vec<u8>, Failure> {
        let server = &self.url.server;
        let sent = self.http.post(format!("{}/rpc", self.url.api())).body(request).send();
        let response = tokio::time::timeout(limit, sent).await.map_err(|_| timed_out(server))?;
        let response = response.map_err(|e| lost(server, e))?;
        let (status, body) = (response.status(), body(server, response));
        let body = tokio::time::timeout(CALL_DEADLINE, body).await;
        let body = body.map_err(|_| timed_out(server))??;
        if let Some(failure) = refusal(server, &self.url.to_string(), status, &body) {
            return Err(failure);
        }
        protocol::decode_answer(&body).map(<[u8]>::to_vec).map_err(Failure::Answer)
    }

    /// Notes whether a call got no reply.
    fn note(&self, silent: bool) {
        let mut since = self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = silent.then(|| since.unwrap_or_else(Instant::now));
    }

    /// Returns the time for which a look-up still tries a server that does not reply.
    fn patience(&self) -> Duration {
        let since = *self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        READ_PATIENCE.saturating_sub(since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    /// Returns the time in which the reply to a call must begin, and the time for which a server
    /// that does not reply is tried.
    fn deadlines(&self, call: &Call) -> (Duration, Duration) {
        if let Call::Names(NamesCall::ChangesAfter { wait_milliseconds, .. }) = call {
            return (Duration::from_millis(*wait_milliseconds) + LOOK_UP_DEADLINE, Duration::ZERO);
        }
        match guard::only_reads(call) {
            true => (LOOK_UP_DEADLINE, self.patience()),
            false => (CALL_DEADLINE, WRITE_PATIENCE),
        }
    }
}

/// Returns an HTTP client that sends a key, and the id of a repository, with each request.
fn connector(key: &ApiKey, id: Option<&str>) -> Result<reqwest::Client> {
    // Another provider may have been chosen already; either serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut header = HeaderValue::from_str(&key.authorization())
        .map_err(|e| Error::new(Kind::Usage, "that is not a key").because(e))?;
    header.set_sensitive(true);
    let id = id
        .map(HeaderValue::from_str)
        .transpose()
        .map_err(|e| Error::new(Kind::Corrupt, "the id of the repository is damaged").because(e))?;
    let id = id.map(|id| (HeaderName::from_static(REPOSITORY_HEADER), id));
    reqwest::Client::builder()
        .default_headers(HeaderMap::from_iter(id.into_iter().chain([(AUTHORIZATION, header)])))
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_DEADLINE)
        .pool_idle_timeout(IDLE_TIME)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .tcp_nodelay(true)
        .user_agent(concat!("artifactfs/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| Error::new(Kind::Unavailable, "TLS cannot be set up").because(e))
}

/// Asks a server whose key this is.
///
/// # Errors
/// [`Kind::Denied`] if the server does not accept it, [`Kind::Unavailable`] if it does not reply,
/// [`Kind::Unsupported`] if it is no server of artifactfs.
pub fn whoami(server: &ServerUrl, key: &ApiKey) -> Result<Whoami> {
    let http = connector(key, None)?;
    let asked = async {
        let sent = http.get(format!("{server}/api/v1/whoami")).send();
        let response = sent.await.map_err(|e| lost(server, e))?;
        let (status, body) = (response.status(), body(server, response).await?);
        match refusal(server, &server.to_string(), status, &body) {
            Some(failure) => Err(failure),
            None => Ok(body),
        }
    };
    let asked = runtime()?.block_on(async { tokio::time::timeout(LOOK_UP_DEADLINE, asked).await });
    let body = asked.unwrap_or_else(|_| Err(timed_out(server)))?;
    serde_json::from_slice(&body).map_err(|e| {
        Error::new(Kind::Unsupported, format!("{server} is not a server of artifactfs"))
            .because(e)
            .hint(NO_SERVER)
    })
}

/// The advice about a reply that is not ours.
const NO_SERVER: &str = "is it the address of an artifactfs server? write https://HOST/TEAM";

fn timed_out(server: &ServerUrl) -> Failure {
    Failure::Silence(Error::new(Kind::TimedOut, format!("no reply from {server} in time")))
}

async fn body(server: &ServerUrl, response: Response) -> Result<Bytes, Failure> {
    let body = Limited::new(Body::from(response), ANSWER_MAX_BYTES);
    let body = body.collect().await.map_err(|e| {
        let what = format!("the reply of {server} is incomplete: {e}");
        Failure::Silence(Error::new(Kind::Unavailable, what))
    })?;
    Ok(body.to_bytes())
}

/// Returns the failure of a reply by its status, if the reply is not one of our protocol, or comes
/// before any service. `asked` is what the key was for.
fn refusal(server: &ServerUrl, asked: &str, status: StatusCode, body: &[u8]) -> Option<Failure> {
    if status == StatusCode::UNAUTHORIZED {
        let what = format!("{asked} does not accept the key");
        let hint = AccessHint::SignIn(server.to_string());
        return Some(Failure::Answer(Error::new(Kind::Denied, what).hint(hint)));
    }
    if status.is_success() || protocol::has_head(body) {
        return None;
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(WORDS_MAX)]);
    let words = text.lines().next().unwrap_or_default();
    let what = format!("{server} replied {}: {words}", status.as_u16());
    let passing = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    Some(match passing.contains(&status) {
        true => Failure::Silence(Error::new(Kind::Unavailable, what)),
        false => Failure::Answer(Error::new(Kind::Unsupported, what).hint(NO_SERVER)),
    })
}

fn lost(server: &ServerUrl, error: reqwest::Error) -> Failure {
    if is_untrusted(&error) {
        let what = format!("the certificate of {server} is not trusted");
        let hint = "name a file with the certificate of its authority in SSL_CERT_FILE";
        return Failure::Answer(Error::new(Kind::Denied, what).because(error).hint(hint));
    }
    let what = format!("cannot reach {server}");
    Failure::Silence(Error::new(Kind::Unavailable, what).because(error))
}

/// Returns whether a connection failed because the server's certificate is not trusted.
fn is_untrusted(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if error.to_string().contains("invalid peer certificate") {
            return true;
        }
        next = error.source();
    }
    false
}

impl Transport for ServedClient {
    /// Makes a call; repeats it if no reply comes. So every call may run twice: a repeated commit
    /// returns its first result.
    fn call(&self, call: Call) -> Result<Vec<u8>> {
        let (limit, patience) = self.deadlines(&call);
        let request = Bytes::from(protocol::encode_request(Service::Registry, &call)?);
        self.send(&request, limit, patience)
    }
}

impl Janitor for ServedClient {
    fn clean(&self, call: JanitorCall) -> Result<Cleaned> {
        self.ask(Service::Janitor, &call)
    }
}
