//! Mounting, watching names move, unmounting.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use fuser::{BackgroundSession, Config, Filesystem, MountOption, Notifier, Session, SessionACL};
use rustix::mount::{UnmountFlags, unmount};

use crate::error::{Error, IoContext, Kind, MountHint, Result};
use crate::model::version::Change;
use crate::mount::guard::Guarded;
use crate::mount::inode::paths::ROOT;
use crate::mount::mounts::{SOURCE_NAME, mounts_with_devices};
use crate::mount::read_only::adapter::ReadOnly;
use crate::mount::read_only::fs::ReadFs;
use crate::mount::staging::files::Staging;
use crate::mount::staging::fs::StagingFs;
use crate::ops::browse;
use crate::ops::drafts::DraftService;
use crate::ops::prefetch::Mode;
use crate::ops::repository::Repository;

/// The kernel's readahead for a mount, in KiB: fuser cannot request more than 128.
const READ_AHEAD_KIB: u32 = 1024;
/// The length of one wait for changes, while nothing changes.
const CHANGES_WAIT_MILLISECONDS: u64 = 3_000;
/// The same, after a change: names are gone before bytes, which then go within a moment.
const SETTLING_WAIT_MILLISECONDS: u64 = 200;
/// The number of such waits after a change.
const SETTLING_WAITS: u32 = 15;
/// The pause before the next attempt if the registry cannot be reached.
const CHANGES_RETRY: Duration = Duration::from_millis(200);
/// The time that an existing mount has to show that its daemon lives.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// The pause between two checks whether a mount has ended.
const END_POLL: Duration = Duration::from_millis(5);
/// The options of `-o`.
#[derive(Debug, Clone, Copy)]
pub struct MountOptions {
    /// True if other users may use the mount. On by default for root.
    pub allow_other: bool,
    /// True if nothing in it may be executed.
    pub noexec: bool,
    /// True if the kernel may read and write plain files of drafts by itself, where it can. On by
    /// default.
    pub passthrough: bool,
    /// The content of a remote store that is prefetched.
    pub prefetch: Mode,
    /// The time without a reply after which a mount is ended; 0: no limit.
    pub watchdog_seconds: u64,
}

/// A mount that is up.
pub struct Mounted {
    target: PathBuf,
    device: u32,
    session: Option<BackgroundSession>,
}

impl Mounted {
    /// Returns the mount point.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Returns the minor number of its device, the same wherever it can be reached.
    pub(crate) fn device(&self) -> u32 {
        self.device
    }

    /// Returns whether no process can reach it any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.guard.is_finished())
    }

    /// Returns whether it can be reached where it was mounted.
    pub(crate) fn is_in_place(&self) -> bool {
        // Without a device number this cannot be checked.
        self.device == 0
            || mounts_with_devices().iter().any(|(device, source, point)| {
                *device == self.device && source == SOURCE_NAME && *point == self.target
            })
    }

    /// Returns a sender of notifications, which make the kernel forget.
    pub(crate) fn notifier(&self) -> Option<Notifier> {
        self.session.as_ref().map(BackgroundSession::notifier)
    }

    /// Takes it out of the tree. A mount that is in use ends when its last user does.
    pub(crate) fn leave(&self) {
        // Another daemon may have mounted there meanwhile.
        if !self.has_ended() && self.is_in_place() {
            detach(&self.target);
        }
    }

    /// Unmounts, and waits for the last user.
    pub(crate) fn unmount(self) {
        self.leave();
        while !self.has_ended() {
            std::thread::sleep(END_POLL);
        }
        self.abandon();
    }

    /// Forgets it without touching its mount point: `fuser` would unmount another mount there.
    pub(crate) fn abandon(mut self) {
        std::mem::forget(self.session.take());
    }
}

/// Takes a mount out of the tree, whether or not it is used.
pub(crate) fn detach(target: &Path) {
    let detached = unmount(target, UnmountFlags::DETACH).map_err(io::Error::from);
    let detached = detached.or_else(|e| match e.kind() {
        // Without root, the helper that mounted it may unmount it.
        io::ErrorKind::PermissionDenied => fusermount(target, &["-u", "-z"]),
        _ => Err(e),
    });
    if let Err(e) = detached {
        tracing::debug!("{} was not unmounted: {e}", target.display());
    }
}

