//! A registry seen through HTTP: on a Unix socket, or on the network.
//!
//! It holds the transport of calls and their deadlines. It does not depend on the server.
//! Invariant: every call ends within its deadline, with the server's reply or with `Unavailable`.

#[cfg(feature = "clouds")]
mod served;
#[cfg(not(feature = "clouds"))]
#[path = "served_absent.rs"]
mod served;
mod wire;

pub use served::{ServedClient, whoami};
pub use wire::Failure;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
use crate::protocol::socket::SocketPath;
use crate::protocol::{self, RPC_PATH, Service};
use crate::registry::{Call, Transport};
use wire::{ANSWER_MAX_BYTES, CALL_DEADLINE, runtime};

/// The longest duration of an attempt to connect.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// The maximum number of idle connections that are kept for reuse.
const IDLE_CONNECTIONS: usize = 8;

/// The time that the server's process may be suspended before a call fails.
const SUSPENDED_DEADLINE: Duration = Duration::from_secs(3);
/// The interval between two checks whether the server's process is suspended.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A connection to the process that serves a socket.
pub struct Client {
    socket: PathBuf,
    /// The id of the server's process; 0 if it is in a PID namespace that is not visible here.
    peer: AtomicI32,
    runtime: Arc<Runtime>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Client {
    /// Opens a first connection.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if no process listens on the socket.
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

    /// Makes a call to a service and returns the value of its reply.
    ///
    /// # Errors
    /// The server's error, or [`Kind::Unavailable`].
    pub fn ask<C: Serialize, V: DeserializeOwned>(&self, service: Service, call: &C) -> Result<V> {
        let request = protocol::encode_request(service, call)?;
        protocol::decode_value(&self.send(Bytes::from(request))?)
    }

    /// Sends an encoded request and returns the bytes of the reply's value.
    ///
    /// # Errors
    /// [`Failure::Silence`] if no whole reply came, [`Failure::Answer`] for any other error.
    pub fn send(&self, request: Bytes) -> Result<Vec<u8>, Failure> {
        let answer = async {
            tokio::select! {
                answer = self.exchange(request) => answer,
                error = self.suspended() => Err(Failure::Answer(error)),
                () = tokio::time::sleep(CALL_DEADLINE) => {
                    let what = format!("no reply from {} in time", self.socket.display());
                    Err(Failure::Silence(Error::new(Kind::Unavailable, what)))
                }
            }
        };
        self.runtime.block_on(answer)
    }

    /// Waits until the server's process has been suspended (Ctrl-Z, a debugger) for
    /// [`SUSPENDED_DEADLINE`]. Such a process keeps its locks, so no other process can take its
    /// place, and it sends no replies.
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
        let unwritten = |e| Error::new(Kind::Usage, "cannot encode the request").because(e);
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
            let short = SocketPath::of(&self.socket).map_err(|e| self.lost(e))?;
            let stream = UnixStream::connect(short.path()).await.map_err(|e| self.lost(e))?;
            let peer = stream.peer_cred().ok().and_then(|credentials| credentials.pid());
            self.peer.store(peer.unwrap_or(0), Ordering::Relaxed);
            handshake(TokioIo::new(stream)).await.map_err(|e| self.lost(e))
        };
        let dialled = tokio::time::timeout(CONNECT_DEADLINE, dial).await;
        let (sender, connection) = dialled.unwrap_or_else(|_| {
            let what = format!("no reply from {}", self.socket.display());
            Err(Error::new(Kind::Unavailable, what))
        })?;
        // The task ends when the server closes the connection or the sender is dropped.
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
        Error::new(Kind::Unavailable, format!("no process serves {}", self.socket.display()))
            .because(error)
    }
}

/// Returns the failure of a reply that is incomplete. A reply that is too long is final: the next
/// one would not be shorter.
fn broken_off(error: Box<dyn std::error::Error + Send + Sync>) -> Failure {
    let broken = Error::new(Kind::Unavailable, format!("the reply is incomplete: {error}"));
    match error.is::<LengthLimitError>() {
        true => Failure::Answer(broken),
        false => Failure::Silence(broken),
    }
}

/// Returns the name of a process if it is stopped (proc_pid_stat(5): states `T` and `t`).
fn stopped(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, after) = stat.rsplit_once(')')?;
    let name = name.split_once('(')?.1;
    after.trim_start().starts_with(['T', 't']).then(|| name.to_owned())
}

impl Transport for Client {
    fn call(&self, call: Call) -> Result<Vec<u8>> {
        let request = protocol::encode_request(Service::Registry, &call)?;
        Ok(self.send(Bytes::from(request))?)
    }
}

/// A client of the process that has the drafts open.
pub struct DraftsClient(pub Client);

impl DraftHandler for DraftsClient {
    fn call(&self, call: DraftCall) -> Result<DraftAnswer> {
        self.0.ask(Service::Drafts, &call)
    }
}
