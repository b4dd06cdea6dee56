//! Attributes: reading and setting them, and the types of requests and replies.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};

use rustix::fs::{FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::Result;
use super::base_xattr::ContentXattr;
use super::drafts::Drafts;
use super::freeze::Change;
use super::handle::OpenMode;
use super::names_lock::{Moving, Still};
use super::node::{Body, Nodes};
use crate::model::tree::{Content, Target};

/// The process that makes a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    /// The user.
    pub(crate) uid: u32,
    /// The group.
    pub(crate) gid: u32,
    /// The process.
    pub(crate) pid: u32,
}

/// A node and its attributes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attr {
    /// The number of the node.
    pub(crate) id: u64,
    /// The attributes.
    pub(crate) stat: Stat,
}

/// A time to be set.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Time {
    /// The present moment of the upper file system.
    Now,
    /// Seconds and nanoseconds since 1970.
    At(i64, i64),
}

/// Attributes to be set.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SetAttr {
    /// The permissions.
    pub(crate) mode: Option<u32>,
    /// The owner.
    pub(crate) uid: Option<u32>,
    /// The group.
    pub(crate) gid: Option<u32>,
    /// The length.
    pub(crate) size: Option<u64>,
    /// The access time.
    pub(crate) accessed: Option<Time>,
    /// The modification time.
    pub(crate) modified: Option<Time>,
}

/// The special nanoseconds of utimensat(2): the present moment, and no change.
const UTIME_NOW: i64 = rustix::fs::UTIME_NOW;
const UTIME_OMIT: i64 = rustix::fs::UTIME_OMIT;

impl Drafts {
    /// Locks the names of a node's draft shared: no name moves.
    pub(super) fn shared(&self, id: u64) -> Result<Still> {
        let draft = self.lock_nodes().draft(id)?;
        Ok(self.names.still(&draft))
    }

    /// Locks the names of a node's draft exclusively: no other thread uses a path of it.
    pub(super) fn exclusive(&self, id: u64) -> Result<Moving> {
        let draft = self.lock_nodes().draft(id)?;
        Ok(self.names.moving(&draft))
    }

