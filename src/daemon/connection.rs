//! The connection to the registry: through the process that has it open, or by opening it here.
//!
//! One process at a time has the registry open. It holds the lock and serves the socket for the
//! others, even if it is a single `put` command. When it ends, one of the others takes its place.
//! So no verb fails because another one runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::client::{Bytes, Client, Failure, ServedClient};
use crate::content::options::StoreOptions;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::host::{Clock, Host};
use crate::model::server_url::TeamUrl;
use crate::ops::repository::{Layout, Repository};
use crate::ops::shared;
use crate::protocol::served::{Janitor, Session};
use crate::protocol::{self, Service};
use crate::registry::engine::redb::RedbEngine;
use crate::registry::{Call, EngineRegistry, Registry, Transport, dispatch};
use crate::server::{Server, Services};

/// The longest time to try while the process that has the lock does not reply. It may be starting,
/// repairing its file after a crash, or ending.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// The longest time that closing waits for calls under way.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// The pause before a call without a reply is repeated.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// The pause between two attempts to connect.
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// The registry of a repository, open in this process or in another one.
pub(crate) struct Connection {
    layout: Layout,
    clock: Clock,
    state: RwLock<State>,
}

enum State {
    /// The registry is open in this process.
    Owner(Owner),
    /// The registry is open in another process.
    Remote(Arc<Client>),
    /// Every process of every host opens the registry.
    Shared(Arc<EngineRegistry>),
    /// A server has the registry.
    Served(Arc<ServedClient>),
    /// The process that had the registry open no longer replies.
    Lost,
    /// The connection is closed for good.
    Closed,
}

/// The registry, open in this process.
struct Owner {
    server: Option<Server>,
    registry: Arc<EngineRegistry>,
    /// The lock, dropped last: by then the registry is closed and the next process can open it.
    _lock: File,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.registry.finish_waits();
        self.server = None;
        // Calls by threads of this process may still be under way.
        let deadline = Instant::now() + CLOSE_DEADLINE;
        while Arc::strong_count(&self.registry) > 1 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Connection {
    /// Connects to the process that has the registry open, or opens the registry here.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if the process that holds the lock does not reply for 30 s.
    /// [`Kind::Denied`] if there is no key for the server that has it.
    pub(crate) fn open(layout: &Layout, options: &StoreOptions) -> Result<Self> {
        let clock = &options.host.clock;
        let settings = layout.settings()?;
        let state = match settings.server()? {
            Some(url) => State::Served(Arc::new(client(&url, options, Some(&settings.id))?)),
            None => match shared::open(layout)? {
                Some(registry) => State::Shared(Arc::new(registry)),
                None => connect(layout, clock)?,
            },
        };
        let state = RwLock::new(state);
        Ok(Self { layout: layout.clone(), clock: Arc::clone(clock), state })
    }

    /// Returns the janitor of the server, if a server has the registry.
    pub(crate) fn janitor(&self) -> Option<Arc<dyn Janitor>> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Served(client) => Some(Arc::<ServedClient>::clone(client)),
            _ => None,
        }
    }

    /// Closes the connection, even if other references to it exist. Later calls fail.
    pub(crate) fn close(&self) {
        let state = std::mem::replace(&mut *self.write_state(), State::Closed);
        if let State::Shared(registry) = &state {
            registry.finish_waits();
        }
        drop(state);
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the current receiver of calls; reconnects if it was lost.
    fn route(&self) -> Result<Route> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Owner(owner) => return Ok(Route::Here(Arc::clone(&owner.registry))),
            State::Shared(registry) => return Ok(Route::Here(Arc::clone(registry))),
            State::Remote(client) => return Ok(Route::There(Arc::clone(client))),
            State::Served(client) => return Ok(Route::Served(Arc::clone(client))),
            State::Lost => {}
            State::Closed => {
                return Err(Error::new(Kind::Unavailable, "this process is ending"));
            }
        }
        let mut state = self.write_state();
        if matches!(*state, State::Lost) {
            *state = connect(&self.layout, &self.clock)?;
        }
        drop(state);
        self.route()
    }

    /// Marks the connection as lost if it still uses `failed`.
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
    Served(Arc<ServedClient>),
}

