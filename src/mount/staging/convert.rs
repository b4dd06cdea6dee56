//! Requests and answers of a staging mount, between the kernel's shapes and ours.

use std::time::UNIX_EPOCH;

use fuser::{FileAttr, ReplyEmpty, ReplyEntry, ReplyWrite, ReplyXattr, Request, TimeOrNow};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::fs::{DRAFT_TTL, attributes};
use crate::mount::kernel::{self, GENERATION, host};
use crate::staging::{Attr, Caller, Result, Time};

/// Who asks.
pub fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), pid: req.pid() }
}

/// A time to be set. Those before 1970 come with their nanoseconds counted the wrong way: fuser 0.18
/// makes `1970 - (-seconds + nanoseconds)` of what the kernel says.
pub fn time(at: TimeOrNow) -> Time {
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
pub fn file_attr(attr: &Attr) -> FileAttr {
    kernel::file_attr(&attributes(attr))
}

/// Answers a node that was looked up or made.
pub fn entry(done: Result<Attr>, reply: ReplyEntry) {
    match done {
        Ok(attr) => reply.entry(&DRAFT_TTL, &file_attr(&attr), GENERATION),
        Err(e) => reply.error(host(e)),
    }
}

/// Answers that it is done.
pub fn empty(done: Result<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(host(e)),
    }
}

/// Answers the number of bytes that were written.
pub fn written(written: Result<usize>, reply: ReplyWrite) {
    match written {
        Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
        Err(e) => reply.error(host(e)),
    }
}

/// Answers a value of which the kernel may only have asked the length.
pub fn xattr(value: std::result::Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() <= size as usize => reply.data(&value),
        Ok(_) => reply.error(host(Errno::RANGE)),
        Err(e) => reply.error(host(e)),
    }
}

/// Where a look for data or holes begins (lseek(2)); other ways of seeking never reach a file system.
pub fn seek(offset: i64, whence: i32) -> Option<SeekFrom> {
    const SEEK_DATA: i32 = 3;
    const SEEK_HOLE: i32 = 4;
    let at = u64::try_from(offset).unwrap_or_default();
    match whence {
        SEEK_DATA => Some(SeekFrom::Data(at)),
        SEEK_HOLE => Some(SeekFrom::Hole(at)),
        _ => None,
    }
}
