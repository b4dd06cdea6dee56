//! Opening, creating, linking and copying files of a staging mount.

use std::ffi::OsStr;
use std::sync::Arc;

use fuser::{
    Errno, FileHandle, FopenFlags, ReplyAttr, ReplyCreate, ReplyEntry, ReplyOpen, ReplyWrite,
};
use rustix::fs::OFlags;

use super::convert::{entry, file_attr};
use super::fs::{DRAFT_TTL, StagingFs, is_draft};
use crate::content::external::Requester;
use crate::content::store::Space;
use crate::error::{Error, Kind};
use crate::model::digest::Digest;
use crate::model::reference::ArtifactPath;
use crate::model::tree::Content;
use crate::mount::kernel::{GENERATION, host, report};
use crate::mount::read_only::adapter::read_file;
use crate::mount::staging::backing::{Backings, Way};
use crate::mount::workers::{Refuse, Waits, Workers, on_own_thread};
use crate::staging::{Caller, Opened, SetAttr};

/// A staging mount.
#[derive(Clone)]
pub(crate) struct Staging {
    /// The file system.
    pub(crate) fs: Arc<StagingFs>,
    /// The files that the kernel reads and writes by itself.
    pub(crate) backings: Arc<Backings>,
    /// The threads that may wait for a remote store.
    pub(crate) workers: Workers,
}

/// Returns how the kernel caches a file that is not passed through.
fn cached(good: bool, flags: OFlags, set_id: bool) -> FopenFlags {
    // A handle that only writes reads no cached page, so its data need not be cached. But the
    // kernel clears set-id bits only for writes through its cache.
    if flags.contains(OFlags::WRONLY) && !set_id {
        return FopenFlags::FOPEN_DIRECT_IO;
    }
    // Only the kernel changes a draft: its cached pages are valid, unless it wrote past them.
    if good { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() }
}

impl Staging {
    /// Creates a staging mount; with `passthrough`, the kernel reads and writes by itself where it
    /// can.
    pub(crate) fn new(fs: StagingFs, passthrough: bool) -> Self {
        let workers = Workers::new(fs.reader().store().is_remote());
        Self { fs: Arc::new(fs), backings: Arc::new(Backings::new(passthrough)), workers }
    }

    /// Returns whether a request that touches a version may block. Once external files were read,
    /// it may: another request may wait for one.
    fn waits(&self) -> bool {
        self.workers.are_needed() || self.fs.reader().store().externals().were_read()
    }

    /// Returns the free space of the local disk, and for how many files, in all and free, if that
    /// is known.
    pub(crate) fn space(&self) -> (crate::error::Result<Space>, Option<(u64, u64)>) {
        let stat = self.fs.drafts().statfs();
        // Some file systems create inodes on demand, and count none.
        let files = stat.as_ref().ok().filter(|stat| stat.f_files > 0);
        let files = files.map(|stat| (stat.f_files, stat.f_favail));
        let space = stat.map(|stat| Space {
            free_bytes: stat.f_bavail * stat.f_frsize,
            total_bytes: stat.f_blocks * stat.f_frsize,
        });
        (space.map_err(|e| Error::io("cannot stat drafts", e.into())), files)
    }

    /// Replies to a change of a draft's attributes.
    pub(crate) fn set_attributes(
        &self,
        ino: u64,
        fh: Option<FileHandle>,
        set: SetAttr,
        caller: Caller,
        reply: ReplyAttr,
    ) {
        let work = move |it: &Self, reply: ReplyAttr| match it.fs.drafts().setattr(
            ino,
            fh.map(|fh| fh.0),
            set,
        ) {
            Ok(attr) => reply.attr(&DRAFT_TTL, &file_attr(&attr)),
            Err(e) => reply.error(host(e)),
        };
        let Some(content) = self.external_cut(ino, fh, set.size) else {
            return self.change(ino, reply, work);
        };
        self.serve_elsewhere(Waits::Data, move |it| match it.permit(&content, caller) {
            Ok(()) => it.change(ino, reply, work),
            Err(e) => reply.error(e),
        });
    }

    /// Returns whether reading bytes of an inode, open by a handle, may block.
    pub(crate) fn waits_for_bytes(&self, ino: u64, handle: u64) -> bool {
        let waits = |content: &Content| self.waits() || content.is_external();
        match is_draft(ino) {
            true => self.fs.drafts().has_lower_content(handle, waits),
            false => self.fs.read.file(ino).is_ok_and(|file| waits(&file.content)),
        }
    }

    /// Does `work` with names or attributes of an inode, in a thread that may wait if it may block.
    pub(crate) fn serve(&self, ino: u64, work: impl FnOnce(&Self) + Send + 'static) {
        match self.waits() {
            true => self.serve_elsewhere(self.apart_from_stores(ino, Waits::Metadata), work),
            false => work(self),
        }
    }

    /// Selects the disk's threads for drafts without a lower tree: they must not queue behind a
    /// store.
    fn apart_from_stores(&self, ino: u64, otherwise: Waits) -> Waits {
        let on_host = is_draft(ino) && !self.fs.drafts().stands_on_version(ino);
        if on_host { Waits::Disk } else { otherwise }
    }