/// Unmounts `target` if it is not in use; with `lazy`, in any case. Succeeds if it is not mounted
/// any more: a daemon that loses one of its mounts takes the other away by itself.
///
/// # Errors
/// [`Kind::Conflict`] if it is in use.
pub fn unmount_if_idle(target: &Path, lazy: bool) -> Result<()> {
    let (flags, helper): (_, &[&str]) =
        if lazy { (UnmountFlags::DETACH, &["-u", "-z"]) } else { (UnmountFlags::empty(), &["-u"]) };
    let done = unmount(target, flags).map_err(io::Error::from);
    let done = done.or_else(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => fusermount(target, helper),
        _ => Err(e),
    });
    done.or_else(|e| match e.kind() {
        io::ErrorKind::ResourceBusy => {
            let what = format!("{} is in use", target.display());
            Err(Error::new(Kind::Conflict, what).hint(MountHint::UnmountLazily))
        }
        _ if !mounts().iter().any(|(_, point)| point == target) => Ok(()),
        _ => Err(Error::io(format!("cannot unmount {}", target.display()), e)),
    })
}

/// Runs `fusermount3`.
pub(crate) fn fusermount(target: &Path, flags: &[&str]) -> io::Result<()> {
    let status = std::process::Command::new("fusermount3").args(flags).arg(target).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("fusermount3 failed")) }
}

/// Mounts `fs` on `target`.
///
/// # Errors
/// [`Kind::NotFound`] if the mount point does not exist, [`Kind::Conflict`] if it is not an empty
/// directory or a mount already, [`Kind::Unavailable`] without /dev/fuse.
pub(crate) fn mount<F: Filesystem>(
    fs: F,
    target: &Path,
    options: MountOptions,
    read_only: bool,
) -> Result<Mounted> {
    let target = prepare(target)?;
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(SOURCE_NAME.to_owned()),
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::DefaultPermissions,
        if read_only { MountOption::RO } else { MountOption::RW },
    ];
    if options.noexec {
        config.mount_options.push(MountOption::NoExec);
    }
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(std::thread::available_parallelism().map_or(2, usize::from));
    config.clone_fd = true;
    let session = Session::new(Guarded(fs), &target, &config).and_then(Session::spawn);
    let session = session.map_err(|e| mount_error(&target, e))?;
    raise_readahead(&target);
    let device = mounts_with_devices().into_iter().rfind(|(_, _, point)| *point == target);
    let device = device.map_or(0, |(device, ..)| device);
    Ok(Mounted { target, device, session: Some(session) })
}

fn mount_error(target: &Path, error: io::Error) -> Error {
    let what = format!("cannot mount on {}", target.display());
    if !Path::new("/dev/fuse").exists() {
        return Error::new(Kind::Unavailable, what)
            .because(error)
            .hint("there is no /dev/fuse: `modprobe fuse`, or give the container the device");
    }
    if let Err(e) = fs::File::options().read(true).write(true).open("/dev/fuse") {
        return Error::io(what, e)
            .hint("this user may not open /dev/fuse: its mode should be 0666");
    }
    if !rustix::process::geteuid().is_root() && !helper_is_there() {
        return Error::new(Kind::Unavailable, what)
            .because(error)
            .hint("without root, mounting needs fusermount3: install the package fuse3");
    }
    Error::io(what, error)
}

/// Returns whether `fusermount3` is in the path.
#[expect(clippy::disallowed_methods, reason = "the library that runs it searches this variable")]
fn helper_is_there() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("fusermount3").exists())
}

