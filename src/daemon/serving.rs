//! The server: a process that serves repositories to users on the network until a signal ends it.
//!
//! Each repository has a thread that follows its change log, for all clients at once, and one that
//! frees dead bytes and ends the leases of writers that are gone.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::connection::Connection;
use crate::content::options::StoreOptions;
use crate::error::{AccessHint, Error, Kind, Result};
use crate::model::name::TeamName;
use crate::ops::browse::last_change;
use crate::ops::garbage::collect_garbage;
use crate::ops::orphans::release_orphans;
use crate::ops::repository::{Layout, Repository};
use crate::ops::served::team_of;
use crate::ops::shared::refuse_moved;
use crate::registry::{LastChange, Registry};
pub use crate::server::{HttpOptions, TlsFiles};
use crate::server::{HttpServer, Team};

/// The interval between two looks at the certificate's files, and whether a store has moved.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The time after which dead bytes are looked for without a nudge.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// The time that writers get to renew their leases after they could not reach this server, or it
/// could not reach the registry. They do so every minute.
const GRACE: Duration = Duration::from_secs(180);
/// The pause between two sweeps, so that many nudges cost one.
const SWEEP_PAUSE: Duration = Duration::from_millis(200);
/// The longest wait for a change in one call; it bounds how long the end of the server takes.
const CHANGES_WAIT_MILLISECONDS: u64 = 1_000;
/// The pause after a look for changes that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The options of a server.
pub struct ServeRequest {
    /// The options of the server.
    pub http: HttpOptions,
    /// The time that requests under way get when the server ends.
    pub drain: Duration,
    /// The options of the stores.
    pub store: StoreOptions,
}

/// A running server.
pub struct Serving {
    http: HttpServer,
    repositories: Vec<Background>,
    drain: Duration,
}

/// A served repository and its threads.
struct Background {
    name: TeamName,
    repository: Arc<Repository>,
    connection: Arc<Connection>,
    ending: Arc<AtomicBool>,
    follower: Option<JoinHandle<()>>,
    sweeper: Option<(SyncSender<()>, JoinHandle<()>)>,
}

impl Serving {
    /// Opens the repositories of `layouts`, and serves each under the name of its team.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if two have the same name, or one has no user yet; [`Kind::Unsupported`]
    /// for a repository that is itself on a server; the errors of opening and listening.
    pub fn start(layouts: &[Layout], request: &ServeRequest) -> Result<Self> {
        let mut repositories = Vec::new();
        let mut teams: Vec<Team> = Vec::new();
        for layout in layouts {
            let name = team_of(layout)?;
            if teams.iter().any(|team| team.name == name) {
                let what = format!("two of the repositories are named {name}");
                return Err(Error::new(Kind::Conflict, what).hint(
                    "a repository has the name of its directory, unless it was made with another",
                ));
            }
            let (background, team) = Background::start(layout, name, &request.store)?;
            repositories.push(background);
            teams.push(team);
        }
        let http = HttpServer::start(&request.http, teams)?;
        Ok(Self { http, repositories, drain: request.drain })
    }

    /// Returns the names of the repositories.
    pub fn teams(&self) -> impl Iterator<Item = &TeamName> {
        self.repositories.iter().map(|background| &background.name)
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.http.address()
    }

    /// Serves until a signal arrives, then finishes the requests under way. SIGHUP has the
    /// certificate read again.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if a repository moved to another store, after which it must be started
    /// again.
    pub fn serve(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Error::io("cannot wait for signals", e))?;
        let ended = runtime.block_on(self.wait());
        // A look at a registry that does not reply may still be under way.
        runtime.shutdown_background();
        tracing::info!("the server ends when the requests under way have their replies");
        self.http.drain(self.drain);
        self.repositories.into_iter().for_each(Background::end);
        ended
    }

    async fn wait(&self) -> Result<()> {
        let listen = |kind| signal(kind).map_err(|e| Error::io("cannot wait for signals", e));
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut hang_up = listen(SignalKind::hangup())?;
        // A registry that does not reply must not delay a signal.
        let mut moved = pin!(self.until_moved());
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = hang_up.recv() => self.http.reload_if_changed(),
                error = &mut moved => return Err(error),
            }
        }
    }

    /// Looks now and then at the certificate, and whether a repository moved to another store.
    /// Returns the error of one that did.
    async fn until_moved(&self) -> Error {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        loop {
            tick.tick().await;
            self.http.reload_if_changed();
            for background in &self.repositories {
                let repository = Arc::clone(&background.repository);
                let moved = tokio::task::spawn_blocking(move || refuse_moved(&repository)).await;
                match moved {
                    Ok(Err(e)) if e.kind() == Kind::Conflict => return e,
                    Ok(Err(e)) => tracing::warn!("a registry does not reply: {e}"),
                    _ => {}
                }
            }
        }
    }
}

