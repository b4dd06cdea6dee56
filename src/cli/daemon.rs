//! The daemon: a process that serves mounts until a signal ends it or they are gone.
//!
//! Its record, a file in the repository, lists its mounts; by it `umount`, `status` and `run` find it. A mount that
//! was taken from its place may still be used elsewhere, through a bind mount or in another mount namespace: the
//! daemon then serves it on, gives up everything else, and says in its file that it has left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::draft::open_desk as open_drafts;
use super::mount::{Mount, options};
use super::{Context, connect, watchdog};
use crate::error::{Error, IoContext, Kind, Result};
use crate::mount::{
    MountOptions, Mounted, OtherMount, SOURCE_NAME, Watcher, find_other_mounts, mount_read_only,
    mount_staging, mounts_of,
};
use crate::ops::drafts::{DraftService, DraftTransport};
use crate::ops::repository::{Layout, Repository};
use crate::ops::{maintenance, process_id};
use crate::registry::Registry;
use crate::server::{Server, Services, serve_metrics};

/// The interval between two looks at signals and mounts.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// The interval between two sweeps of leases whose writer is gone.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// The interval between two checks of the mounts and, with autocommit, of idle drafts.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The time after which an unmounted file system that has not ended is reported as used elsewhere.
const LEAVE_AFTER: Duration = Duration::from_millis(300);

/// A daemon's mounts and cache, as recorded in its file in the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonRecord {
    /// Its process.
    pub pid: u32,
    /// Its process, so that a reused id does not pass for it.
    pub holder: String,
    /// The read-only mount.
    pub mount: PathBuf,
    /// The minor number of its device; 0 if the mount has ended, and in records of older releases.
    #[serde(default)]
    pub device: u32,
    /// The staging mount.
    pub staging: Option<PathBuf>,
    /// The minor number of its device.
    #[serde(default)]
    pub staging_device: Option<u32>,
    /// True if the mounts are detached and the daemon waits only for their last users and for commits.
    #[serde(default)]
    pub left: bool,
    /// True if the daemon has detached its mounts and is still committing a draft.
    #[serde(default)]
    pub commits: bool,
    /// The cache directory; `None` in records of older releases.
    #[serde(default)]
    pub cache: Option<PathBuf>,
    /// The maximum size of the cache in bytes.
    #[serde(default)]
    pub cache_bytes: u64,
}

impl DaemonRecord {
    /// Returns the device numbers of the mounts that have not ended.
    pub fn devices(&self) -> Vec<u32> {
        std::iter::once(self.device)
            .filter(|device| *device != 0)
            .chain(self.staging_device)
            .collect()
    }

    /// Returns whether the read-only mount is still at its mount point in the daemon's own namespace.
    pub fn is_in_place(&self) -> bool {
        let here = |(device, source, point): &(u32, String, PathBuf)| {
            *device == self.device && source == SOURCE_NAME && *point == self.mount
        };
        let seen = || mounts_of(self.pid).is_none_or(|mounts| mounts.iter().any(here));
        !self.left && (self.device == 0 || seen())
    }

    /// Returns the bind mounts and namespaces through which the mounts are still reachable.
    pub fn elsewhere(&self) -> Vec<OtherMount> {
        let places: Vec<_> =
            std::iter::once(&self.mount).chain(&self.staging).map(PathBuf::as_path).collect();
        let mut found = find_other_mounts(&self.devices(), if self.left { &[] } else { &places });
        // What is propagated to other namespaces goes when the mount does.
        found.retain(|place| self.left || !places.contains(&place.path.as_path()));
        found
    }
}

/// The drafts, and the server that answers for them.
struct Desk {
    drafts: Arc<DraftService>,
    _server: Server,
}

/// A process that serves mounts.
pub struct Daemon {
    repository: Arc<Repository>,
    connection: Arc<connect::Connection>,
    /// The read-only one first.
    mounts: Vec<Mounted>,
    watchers: Vec<Watcher>,
    record: DaemonRecord,
    desk: Option<Desk>,
    /// Tells its numbers.
    stats: Server,
    /// Ends the mounts if this process hangs.
    watchdog: Option<Child>,
    /// How long a draft must be quiet to be committed.
    autocommit: Option<Duration>,
}

/// Opens the drafts, and answers for them.
fn open_desk(repository: &Arc<Repository>) -> Result<Desk> {
    let opened = open_drafts(repository).map_err(|e| held_by(&repository.layout, e))?;
    let drafts = Arc::new(opened);
    drafts.start_prehashing();
    let service: Arc<dyn DraftTransport> = Arc::<DraftService>::clone(&drafts);
    let services = Services { drafts: Some(service), ..Services::default() };
    let server = Server::start(&repository.layout.staging_socket(), services)?;
    Ok(Desk { drafts, _server: server })
}