    /// Does `work` with the bytes of an inode, open by a handle, in a thread that may wait if it
    /// may block.
    pub(crate) fn serve_bytes(
        &self,
        ino: u64,
        handle: u64,
        work: impl FnOnce(&Self) + Send + 'static,
    ) {
        match self.waits_for_bytes(ino, handle) {
            true => self.serve_elsewhere(Waits::Data, work),
            false => work(self),
        }
    }

    /// Does `work` in a thread that may wait.
    pub(crate) fn serve_elsewhere(&self, waits: Waits, work: impl FnOnce(&Self) + Send + 'static) {
        let this = self.clone();
        self.workers.run(waits, move || work(&this));
    }

    /// Does `work`, which changes the draft of a node. While that is being committed, `work` waits
    /// in a thread of its own, and the mount's threads go on serving other requests.
    pub(crate) fn change<R: Refuse>(
        &self,
        node: u64,
        reply: R,
        work: impl FnOnce(&Self, R) + Send + 'static,
    ) {
        if !self.fs.drafts().is_frozen(node) {
            return match self.waits() {
                true => {
                    let waits = self.apart_from_stores(node, Waits::Data);
                    self.serve_elsewhere(waits, move |it| work(it, reply));
                }
                false => work(self, reply),
            };
        }
        let this = self.clone();
        on_own_thread(reply, move |reply| work(&this, reply));
    }