impl Transport for Connection {
    /// Makes a call; repeats it through a new connection if the process that has the registry open
    /// ends. So every call may run twice: a repeated commit returns its first result.
    fn call(&self, call: Call) -> Result<Vec<u8>> {
        let client = match self.route()? {
            Route::Here(registry) => return dispatch(&*registry, call),
            Route::Served(client) => return client.call(call),
            Route::There(client) => client,
        };
        let request = Bytes::from(protocol::encode_request(Service::Registry, &call)?);
        let deadline = Instant::now() + CONNECT_DEADLINE;
        let mut client = client;
        loop {
            match client.send(request.clone()) {
                Err(Failure::Silence(e)) if Instant::now() < deadline => {
                    tracing::debug!("connecting to the registry again: {e}");
                    self.lose(&client);
                }
                done => return Ok(done?),
            }
            std::thread::sleep(ASK_AGAIN_AFTER);
            client = match self.route()? {
                Route::Here(registry) => return dispatch(&*registry, call),
                Route::Served(client) => return client.call(call),
                Route::There(client) => client,
            };
        }
    }
}

fn connect(layout: &Layout, clock: &Clock) -> Result<State> {
    let deadline = Instant::now() + CONNECT_DEADLINE;
    loop {
        if let Some(lock) = try_lock(layout)? {
            return own(layout, lock, Arc::clone(clock));
        }
        if let Ok(client) = Client::connect(&layout.socket()) {
            return Ok(State::Remote(Arc::new(client)));
        }
        if Instant::now() > deadline {
            let holder = holder(layout).unwrap_or_else(|| "another process".to_owned());
            let what = format!("{holder} has the repository open and does not reply");
            return Err(Error::new(Kind::Unavailable, what)
                .hint("try again; if that process hangs, end it: nothing committed is lost"));
        }
        std::thread::sleep(RETRY_EVERY);
    }
}

/// Takes the lock and writes this process's id into it. Returns `None` if another process holds it.
fn try_lock(layout: &Layout) -> Result<Option<File>> {
    let path = layout.lock();
    let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = options.at("open", &path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        locked => locked.at("lock", &path)?,
    }
    let written = file.set_len(0).and_then(|()| file.rewind());
    // The id is only for a message that another process prints: a full disk must not prevent
    // opening.
    if let Err(e) = written.and_then(|()| write!(file, "process {}", std::process::id())) {
        tracing::debug!("cannot write {}: {e}", path.display());
    }
    Ok(Some(file))
}

fn holder(layout: &Layout) -> Option<String> {
    let mut text = String::new();
    File::open(layout.lock()).ok()?.take(64).read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

fn own(layout: &Layout, lock: File, clock: Clock) -> Result<State> {
    layout.settings()?;
    let engine = RedbEngine::open(&layout.registry())?;
    let registry = Arc::new(EngineRegistry::open(Box::new(engine), clock)?);
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
    /// [`Kind::Conflict`] if there is one already, and errors of the host.
    pub fn init(location: &Path) -> Result<()> {
        Layout::new(location)?.init(None, BTreeMap::new(), None, &Host::system()).map(drop)
    }

    /// Opens the repository in the directory `location`. Opens its registry here if no other
    /// process has it open.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none, [`Kind::Unsupported`] if a newer release made it, and
    /// [`Kind::Unavailable`] if the process that has it open does not reply.
    pub fn open(location: &Path, options: &StoreOptions) -> Result<Self> {
        let layout = Layout::new(location)?;
        layout.settings()?;
        let connection = Connection::open(&layout, options)?;
        let janitor = connection.janitor();
        Ok(Self::new(layout, Arc::new(connection), options)?.with_janitor(janitor))
    }
}

/// Returns a client of the server that has a repository.
fn client(url: &TeamUrl, options: &StoreOptions, id: Option<&str>) -> Result<ServedClient> {
    ServedClient::new(url, &options.keys.access(url)?.key, id)
}

/// Returns the settings that a server hands out for a repository, and the role of the caller.
///
/// # Errors
/// [`Kind::Denied`] if the server does not accept the key, [`Kind::Unavailable`] if it does not
/// reply.
pub fn session(url: &TeamUrl, options: &StoreOptions) -> Result<Session> {
    client(url, options, None)?.ask(Service::Session, &())
}
