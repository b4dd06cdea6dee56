//! A registry seen through HTTP on a Unix socket.
//!
//! Knows how calls are carried and when to give up. Must not know who answers. Invariant: every
//! call ends within its deadline, with the other side's answer or with `Unavailable`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::Request;
pub use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::error::{Error, Kind, Result};
use crate::protocol::drafts::{DraftAnswer, DraftCall, DraftHandler};
use crate::protocol::{self, RPC_PATH, Service};
use crate::registry::{Call, Transport};

/// How long a call may take before the other side is taken for dead. A commit is one
/// transaction; a release may have to go through a million objects.
const CALL_DEADLINE: Duration = Duration::from_secs(300);
/// How long connecting may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Idle connections kept: as many as threads call at once.
const IDLE_CONNECTIONS: usize = 8;
/// The longest answer: a page of everything is far shorter.
const ANSWER_MAX_BYTES: usize = 256 << 20;

/// How long the process that answers may be suspended before a call ends with an error.
const SUSPENDED_DEADLINE: Duration = Duration::from_secs(3);
/// How often to look whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why a call has no result.
#[derive(Debug)]
pub enum Failure {
    /// Nobody answered: the call may be made again, to whoever answers then.
    Silence(Error),
    /// This was the answer: asking again would only repeat it.
    Answer(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Silence(error) | Failure::Answer(error) => error,
        }
    }
}

/// A connection to the process that answers on a socket.
pub struct Client {
    socket: PathBuf,
    /// The process that answers; 0 when it is in a namespace that cannot be looked into.
    peer: AtomicI32,
    runtime: Arc<Runtime>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Client {
    /// Connects, to see whether anybody answers.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when nobody does.
    pub fn connect(socket: &Path) -> Result<Self> {
        let client = Self {
            socket: socket.to_owned(),
            peer: AtomicI32::new(0),
            runtime: runtime()?,
            idle: Mutex::new(Vec::new()),
        };
        let sender = client.runtime.block_on(client.dial())?;
        client.keep(sender);
        Ok(client)
    }

    /// Makes a call to a service and returns the value of its answer.
    ///
    /// # Errors
    /// The other side's error, or [`Kind::Unavailable`].
    pub fn ask<C: Serialize, V: DeserializeOwned>(&self, service: Service, call: &C) -> Result<V> {
        let request = protocol::encode_request(service, call)?;
        protocol::decode_value(&self.send(Bytes::from(request))?)
    }

    /// Sends an encoded request and returns the bytes of the answer's value.
    ///
    /// # Errors
    /// As [`Failure`] tells apart.
    pub fn send(&self, request: Bytes) -> Result<Vec<u8>, Failure> {
        let answer = async {
            tokio::select! {
                answer = self.exchange(request) => answer,
                error = self.suspended() => Err(Failure::Answer(error)),
                () = tokio::time::sleep(CALL_DEADLINE) => {
                    let what = format!("{} did not answer in time", self.socket.display());
                    Err(Failure::Silence(Error::new(Kind::Unavailable, what)))
                }
            }
        };
        self.runtime.block_on(answer)
    }

    /// Returns when the other side is suspended (Ctrl-Z, a debugger): it holds what it has open, so nobody can
    /// take its place, and it answers nobody.
    async fn suspended(&self) -> Error {
        let mut since = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let pid = self.peer.load(Ordering::Relaxed);
            let Some(command) = stopped(pid) else {
                since = None;
                continue;
            };
            if since.get_or_insert_with(Instant::now).elapsed() >= SUSPENDED_DEADLINE {
                let what =
                    format!("process {pid} ({command}) has the repository open and is suspended");
                return Error::new(Kind::Unavailable, what).hint(format!(
                    "let it go on (`fg`, `kill -CONT {pid}`) or end it (`kill -KILL {pid}`: nothing committed is lost)"
                ));
            }
        }
    }

    async fn exchange(&self, request: Bytes) -> Result<Vec<u8>, Failure> {
        let mut sender = self.sender().await.map_err(Failure::Silence)?;
        let unwritten = |e| Error::new(Kind::Usage, "a request cannot be written").because(e);
        let request = Request::post(RPC_PATH)
            .header("host", "artifactfs")
            .body(Full::new(request))
            .map_err(|e| Failure::Answer(unwritten(e)))?;
        let sent = sender.send_request(request).await;
        let response = sent.map_err(|e| Failure::Silence(self.lost(e)))?;
        let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES);
        let body = body.collect().await.map_err(broken_off)?.to_bytes();
        let answer = protocol::decode_answer(&body).map(<[u8]>::to_vec).map_err(Failure::Answer);
        if protocol::is_answer(&body) {
            self.keep(sender);
        }
        answer
    }

    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(mut sender) => {
                    if sender.ready().await.is_ok() {
                        return Ok(sender);
                    }
                }
                None => return self.dial().await,
            }
        }
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>> {
        let dial = async {
            let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.lost(e))?;
            let peer = stream.peer_cred().ok().and_then(|credentials| credentials.pid());
            self.peer.store(peer.unwrap_or(0), Ordering::Relaxed);
            handshake(TokioIo::new(stream)).await.map_err(|e| self.lost(e))
        };
        let dialled = tokio::time::timeout(CONNECT_DEADLINE, dial).await;
        let (sender, connection) = dialled.unwrap_or_else(|_| {
            let what = format!("{} does not answer", self.socket.display());
            Err(Error::new(Kind::Unavailable, what))
        })?;
        // It ends when the other side hangs up or the sender is dropped.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(sender);
        }
    }

    fn lost(&self, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::new(Kind::Unavailable, format!("nobody answers on {}", self.socket.display()))
            .because(error)
    }
}

/// An answer that did not come whole. One that is too long will not be shorter the next time.
fn broken_off(error: Box<dyn std::error::Error + Send + Sync>) -> Failure {
    let told = Error::new(Kind::Unavailable, format!("the answer broke off: {error}"));
    match error.is::<LengthLimitError>() {
        true => Failure::Answer(told),
        false => Failure::Silence(told),
    }
}

/// The name of a process that is stopped (proc_pid_stat(5): states `T` and `t`).
fn stopped(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, after) = stat.rsplit_once(')')?;
    let name = name.split_once('(')?.1;
    after.trim_start().starts_with(['T', 't']).then(|| name.to_owned())
}

/// One runtime for all connections of the process.
fn runtime() -> Result<Arc<Runtime>> {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(Arc::clone(runtime));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("client")
        .enable_all()
        .build()
        .map_err(|e| Error::io("cannot start a thread", e))?;
    Ok(Arc::clone(RUNTIME.get_or_init(|| Arc::new(runtime))))
}

impl Transport for Client {
    fn call(&self, call: Call) -> Result<Vec<u8>> {
        let request = protocol::encode_request(Service::Registry, &call)?;
        Ok(self.send(Bytes::from(request))?)
    }
}

/// The drafts, seen through the process that has them open.
pub struct DraftsClient(pub Client);

impl DraftHandler for DraftsClient {
    fn call(&self, call: DraftCall) -> Result<DraftAnswer> {
        self.0.ask(Service::Drafts, &call)
    }
}