/// Returns the mount point, absolute, checked, and cleared of a mount whose daemon is dead.
fn prepare(target: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(target).at("find", target)?;
    if is_dead_mount(&absolute) {
        tracing::info!("{}: clearing a dead mount", absolute.display());
        detach(&absolute);
    }
    let target = fs::canonicalize(&absolute).map_err(|e| {
        Error::io(format!("cannot mount on {}", absolute.display()), e)
            .hint(format!("make the mount point first: mkdir -p {}", absolute.display()))
    })?;
    if is_mount_point(&target) {
        let what = format!("{} is a mount point already", target.display());
        return Err(Error::new(Kind::Conflict, what)
            .hint(MountHint::UnmountOrChoose(target.display().to_string())));
    }
    let found = match fs::read_dir(&target) {
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => "is not a directory",
        entries => match entries.at("mount on", &target)?.next() {
            Some(_) => "is not empty",
            None => return Ok(target),
        },
    };
    let what = format!("{} {found}", target.display());
    Err(Error::new(Kind::Conflict, what).hint("mount on an empty directory"))
}

/// Returns whether a mount of ours is there whose daemon is gone. Attributes may still be cached,
/// but the kernel passes every statfs(2) to the daemon.
fn is_dead_mount(target: &Path) -> bool {
    if !mounts().iter().any(|(source, point)| source == SOURCE_NAME && point == target) {
        return false;
    }
    let (answer, answered) = mpsc::channel();
    let path = target.to_owned();
    // In a thread of its own: a daemon that hangs never replies.
    let asks = std::thread::Builder::new().name("statvfs".to_owned());
    if let Err(e) = asks.spawn(move || answer.send(rustix::fs::statvfs(&path).err())) {
        tracing::debug!("{}: cannot check whether its daemon lives: {e}", target.display());
    }
    let error = answered.recv_timeout(ANSWER_DEADLINE).ok().flatten();
    matches!(error, Some(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED))
}

/// Returns whether something is mounted exactly there.
pub(crate) fn is_mount_point(target: &Path) -> bool {
    mounts().iter().any(|(_, point)| point == target)
}

/// Lists source name and mount point of all mounts.
pub fn mounts() -> Vec<(String, PathBuf)> {
    mounts_with_devices().into_iter().map(|(_, source, point)| (source, point)).collect()
}

/// Raises the readahead: cold sequential reading becomes a few long requests. Only root may set it.
fn raise_readahead(target: &Path) {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = fs::metadata(target) else {
        return;
    };
    let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(e) = fs::write(&path, READ_AHEAD_KIB.to_string()) {
        tracing::debug!("cannot raise the readahead: {e}");
    }
}

/// Mounts the versions of `repository` read-only.
///
/// # Errors
/// Those of `mount`.
pub fn mount_read_only(
    repository: Arc<Repository>,
    target: &Path,
    options: MountOptions,
) -> Result<(Mounted, Watcher)> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let shared = options.allow_other;
    let fs = Arc::new(ReadFs::new(repository, uid.as_raw(), gid.as_raw(), shared));
    let mounted = mount(ReadOnly::new(Arc::clone(&fs), options.prefetch), target, options, true)?;
    let watcher = Watcher::start(fs, mounted.notifier())?;
    Ok((mounted, watcher))
}

/// Mounts the drafts of `service`, and beside them the versions of `repository`.
///
/// # Errors
/// Those of `mount`.
pub fn mount_staging(
    repository: Arc<Repository>,
    service: Arc<DraftService>,
    target: &Path,
    options: MountOptions,
) -> Result<(Mounted, Watcher)> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    // In this mount the kernel sends a request when a file is opened.
    let read = ReadFs::new(repository, uid.as_raw(), gid.as_raw(), false).writable();
    let read = Arc::new(read);
    let (notified, names, drafts) =
        (Arc::clone(&service), Arc::clone(&read), Arc::clone(service.drafts()));
    let fs = StagingFs { read: Arc::clone(&read), service, shared: options.allow_other };
    let staging = Staging::new(fs, options.passthrough);
    let mounted = mount(staging, target, options, false)?;
    if let Some(notifier) = mounted.notifier() {
        // Errors do not matter: ENOENT says that the kernel does not hold the name.
        notified.notify_with(Box::new(move |draft, path| match path.split_last() {
            Some((name, above)) => {
                let invalidate = |parent| {
                    let _ = notifier.inval_entry(fuser::INodeNo(parent), name.as_os_str());
                };
                // A directory that does not exist any more has no entries.
                let _ = drafts.with_directory(draft, above, invalidate);
            }
            None => {
                let name = std::ffi::OsStr::new(draft.artifact.as_str());
                for project in names.projects(&draft.project) {
                    let _ = notifier.inval_entry(fuser::INodeNo(project), name);
                }
            }
        }));
    }
    let watcher = Watcher::start(read, mounted.notifier())?;
    Ok((mounted, watcher))
}

