//! The kernel's requests to a read-only mount.
//!
//! Round trips are what costs. So `open`, `opendir`, `flush`, `access` and the xattr calls get
//! ENOSYS, and the kernel never sends them again. Listings carry attributes, and what cannot change
//! is cached for ever.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use fuser::{
    AccessFlags, Errno, FileHandle, FileType, Filesystem, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};

use super::fs::{Found, Line, ReadFs};
use crate::content::reader::Reader;
use crate::error::{Kind, Result};
use crate::mount::attr::Attr;
use crate::mount::kernel::{
    DOTS, GENERATION, REQUEST_MAX_BYTES, add_dots, configure, dot, ended, file_attr, file_type,
    reply_entry, reply_found, reply_read, reply_statfs, report, requester,
};
use crate::mount::workers::{Waits, Workers};
use crate::ops::prefetch::{Mode, Prefetcher};

/// A read-only mount.
pub(crate) struct ReadOnly {
    fs: Arc<ReadFs>,
    /// A reader that never waits, for the mount's own threads.
    non_blocking: Reader,
    workers: Workers,
    prefetcher: Arc<Prefetcher>,
}

/// Reads a file, at most as much as the kernel may request.
///
/// # Errors
/// As [`ReadFs::read`].
pub(crate) fn read_file(
    fs: &ReadFs,
    reader: &Reader,
    ino: u64,
    offset: u64,
    size: u32,
) -> Result<Vec<u8>> {
    let mut buffer = vec![0; size.min(REQUEST_MAX_BYTES) as usize];
    let count = fs.read(reader, ino, offset, &mut buffer)?;
    buffer.truncate(count);
    Ok(buffer)
}

/// Fills a listing with attributes. If the rest would have to be waited for, the lines so far are
/// the reply.
fn list_plus(
    fs: &ReadFs,
    reader: &Reader,
    ino: u64,
    offset: u64,
    reply: &mut ReplyDirectoryPlus,
) -> Result<()> {
    let mut added = offset;
    let mut add = |found: &Found, next: u64, name: &OsStr| {
        let full = reply.add(
            INodeNo(found.attr.ino),
            next,
            name,
            &found.ttl,
            &file_attr(&found.attr),
            GENERATION,
        );
        added = if full { added } else { next };
        !full
    };
    add_dots(ino, fs.parent(ino), offset, &mut |number, next, name| {
        add(&dot(number.0), next, OsStr::new(name))
    });
    let listed = fs.list(reader, ino, offset.saturating_sub(DOTS), &mut |line: Line| {
        add(&line.found, line.next + DOTS, OsStr::from_bytes(&line.name))
    });
    if added > offset { Ok(()) } else { listed }
}

/// Fills a listing without attributes.
fn list_names(
    fs: &ReadFs,
    reader: &Reader,
    ino: u64,
    offset: u64,
    reply: &mut ReplyDirectory,
) -> Result<()> {
    add_dots(ino, fs.parent(ino), offset, &mut |number, next, name| {
        !reply.add(number, next, FileType::Directory, name)
    });
    let mut any = offset < DOTS;
    let listed = fs.list(reader, ino, offset.saturating_sub(DOTS), &mut |line: Line| {
        let Attr { ino, kind, .. } = line.found.attr;
        let name = OsStr::from_bytes(&line.name);
        let taken = !reply.add(INodeNo(ino), line.next + DOTS, file_type(kind), name);
        any = any || taken;
        // A line without attributes is no look-up; `list` undoes that of a line that is not taken.
        if taken {
            fs.forget(ino, 1);
        }
        taken
    });
    if any { Ok(()) } else { listed }
}

impl ReadOnly {
    /// Creates a mount of `fs`, which prefetches by `prefetch`.
    pub(crate) fn new(fs: Arc<ReadFs>, prefetch: Mode) -> Self {
        let reader = fs.repository().reader.clone();
        let workers = Workers::new(reader.store().is_remote());
        let non_blocking = reader.non_blocking();
        let prefetcher = Arc::new(Prefetcher::new(Arc::clone(fs.repository()), prefetch));
        Self { fs, non_blocking, workers, prefetcher }
    }

