//! The POSIX operations on drafts: each is one or a few system calls on the host's files.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

use super::Result;
use super::gate::{Change, DraftKey};
use super::handle::{Handle, OpenMode};
use super::node::Nodes;
use super::scratch::Drafts;
use crate::model::reference::ArtifactPath;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The process.
    pub pid: u32,
}

/// A node and its attributes.
#[derive(Debug, Clone, Copy)]
pub struct Attr {
    /// The number.
    pub id: u64,
    /// The host's attributes.
    pub stat: Stat,
}

/// A time to be set.
#[derive(Debug, Clone, Copy)]
pub enum Time {
    /// The host's now.
    Now,
    /// Seconds and nanoseconds since 1970.
    At(i64, i64),
}

/// Attributes to be set.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    /// Permissions.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length.
    pub size: Option<u64>,
    /// Access time.
    pub accessed: Option<Time>,
    /// Modification time.
    pub modified: Option<Time>,
}

const NOFOLLOW: AtFlags = AtFlags::SYMLINK_NOFOLLOW;
/// utimensat(2): the present moment, and leaving a time alone.
const UTIME_NOW: i64 = rustix::fs::UTIME_NOW;
const UTIME_OMIT: i64 = rustix::fs::UTIME_OMIT;

impl Drafts {
    pub(super) fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn exclusive(&self) -> RwLockWriteGuard<'_, ()> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self, id: u64) -> Result<Change<'_>> {
        let draft = self.lock_nodes().draft(id)?;
        self.gates.change(&draft)
    }

    fn stat(&self, path: &Path) -> Result<Stat> {
        rustix::fs::statat(&self.directory, path, NOFOLLOW)
    }

    /// The root of a draft; counts as a look-up.
    ///
    /// # Errors
    /// ENOENT when there is no such draft.
    pub fn root_of(&self, key: &ArtifactPath) -> Result<Attr> {
        let _names = self.shared();
        let path: PathBuf = [key.project.as_str(), key.artifact.as_str(), "tree"].iter().collect();
        let stat = self.stat(&path)?;
        let id = self.lock_nodes().look_up_root(&Arc::new(key.clone()), stat.st_ino);
        Ok(Attr { id, stat })
    }

    /// An entry; counts as a look-up.
    ///
    /// # Errors
    /// ENOENT, and what the host says.
    pub fn lookup(&self, parent: u64, name: &OsStr) -> Result<Attr> {
        let _names = self.shared();
        self.look_up_here(parent, name)
    }

    fn look_up_here(&self, parent: u64, name: &OsStr) -> Result<Attr> {
        let path = self.lock_nodes().entry(parent, name)?;
        let stat = self.stat(&path)?;
        let id = self.lock_nodes().look_up(parent, name, stat.st_ino)?;
        Ok(Attr { id, stat })
    }

    /// The kernel forgets.
    pub fn forget(&self, id: u64, lookups: u64) {
        self.lock_nodes().forget(id, lookups);
    }

    /// Attributes; of a file without a name by way of a handle.
    ///
    /// # Errors
    /// What the host says.
    pub fn getattr(&self, id: u64, handle: Option<u64>) -> Result<Attr> {
        let _names = self.shared();
        let path = self.lock_nodes().path(id);
        let stat = match (path, handle) {
            (Ok(path), _) => self.stat(&path)?,
            (Err(_), Some(handle)) => rustix::fs::fstat(&self.handles.file(handle)?.file)?,
            (Err(Errno::STALE), None) => return Err(Errno::STALE),
            (Err(_), None) => rustix::fs::fstat(&self.handles.any_of(id)?.file)?,
        };
        Ok(Attr { id, stat })
    }

    /// Sets attributes; what they are then.
    ///
    /// # Errors
    /// What the host says.
    pub fn setattr(&self, id: u64, handle: Option<u64>, set: SetAttr) -> Result<Attr> {
        let _change = self.change(id)?;
        {
            let _names = self.shared();
            let path = self.lock_nodes().path(id);
            match path {
                Ok(path) => self.set_by_path(&path, handle, set)?,
                Err(_) => {
                    let open = match handle {
                        Some(handle) => self.handles.file(handle)?,
                        None => self.handles.any_of(id)?,
                    };
                    set_by_file(&open.file, set)?;
                }
            }
        }
        self.getattr(id, handle)
    }