    pub(super) fn lock_nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self, id: u64) -> Result<Change<'_>> {
        let draft = self.lock_nodes().draft(id)?;
        self.gates.change(&draft)
    }

    /// Returns the attributes of a node; a file without a name is reached by `handle` if given.
    ///
    /// # Errors
    /// ESTALE for a node that is gone, and any error of the upper file system.
    pub(crate) fn getattr(&self, id: u64, handle: Option<u64>) -> Result<Attr> {
        let _names = self.shared(id)?;
        let (body, path, draft) = {
            let nodes = self.lock_nodes();
            (nodes.body(id)?, nodes.path(id), nodes.draft(id)?)
        };
        if let Body::Lower(target) = body {
            let mut stat = self.lower_stat(&draft, &target)?;
            if path.is_err() {
                stat.st_nlink = 0;
            }
            return Ok(Attr { id, stat });
        }
        let stat = match &path {
            Ok(path) => self.stat(path).map_err(|e| match e {
                // The file was replaced or removed a moment ago: ESTALE makes the kernel look its
                // path up again.
                Errno::NOENT => Errno::STALE,
                e => e,
            })?,
            Err(_) => rustix::fs::fstat(self.nameless(id, handle)?)?,
        };
        Ok(Attr { id, stat: self.visible_stat(stat, path.ok().as_deref())? })
    }

    /// Returns the lower content of a file with a name, if any.
    ///
    /// # Errors
    /// Any error of the upper file system, and EIO for a damaged base xattr.
    pub(crate) fn lower_content(&self, id: u64) -> Result<Option<Content>> {
        let _names = self.shared(id)?;
        let (body, path) = {
            let nodes = self.lock_nodes();
            (nodes.body(id)?, nodes.path(id))
        };
        match (body, path) {
            (Body::Lower(Target::File { content, .. }), _) => Ok(Some(content)),
            (Body::Upper(_), Ok(path)) => {
                Ok(ContentXattr::at(&self.upper.placed(&path)?)?.map(|xattr| xattr.content))
            }
            _ => Ok(None),
        }
    }

    /// Returns the upper file of a node without a name; ESTALE if it is neither open nor held.
    pub(super) fn nameless(&self, id: u64, handle: Option<u64>) -> Result<Arc<File>> {
        let open = match handle {
            Some(handle) => Some(self.handles.file(handle)?),
            None => self.handles.any_of(id).ok(),
        };
        let by_handle = open.and_then(|open| {
            let shared = open.inode.read();
            shared.came_up.as_ref().or(open.file.as_ref()).cloned()
        });
        if let Some(file) = by_handle {
            return Ok(file);
        }
        let kept = self.lock_nodes().kept(id).ok_or(Errno::STALE)?;
        match FileType::from_raw_mode(rustix::fs::fstat(&kept)?.st_mode) {
            // The held descriptor is an O_PATH one.
            FileType::RegularFile => open_again(&kept, OFlags::RDWR).map(Arc::new),
            FileType::Directory => open_again(&kept, OFlags::RDONLY).map(Arc::new),
            _ => Ok(kept),
        }
    }

    /// Sets attributes, and returns the new ones.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn setattr(&self, id: u64, handle: Option<u64>, set: SetAttr) -> Result<Attr> {
        let _change = self.change(id)?;
        let parents = self.lock_nodes().parents(id);
        parents.into_iter().try_for_each(|parent| self.ensure_upper(parent))?;
        if self.lock_nodes().path(id).is_ok() {
            self.copy_up_node(id)?;
        }
        {
            let _names = self.shared(id)?;
            let path = self.lock_nodes().path(id);
            match path {
                Ok(path) => self.set_by_path(id, &path, handle, set)?,
                Err(_) => {
                    let file = self.nameless(id, handle)?;
                    if let Some(size) = set.size {
                        // The file found may be open for reading only.
                        self.truncate(id, &open_again(&file, OFlags::WRONLY)?, size)?;
                    }
                    set_by_file(&file, set)?;
                }
            }
        }
        self.getattr(id, handle)
    }

    fn set_by_path(&self, id: u64, path: &Path, handle: Option<u64>, set: SetAttr) -> Result<()> {
        if let Some(size) = set.size {
            match handle.map(|handle| self.handles.file(handle)).transpose()? {
                Some(open) if open.mode == OpenMode::Write => {
                    self.truncate(id, open.upper_file()?, size)?;
                }
                _ => self.truncate(id, &self.open_upper(path, OFlags::WRONLY)?, size)?,
            }
        }
        if set.uid.is_some() || set.gid.is_some() {
            let (uid, gid) = (set.uid.map(Uid::from_raw), set.gid.map(Gid::from_raw));
            self.upper.chown(path, uid, gid)?;
        }
        if let Some(mode) = set.mode {
            self.upper.chmod(path, Mode::from_raw_mode(mode & 0o7777))?;
        }
        match times(set) {
            Some(times) => self.upper.utimens(path, &times),
            None => Ok(()),
        }
    }

    /// Returns the target of a symlink.
    ///
    /// # Errors
    /// EINVAL if the node is none, and any error of the upper file system.
    pub(crate) fn readlink(&self, id: u64) -> Result<Vec<u8>> {
        let _names = self.shared(id)?;
        let (body, path) = {
            let nodes = self.lock_nodes();
            (nodes.body(id)?, nodes.named(id))
        };
        match body {
            Body::Lower(Target::Symlink(to)) => Ok(to.into_vec()),
            Body::Lower(_) => Err(Errno::INVAL),
            Body::Upper(_) => {
                let Ok(path) = path else {
                    let target = rustix::fs::readlinkat(self.nameless(id, None)?, "", Vec::new())?;
                    return Ok(target.into_bytes());
                };
                self.upper.readlink(&path)
            }
        }
    }

    /// Returns the free space of the disk.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn statfs(&self) -> Result<rustix::fs::StatVfs> {
        rustix::fs::statvfs(&self.root)
    }
}

/// Opens an open file once more, with other access.
pub(super) fn open_again(file: &File, access: OFlags) -> Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty()).map(File::from)
}

fn times(set: SetAttr) -> Option<Timestamps> {
    if set.accessed.is_none() && set.modified.is_none() {
        return None;
    }
    let spec = |time: Option<Time>| match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
        Some(Time::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW as _ },
        Some(Time::At(seconds, nanoseconds)) => {
            Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ }
        }
    };
    Some(Timestamps { last_access: spec(set.accessed), last_modification: spec(set.modified) })
}

/// Sets all attributes but the length.
fn set_by_file(file: &File, set: SetAttr) -> Result<()> {
    if set.uid.is_some() || set.gid.is_some() {
        rustix::fs::fchown(file, set.uid.map(Uid::from_raw), set.gid.map(Gid::from_raw))?;
    }
    if let Some(mode) = set.mode {
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o7777))?;
    }
    match times(set) {
        Some(times) => rustix::fs::futimens(file, &times),
        None => Ok(()),
    }
}
