//! Opening and creating files of a draft.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::Result;
use super::base_xattr::ContentXattr;
use super::drafts::Drafts;
use super::freeze::DraftKey;
use super::handle::{Handle, OpenInode, OpenMode};
use super::names::Owner;
use super::node::Body;
use super::posix::{Attr, Caller, open_again};
use crate::model::tree::{Content, Target};

/// Set-user-id and set-group-id.
const SET_ID_BITS: u32 = 0o6000;

/// An open file.
pub(crate) struct Opened {
    /// The number of the handle.
    pub(crate) handle: u64,
    /// The upper file, if it holds all bytes: the kernel may use it directly.
    pub(crate) plain: Option<Arc<File>>,
    /// The lower content of the file, if any.
    pub(crate) content: Option<Content>,
    /// True if the file has a set-id bit, which the kernel clears on writes through its cache.
    pub(crate) set_id: bool,
}

impl Drafts {
    /// Opens a file; `flags` are those of open(2).
    ///
    /// # Errors
    /// Any error of the upper file system; ENFILE if too many files are open.
    pub(crate) fn open_file(&self, id: u64, caller: Caller, flags: OFlags) -> Result<Opened> {
        let mode = OpenMode::of(flags);
        let writes = mode == OpenMode::Write;
        let truncates = flags.contains(OFlags::TRUNC);
        // The kernel refuses to write to a running program. But an open for reading with O_TRUNC
        // reaches us before the kernel checks.
        if truncates && self.handles.runs(id) {
            return Err(Errno::TXTBSY);
        }
        let _change = (writes || truncates).then(|| self.change(id)).transpose()?;
        if writes || truncates {
            let parents = self.lock_nodes().parents(id);
            parents.into_iter().try_for_each(|parent| self.ensure_upper(parent))?;
            if self.lock_nodes().path(id).is_ok() {
                self.copy_up_node(id)?;
            }
        }
        let _names = self.shared(id)?;
        let (path, draft, body) = {
            let nodes = self.lock_nodes();
            (nodes.named(id), nodes.draft(id)?, nodes.body(id)?)
        };
        if let Body::Lower(target) = body {
            let Target::File { content, .. } = target else { return Err(Errno::INVAL) };
            let inode = self.handles.share(id, || Ok(ContentXattr::whole(content)))?;
            let handle = Handle { file: None, inode, node: id, draft, mode, pid: caller.pid };
            let handle = self.handles.add_file(handle)?;
            return Ok(Opened { handle, plain: None, content: Some(content), set_id: false });
        }
        let access = flags & (OFlags::WRONLY | OFlags::RDWR);
        let open = |access| match &path {
            Ok(path) => self.open_upper(path, access),
            Err(_) => open_again(&*self.nameless(id, None)?, access),
        };
        let file = open(access);
        // The file was replaced or removed a moment ago: ESTALE makes the kernel look its path up
        // again.
        let file = file.map_err(|e| if e == Errno::NOENT { Errno::STALE } else { e })?;
        let opened = self.keep(file, id, draft, mode, caller)?;
        if truncates {
            // O_TRUNC also applies to a file that is opened only for reading.
            let done = open(OFlags::WRONLY).and_then(|file| self.truncate(id, &file, 0));
            if let Err(e) = done {
                self.release(opened.handle);
                return Err(e);
            }
            let handle = self.handles.file(opened.handle)?;
            return Ok(Opened { plain: handle.file.clone(), content: None, ..opened });
        }
        Ok(opened)
    }

    fn keep(
        &self,
        file: File,
        node: u64,
        draft: DraftKey,
        mode: OpenMode,
        caller: Caller,
    ) -> Result<Opened> {
        let size = || Ok(rustix::fs::fstat(&file)?.st_size as u64);
        let inode = self.handles.share(node, || ContentXattr::of(&file, size()?))?;
        self.keep_shared(Arc::new(file), inode, node, draft, mode, caller)
    }

    fn keep_shared(
        &self,
        file: Arc<File>,
        inode: Arc<OpenInode>,
        node: u64,
        draft: DraftKey,
        mode: OpenMode,
        caller: Caller,
    ) -> Result<Opened> {
        // The file of a frozen draft may become a pack: only this process may use it then.
        let set_id = rustix::fs::fstat(&file)?.st_mode & SET_ID_BITS != 0;
        let content = inode.read().xattr.map(|xattr| xattr.content);
        let plain = content.is_none() && !self.gates.is_frozen(&draft);
        let plain = plain.then(|| Arc::clone(&file));
        let key = Arc::clone(&draft);
        let handle = Handle { file: Some(file), inode, node, draft, mode, pid: caller.pid };
        let number = self.handles.add_file(handle)?;
        if mode == OpenMode::Write {
            self.gates.add_writer(&key);
        }
        Ok(Opened { handle: number, plain, content, set_id })
    }

    /// Creates a file and opens it.
    ///
    /// # Errors
    /// Any error of the upper file system; ENFILE if too many files are open.
    pub(crate) fn create_file(
        &self,
        parent: u64,
        name: &OsStr,
        caller: Caller,
        mode: u32,
        flags: OFlags,
    ) -> Result<(Attr, Opened)> {
        let access = flags & (OFlags::WRONLY | OFlags::RDWR);
        let mut made = None;
        // Held until the writer is counted: a commit between the two would take the file for
        // finished.
        let change = self.change(parent)?;
        let attr = self.make_in_change((parent, name), caller, false, |path, owner| {
            made = Some(self.create_at(path, access, owner, mode)?);
            Ok(())
        });
        let attr = match (attr, made.is_some()) {
            // Another caller created it a moment ago.
            (Err(Errno::EXIST), false) if !flags.contains(OFlags::EXCL) => {
                drop(change);
                let attr = self.lookup(parent, name)?;
                return match self.open_file(attr.id, caller, flags) {
                    Ok(opened) => Ok((self.getattr(attr.id, None)?, opened)),
                    Err(e) => {
                        self.forget(attr.id, 1);
                        Err(e)
                    }
                };
            }
            (attr, _) => attr?,
        };
        let file = made.ok_or(Errno::IO)?;
        let draft = self.lock_nodes().draft(parent)?;
        // A new file has no lower content, and no other handle.
        let opened = self.handles.share(attr.id, || Ok(None)).and_then(|inode| {
            self.keep_shared(Arc::new(file), inode, attr.id, draft, OpenMode::of(flags), caller)
        });
        drop(change);
        if opened.is_err() {
            self.forget(attr.id, 1);
        }
        Ok((attr, opened?))
    }

    fn create_at(&self, path: &Path, access: OFlags, owner: Owner, mode: u32) -> Result<File> {
        let make = access | OFlags::CREATE | OFlags::EXCL;
        let mine = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let keeps = owner.given.is_none_or(|given| given == mine) && !owner.inherits;
        if keeps && mode & (self.umask | 0o7000) == 0 {
            // The file keeps its owner, and our umask clears no bit: one call is enough.
            let mode = Mode::from_raw_mode(mode & 0o7777);
            return self.upper.open_at(path, make, mode);
        }
        let private = Mode::from_raw_mode(0o600);
        let file = self.upper.open_at(path, make, private)?;
        let given = owner.given.map(|(uid, gid)| (Uid::from_raw(uid), Gid::from_raw(gid)));
        let settled = match given {
            Some((uid, gid)) => rustix::fs::fchown(&file, Some(uid), Some(gid)),
            None => Ok(()),
        };
        let settled =
            settled.and_then(|()| rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777)));
        if let Err(e) = settled {
            self.upper.unlink(path)?;
            return Err(e);
        }
        Ok(file)
    }
}