/// A thread that notifies the kernel when names move. It serves no request: a notification that is
/// sent before the reply to a request can wait for that request.
pub struct Watcher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to watch for the mount behind `notifier`.
    ///
    /// # Errors
    /// Any error of starting a thread.
    pub(crate) fn start(fs: Arc<ReadFs>, notifier: Option<Notifier>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = notifier.map(|notifier| {
            let watches = std::thread::Builder::new().name("names".to_owned());
            watches.spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    watch(&fs, &notifier, &stopped);
                }
            })
        });
        let thread = thread.transpose().map_err(|e| Error::io("cannot watch names", e))?;
        Ok(Self { stop, thread })
    }

    /// Stops the thread, which ends when its wait for changes is over.
    pub(crate) fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take());
    }
}

fn watch(fs: &ReadFs, notifier: &Notifier, stopped: &AtomicBool) {
    let repository = fs.repository();
    let mut last = match browse::last_change(repository) {
        Ok(last) => last,
        Err(e) => return wait_for_registry(&e),
    };
    // Names may have moved before the watch began.
    let mut watched = forget_moved(fs, notifier, &everything(fs));
    let mut settling = 0;
    while !stopped.load(Ordering::Relaxed) {
        if let Err(e) = watched {
            return wait_for_registry(&e);
        }
        let wait =
            if settling > 0 { SETTLING_WAIT_MILLISECONDS } else { CHANGES_WAIT_MILLISECONDS };
        watched = browse::changes(repository, last, wait).and_then(|changes| {
            last = changes.last;
            settling = match changes.lost || !changes.changes.is_empty() {
                true => SETTLING_WAITS,
                false => settling.saturating_sub(1),
            };
            match changes.lost {
                true => forget_moved(fs, notifier, &everything(fs)),
                false => forget_moved(fs, notifier, &changes.changes),
            }
        });
        repository.store.forget_removed();
    }
}

/// Returns the changes that stand for everything that the kernel holds.
fn everything(fs: &ReadFs) -> Vec<Change> {
    let artifacts = fs.known_artifacts().into_iter().map(Change::Artifact);
    artifacts.chain([Change::Runs]).collect()
}

fn wait_for_registry(error: &Error) {
    tracing::debug!("names are not watched at the moment: {error}");
    std::thread::sleep(CHANGES_RETRY);
}

/// Makes the kernel forget what changes have moved. Its ENOENT is no error: it does not hold the
/// inode or entry.
fn forget_moved(fs: &ReadFs, notifier: &Notifier, changes: &[Change]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    // The root is included: new projects may exist.
    let mut inodes = std::collections::BTreeSet::from([ROOT]);
    // An artifact that changed several times is looked up once.
    let mut seen = std::collections::HashSet::new();
    for change in changes {
        let path = match change {
            Change::Artifact(path) if seen.insert(path) => path,
            Change::Artifact(_) => continue,
            Change::Runs => {
                inodes.extend(fs.run_lists());
                continue;
            }
        };
        let moved = fs.moved(path)?;
        for (parent, name) in moved.entries {
            let name = std::ffi::OsStr::from_bytes(&name);
            let _ = notifier.inval_entry(fuser::INodeNo(parent), name);
        }
        inodes.extend(moved.projects.into_iter().chain(moved.descriptions));
    }
    for ino in inodes {
        let _ = notifier.inval_inode(fuser::INodeNo(ino), 0, 0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mounted_any_more_is_unmounted() {
        let folder = tempfile::tempdir().unwrap();
        for lazy in [false, true] {
            unmount_if_idle(folder.path(), lazy).unwrap();
        }
        assert!(unmount_if_idle(Path::new("/proc"), false).is_err());
    }
}
