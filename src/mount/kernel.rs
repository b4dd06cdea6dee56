//! The kernel's types, as `fuser` has them, and replies that both mounts send.

use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileType, Generation, INodeNo, InitFlags, KernelConfig, ReplyAttr, ReplyData,
    ReplyEntry, ReplyStatfs, Request,
};

use super::attr::{Attr, FOR_EVER};
use super::errno;
use super::read_only::fs::Found;
use crate::content::external::Requester;
use crate::content::store::Space;
use crate::error::{Error, Kind, Result};

/// The generation of every inode: numbers are never used twice.
pub(crate) const GENERATION: Generation = Generation(0);
/// The most bytes that the kernel may request or send at once.
pub(crate) const REQUEST_MAX_BYTES: u32 = 1 << 20;
/// The number of requests that the kernel may have under way in the background (readahead).
const BACKGROUND_REQUESTS: u16 = 64;
/// The block size `statfs` counts in.
const STATFS_BLOCK_BYTES: u64 = 4096;
/// Positions in a listing before the first entry: `.` and `..`.
pub(crate) const DOTS: u64 = 2;

/// Converts the errno of a draft operation.
pub(crate) fn host(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

/// Logs an error that a reader meets, and returns its errno.
pub(crate) fn report(what: &str, error: &Error) -> Errno {
    host(errno::report(what, error))
}

/// Converts the kind of a file.
pub(crate) fn file_type(kind: rustix::fs::FileType) -> FileType {
    use rustix::fs::FileType as Host;
    match kind {
        Host::Directory => FileType::Directory,
        Host::Symlink => FileType::Symlink,
        Host::Fifo => FileType::NamedPipe,
        Host::Socket => FileType::Socket,
        Host::CharacterDevice => FileType::CharDevice,
        Host::BlockDevice => FileType::BlockDevice,
        Host::RegularFile | Host::Unknown => FileType::RegularFile,
    }
}

/// Returns attributes in the kernel's shape.
pub(crate) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size_bytes,
        blocks: attr.blocks,
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: attr.block_bytes,
        flags: 0,
    }
}

/// Requests from the kernel the capabilities and limits that every mount of ours uses.
pub(crate) fn configure(config: &mut KernelConfig, wanted: InitFlags) {
    // One by one: the call refuses all if the kernel lacks one.
    for flag in wanted.iter() {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!("this kernel does not offer {flag:?}");
        }
    }
    // If one of these is out of the kernel's bounds, the nearest allowed value is used.
    let _ = config.set_max_write(REQUEST_MAX_BYTES).or_else(|max| config.set_max_write(max));
    let _ =
        config.set_max_readahead(REQUEST_MAX_BYTES).or_else(|max| config.set_max_readahead(max));
    let _ = config.set_max_background(BACKGROUND_REQUESTS);
}

/// Returns the process that sends a request.
pub(crate) fn requester(request: &Request) -> Requester {
    Requester { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

/// Replies with an entry, with a name that will never exist, or with an error.
pub(crate) fn reply_entry(what: &str, found: Result<Option<Found>>, reply: ReplyEntry) {
    match found {
        Ok(Some(Found { attr, ttl })) => reply.entry(&ttl, &file_attr(&attr), GENERATION),
        // Number 0 makes the kernel cache that there is no such name.
        Ok(None) => reply.entry(&FOR_EVER, &file_attr(&nothing()), GENERATION),
        Err(e) if e.kind() == Kind::NotFound => reply.error(Errno::ENOENT),
        Err(e) => reply.error(report(what, &e)),
    }
}

fn nothing() -> Attr {
    let time = UNIX_EPOCH;
    Attr {
        ino: 0,
        size_bytes: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        kind: rustix::fs::FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        block_bytes: 0,
    }
}

/// Replies with the content of a file.
pub(crate) fn reply_read(read: std::result::Result<Vec<u8>, Errno>, reply: ReplyData) {
    match read {
        Ok(bytes) => reply.data(&bytes),
        Err(e) => reply.error(e),
    }
}

/// Replies with attributes.
pub(crate) fn reply_found(found: Result<Found>, reply: ReplyAttr) {
    match found {
        Ok(Found { attr, ttl }) => reply.attr(&ttl, &file_attr(&attr)),
        Err(e) => reply.error(report("getattr", &e)),
    }
}

/// Replies with the free space of the disk, and for how many files, in all and free, if that is
/// known.
pub(crate) fn reply_statfs(space: Result<Space>, files: Option<(u64, u64)>, reply: ReplyStatfs) {
    /// The number of files where these are not counted: no program takes it for "none left".
    const FILES: u64 = 1 << 40;
    let (files, free_files) = files.unwrap_or((FILES, FILES));
    match space {
        Ok(Space { free_bytes, total_bytes }) => {
            let blocks = total_bytes / STATFS_BLOCK_BYTES;
            let free = free_bytes / STATFS_BLOCK_BYTES;
            let block = STATFS_BLOCK_BYTES as u32;
            reply.statfs(blocks, free, free, files, free_files, block, 255, block);
        }
        Err(e) => reply.error(report("statfs", &e)),
    }
}

/// Returns `.` or `..` for a listing with attributes: the kernel reads only number and kind.
pub(crate) fn dot(number: u64) -> Found {
    let mut attr = nothing();
    (attr.ino, attr.kind) = (number, rustix::fs::FileType::Directory);
    Found { attr, ttl: Duration::ZERO }
}

/// Calls `add` with `.` and `..`, as far as they lie behind `offset` and fit.
pub(crate) fn add_dots(
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

/// Ends the reply to a listing.
pub(crate) fn ended<R>(listed: Result<()>, reply: R, ok: fn(R), error: fn(R, Errno)) {
    match listed {
        Ok(()) => ok(reply),
        Err(e) => error(reply, report("readdir", &e)),
    }
}
