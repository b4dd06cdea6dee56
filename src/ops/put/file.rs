//! Reading one file: in chunks, with holes skipped, and noticing when it changes meanwhile.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{SeekFrom, seek};

use super::index::Stamp;
use crate::error::{Error, IoContext, Kind, Result};
use crate::model::digest::DIGEST_BYTES;

/// How often a file that changes while it is read is read again before it is refused.
pub const CHANGED_RETRIES: u32 = 3;

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
}

impl OpenFile {
    /// Opens `path`. A symlink is followed: the walk decided that it should be.
    ///
    /// # Errors
    /// What the host says.
    pub fn open(path: &Path) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let file = File::open(path).at("read", path)?;
        let meta = file.metadata().at("read", path)?;
        Ok(Self {
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
        crate::content::external::hash(&self.file)
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
    Error::new(Kind::Conflict, what).hint("put it when its writer has finished, or --exclude it")
}
