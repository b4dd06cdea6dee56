//! The kernel's requests to a read-only mount.
//!
//! Round trips are what costs: `open`, `opendir`, `flush`, `access` and the xattr calls are
//! answered ENOSYS once and never asked again, listings carry attributes, and what cannot change
//! is believed for ever.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    AccessFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};

use super::attr::FOR_EVER;
use super::errno;
use super::fs::{Found, Line, ReadFs};
use crate::content::store::Space;
use crate::error::{Kind, Result};

/// The generation of every inode: numbers are never used twice.
pub const GENERATION: Generation = Generation(0);
/// The most the kernel may ask for or send at once.
const REQUEST_MAX_BYTES: u32 = 1 << 20;
/// Requests the kernel may have under way in the background (readahead).
const BACKGROUND_REQUESTS: u16 = 64;
/// The block size `statfs` counts in.
const STATFS_BLOCK_BYTES: u64 = 4096;
/// Positions in a listing before the first entry: `.` and `..`.
pub const DOTS: u64 = 2;

/// A read-only mount.
pub struct ReadOnly(pub Arc<ReadFs>);

/// Asks the kernel for what every mount of ours wants.
pub fn configure(config: &mut KernelConfig, wanted: InitFlags) {
    // Each by itself: the call refuses all when the kernel lacks one.
    for flag in wanted.iter() {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!("this kernel does not offer {flag:?}");
        }
    }
    // The nearest the kernel allows is used when one of these is out of its bounds.
    let _ = config.set_max_write(REQUEST_MAX_BYTES).or_else(|max| config.set_max_write(max));
    let _ =
        config.set_max_readahead(REQUEST_MAX_BYTES).or_else(|max| config.set_max_readahead(max));
    let _ = config.set_max_background(BACKGROUND_REQUESTS);
}

/// Answers an entry, a name that will never be, or an error.
pub fn reply_entry(what: &str, found: Result<Option<Found>>, reply: ReplyEntry) {
    match found {
        Ok(Some(Found { attr, ttl })) => reply.entry(&ttl, &attr, GENERATION),
        // Number 0 lets the kernel remember that there is no such name.
        Ok(None) => reply.entry(&FOR_EVER, &nothing(), GENERATION),
        Err(e) if e.kind() == Kind::NotFound => reply.error(Errno::ENOENT),
        Err(e) => reply.error(errno::told(what, &e)),
    }
}

fn nothing() -> FileAttr {
    let time = std::time::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// Answers what is in a file.
pub fn reply_read(fs: &ReadFs, ino: u64, offset: u64, size: u32, reply: ReplyData) {
    let mut buffer = vec![0; size.min(REQUEST_MAX_BYTES) as usize];
    match fs.read(ino, offset, &mut buffer) {
        Ok(count) => reply.data(&buffer[..count]),
        Err(e) => reply.error(errno::told("read", &e)),
    }
}

/// Answers attributes.
pub fn reply_found(found: Result<Found>, reply: ReplyAttr) {
    match found {
        Ok(Found { attr, ttl }) => reply.attr(&ttl, &attr),
        Err(e) => reply.error(errno::told("getattr", &e)),
    }
}

/// Answers room on the disk.
pub fn reply_statfs(space: Result<Space>, reply: ReplyStatfs) {
    /// Files are not counted; a number that no program takes for "none left".
    const FILES: u64 = 1 << 40;
    match space {
        Ok(Space { free_bytes, total_bytes }) => {
            let free = free_bytes / STATFS_BLOCK_BYTES;
            let block = STATFS_BLOCK_BYTES as u32;
            reply.statfs(
                total_bytes / STATFS_BLOCK_BYTES,
                free,
                free,
                FILES,
                FILES,
                block,
                255,
                block,
            );
        }
        Err(e) => reply.error(errno::told("statfs", &e)),
    }
}

/// `.` or `..` in a listing with attributes: the kernel takes only number and kind.
pub fn dot(number: u64) -> Found {
    let mut attr = nothing();
    (attr.ino, attr.kind) = (INodeNo(number), FileType::Directory);
    Found { attr, ttl: Duration::ZERO }
}

/// Calls `add` with `.` and `..`, as far as they lie behind `offset` and fit.
pub fn add_dots(
    ino: u64,
    parent: u64,
    offset: u64,
    add: &mut dyn FnMut(INodeNo, u64, &str) -> bool,
) {
    for (index, (number, name)) in [(ino, "."), (parent, "..")].into_iter().enumerate() {
        let next = index as u64 + 1;
        if next > offset && !add(INodeNo(number), next, name) {
            return;
        }
    }
}

/// Answers a listing with attributes.
pub fn reply_listing_plus(fs: &ReadFs, ino: u64, offset: u64, mut reply: ReplyDirectoryPlus) {
    let mut add = |found: &Found, next: u64, name: &OsStr| {
        !reply.add(found.attr.ino, next, name, &found.ttl, &found.attr, GENERATION)
    };
    add_dots(ino, fs.parent(ino), offset, &mut |number, next, name| {
        add(&dot(number.0), next, OsStr::new(name))
    });
    let listed = fs.list(ino, offset.saturating_sub(DOTS), &mut |line: Line| {
        add(&line.found, line.next + DOTS, OsStr::from_bytes(&line.name))
    });
    match listed {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno::told("readdir", &e)),
    }
}

/// Answers a listing without attributes.
pub fn reply_listing(fs: &ReadFs, ino: u64, offset: u64, mut reply: ReplyDirectory) {
    add_dots(ino, fs.parent(ino), offset, &mut |number, next, name| {
        !reply.add(number, next, FileType::Directory, name)
    });
    let listed = fs.list(ino, offset.saturating_sub(DOTS), &mut |line: Line| {
        let FileAttr { ino: number, kind, .. } = line.found.attr;
        let taken = !reply.add(number, line.next + DOTS, kind, OsStr::from_bytes(&line.name));
        // Without attributes it is no look-up; one that is not taken is taken back by `list`.
        if taken {
            fs.forget(number.0, 1);
        }
        taken
    });
    match listed {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno::told("readdir", &e)),
    }
}

impl Filesystem for ReadOnly {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_NO_OPEN_SUPPORT
            | InitFlags::FUSE_NO_OPENDIR_SUPPORT
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_AUTO_INVAL_DATA
            | InitFlags::FUSE_MAX_PAGES;
        configure(config, wanted);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        reply_entry("lookup", self.0.lookup(parent.0, name), reply);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, lookups: u64) {
        self.0.forget(ino.0, lookups);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply_found(self.0.getattr(ino.0), reply);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.0.readlink(ino.0) {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(errno::told("readlink", &e)),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply_read(&self.0, ino.0, offset, size, reply);
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        reply_listing(&self.0, ino.0, offset, reply);
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        reply_listing_plus(&self.0, ino.0, offset, reply);
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply_statfs(self.0.repository().store.space(), reply);
    }

    fn getxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _size: u32,
        reply: ReplyXattr,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _req: &Request, _ino: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }
}
