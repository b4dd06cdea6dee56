//! Requests and replies of a staging mount, between the kernel's types and ours.

use std::time::UNIX_EPOCH;

use fuser::{FileAttr, ReplyEmpty, ReplyEntry, ReplyWrite, ReplyXattr, Request, TimeOrNow};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::fs::{DRAFT_TTL, attributes};
use crate::mount::kernel::{self, GENERATION, host};
use crate::staging::{Attr, Caller, Result, Time};

/// Returns the process that sends a request.
pub(crate) fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), pid: req.pid() }
}

/// Converts a time to be set. For times before 1970, fuser 0.18 adds the nanoseconds in the wrong
/// direction: it makes `1970 - (-seconds + nanoseconds)` of the kernel's numbers.
pub(crate) fn time(at: TimeOrNow) -> Time {
    match at {
        TimeOrNow::Now => Time::Now,
        TimeOrNow::SpecificTime(at) => {
            let (sign, apart) = match at.duration_since(UNIX_EPOCH) {
                Ok(after) => (1, after),
                Err(before) => (-1, before.duration()),
            };
            let seconds = i64::try_from(apart.as_secs()).unwrap_or(i64::MAX);
            Time::At(sign * seconds, apart.subsec_nanos().into())
        }
    }
}

/// Returns a draft's attributes in the kernel's shape.
pub(crate) fn file_attr(attr: &Attr) -> FileAttr {
    kernel::file_attr(&attributes(attr))
}

/// Replies with a node that was looked up or created.
pub(crate) fn entry(done: Result<Attr>, reply: ReplyEntry) {
    match done {
        Ok(attr) => reply.entry(&DRAFT_TTL, &file_attr(&attr), GENERATION),
        Err(e) => reply.error(host(e)),
    }
}

/// Replies that a request is done.
pub(crate) fn empty(done: Result<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(host(e)),
    }
}

/// Replies with the number of bytes that were written.
pub(crate) fn written(written: Result<usize>, reply: ReplyWrite) {
    match written {
        Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
        Err(e) => reply.error(host(e)),
    }
}

/// Replies with a value, or with its length if `size` is 0.
pub(crate) fn xattr(value: std::result::Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() <= size as usize => reply.data(&value),
        Ok(_) => reply.error(host(Errno::RANGE)),
        Err(e) => reply.error(host(e)),
    }
}

/// Returns where a search for data or holes begins (lseek(2)); other ways of seeking never reach a
/// file system.
pub(crate) fn seek(offset: i64, whence: i32) -> Option<SeekFrom> {
    const SEEK_DATA: i32 = 3;
    const SEEK_HOLE: i32 = 4;
    let at = u64::try_from(offset).unwrap_or_default();
    match whence {
        SEEK_DATA => Some(SeekFrom::Data(at)),
        SEEK_HOLE => Some(SeekFrom::Hole(at)),
        _ => None,
    }
}
