//! The sums of what a cache takes, shared by all processes that use it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};

/// The space that a cache takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// The bytes that are written or about to be.
    pub(crate) bytes: u64,
    /// The number of segments.
    pub(crate) files: u64,
    /// The part of `bytes` that this process is about to write.
    pub(crate) flying: u64,
}

/// The file with the sums, and one file for each process with the bytes that it is about to write.
pub(crate) struct Quota {
    /// The open files, behind a mutex: `flock` locks an open file, which all threads share.
    files: Mutex<Files>,
    using: PathBuf,
}

struct Files {
    sums: File,
    /// The file of this process, locked as long as the process lives.
    own: File,
    flying: u64,
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
}

impl Quota {
    /// Opens or creates the file `sums`, and adds this process to those in the folder `using`.
    pub(crate) fn open(sums: &Path, using: PathBuf) -> io::Result<Self> {
        let sums = open(sums)?;
        // Under this lock no process takes the new file for that of a dead one before it is locked.
        flock(&sums, FlockOperation::LockExclusive)?;
        let own = tempfile::Builder::new().prefix("").rand_bytes(32).tempfile_in(&using)?;
        let (own, _) = own.keep().map_err(|e| e.error)?;
        flock(&own, FlockOperation::LockExclusive)?;
        flock(&sums, FlockOperation::Unlock)?;
        Ok(Self { files: Mutex::new(Files { sums, own, flying: 0 }), using })
    }

    /// Calls `change` with the sums, while no other thread or process changes them.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Sums) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        flock(&files.sums, FlockOperation::LockExclusive)?;
        let changed = files.change(change);
        flock(&files.sums, FlockOperation::Unlock)?;
        changed
    }

    /// Returns the bytes that other processes are about to write, and removes the entries of
    /// processes that have ended. Callers hold the lock of [`Quota::change`].
    pub(crate) fn reserved_by_others(&self) -> io::Result<u64> {
        let mut flying = 0;
        for user in fs::read_dir(&self.using)? {
            let path = user?.path();
            let file = match open_existing(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            match flock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => fs::remove_file(&path)?,
                Err(_) => flying += read_number(&file)?,
            }
        }
        Ok(flying)
    }
}

fn open_existing(path: &Path) -> io::Result<File> {
    File::options().read(true).open(path)
}

/// Reads the number in a file; 0 for a file that was just made, which is empty.
fn read_number(file: &File) -> io::Result<u64> {
    let mut bytes = [0; 8];
    Ok(if file.read_at(&mut bytes, 0)? == bytes.len() { number(&bytes) } else { 0 })
}

impl Files {
    fn change<T>(&mut self, change: impl FnOnce(&mut Sums) -> io::Result<T>) -> io::Result<T> {
        let mut bytes = [0; 16];
        let there = self.sums.read_at(&mut bytes, 0)? == bytes.len();
        let before =
            Sums { bytes: number(&bytes[..8]), files: number(&bytes[8..]), flying: self.flying };
        let mut sums = before;
        let done = change(&mut sums);
        // A kill between the two writes leaves too much entered, never too little.
        if sums.flying > before.flying {
            self.own.write_all_at(&sums.flying.to_le_bytes(), 0)?;
        }
        if !there || (sums.bytes, sums.files) != (before.bytes, before.files) {
            bytes[..8].copy_from_slice(&sums.bytes.to_le_bytes());
            bytes[8..].copy_from_slice(&sums.files.to_le_bytes());
            self.sums.write_all_at(&bytes, 0)?;
        }
        if sums.flying < before.flying {
            self.own.write_all_at(&sums.flying.to_le_bytes(), 0)?;
        }
        self.flying = sums.flying;
        done
    }
}