    /// Replies to open(2).
    pub(crate) fn open(&self, ino: u64, caller: Caller, flags: OFlags, reply: ReplyOpen) {
        if !is_draft(ino) {
            if flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC) {
                return reply.error(Errno::EROFS);
            }
            return self.open_of_version(ino, caller, reply);
        }
        let opened = match self.fs.drafts().open_file(ino, caller, flags) {
            Ok(opened) => opened,
            Err(e) => return reply.error(host(e)),
        };
        match opened.content.filter(Content::is_external) {
            None => self.answer_open(ino, opened, caller, flags, reply),
            // The file may be on a disk that hangs.
            Some(content) => {
                self.serve_elsewhere(Waits::Metadata, move |it| match it.permit(&content, caller) {
                    Ok(()) => it.answer_open(ino, opened, caller, flags, reply),
                    Err(e) => {
                        it.fs.drafts().release(opened.handle);
                        reply.error(e);
                    }
                })
            }
        }
    }

    /// Replies to open(2) of a version's file. Rights are checked here, because the kernel serves
    /// cached pages to every open file.
    fn open_of_version(&self, ino: u64, caller: Caller, reply: ReplyOpen) {
        let opened = move |it: &Self, reply: ReplyOpen| {
            let handle = FileHandle(it.backings.version_handle(caller.pid));
            reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE);
        };
        match self.fs.read.file(ino).map(|file| file.content) {
            Ok(content) if content.is_external() => {
                self.serve_elsewhere(Waits::Metadata, move |it| {
                    match it.permit(&content, caller) {
                        Ok(()) => opened(it, reply),
                        Err(e) => reply.error(e),
                    }
                });
            }
            _ => opened(self, reply),
        }
    }

    /// Returns the external content that truncating a file would make partly the draft's own. A
    /// commit would then store bytes that the caller may not read. An open handle was permitted
    /// before.
    fn external_cut(
        &self,
        ino: u64,
        handle: Option<FileHandle>,
        size: Option<u64>,
    ) -> Option<Content> {
        if handle.is_some() || size.unwrap_or(0) == 0 {
            return None;
        }
        let content = self.fs.drafts().lower_content(ino).ok().flatten();
        content.filter(Content::is_external)
    }

    /// Checks that a caller may read external content. Opening it for writing needs that, too: it
    /// would give access to the bytes.
    pub(crate) fn permit(&self, content: &Content, caller: Caller) -> Result<(), Errno> {
        let Caller { uid, gid, pid } = caller;
        let permitted = self.fs.reader().permit(content, &Requester { uid, gid, pid });
        permitted.map_err(|e| report("open", &e))
    }

    fn answer_open(
        &self,
        ino: u64,
        opened: Opened,
        caller: Caller,
        flags: OFlags,
        reply: ReplyOpen,
    ) {
        let Opened { handle, plain, set_id, .. } = opened;
        let back = |file: &std::fs::File| reply.open_backing(file);
        match self.backings.open(ino, handle, plain.as_deref(), caller.pid, back) {
            Way::Cached(good) => reply.opened(FileHandle(handle), cached(good, flags, set_id)),
            Way::Through(backing) => {
                reply.opened_passthrough(FileHandle(handle), FopenFlags::empty(), &backing);
            }
        }
    }

    /// Replies to open(2) with O_CREAT.
    pub(crate) fn create(
        &self,
        (parent, name): (u64, &OsStr),
        caller: Caller,
        mode: u32,
        flags: OFlags,
        reply: ReplyCreate,
    ) {
        let made = self.fs.drafts().create_file(parent, name, caller, mode, flags);
        let (attr, Opened { handle, plain, set_id, .. }) = match made {
            Ok(made) => made,
            Err(e) => return reply.error(host(e)),
        };
        let back = |file: &std::fs::File| reply.open_backing(file);
        let way = self.backings.open(attr.id, handle, plain.as_deref(), caller.pid, back);
        let (attr, handle) = (file_attr(&attr), FileHandle(handle));
        match way {
            Way::Cached(good) => {
                let flags = cached(good, flags, set_id);
                reply.created(&DRAFT_TTL, &attr, GENERATION, handle, flags);
            }
            Way::Through(backing) => {
                let flags = FopenFlags::empty();
                reply.created_passthrough(&DRAFT_TTL, &attr, GENERATION, handle, flags, &backing);
            }
        }
    }

    /// Closes a handle.
    pub(crate) fn release(&self, handle: u64) {
        self.backings.close(handle);
        self.fs.drafts().release(handle);
    }

    /// Replies to link(2); for a file of a version, creates a file with the same lower content.
    pub(crate) fn link(
        &self,
        ino: u64,
        parent: u64,
        name: &OsStr,
        caller: Caller,
        reply: ReplyEntry,
    ) {
        match (is_draft(ino), is_draft(parent)) {
            (true, true) => entry(self.fs.drafts().link(ino, parent, name), reply),
            (false, true) => match self.link_version(ino, parent, name, caller) {
                Ok(attr) => entry(Ok(attr), reply),
                Err(e) => reply.error(e),
            },
            _ => reply.error(Errno::EROFS),
        }
    }

    fn link_version(
        &self,
        ino: u64,
        parent: u64,
        name: &OsStr,
        caller: Caller,
    ) -> Result<crate::staging::Attr, Errno> {
        let drafts = self.fs.drafts();
        // An inode that is no file of a version (a symlink, `.artifact.json`) has no content.
        let file = self.fs.read.file(ino).map_err(|_| Errno::EXDEV)?;
        let draft = drafts.draft_of(parent).map_err(host)?;
        let pinned = self.pin(&draft, file.place.root);
        pinned.map_err(|e| if e == Errno::EOPNOTSUPP { Errno::EXDEV } else { e })?;
        let made = drafts.link_content((parent, name), caller, file.content, file.executable);
        let made = made.map_err(host)?;
        // A commit that came between has dropped the pin, since nothing of the draft needed it yet.
        self.pin(&draft, file.place.root)?;
        Ok(made)
    }

    fn pin(&self, draft: &ArtifactPath, root: Digest) -> Result<(), Errno> {
        self.fs.service.pin(draft, root).map_err(|e| match e.kind() {
            // The version belongs to another zone: the caller reads and writes instead.
            Kind::Unsupported => Errno::EOPNOTSUPP,
            _ => report("copy", &e),
        })
    }

    /// Reads an open file of a draft, or a file of a version.
    ///
    /// # Errors
    /// Any error of the upper file system, the store and the registry.
    pub(crate) fn read_bytes(
        &self,
        ino: u64,
        handle: u64,
        offset: u64,
        size: u32,
        requester: Requester,
    ) -> Result<Vec<u8>, Errno> {
        if !is_draft(ino) {
            let reader = self.fs.reader().on_behalf_of(requester);
            let read = read_file(&self.fs.read, &reader, ino, offset, size);
            return read.map_err(|e| report("read", &e));
        }
        let mut buffer = vec![0; size as usize];
        let count = self.fs.drafts().read(handle, offset, &mut buffer).map_err(host)?;
        buffer.truncate(count);
        Ok(buffer)
    }

    /// Replies to copy_file_range(2); from a version, without reading it. EOPNOTSUPP makes the
    /// kernel read and write.
    pub(crate) fn copy(
        &self,
        (from, from_handle, from_offset): (u64, u64, u64),
        (to, to_handle, to_offset): (u64, u64, u64),
        (length, caller): (u64, Caller),
        reply: ReplyWrite,
    ) {
        let drafts = self.fs.drafts();
        let copied = match (is_draft(from), is_draft(to)) {
            (true, true) => {
                let (from, to) = ((from_handle, from_offset), (to_handle, to_offset));
                let through = self.backings.is_through(to_handle);
                drafts.copy_range(from, to, length, through).map_err(host)
            }
            // A file that the kernel writes by itself cannot have lower content.
            (false, true) if !self.backings.is_through(to_handle) => {
                let file = self.fs.read.file(from);
                file.map_err(|_| Errno::EOPNOTSUPP).and_then(|file| {
                    // A commit would store the part that is copied.
                    self.permit(&file.content, caller)?;
                    let draft = drafts.draft_of(to).map_err(host)?;
                    self.pin(&draft, file.place.root)?;
                    let adopted =
                        drafts.adopt(to_handle, file.content, from_offset, to_offset, length);
                    let adopted = adopted.map_err(host)?;
                    // As in `link_version`.
                    self.pin(&draft, file.place.root)?;
                    Ok(adopted)
                })
            }
            _ => Err(Errno::EOPNOTSUPP),
        };
        match copied {
            Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
            Err(e) => reply.error(e),
        }
    }
}