    /// Does `job` at once if it need not wait, else in a thread that may wait.
    fn serve<T: 'static>(
        &self,
        waits: Waits,
        job: impl Fn(&ReadFs, &Reader) -> Result<T> + Send + 'static,
        answer: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        match job(&self.fs, &self.non_blocking) {
            Err(e) if e.kind() == Kind::WouldBlock => {
                let fs = Arc::clone(&self.fs);
                self.workers.run(waits, move || answer(job(&fs, &fs.repository().reader)));
            }
            done => answer(done),
        }
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
        let name = name.to_owned();
        let job = move |fs: &ReadFs, reader: &Reader| fs.lookup(reader, parent.0, &name);
        let (fs, prefetcher) = (Arc::clone(&self.fs), Arc::clone(&self.prefetcher));
        self.serve(Waits::Metadata, job, move |found| {
            if let Ok(Some(found)) = &found {
                fs.version_tree(found.attr.ino).into_iter().for_each(|tree| prefetcher.seen(tree));
            }
            reply_entry("lookup", found, reply);
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, lookups: u64) {
        self.fs.forget(ino.0, lookups);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        if !self.fs.waits_for_attributes(ino.0) {
            return reply_found(self.fs.getattr(ino.0), reply);
        }
        let fs = Arc::clone(&self.fs);
        self.workers.run(Waits::Data, move || reply_found(fs.getattr(ino.0), reply));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.fs.readlink(ino.0) {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(report("readlink", &e)),
        }
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.prefetcher.read();
        let reported = |e| report("read", &e);
        match read_file(&self.fs, &self.non_blocking, ino.0, offset, size) {
            Err(e) if e.kind() == Kind::WouldBlock => {
                let (fs, prefetcher) = (Arc::clone(&self.fs), Arc::clone(&self.prefetcher));
                let (workers, requester) = (self.workers.clone(), requester(req));
                self.workers.run(Waits::Data, move || {
                    if let Some(tree) = fs.tree_of_small_file(ino.0) {
                        prefetcher.missed(tree);
                    }
                    let reader = fs.repository().reader.on_behalf_of(requester);
                    let read = workers.recent_timeouts().read(ino.0, offset, size, || {
                        read_file(&fs, &reader, ino.0, offset, size).map_err(reported)
                    });
                    reply_read(read, reply);
                });
            }
            read => reply_read(read.map_err(reported), reply),
        }
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
        mut reply: ReplyDirectory,
    ) {
        let answer = |listed, reply| {
            ended(listed, reply, ReplyDirectory::ok, ReplyDirectory::error);
        };
        match list_names(&self.fs, &self.non_blocking, ino.0, offset, &mut reply) {
            Err(e) if e.kind() == Kind::WouldBlock => {
                let fs = Arc::clone(&self.fs);
                self.workers.run(Waits::Metadata, move || {
                    let reader = &fs.repository().reader;
                    let listed = list_names(&fs, reader, ino.0, offset, &mut reply);
                    answer(listed, reply);
                });
            }
            listed => answer(listed, reply),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let answer = |listed, reply| {
            ended(listed, reply, ReplyDirectoryPlus::ok, ReplyDirectoryPlus::error);
        };
        match list_plus(&self.fs, &self.non_blocking, ino.0, offset, &mut reply) {
            Err(e) if e.kind() == Kind::WouldBlock => {
                let fs = Arc::clone(&self.fs);
                self.workers.run(Waits::Metadata, move || {
                    let reader = &fs.repository().reader;
                    let listed = list_plus(&fs, reader, ino.0, offset, &mut reply);
                    answer(listed, reply);
                });
            }
            listed => answer(listed, reply),
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply_statfs(self.fs.repository().store.space(), None, reply);
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
