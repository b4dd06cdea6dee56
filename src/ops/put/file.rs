//! Reading one file: in chunks, with holes skipped, and noticing when it changes meanwhile.

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

/// How often a file that changes while it is read is read again before it is refused.
pub const CHANGED_RETRIES: u32 = 3;

/// How old a file's times must be, when nobody writes to it, for a later change to show in them: more
/// than the grain of any file system's clock (FAT: 2 s).
pub const SETTLED: Duration = Duration::from_secs(2);
/// The same where nobody can tell who writes to it. What is stored into mapped memory shows in a file's
/// times once the page was written back, which the kernel does after 35 s (`dirty_expire_centisecs`).
const SETTLED_UNTOLD: Duration = Duration::from_secs(60);
/// File systems whose files never show what is stored into mapped memory: `TMPFS_MAGIC` and
/// `RAMFS_MAGIC` of statfs(2).
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// Where the kernels before 6.8 do not count who has a file mapped: `OVERLAYFS_SUPER_MAGIC`.
const OVERLAYS: u64 = 0x794c_7630;

/// How old the times of a file must be for a later change to show in them; `None` if it may never show.
/// Who begins to write later moves them: a first store into a page does, and a write.
fn settles_in(file: &File) -> Option<Duration> {
    let kind = rustix::fs::fstatfs(file).map_or(OVERLAYS, |space| space.f_type as u64);
    match Writers::of(file) {
        Writers::Some => None,
        _ if IN_MEMORY.contains(&kind) => None,
        Writers::None if kind != OVERLAYS => Some(SETTLED),
        Writers::None | Writers::Untold => Some(SETTLED_UNTOLD),
    }
}

/// A file open for reading, and what it was when it was opened.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    /// What it was when it was opened.
    pub stamp: Stamp,
    /// Its length then.
    pub size_bytes: u64,
    /// Whether anybody may execute it.
    pub executable: bool,
    /// How old its times must have been then for a later change to show; `None` if it may never show.
    pub settles_in: Option<Duration>,
}

impl OpenFile {
    /// Opens `path`. A symlink is followed: the walk decided that it should be.
    ///
    /// # Errors
    /// What the host says.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of(File::open(path).at("read", path)?, path)
    }

    /// Opens an external file, of whose path the last `depth` names are below the folder that is recorded.
    ///
    /// # Errors
    /// What the host says, also of a symlink that was not there when the folder was walked.
    pub fn open_below(path: &Path, depth: u32) -> Result<Self> {
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

    /// Reads from `offset` until `buffer` is full or the file ends.
    ///
    /// # Errors
    /// What the host says.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
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

    /// The BLAKE3 of all of it.
    ///
    /// # Errors
    /// What the host says.
    pub fn hash(&self) -> io::Result<[u8; DIGEST_BYTES]> {
        external::hash(&self.file)
    }

    /// Where the hole that contains `offset` ends; `offset` itself when data is there.
    pub fn hole_end(&self, offset: u64) -> u64 {
        match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => self.size_bytes,
            Err(_) => offset,
        }
    }

    /// Whether it is still what it was when it was opened.
    ///
    /// # Errors
    /// What the host says.
    pub fn is_unchanged(&self) -> io::Result<bool> {
        Ok(Stamp::of(&self.file.metadata()?) == self.stamp)
    }
}

/// What a file gets that changes each time it is read.
pub fn keeps_changing(path: &Path) -> Error {
    let what = format!("{} changes while it is read", path.display());
    Error::new(Kind::Conflict, what).hint(PutHint::ExcludeOrWait)
}
