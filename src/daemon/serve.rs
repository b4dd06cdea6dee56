//! The daemon: a process that serves mounts until a signal ends it or they are gone.
//!
//! Its record, a file in the repository, lists its mounts, and `umount`, `status` and `run` find
//! the daemon through it. A mount that was detached may still be used elsewhere, through a bind
//! mount or in another mount namespace. The daemon then continues to serve it, gives up everything
//! else, and sets `left` in its record.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::connection::Connection;
use super::drafts::{ServedDrafts, serve_drafts};
use super::record::{DaemonRecord, record_path, write_record};
use super::schedule::Schedule;
use super::watchdog;
use crate::content::options::StoreOptions;
use crate::error::{Error, Kind, Result};
use crate::mount::{MountOptions, Mounted, Watcher, mount_read_only, mount_staging};
use crate::ops::repository::{Layout, Repository};
use crate::ops::{maintenance, orphans, process_id};
use crate::registry::Registry;
use crate::server::{Server, Services, serve_metrics};

/// The interval between two checks of signals and mounts.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// The interval between two checks whether the mounts are at their mount points.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The time after which an unmounted file system that has not ended is reported as used elsewhere.
const LEAVE_AFTER: Duration = Duration::from_millis(300);

/// The mounts of a daemon and their options.
pub struct MountRequest {
    /// The mount point of the versions (read-only): an empty directory.
    pub directory: PathBuf,
    /// The mount point of the drafts: another empty directory. `None`: drafts are not mounted.
    pub staging: Option<PathBuf>,
    /// The options of both mounts.
    pub options: MountOptions,
    /// The options of the store.
    pub store: StoreOptions,
    /// The time that a draft must be idle to be committed automatically; `None`: never.
    pub autocommit: Option<Duration>,
    /// The TCP address of the metrics; `None`: they are served on the daemon's socket only.
    pub metrics_listen: Option<SocketAddr>,
}

/// A process that serves mounts.
pub struct Daemon {
    repository: Arc<Repository>,
    connection: Arc<Connection>,
    /// The read-only mount, then the staging mount if there is one.
    mounts: Vec<Mounted>,
    watchers: Vec<Watcher>,
    record: DaemonRecord,
    drafts: Option<ServedDrafts>,
    /// The server of its statistics.
    stats: Server,
    /// The process that ends the mounts if this one hangs.
    watchdog: Option<Child>,
    /// The time that a draft must be idle to be committed.
    autocommit: Option<Duration>,
}

/// The signals that end a daemon in order.
struct StopSignals([Signal; 3]);