    fn set_by_path(&self, path: &Path, handle: Option<u64>, set: SetAttr) -> Result<()> {
        let directory = &self.directory;
        if let Some(size) = set.size {
            match handle.map(|handle| self.handles.file(handle)).transpose()? {
                Some(open) if open.mode == OpenMode::Write => {
                    rustix::fs::ftruncate(&open.file, size)?;
                }
                _ => {
                    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let file = rustix::fs::openat(directory, path, flags, Mode::empty())?;
                    rustix::fs::ftruncate(&file, size)?;
                }
            }
        }
        if set.uid.is_some() || set.gid.is_some() {
            let (uid, gid) = (set.uid.map(Uid::from_raw), set.gid.map(Gid::from_raw));
            rustix::fs::chownat(directory, path, uid, gid, NOFOLLOW)?;
        }
        if let Some(mode) = set.mode {
            let kind = FileType::from_raw_mode(self.stat(path)?.st_mode);
            // chmod(2) follows symlinks, and a symlink has no mode of its own.
            if kind == FileType::Symlink {
                return Err(Errno::OPNOTSUPP);
            }
            let mode = Mode::from_raw_mode(mode & 0o7777);
            rustix::fs::chmodat(directory, path, mode, AtFlags::empty())?;
        }
        match times(set) {
            Some(times) => rustix::fs::utimensat(directory, path, &times, NOFOLLOW),
            None => Ok(()),
        }
    }

    /// Where a symlink points.
    ///
    /// # Errors
    /// What the host says.
    pub fn readlink(&self, id: u64) -> Result<Vec<u8>> {
        let _names = self.shared();
        let path = self.lock_nodes().path(id)?;
        let target = rustix::fs::readlinkat(&self.directory, &path, Vec::new())?;
        Ok(target.into_bytes())
    }

    /// Gives what was just made its owner and mode, in that order, and looks it up.
    fn settle(&self, parent: u64, name: &OsStr, owner: Owner, mode: Option<u32>) -> Result<Attr> {
        let path = self.lock_nodes().entry(parent, name)?;
        if let Some((uid, gid)) = owner.0 {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(&self.directory, &path, uid, gid, NOFOLLOW)?;
        }
        if let Some(mode) = mode {
            let mode = Mode::from_raw_mode(mode & 0o7777);
            rustix::fs::chmodat(&self.directory, &path, mode, AtFlags::empty())?;
        }
        self.look_up_here(parent, name)
    }

    /// Who owns what `caller` makes in `parent`, and whether it inherits the set-group-id bit.
    fn owner(&self, parent: u64, caller: Caller) -> Result<(Owner, bool)> {
        let path = self.lock_nodes().path(parent)?;
        let stat = self.stat(&path)?;
        let inherits = Mode::from_raw_mode(stat.st_mode).contains(Mode::SGID);
        let gid = if inherits { stat.st_gid } else { caller.gid };
        let root = rustix::process::geteuid().is_root();
        Ok((Owner(root.then_some((caller.uid, gid))), inherits))
    }

    /// Makes a file, FIFO, socket or device.
    ///
    /// # Errors
    /// What the host says.
    pub fn mknod(
        &self,
        parent: u64,
        name: &OsStr,
        caller: Caller,
        mode: u32,
        device: u64,
    ) -> Result<Attr> {
        let _change = self.change(parent)?;
        let _names = self.shared();
        let (owner, _) = self.owner(parent, caller)?;
        let path = self.lock_nodes().entry(parent, name)?;
        let kind = FileType::from_raw_mode(mode);
        let private = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(&self.directory, &path, kind, private, device)?;
        self.settle(parent, name, owner, Some(mode))
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// What the host says.
    pub fn mkdir(&self, parent: u64, name: &OsStr, caller: Caller, mode: u32) -> Result<Attr> {
        let _change = self.change(parent)?;
        let _names = self.shared();
        let (owner, inherits) = self.owner(parent, caller)?;
        let path = self.lock_nodes().entry(parent, name)?;
        rustix::fs::mkdirat(&self.directory, &path, Mode::from_raw_mode(0o700))?;
        let mode = if inherits { mode | Mode::SGID.as_raw_mode() } else { mode };
        self.settle(parent, name, owner, Some(mode))
    }

    /// Makes a symlink.
    ///
    /// # Errors
    /// What the host says.
    pub fn symlink(
        &self,
        parent: u64,
        name: &OsStr,
        caller: Caller,
        target: &Path,
    ) -> Result<Attr> {
        let _change = self.change(parent)?;
        let _names = self.shared();
        let (owner, _) = self.owner(parent, caller)?;
        let path = self.lock_nodes().entry(parent, name)?;
        rustix::fs::symlinkat(target, &self.directory, &path)?;
        self.settle(parent, name, owner, None)
    }

    /// Gives a node another name.
    ///
    /// # Errors
    /// What the host says.
    pub fn link(&self, id: u64, parent: u64, name: &OsStr) -> Result<Attr> {
        let _change = self.change(parent)?;
        let _names = self.exclusive();
        let (old, new) = {
            let nodes = self.lock_nodes();
            (nodes.path(id)?, nodes.entry(parent, name)?)
        };
        let directory = &self.directory;
        rustix::fs::linkat(directory, &old, directory, &new, AtFlags::empty())?;
        self.look_up_here(parent, name)
    }

    /// Removes a name; `directory` for rmdir.
    ///
    /// # Errors
    /// What the host says.
    pub fn unlink(&self, parent: u64, name: &OsStr, directory: bool) -> Result<()> {
        let _change = self.change(parent)?;
        let _names = self.exclusive();
        let path = self.lock_nodes().entry(parent, name)?;
        let stat = self.stat(&path)?;
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(&self.directory, &path, flags)?;
        self.lock_nodes().unlink(parent, name, stat.st_ino, last_name(&stat));
        Ok(())
    }

    /// Moves a name.
    ///
    /// # Errors
    /// What the host says.
    pub fn rename(
        &self,
        parent: u64,
        name: &OsStr,
        new_parent: u64,
        new_name: &OsStr,
        flags: RenameFlags,
    ) -> Result<()> {
        let (_from, _to) = (self.change(parent)?, self.change(new_parent)?);
        let _names = self.exclusive();
        let (old, new) = {
            let nodes = self.lock_nodes();
            (nodes.entry(parent, name)?, nodes.entry(new_parent, new_name)?)
        };
        let moved = self.stat(&old)?;
        let replaced = self.stat(&new).ok();
        let directory = &self.directory;
        rustix::fs::renameat_with(directory, &old, directory, &new, flags)?;
        if replaced.is_some_and(|replaced| replaced.st_ino == moved.st_ino) {
            // Two names of one file: rename(2) does nothing.
            return Ok(());
        }
        let mut nodes = self.lock_nodes();
        nodes.unlink(parent, name, moved.st_ino, false);
        if let Some(replaced) = replaced {
            let exchanged = flags.contains(RenameFlags::EXCHANGE);
            let gone = !exchanged && last_name(&replaced);
            nodes.unlink(new_parent, new_name, replaced.st_ino, gone);
            if exchanged {
                nodes.link(parent, name, replaced.st_ino);
            }
        }
        nodes.link(new_parent, new_name, moved.st_ino);
        Ok(())
    }

    /// Opens a file; `flags` are those of open(2). The number of the handle.
    ///
    /// # Errors
    /// What the host says; ENFILE when too many are open.
    pub fn open_file(&self, id: u64, caller: Caller, flags: OFlags) -> Result<u64> {
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        let _change = writes.then(|| self.change(id)).transpose()?;
        let _names = self.shared();
        let (path, draft) = {
            let nodes = self.lock_nodes();
            (nodes.path(id)?, nodes.draft(id)?)
        };
        let kept = OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC;
        let flags = (flags & kept) | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, &path, flags, Mode::empty())?;
        self.keep(File::from(file), id, draft, writes, caller)
    }

