//! What a cache may take, entered by every process that uses it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};

/// What is entered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Bytes that are there or about to be.
    pub bytes: u64,
    /// Segments.
    pub files: u64,
}

/// The file with the sums.
pub struct Ledger {
    /// The lock is the open file's, so threads of one process exclude each other by the mutex.
    file: Mutex<File>,
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

impl Ledger {
    /// Opens the ledger at `path`, made if need be.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: Mutex::new(open(path)?) })
    }

    /// Changes the sums; nobody else does meanwhile.
    pub fn change<T>(&self, change: impl FnOnce(&mut Sums) -> T) -> io::Result<T> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        flock(&*file, FlockOperation::LockExclusive)?;
        let changed = Self::change_locked(&file, change);
        flock(&*file, FlockOperation::Unlock)?;
        changed
    }

    fn change_locked<T>(file: &File, change: impl FnOnce(&mut Sums) -> T) -> io::Result<T> {
        let mut bytes = [0; 16];
        // A file that was just made is empty.
        let there = file.read_at(&mut bytes, 0)? == bytes.len();
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let before =
            if there { Sums { bytes: number(0), files: number(8) } } else { Sums::default() };
        let mut sums = before;
        let done = change(&mut sums);
        if sums != before || !there {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&sums.bytes.to_le_bytes());
            bytes[8..].copy_from_slice(&sums.files.to_le_bytes());
            file.write_all_at(&bytes, 0)?;
        }
        Ok(done)
    }
}

/// Joins the processes that use the cache; whether this one is alone.
pub fn join(path: &Path) -> io::Result<(File, bool)> {
    let file = open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok((file, true)),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            flock(&file, FlockOperation::LockShared)?;
            Ok((file, false))
        }
        Err(e) => Err(e.into()),
    }
}

/// Who was alone lets others in.
pub fn share(file: &File) -> io::Result<()> {
    Ok(flock(file, FlockOperation::LockShared)?)
}