/// Says by whom the drafts are held, when a mount that is gone from its place is used elsewhere.
fn held_by(layout: &Layout, error: Error) -> Error {
    let left = daemons(layout).unwrap_or_default().into_iter().find_map(|daemon| {
        if daemon.commits {
            let what = "which commits a draft and then ends".to_owned();
            return Some((daemon.pid, what));
        }
        let device = daemon.staging_device.filter(|_| daemon.left)?;
        let places = find_other_mounts(&[device], &[]);
        let places: Vec<_> = places.iter().map(ToString::to_string).collect();
        let what = format!("whose staging mount is still used: {}", places.join(", "));
        (!places.is_empty()).then_some((daemon.pid, what))
    });
    let Some((pid, what)) = left.filter(|_| error.kind() == Kind::Conflict) else {
        return error;
    };
    let what = format!("{}: process {pid}, {what}", error.message());
    Error::new(Kind::Conflict, what)
        .hint(format!("wait for it or unmount it there, or end the daemon for good: kill {pid}"))
}

/// What ends a daemon in order.
struct Told([Signal; 3]);

impl Told {
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
    /// Mounts what `verb` says.
    ///
    /// # Errors
    /// What is refused leaves nothing mounted.
    pub fn start(context: &Context, layout: &Layout, verb: &Mount) -> Result<Self> {
        let (options, access) = options(&verb.options, &context.access)?;
        refuse_no_text([Some(&verb.directory), verb.staging.as_ref(), access.cache.as_ref()])?;
        let connection = Arc::new(connect::Connection::open(layout)?);
        let registry: Arc<dyn Registry> = Arc::<connect::Connection>::clone(&connection);
        let repository = Arc::new(Repository::new(layout.clone(), registry, &access)?);
        if let Err(e) = process_id::release_orphans(&repository) {
            tracing::warn!("what dead writers left is not freed yet: {e}");
        }
        // Everything that can be refused comes before the first mount.
        let desk = verb.staging.is_some().then(|| open_desk(&repository)).transpose()?;
        let (mounts, watchers) = mount_both(&repository, verb, desk.as_ref(), options)?;
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
            cache: access.cache.clone(),
            cache_bytes: access.cache_bytes,
        };

        write_record(layout, &record)?;
        // Whoever moves the store looks for daemons, and sees this one from now on.
        maintenance::refuse_moving(&repository)?;
        let services = Services { stats: Some(Arc::clone(&repository)), ..Services::default() };
        let stats = Server::start(&layout.daemon_socket(record.pid), services)?;
        if let Some(address) = verb.metrics_listen {
            serve_metrics(address, Arc::clone(&repository))?;
        }
        let targets: Vec<_> = mounts.iter().map(|mounted| mounted.target().to_owned()).collect();
        let seconds = options.watchdog_seconds;
        let watchdog = (seconds > 0).then(|| watchdog::start(seconds, &targets)).transpose()?;
        let autocommit = verb.autocommit.map(Duration::from_secs);
        Ok(Self {
            repository,
            connection,
            mounts,
            watchers,
            record,
            desk,
            stats,
            watchdog,
            autocommit,
        })
    }

    /// Serves until it is told to end or its mounts are gone.
    ///
    /// # Errors
    /// When signals cannot be heard.
    pub fn serve(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Error::io("cannot wait for signals", e))?;
        let mut told = runtime.block_on(async { Told::listen() })?;
        runtime.block_on(self.wait(&mut told));
        self.leave(Some((&runtime, &mut told)));
        Ok(())
    }

    /// Unmounts at once.
    pub fn end(self) {
        self.leave(None);
    }

    /// Takes the mounts from their places and waits for their last users, or until it is told to end once more.
    fn leave(mut self, told: Option<(&Runtime, &mut Told)>) {
        for mounted in &self.mounts {
            mounted.leave();
        }
        // Names are watched as long as anybody may see them.
        let ended = self.last_users(told);
        for watcher in std::mem::take(&mut self.watchers) {
            watcher.stop();
        }
        self.desk = None;
        drop(self.stats);
        if let Some(mut watchdog) = self.watchdog {
            drop(watchdog.stdin.take());
            // It ends when its input does.
            let _ = watchdog.wait();
        }
        self.connection.close();
        let path = record_path(&self.repository.layout, self.record.pid);
        if let Err(e) = fs::remove_file(&path) {
            tracing::debug!("{} was not removed: {e}", path.display());
        }
        if !ended {
            tracing::warn!(
                "ended while it was used: readers get ENOTCONN, and no draft is committed"
            );
        }
        self.mounts.into_iter().for_each(Mounted::abandon);
    }

    /// Blocks until all mounts and commits have ended. Returns `false` if a second signal cut the wait short.
    fn last_users(&mut self, mut told: Option<(&Runtime, &mut Told)>) -> bool {
        let since = Instant::now();
        loop {
            let commits = self.desk.as_ref().is_some_and(|desk| desk.drafts.is_committing());
            if !commits && self.mounts.get(1).is_none_or(Mounted::has_ended) {
                // Another daemon may have the drafts: nobody reaches them here.
                self.desk = None;
            }
            if !commits && self.mounts.iter().all(Mounted::has_ended) {
                return true;
            }
            if since.elapsed() > LEAVE_AFTER {
                self.say_left(commits);
            }
            let Some((runtime, told)) = &mut told else {
                std::thread::sleep(POLL_EVERY);
                continue;
            };
            let again = async { tokio::time::timeout(POLL_EVERY, told.heard()).await.is_ok() };
            if runtime.block_on(again) {
                return false;
            }
        }
    }

    /// Updates the daemon's record: its mounts are detached, whether it still commits, and which mounts are still
    /// used. Device numbers of ended mounts are cleared, because the kernel reuses them.
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
            "its mounts are used elsewhere, or drafts are being committed: it ends after that"
        );
        if let Err(e) = write_record(&self.repository.layout, &self.record) {
            tracing::warn!("that the mounts have left is not recorded: {e}");
        }
    }

    async fn wait(&self, told: &mut Told) {
        let mut swept = Instant::now();
        let mut committing: Option<tokio::task::JoinHandle<()>> = None;
        let mut looked = Instant::now();
        let mut tick = tokio::time::interval(POLL_EVERY);
        loop {
            tokio::select! {
                () = told.heard() => return,
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
                let idle = committing.as_ref().is_none_or(tokio::task::JoinHandle::is_finished);
                if let (Some(desk), Some(quiet), true) = (&self.desk, self.autocommit, idle) {
                    let drafts = Arc::clone(&desk.drafts);
                    let commit = move || drafts.autocommit(quiet);
                    committing = Some(tokio::task::spawn_blocking(commit));
                }
            }
            if swept.elapsed() > SWEEP_EVERY {
                swept = Instant::now();
                let repository = Arc::clone(&self.repository);
                tokio::task::spawn_blocking(move || {
                    if let Err(e) = process_id::release_orphans(&repository) {
                        tracing::warn!("what dead writers left is not freed yet: {e}");
                    }
                });
            }
        }
    }
}