    fn keep(
        &self,
        file: File,
        node: u64,
        draft: DraftKey,
        writes: bool,
        caller: Caller,
    ) -> Result<u64> {
        let mode = if writes { OpenMode::Write } else { OpenMode::Read };
        let handle = Handle { file, node, draft: Arc::clone(&draft), mode, pid: caller.pid };
        let number = self.handles.add_file(handle)?;
        if writes {
            self.gates.add_writer(&draft);
        }
        Ok(number)
    }

    /// Makes a file and opens it.
    ///
    /// # Errors
    /// What the host says; ENFILE when too many are open.
    pub fn create_file(
        &self,
        parent: u64,
        name: &OsStr,
        caller: Caller,
        mode: u32,
        flags: OFlags,
    ) -> Result<(Attr, u64)> {
        let _change = self.change(parent)?;
        let _names = self.shared();
        let (owner, _) = self.owner(parent, caller)?;
        let (path, draft) = {
            let nodes = self.lock_nodes();
            (nodes.entry(parent, name)?, nodes.draft(parent)?)
        };
        let access = flags & (OFlags::WRONLY | OFlags::RDWR);
        let make = access | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let private = Mode::from_raw_mode(0o600);
        let (file, made) = match rustix::fs::openat(&self.directory, &path, make, private) {
            // Somebody else made it a moment ago.
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => {
                let truncate = flags & OFlags::TRUNC;
                let open = access | truncate | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                (rustix::fs::openat(&self.directory, &path, open, Mode::empty())?, false)
            }
            made => (made?, true),
        };
        let attr = match made {
            true => self.settle(parent, name, owner, Some(mode))?,
            false => self.look_up_here(parent, name)?,
        };
        let writes = !access.is_empty();
        let number = self.keep(File::from(file), attr.id, draft, writes, caller);
        if number.is_err() {
            self.forget(attr.id, 1);
        }
        Ok((attr, number?))
    }

    /// Room on the disk.
    ///
    /// # Errors
    /// What the host says.
    pub fn statfs(&self) -> Result<rustix::fs::StatVfs> {
        rustix::fs::statvfs(&self.root)
    }
}

/// Who owns what is made; nobody in particular when this process is not root.
#[derive(Clone, Copy)]
struct Owner(Option<(u32, u32)>);

/// Whether one name more or less ends it: directories have no second name.
fn last_name(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory || stat.st_nlink <= 1
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

fn set_by_file(file: &File, set: SetAttr) -> Result<()> {
    if let Some(size) = set.size {
        rustix::fs::ftruncate(file, size)?;
    }
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
