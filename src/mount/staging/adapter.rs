//! The kernel's requests to a staging mount.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::OFlags;

use crate::mount::kernel::{
    self, GENERATION, configure, host, reply_entry, reply_found, reply_read, reply_statfs, report,
    requester,
};
use crate::mount::read_only::fs::Found;
use crate::mount::staging::convert::{caller, empty, entry, file_attr, seek, time, written, xattr};
use crate::mount::staging::files::Staging;
use crate::mount::staging::fs::{DRAFT_TTL, is_draft};
use crate::mount::staging::publish::publish;
use crate::mount::workers::{Waits, on_own_thread};
use crate::staging::SetAttr;

impl Filesystem for Staging {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_BIG_WRITES
            | InitFlags::FUSE_AUTO_INVAL_DATA
            | InitFlags::FUSE_MAX_PAGES;
        configure(config, wanted);
        if self.backings.is_wanted() {
            configure(config, InitFlags::FUSE_PASSTHROUGH);
            // There is one file system below ours. Without the capability the value has no effect.
            let _ = config.set_max_stack_depth(1);
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_owned();
        self.serve(parent.0, move |it| {
            if is_draft(parent.0) {
                return entry(it.fs.drafts().lookup(parent.0, &name), reply);
            }
            reply_entry("lookup", it.fs.lookup(parent.0, &name), reply);
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, lookups: u64) {
        self.backings.forget(ino.0);
        self.fs.forget(ino.0, lookups);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        self.serve(ino.0, move |it| {
            if !is_draft(ino.0) {
                return reply_found(it.fs.getattr(ino.0), reply);
            }
            match it.fs.drafts().getattr(ino.0, fh.map(|fh| fh.0)) {
                Ok(attr) => reply.attr(&DRAFT_TTL, &file_attr(&attr)),
                Err(e) => reply.error(host(e)),
            }
        });
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if !is_draft(ino.0) {
            return reply.error(Errno::EROFS);
        }
        let (accessed, modified) = (atime.map(time), mtime.map(time));
        let set = SetAttr { mode, uid, gid, size, accessed, modified };
        self.set_attributes(ino.0, fh, set, caller(req), reply);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        self.serve(ino.0, move |it| {
            let target = match is_draft(ino.0) {
                true => it.fs.drafts().readlink(ino.0).map(Arc::from).map_err(host),
                false => it.fs.read.readlink(ino.0).map_err(|e| report("readlink", &e)),
            };
            match target {
                Ok(target) => reply.data(&target),
                Err(e) => reply.error(e),
            }
        });
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        if !is_draft(parent.0) {
            return reply.error(Errno::EROFS);
        }
        let (name, caller) = (name.to_owned(), caller(req));
        self.change(parent.0, reply, move |it, reply| {
            entry(it.fs.drafts().mknod(parent.0, &name, caller, mode, rdev.into()), reply);
        });
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        if is_draft(parent.0) {
            let (name, caller) = (name.to_owned(), caller(req));
            return self.change(parent.0, reply, move |it, reply| {
                entry(it.fs.drafts().mkdir(parent.0, &name, caller, mode), reply);
            });
        }
        match self.fs.mkdir(parent.0, name, caller(req), mode) {
            Ok(Found { attr, ttl }) => reply.entry(&ttl, &kernel::file_attr(&attr), GENERATION),
            Err(e) => reply.error(host(e)),
        }
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if !is_draft(parent.0) {
            return reply.error(Errno::EROFS);
        }
        let name = name.to_owned();
        self.change(parent.0, reply, move |it, reply| {
            empty(it.fs.drafts().unlink(parent.0, &name, false), reply);
        });
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if is_draft(parent.0) {
            let name = name.to_owned();
            return self.change(parent.0, reply, move |it, reply| {
                empty(it.fs.drafts().unlink(parent.0, &name, true), reply);
            });
        }
        // Its freeze waits for files to be closed, and the mount's own threads serve the closes.
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        on_own_thread(reply, move |reply| empty(fs.rmdir(parent.0, &name), reply));
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        if !is_draft(parent.0) {
            return reply.error(Errno::EROFS);
        }
        let (name, target, caller) = (name.to_owned(), target.to_owned(), caller(req));
        self.change(parent.0, reply, move |it, reply| {
            entry(it.fs.drafts().symlink(parent.0, &name, caller, &target), reply);
        });
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        match (is_draft(parent.0), is_draft(newparent.0)) {
            (true, true) => {
                let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
                let (name, newname) = (name.to_owned(), newname.to_owned());
                self.change(parent.0, reply, move |it, reply| {
                    let (from, to) = ((parent.0, &*name), (newparent.0, &*newname));
                    empty(it.fs.drafts().rename(from, to, flags), reply);
                });
            }
            (false, false) => {
                publish(&self.fs, (parent.0, name), (newparent.0, newname), req.pid(), reply);
            }
            _ => reply.error(Errno::EXDEV),
        }
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let (name, caller) = (newname.to_owned(), caller(req));
        self.change(newparent.0, reply, move |it, reply| {
            Staging::link(it, ino.0, newparent.0, &name, caller, reply);
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let flags = OFlags::from_bits_retain(flags.0 as u32);
        let caller = caller(req);
        match flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC) {
            true => self.change(ino.0, reply, move |it, reply| {
                Staging::open(it, ino.0, caller, flags, reply)
            }),
            false => self.serve(ino.0, move |it| Staging::open(it, ino.0, caller, flags, reply)),
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        if !is_draft(parent.0) {
            return reply.error(Errno::EROFS);
        }
        let flags = OFlags::from_bits_retain(flags as u32);
        let (name, caller) = (name.to_owned(), caller(req));
        self.change(parent.0, reply, move |it, reply| {
            Staging::create(it, (parent.0, &name), caller, mode, flags, reply);
        });
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let requester = requester(req);
        self.serve_bytes(ino.0, fh.0, move |it| {
            let read = || it.read_bytes(ino.0, fh.0, offset, size, requester);
            let read = it.workers.recent_timeouts().read(ino.0, offset, size, read);
            reply_read(read, reply);
        });
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if !self.waits_for_bytes(ino.0, fh.0) {
            return written(self.fs.drafts().write(fh.0, offset, data), reply);
        }
        let data = data.to_owned();
        self.serve_elsewhere(Waits::Data, move |it| {
            written(it.fs.drafts().write(fh.0, offset, &data), reply);
        });
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Nothing is held back; after ENOSYS the kernel sends no flush again.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        Staging::release(self, fh.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        if !is_draft(ino.0) {
            return reply.ok();
        }
        // An fsync may take long.
        self.serve_elsewhere(Waits::Disk, move |it| {
            empty(it.fs.drafts().fsync(fh.0, datasync), reply);
        });
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if !is_draft(ino.0) {
            return reply.opened(FileHandle(0), FopenFlags::empty());
        }
        self.serve(ino.0, move |it| match it.fs.drafts().open_directory(ino.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(e) => reply.error(host(e)),
        });
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.serve(ino.0, move |it| it.list(ino.0, fh, offset, reply));
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.serve(ino.0, move |it| it.list_with_attributes(ino.0, fh, offset, reply));
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.fs.drafts().release(fh.0);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        if !is_draft(ino.0) {
            return reply.ok();
        }
        self.serve_elsewhere(Waits::Disk, move |it| {
            empty(it.fs.drafts().sync_directory(fh.0), reply);
        });
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let (space, files) = self.space();
        reply_statfs(space, files, reply);
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.change(ino.0, reply, move |it, reply| {
            empty(it.fs.setxattr(ino.0, &name, Some(&value), flags as u32), reply);
        });
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.to_owned();
        self.serve(ino.0, move |it| xattr(it.fs.getxattr(ino.0, &name), size, reply));
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.serve(ino.0, move |it| xattr(it.fs.listxattr(ino.0), size, reply));
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.change(ino.0, reply, move |it, reply| {
            empty(it.fs.setxattr(ino.0, &name, None, 0), reply)
        });
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.serve_bytes(ino.0, fh.0, move |it| {
            empty(it.fs.drafts().fallocate(fh.0, offset, length, mode as u32), reply);
        });
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let Some(to) = seek(offset, whence) else { return reply.error(Errno::EINVAL) };
        if !is_draft(ino.0) {
            // ENOSYS makes the kernel take the whole file for data.
            return reply.error(Errno::ENOSYS);
        }
        match self.fs.drafts().seek(fh.0, to) {
            Ok(at) => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)),
            Err(e) => reply.error(host(e)),
        }
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to) = ((ino_in.0, fh_in.0, offset_in), (ino_out.0, fh_out.0, offset_out));
        let caller = caller(req);
        let work = move |it: &Self| it.copy(from, to, (len, caller), reply);
        match self.waits_for_bytes(from.0, from.1) || self.waits_for_bytes(to.0, to.1) {
            true => self.serve_elsewhere(Waits::Data, work),
            false => work(self),
        }
    }
}