/// Mounts the versions, and the drafts where there is a desk: both or none.
fn mount_both(
    repository: &Arc<Repository>,
    verb: &Mount,
    desk: Option<&Desk>,
    options: MountOptions,
) -> Result<(Vec<Mounted>, Vec<Watcher>)> {
    let (mounted, watcher) = mount_read_only(Arc::clone(repository), &verb.directory, options)?;
    let (mut mounts, mut watchers) = (vec![mounted], vec![watcher]);
    if let (Some(target), Some(desk)) = (&verb.staging, desk) {
        let drafts = Arc::clone(&desk.drafts);
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

fn record_path(layout: &Layout, pid: u32) -> PathBuf {
    layout.daemons().join(pid.to_string())
}

fn write_record(layout: &Layout, record: &DaemonRecord) -> Result<()> {
    let folder = layout.daemons();
    fs::create_dir_all(&folder).at("create", &folder)?;
    let path = record_path(layout, record.pid);
    let text = serde_json::to_vec(record).expect("a record is plain text");
    let part = folder.join(format!(".{}", record.pid));
    fs::write(&part, text).and_then(|()| fs::rename(&part, &path)).at("write", &path)
}

/// Returns the daemons of a repository that run.
///
/// # Errors
/// When the folder cannot be read.
pub fn daemons(layout: &Layout) -> Result<Vec<DaemonRecord>> {
    Ok(Running::of(layout)?.records)
}

/// The running daemons of a repository, and the records that cannot be read.
#[derive(Default)]
pub struct Running {
    /// The records of the running daemons.
    pub records: Vec<DaemonRecord>,
    /// One line for `status` per unreadable record.
    pub unreadable: Vec<String>,
}

impl Running {
    /// Lists the running daemons, and removes the files of dead ones.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn of(layout: &Layout) -> Result<Self> {
        let folder = layout.daemons();
        let mut running = Self::default();
        let entries = match fs::read_dir(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(running),
            entries => entries.at("list", &folder)?,
        };
        for entry in entries {
            let path = entry.at("list", &folder)?.path();
            if !is_record(&path) {
                continue;
            }
            let record = match read_record(&path) {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(what) => {
                    running.unreadable.push(what);
                    continue;
                }
            };
            if process_id::is_dead(&record.holder) {
                // Another command may have removed it at the same moment.
                let _ = fs::remove_file(&path);
                let _ = fs::remove_file(layout.daemon_socket(record.pid));
            } else {
                running.records.push(record);
            }
        }
        Ok(running)
    }
}

/// Reads a record. Returns `None` if it was removed meanwhile, and a line for `status` if it cannot be read.
fn read_record(path: &Path) -> std::result::Result<Option<DaemonRecord>, String> {
    let found = match fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        found => found.and_then(|text| Ok(serde_json::from_slice(&text)?)),
    };
    found.map(Some).map_err(|e| {
        let path = path.display();
        format!(
            "{path} cannot be read ({e}): if the process of that number is a daemon of this repository, end it; \
             then remove the file"
        )
    })
}

/// Returns whether a file is a record: the same folder holds sockets and unfinished records.
fn is_record(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.bytes().all(|b| b.is_ascii_digit())
}