impl Background {
    fn start(layout: &Layout, name: TeamName, options: &StoreOptions) -> Result<(Self, Team)> {
        let connection = Arc::new(Connection::open(layout, options)?);
        let registry: Arc<dyn Registry> = Arc::<Connection>::clone(&connection);
        let janitor = connection.janitor();
        let repository = Repository::new(layout.clone(), registry, options)?.with_janitor(janitor);
        repository.refuse_served()?;
        let repository = Arc::new(repository);
        if repository.registry.accounts(None, 1)?.items.is_empty() {
            let what = format!("the repository {} has no user yet", layout.root.display());
            return Err(Error::new(Kind::Conflict, what).hint(AccessHint::MakeAdmin));
        }
        let ending = Arc::new(AtomicBool::new(false));
        let (changed, follower) = follow(&repository, &ending)?;
        let (nudge, sweeper) = sweep(&repository)?;
        let nudges = nudge.clone();
        let team = Team {
            name: name.clone(),
            repository: Arc::clone(&repository),
            changed,
            // A nudge that waits already stands for this one too.
            nudge: Box::new(move || {
                let _ = nudges.try_send(());
            }),
        };
        let (follower, sweeper) = (Some(follower), Some((nudge, sweeper)));
        Ok((Self { name, repository, connection, ending, follower, sweeper }, team))
    }

    fn end(mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let (nudge, sweeper) = self.sweeper.take().unzip();
        drop(nudge);
        for thread in [self.follower.take(), sweeper].into_iter().flatten() {
            if thread.join().is_err() {
                tracing::error!("a thread of the server panicked");
            }
        }
        self.connection.close();
    }
}

/// Starts the thread that follows the change log.
fn follow(
    repository: &Arc<Repository>,
    ending: &Arc<AtomicBool>,
) -> Result<(watch::Receiver<LastChange>, JoinHandle<()>)> {
    let last = last_change(repository)?;
    let (sender, changed) = watch::channel(LastChange { last, ending: false });
    let (registry, ending) = (Arc::clone(&repository.registry), Arc::clone(ending));
    let work = move || {
        let mut last = last;
        while !ending.load(Ordering::SeqCst) {
            match registry.changes(last, CHANGES_WAIT_MILLISECONDS) {
                Ok(changes) if changes.last != last => {
                    last = changes.last;
                    sender.send_modify(|change| change.last = last);
                }
                Ok(_) => {}
                Err(e) => {
                    tracing::warn!("changes are not seen: {e}");
                    std::thread::sleep(RETRY_AFTER);
                }
            }
        }
        sender.send_modify(|change| change.ending = true);
    };
    Ok((changed, spawn("follower", work)?))
}

/// Starts the thread that frees dead bytes, when it is nudged and now and then. It ends when the
/// sender is dropped.
fn sweep(repository: &Arc<Repository>) -> Result<(SyncSender<()>, JoinHandle<()>)> {
    let (nudge, nudged) = sync_channel(1);
    let repository = Arc::clone(repository);
    let work = move || {
        let mut reachable_since = Instant::now();
        loop {
            let swept = match nudged.recv_timeout(SWEEP_EVERY) {
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if reachable_since.elapsed() > GRACE => {
                    release_orphans(&repository)
                }
                _ => collect_garbage(&repository),
            };
            if let Err(e) = swept {
                tracing::warn!("dead bytes are not freed yet: {e}");
                reachable_since = Instant::now();
            }
            std::thread::sleep(SWEEP_PAUSE);
        }
    };
    Ok((nudge, spawn("sweeper", work)?))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|e| Error::io("cannot start a thread of the server", e))
}