impl StopSignals {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|e| Error::io("cannot wait for signals", e));
        Ok(Self([
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn heard(&mut self) {
        let [terminate, interrupt, hang_up] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {}
        }
    }
}

impl Daemon {
    /// Opens the repository and makes the mounts of `request`.
    ///
    /// # Errors
    /// Fails if the repository cannot be opened or a mount is refused. A mount that was refused
    /// leaves nothing mounted.
    pub fn start(layout: &Layout, request: &MountRequest) -> Result<Self> {
        let (options, store) = (request.options, &request.store);
        refuse_no_text([Some(&request.directory), request.staging.as_ref(), store.cache.as_ref()])?;
        let connection = Arc::new(Connection::open(layout, store)?);
        let registry: Arc<dyn Registry> = Arc::<Connection>::clone(&connection);
        let repository = Arc::new(
            Repository::new(layout.clone(), registry, store)?.with_janitor(connection.janitor()),
        );
        if let Err(e) = orphans::release_orphans(&repository) {
            tracing::warn!("cannot end the leases of dead writers: {e}");
        }
        // Everything else that can fail comes before the first mount.
        let drafts = request.staging.is_some().then(|| serve_drafts(&repository)).transpose()?;
        let (mounts, watchers) = mount_both(&repository, request, drafts.as_ref())?;
        let second = mounts.get(1);
        let record = DaemonRecord {
            pid: std::process::id(),
            holder: process_id::this_process(),
            mount: mounts[0].target().to_owned(),
            device: mounts[0].device(),
            staging: second.map(|mounted| mounted.target().to_owned()),
            staging_device: second.map(Mounted::device),
            left: false,
            commits: false,
            cache: store.cache.clone(),
            cache_bytes: store.cache_bytes,
        };

        write_record(layout, &record)?;
        // A command that moves the store looks for daemons. From now on it sees this one.
        maintenance::refuse_moving(&repository)?;
        let services = Services { stats: Some(Arc::clone(&repository)), ..Services::default() };
        let stats = Server::start(&layout.daemon_socket(record.pid), services)?;
        if let Some(address) = request.metrics_listen {
            serve_metrics(address, Arc::clone(&repository))?;
        }
        let targets: Vec<_> = mounts.iter().map(|mounted| mounted.target().to_owned()).collect();
        let seconds = options.watchdog_seconds;
        let watchdog = (seconds > 0).then(|| watchdog::start(seconds, &targets)).transpose()?;
        Ok(Self {
            repository,
            connection,
            mounts,
            watchers,
            record,
            drafts,
            stats,
            watchdog,
            autocommit: request.autocommit,
        })
    }

    /// Serves until a signal arrives or a mount is gone, then ends the daemon in order.
    ///
    /// # Errors
    /// Fails if no signal handler can be installed.
    pub fn serve(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Error::io("cannot wait for signals", e))?;
        let mut signals = runtime.block_on(async { StopSignals::listen() })?;
        runtime.block_on(self.wait(&mut signals));
        self.leave(Some((&runtime, &mut signals)));
        Ok(())
    }

    /// Unmounts, and waits for the last users of the mounts without regard to signals.
    pub fn end(self) {
        self.leave(None);
    }

    /// Detaches the mounts, waits for their last users or for another signal, and gives up
    /// everything else.
    fn leave(mut self, signals: Option<(&Runtime, &mut StopSignals)>) {
        for mounted in &self.mounts {
            mounted.leave();
        }
        // Names are watched as long as the mounts have users.
        let ended = self.last_users(signals);
        for watcher in std::mem::take(&mut self.watchers) {
            watcher.stop();
        }
        self.drafts = None;
        drop(self.stats);
        if let Some(mut watchdog) = self.watchdog {
            drop(watchdog.stdin.take());
            // The watchdog ends at the end of its input.
            let _ = watchdog.wait();
        }
        self.connection.close();
        let path = record_path(&self.repository.layout, self.record.pid);
        if let Err(e) = fs::remove_file(&path) {
            tracing::debug!("cannot remove {}: {e}", path.display());
        }
        if !ended {
            tracing::warn!(
                "the mounts are ended while in use: readers get ENOTCONN, and no draft is committed"
            );
        }
        self.mounts.into_iter().for_each(Mounted::abandon);
    }

    /// Blocks until all mounts and commits have ended. Returns `false` if a second signal cut the
    /// wait short.
    fn last_users(&mut self, mut signals: Option<(&Runtime, &mut StopSignals)>) -> bool {
        let since = Instant::now();
        loop {
            let commits = self.drafts.as_ref().is_some_and(|drafts| drafts.service.is_committing());
            if !commits && self.mounts.get(1).is_none_or(Mounted::has_ended) {
                // The staging mount has ended, so another daemon may open the drafts.
                self.drafts = None;
            }
            if !commits && self.mounts.iter().all(Mounted::has_ended) {
                return true;
            }
            if since.elapsed() > LEAVE_AFTER {
                self.say_left(commits);
            }
            let Some((runtime, signals)) = &mut signals else {
                std::thread::sleep(POLL_EVERY);
                continue;
            };
            let again = async { tokio::time::timeout(POLL_EVERY, signals.heard()).await.is_ok() };
            if runtime.block_on(again) {
                return false;
            }
        }
    }

    /// Updates the daemon's record: its mounts are detached, whether it still commits, and which
    /// mounts are still used. Device numbers of ended mounts are cleared, because the kernel reuses
    /// them.
    fn say_left(&mut self, commits: bool) {
        let number = |mounted: &Mounted| Some(mounted.device()).filter(|_| !mounted.has_ended());
        let device = number(&self.mounts[0]).unwrap_or(0);
        let staging_device = self.mounts.get(1).and_then(number);
        let now =
            DaemonRecord { left: true, commits, device, staging_device, ..self.record.clone() };
        if self.record == now {
            return;
        }
        self.record = now;
        tracing::info!(
            "the daemon ends when its mounts are no longer used elsewhere and all commits are done"
        );
        if let Err(e) = write_record(&self.repository.layout, &self.record) {
            tracing::warn!("cannot record that the mounts are detached: {e}");
        }
    }

    async fn wait(&self, signals: &mut StopSignals) {
        let drafts = self.drafts.as_ref().map(|drafts| Arc::clone(&drafts.service));
        let commits = drafts.zip(self.autocommit);
        let mut schedule = Schedule::new(Arc::clone(&self.repository), commits);
        let mut looked = Instant::now();
        let mut tick = tokio::time::interval(POLL_EVERY);
        loop {
            tokio::select! {
                () = signals.heard() => return,
                _ = tick.tick() => {}
            }
            if self.mounts.iter().any(Mounted::has_ended) {
                return;
            }
            if looked.elapsed() > LOOK_EVERY {
                looked = Instant::now();
                if !self.mounts.iter().all(Mounted::is_in_place) {
                    return;
                }
            }
            schedule.run_due();
        }
    }
}

/// Mounts the versions, and the drafts if they are served: both or none.
fn mount_both(
    repository: &Arc<Repository>,
    request: &MountRequest,
    drafts: Option<&ServedDrafts>,
) -> Result<(Vec<Mounted>, Vec<Watcher>)> {
    let options = request.options;
    let (mounted, watcher) = mount_read_only(Arc::clone(repository), &request.directory, options)?;
    let (mut mounts, mut watchers) = (vec![mounted], vec![watcher]);
    if let (Some(target), Some(drafts)) = (&request.staging, drafts) {
        let drafts = Arc::clone(&drafts.service);
        match mount_staging(Arc::clone(repository), drafts, target, options) {
            Ok((mounted, watcher)) => {
                mounts.push(mounted);
                watchers.push(watcher);
            }
            Err(e) => {
                mounts.into_iter().for_each(Mounted::unmount);
                return Err(e);
            }
        }
    }
    Ok((mounts, watchers))
}

/// Rejects paths that are not UTF-8: the daemon's record is JSON text.
fn refuse_no_text(paths: [Option<&PathBuf>; 3]) -> Result<()> {
    match paths.into_iter().flatten().find(|path| path.to_str().is_none()) {
        None => Ok(()),
        Some(path) => {
            let what = format!("{} is not UTF-8", path.display());
            Err(Error::new(Kind::BadName, what).hint("choose a path that is"))
        }
    }
}
