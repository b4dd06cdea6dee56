//! Reaching the registry: through the process that has it open, or by opening it.
//!
//! One process at a time has the registry open. It holds the lock and answers on the socket for
//! the others, also when it is only a `put` that somebody typed. When it ends, one of the others
//! takes its place. So no verb fails because another one runs.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::client::Client;
use crate::config::{Origin, Setting};
use crate::error::{Error, IoContext, Kind, Result};
use crate::ops::repository::{Layout, Repository};
use crate::registry::engine::redb::RedbEngine;
use crate::registry::{Call, Carrier, Embedded, Registry, dispatch, system_clock};
use crate::server::{Server, Services};

/// How long to try when the process that has the lock does not answer: it may be starting,
/// repairing its file after a crash, or ending.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// How long to wait between tries.
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// The registry of a repository, wherever it is open.
pub struct Connection {
    layout: Layout,
    link: RwLock<Link>,
}

enum Link {
    /// This process has it open. The server ends before the registry is closed, and the lock is
    /// given up last: fields are dropped in this order.
    Owner { _server: Server, registry: Arc<Embedded>, _lock: File },
    /// Another one has.
    Remote(Arc<Client>),
    /// It is not known.
    Lost,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] when somebody holds the lock and does not answer.
    pub fn open(layout: &Layout) -> Result<Self> {
        let link = connect(layout)?;
        Ok(Self { layout: layout.clone(), link: RwLock::new(link) })
    }

    fn reconnect(&self, failed: &Arc<Client>) -> Result<()> {
        let mut link = self.link.write().unwrap_or_else(PoisonError::into_inner);
        match &*link {
            Link::Remote(client) if !Arc::ptr_eq(client, failed) => return Ok(()),
            Link::Owner { .. } => return Ok(()),
            Link::Remote(_) | Link::Lost => {}
        }
        *link = Link::Lost;
        *link = connect(&self.layout)?;
        Ok(())
    }
}

impl Carrier for Connection {
    fn carry(&self, call: Call) -> Result<Vec<u8>> {
        let body = {
            let link = self.link.read().unwrap_or_else(PoisonError::into_inner);
            match &*link {
                Link::Owner { registry, .. } => return dispatch(&**registry, call),
                Link::Remote(_) | Link::Lost => postcard::to_stdvec(&call)
                    .map_err(|e| Error::new(Kind::Usage, "a call cannot be written").because(e))?,
            }
        };
        self.carry_away(&body)
    }
}

impl Connection {
    /// Brings a call to another process. When that one is gone, to whoever has the registry open
    /// then: every call may be made twice (a commit that was done gives the same answer).
    fn carry_away(&self, body: &[u8]) -> Result<Vec<u8>> {
        let deadline = Instant::now() + CONNECT_DEADLINE;
        loop {
            let client = {
                let link = self.link.read().unwrap_or_else(PoisonError::into_inner);
                match &*link {
                    Link::Owner { registry, .. } => {
                        let call = postcard::from_bytes(body).map_err(|e| {
                            Error::new(Kind::Usage, "a call cannot be read").because(e)
                        })?;
                        return dispatch(&**registry, call);
                    }
                    Link::Remote(client) => Some(Arc::clone(client)),
                    Link::Lost => None,
                }
            };
            let Some(client) = client else {
                let mut link = self.link.write().unwrap_or_else(PoisonError::into_inner);
                if matches!(*link, Link::Lost) {
                    *link = connect(&self.layout)?;
                }
                continue;
            };
            match client.post(crate::wire::REGISTRY_PATH, body.to_vec()) {
                Err(e) if e.kind() == Kind::Unavailable && Instant::now() < deadline => {
                    tracing::debug!("looking for the registry again: {e}");
                    self.reconnect(&client)?;
                }
                done => return done,
            }
        }
    }
}

fn connect(layout: &Layout) -> Result<Link> {
    let deadline = Instant::now() + CONNECT_DEADLINE;
    loop {
        if let Some(lock) = try_lock(layout)? {
            return own(layout, lock);
        }
        if let Ok(client) = Client::connect(&layout.socket()) {
            return Ok(Link::Remote(Arc::new(client)));
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

fn own(layout: &Layout, lock: File) -> Result<Link> {
    layout.settings()?;
    let engine = RedbEngine::open(&layout.registry())?;
    let registry = Arc::new(Embedded::open(Box::new(engine), system_clock())?);
    let shared: Arc<dyn Registry> = Arc::<Embedded>::clone(&registry);
    let services = Services { registry: Some(shared), drafts: None };
    let server = Server::start(&layout.socket(), services)?;
    Ok(Link::Owner { _server: server, registry, _lock: lock })
}

/// The repository a command works on; the default one is made on first use.
///
/// # Errors
/// As [`Layout::settings`] and [`Connection::open`].
pub fn open_repository(setting: &Setting<std::path::PathBuf>) -> Result<Repository> {
    let layout = layout_of(setting)?;
    let connection = Connection::open(&layout)?;
    Repository::new(layout, Arc::new(connection))
}

/// Where the repository is; the default one is made on first use.
///
/// # Errors
/// [`Kind::NotFound`] for one that was named and is not there.
pub fn layout_of(setting: &Setting<std::path::PathBuf>) -> Result<Layout> {
    let layout = Layout::new(&setting.value)?;
    if setting.origin == Origin::Default && !layout.exists() {
        match layout.init(None, system_clock()()) {
            // Another command made it at the same moment.
            Err(e) if e.kind() == Kind::Conflict => {}
            made => drop(made?),
        }
    }
    layout.settings()?;
    Ok(layout)
}
