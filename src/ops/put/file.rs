//! A file that is read: its bytes, its holes, and changes meanwhile.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{SeekFrom, seek};

use super::stamp::Stamp;
use crate::content::external;
use crate::error::{Error, IoContext, Kind, PutHint, Result};
use crate::model::digest::DIGEST_BYTES;
use crate::staging::Writers;

/// The number of times that a file that changes while it is read is read again.
pub(crate) const CHANGED_RETRIES: u32 = 3;

/// The age that the times of a file without writers need for a later change to show in them. It
/// covers the granularity of any file system's clock (FAT: 2 s).
pub(crate) const SETTLED: Duration = Duration::from_secs(2);
/// The same age if it is unknown whether the file has writers. A store into mapped memory shows in
/// a file's times after writeback, which the kernel does after 35 s (`dirty_expire_centisecs`).
const SETTLED_UNTOLD: Duration = Duration::from_secs(60);
/// The file systems whose files never show a store into mapped memory: `TMPFS_MAGIC` and
/// `RAMFS_MAGIC` of statfs(2).
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// The file system on which kernels before 6.8 do not count mappings: `OVERLAYFS_SUPER_MAGIC`.
const OVERLAYS: u64 = 0x794c_7630;

/// Returns the age that the times of a file need for a later change to show in them; `None` if it
/// may never show. A later writer moves them with a write, or with its first store into a page.
fn settles_in(file: &File) -> Option<Duration> {
    let kind = rustix::fs::fstatfs(file).map_or(OVERLAYS, |space| space.f_type as u64);
    match Writers::of(file) {
        Writers::Some => None,
        _ if IN_MEMORY.contains(&kind) => None,
        Writers::None if kind != OVERLAYS => Some(SETTLED),
        Writers::None | Writers::Untold => Some(SETTLED_UNTOLD),
    }
}

/// A file open for reading, with its metadata at that time.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: File,
    /// Its stamp when it was opened.
    pub(crate) stamp: Stamp,
    /// Its length when it was opened.
    pub(crate) size_bytes: u64,
    /// Its executable bit: that of the owner, the group or others.
    pub(crate) executable: bool,
    /// The age that its times needed then for a later change to show; `None` if it may never show.
    pub(crate) settles_in: Option<Duration>,
}

impl OpenFile {
    /// Opens `path`. A symlink is followed, as the walk decided.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::of(File::open(path).at("read", path)?, path)
    }

    /// Opens an external file. The last `depth` names of its path are below the recorded folder.
    ///
    /// # Errors
    /// Any error of open(2), also for a symlink that was not there when the folder was walked.
    pub(crate) fn open_below(path: &Path, depth: u32) -> Result<Self> {
        Self::of(external::open_below(path, depth).at("read", path)?, path)
    }

    fn of(file: File, path: &Path) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let settles_in = settles_in(&file);
        let meta = file.metadata().at("read", path)?;
        Ok(Self {
            settles_in,
            stamp: Stamp::of(&meta),
            size_bytes: meta.len(),
            executable: meta.permissions().mode() & 0o111 != 0,
            file,
        })
    }

    /// Reads from `offset` until `buffer` is full or the file ends. Returns the number of bytes.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    /// Returns the BLAKE3 of the whole file.
    pub(crate) fn hash(&self) -> io::Result<[u8; DIGEST_BYTES]> {
        external::hash(&self.file)
    }

    /// Returns the end of the hole that contains `offset`; `offset` itself if data is there.
    pub(crate) fn hole_end(&self, offset: u64) -> u64 {
        match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => self.size_bytes,
            Err(_) => offset,
        }
    }

    /// Returns whether the file has the stamp that it had when it was opened.
    pub(crate) fn is_unchanged(&self) -> io::Result<bool> {
        Ok(Stamp::of(&self.file.metadata()?) == self.stamp)
    }
}

/// Returns the error for a file that changes each time it is read.
pub(crate) fn keeps_changing(path: &Path) -> Error {
    let what = format!("{} changes while it is read", path.display());
    Error::new(Kind::Conflict, what).hint(PutHint::ExcludeOrWait)
}
