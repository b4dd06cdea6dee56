//! Reaching the registry: through the process that has it open, or by opening it.
//!
//! One process at a time has the registry open. It holds the lock and answers on the socket for
//! the others, also when it is only a `put` that somebody typed. When it ends, one of the others
//! takes its place. So no verb fails because another one runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::client::{Bytes, Client, Failure};
use crate::content::options::StoreOptions;
use crate::error::{Error, IoContext, Kind, Result};
use crate::ops::repository::{Layout, Repository};
use crate::protocol::{self, Service};
use crate::registry::engine::redb::RedbEngine;
use crate::registry::{Call, EngineRegistry, Registry, Transport, dispatch, system_clock};
use crate::server::{Server, Services};

/// How long to try when the process that has the lock does not answer: it may be starting,
/// repairing its file after a crash, or ending.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// How long closing waits for calls that are under way.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// The pause before an unanswered call is repeated.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// The pause between two attempts to connect.
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// The registry of a repository, wherever it is open.
pub struct Connection {
    layout: Layout,
    state: RwLock<State>,
}

enum State {
    /// This process has it open.
    Owner(Owner),
    /// Another one has.
    Remote(Arc<Client>),
    /// It is not known.
    Lost,
    /// This process wants no registry any more.
    Closed,
}

/// The registry, open in this process.
struct Owner {
    server: Option<Server>,
    registry: Arc<EngineRegistry>,
    /// Given up last: by then the registry is closed and the next process can open it.
    _lock: File,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.registry.finish_waits();
        self.server = None;
        // Calls of this process's own threads may still be under way.
        let deadline = Instant::now() + CLOSE_DEADLINE;
        while Arc::strong_count(&self.registry) > 1 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when somebody holds the lock and does not answer.
    pub fn open(layout: &Layout) -> Result<Self> {
        let state = connect(layout)?;
        Ok(Self { layout: layout.clone(), state: RwLock::new(state) })
    }

    /// Closes it in order, whoever still refers to it.
    pub fn close(&self) {
        let state = std::mem::replace(&mut *self.write_state(), State::Closed);
        drop(state);
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where calls go now.
    fn route(&self) -> Result<Route> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Owner(owner) => return Ok(Route::Here(Arc::clone(&owner.registry))),
            State::Remote(client) => return Ok(Route::There(Arc::clone(client))),
            State::Lost => {}
            State::Closed => {
                return Err(Error::new(Kind::Unavailable, "this process is ending"));
            }
        }
        let mut state = self.write_state();
        if matches!(*state, State::Lost) {
            *state = connect(&self.layout)?;
        }
        drop(state);
        self.route()
    }

    /// `failed` does not answer any more: it is to be looked for again.
    fn lose(&self, failed: &Arc<Client>) {
        let mut state = self.write_state();
        if matches!(&*state, State::Remote(client) if Arc::ptr_eq(client, failed)) {
            *state = State::Lost;
        }
    }
}

enum Route {
    Here(Arc<EngineRegistry>),
    There(Arc<Client>),
}

impl Transport for Connection {
    /// When the process that has the registry open is gone, the call goes to whoever has it open
    /// then: every call may be made twice (a commit that was done gives the same answer).
    fn call(&self, call: Call) -> Result<Vec<u8>> {
        let client = match self.route()? {
            Route::Here(registry) => return dispatch(&*registry, call),
            Route::There(client) => client,
        };
        let request = Bytes::from(protocol::encode_request(Service::Registry, &call)?);
        let deadline = Instant::now() + CONNECT_DEADLINE;
        let mut client = client;
        loop {
            match client.send(request.clone()) {
                Err(Failure::Silence(e)) if Instant::now() < deadline => {
                    tracing::debug!("looking for the registry again: {e}");
                    self.lose(&client);
                }
                done => return Ok(done?),
            }
            std::thread::sleep(ASK_AGAIN_AFTER);
            client = match self.route()? {
                Route::Here(registry) => return dispatch(&*registry, call),
                Route::There(client) => client,
            };
        }
    }
}

fn connect(layout: &Layout) -> Result<State> {
    let deadline = Instant::now() + CONNECT_DEADLINE;
    loop {
        if let Some(lock) = try_lock(layout)? {
            return own(layout, lock);
        }
        if let Ok(client) = Client::connect(&layout.socket()) {
            return Ok(State::Remote(Arc::new(client)));
        }
        if Instant::now() > deadline {
            let holder = holder(layout).unwrap_or_else(|| "another process".to_owned());
            let what = format!("{holder} has the repository open and does not answer");
            return Err(Error::new(Kind::Unavailable, what)
                .hint("try again; if that process hangs, end it: nothing committed is lost"));
        }
        std::thread::sleep(RETRY_EVERY);
    }
}

/// The lock, when nobody holds it; our process id is written into it.
fn try_lock(layout: &Layout) -> Result<Option<File>> {
    let path = layout.lock();
    let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = options.at("open", &path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        locked => locked.at("lock", &path)?,
    }
    let written = file.set_len(0).and_then(|()| file.rewind());
    // Only for the message that somebody else may print: a full disk must not keep us out.
    if let Err(e) = written.and_then(|()| write!(file, "process {}", std::process::id())) {
        tracing::debug!("{} was not written: {e}", path.display());
    }
    Ok(Some(file))
}

fn holder(layout: &Layout) -> Option<String> {
    let mut text = String::new();
    File::open(layout.lock()).ok()?.take(64).read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

fn own(layout: &Layout, lock: File) -> Result<State> {
    layout.settings()?;
    let engine = RedbEngine::open(&layout.registry())?;
    let registry = Arc::new(EngineRegistry::open(Box::new(engine), system_clock())?);
    let shared: Arc<dyn Registry> = Arc::<EngineRegistry>::clone(&registry);
    let changed = Some(registry.changed());
    let services = Services { registry: Some(shared), changed, ..Services::default() };
    let server = Server::start(&layout.socket(), services)?;
    Ok(State::Owner(Owner { server: Some(server), registry, _lock: lock }))
}

impl Repository {
    /// Makes a repository in the directory `location`, with its store inside.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if there is one, and what the host says.
    pub fn init(location: &Path) -> Result<()> {
        Layout::new(location)?.init(None, BTreeMap::new(), system_clock()()).map(drop)
    }

    /// Opens the repository in the directory `location`, whichever process has its registry open; the first takes it.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none, [`Kind::Unsupported`] if a newer release made it, and
    /// [`Kind::Unavailable`] if the process that has it open does not answer.
    pub fn open(location: &Path, options: &StoreOptions) -> Result<Self> {
        let layout = Layout::new(location)?;
        layout.settings()?;
        let connection = Connection::open(&layout)?;
        Self::new(layout, Arc::new(connection), options)
    }
}
