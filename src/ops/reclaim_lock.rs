//! The lock that keeps maintenance apart from processes that free dead bytes.
//!
//! Such a process looks up which bytes are dead, and then frees them in the store. A rebuild in
//! between would revive objects that the indexes still name, although their bytes are about to be
//! freed. So these processes share the lock, from the look-up to the end. Maintenance sets its mark,
//! which keeps others from beginning, and then waits until no process has the lock.
//!
//! The lock is an flock(2) on the repository's directory. It needs no room on a full disk, and the
//! kernel releases it when its process ends. If several hosts share the registry, a lease stands in
//! for it (`garbage.rs`): maintenance does not begin while there is one.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::repository::Repository;
use crate::error::{Error, IoContext, Kind, Result};

/// The longest wait for the lock.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// The lock, shared with others that free dead bytes.
pub(super) struct ReclaimLock {
    _directory: File,
}

/// Takes the lock, to look for dead bytes and free them.
///
/// # Errors
/// [`Kind::Conflict`] while maintenance begins.
pub(super) fn share(repository: &Repository) -> Result<ReclaimLock> {
    let directory = lock(repository, FlockOperation::NonBlockingLockShared)?;
    Ok(ReclaimLock { _directory: directory })
}

/// Waits until no process frees bytes. The caller has set the maintenance mark.
///
/// # Errors
/// [`Kind::Conflict`] if one still does after some seconds.
pub(super) fn wait_for_others(repository: &Repository) -> Result<()> {
    if repository.is_shared() {
        return Ok(());
    }
    lock(repository, FlockOperation::NonBlockingLockExclusive).map(drop)
}

fn lock(repository: &Repository, how: FlockOperation) -> Result<File> {
    let root = &repository.layout.root;
    let directory = File::open(root).at("open", root)?;
    let start = Instant::now();
    loop {
        match flock(&directory, how) {
            Ok(()) => return Ok(directory),
            Err(Errno::WOULDBLOCK | Errno::INTR) if start.elapsed() < PATIENCE => {
                std::thread::sleep(PAUSE);
            }
            Err(Errno::WOULDBLOCK) => {
                let what = "another process frees the bytes of deleted versions";
                return Err(Error::new(Kind::Conflict, what).hint("try again when it has finished"));
            }
            Err(e) => return Err(std::io::Error::from(e)).at("lock", root),
        }
    }
}
