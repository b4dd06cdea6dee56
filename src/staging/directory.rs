//! Listing a directory of a draft.
//!
//! Positions are the host's own cookies (`d_off`, getdents64(2)): they stay right while entries
//! come and go, and a directory of a million names needs no memory.

use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, Mode, OFlags, RawDir, SeekFrom, seek};

use super::Result;
use super::handle::DirectoryHandle;
use super::scratch::Drafts;

/// Entries asked of the host at once, in bytes.
const BUFFER_BYTES: usize = 32 << 10;

/// An entry of a listing.
pub struct Listed {
    /// Its name; `.` and `..` too.
    pub name: OsString,
    /// The host's inode number.
    pub inode: u64,
    /// What it is.
    pub kind: FileType,
    /// Where the next entry is.
    pub next: u64,
}

impl Drafts {
    /// Opens a directory for listing; the number of the handle.
    ///
    /// # Errors
    /// What the host says; ENFILE when too many are open.
    pub fn open_directory(&self, id: u64) -> Result<u64> {
        let _names = self.shared();
        let path = self.lock_nodes().path(id)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.directory, &path, flags, Mode::empty())?;
        self.handles.add_directory(DirectoryHandle(Mutex::new(fd)))
    }

    /// Calls `each` with the entries from `position` on until it says that it is full (`false`).
    ///
    /// # Errors
    /// What the host says.
    pub fn list_directory(
        &self,
        handle: u64,
        position: u64,
        each: &mut dyn FnMut(Listed) -> bool,
    ) -> Result<()> {
        let open = self.handles.directory(handle)?;
        let fd = open.0.lock().unwrap_or_else(PoisonError::into_inner);
        seek(&*fd, SeekFrom::Start(position))?;
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut entries = RawDir::new(&*fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let listed = Listed {
                name: OsString::from_vec(entry.file_name().to_bytes().to_vec()),
                inode: entry.ino(),
                kind: entry.file_type(),
                next: entry.next_entry_cookie(),
            };
            if !each(listed) {
                break;
            }
        }
        Ok(())
    }

    /// Makes the names of a directory durable.
    ///
    /// # Errors
    /// What the disk says.
    pub fn sync_directory(&self, handle: u64) -> Result<()> {
        let open = self.handles.directory(handle)?;
        let fd = open.0.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::fsync(&*fd)
    }
}
