//! Attributes of inodes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::FileType;

/// Unit of `st_blocks` (stat(2)).
const STAT_BLOCK_BYTES: u64 = 512;
/// The I/O size that `st_blksize` recommends to programs: a chunk, in one round trip.
const PREFERRED_READ_BYTES: u32 = 1 << 20;
/// A time to live without end: the kernel's clock does not reach it.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(1 << 40);

/// The attributes of an inode (stat(2)).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attr {
    /// The number of the inode.
    pub(crate) ino: u64,
    /// The length in bytes.
    pub(crate) size_bytes: u64,
    /// The number of units of 512 bytes that it takes.
    pub(crate) blocks: u64,
    /// The time of its last read.
    pub(crate) atime: SystemTime,
    /// The time of the last change of its content.
    pub(crate) mtime: SystemTime,
    /// The time of its last change of any kind.
    pub(crate) ctime: SystemTime,
    /// The kind.
    pub(crate) kind: FileType,
    /// The permissions.
    pub(crate) perm: u16,
    /// The number of names.
    pub(crate) nlink: u32,
    /// The user.
    pub(crate) uid: u32,
    /// The group.
    pub(crate) gid: u32,
    /// The device, of a device file.
    pub(crate) rdev: u32,
    /// The number of bytes that programs should read at once.
    pub(crate) block_bytes: u32,
}

/// The owner of everything in a read-only view.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    /// The user.
    pub(crate) uid: u32,
    /// The group.
    pub(crate) gid: u32,
    /// The time of nodes that are in no version, in seconds since 1970: that of the repository.
    pub(crate) created_seconds: u64,
    /// True if modes give the owner write permission, so that copies can be written. Writing itself
    /// is refused all the same.
    pub(crate) writable: bool,
}

/// Converts a moment to the kernel's shape.
fn system_time(seconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
}

impl Owner {
    /// Returns the attributes of a file; `at` is in seconds since 1970.
    pub(crate) fn file(&self, ino: u64, size: u64, executable: bool, at: u64) -> Attr {
        let perm = if executable { 0o555 } else { 0o444 };
        let perm = if self.writable { perm | 0o200 } else { perm };
        self.attr(ino, FileType::RegularFile, size, perm, at)
    }

    /// Returns the attributes of a directory; `perm` is 0o555 in the read-only mount.
    pub(crate) fn directory(&self, ino: u64, perm: u16, at: u64) -> Attr {
        let perm = if self.writable { perm | 0o200 } else { perm };
        self.attr(ino, FileType::Directory, 0, perm, at)
    }

    /// Returns the attributes of a symlink.
    pub(crate) fn symlink(&self, ino: u64, target_bytes: u64, at: u64) -> Attr {
        self.attr(ino, FileType::Symlink, target_bytes, 0o777, at)
    }

    fn attr(&self, ino: u64, kind: FileType, size: u64, perm: u16, at: u64) -> Attr {
        let time = system_time(at);
        Attr {
            ino,
            size_bytes: size,
            // With fewer blocks `cp` would take the file for sparse and look for holes.
            blocks: size.div_ceil(STAT_BLOCK_BYTES),
            atime: time,
            mtime: time,
            ctime: time,
            kind,
            perm,
            // 1 for directories too: `find` then does not infer the number of subdirectories.
            nlink: 1,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            block_bytes: PREFERRED_READ_BYTES,
        }
    }
}
