//! Names: looking up, creating, linking and removing them.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::Result;
use super::drafts::Drafts;
use super::overlay::{STANDS_FOR_ZERO, Seen, is_directory};
use super::posix::{Attr, Caller};
use crate::model::name::EntryName;
use crate::model::reference::ArtifactPath;
use crate::model::tree::{Content, Target};

/// The size from which on removing the last name takes long: it frees many extents. No request
/// waits for it.
const SLOW_TO_FREE_BYTES: i64 = 16 << 20;

/// The owner of a new node, if this process may give it away.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    pub(super) given: Option<(u32, u32)>,
    /// True if a new directory hands its group down, as the one above does.
    pub(super) inherits: bool,
}

impl Drafts {
    /// Returns the root of a draft; counts as a look-up.
    ///
    /// # Errors
    /// ENOENT if there is no such draft.
    pub(crate) fn root_of(&self, key: &ArtifactPath) -> Result<Attr> {
        let _names = self.names.still(key);
        let path: PathBuf = [key.project.as_str(), key.artifact.as_str(), "tree"].iter().collect();
        let stat = self.stat(&path)?;
        let known = self.lock_nodes().knows_root(key, stat.st_ino);
        let xattr = if known { None } else { self.tree_xattr(&path)? };
        let id = self.lock_nodes().look_up_root(&Arc::new(key.clone()), stat.st_ino, xattr);
        Ok(Attr { id, stat })
    }

    /// Calls `body` with the node of a directory of a draft, which stays known during the call.
    ///
    /// # Errors
    /// ENOENT, and any error of the upper file system or of the lower.
    pub(crate) fn with_directory<T>(
        &self,
        key: &ArtifactPath,
        path: &[EntryName],
        body: impl FnOnce(u64) -> T,
    ) -> Result<T> {
        let mut at = self.root_of(key)?.id;
        let mut held = vec![at];
        let found = path.iter().try_for_each(|name| {
            at = self.lookup(at, name.as_os_str())?.id;
            held.push(at);
            Ok(())
        });
        let done = found.map(|()| body(at));
        held.into_iter().for_each(|id| self.forget(id, 1));
        done
    }

    /// Returns the visible entry of a name; counts as a look-up.
    ///
    /// # Errors
    /// ENOENT, and any error of the upper file system or of the lower.
    pub(crate) fn lookup(&self, parent: u64, name: &OsStr) -> Result<Attr> {
        let _names = self.shared(parent)?;
        self.look_up_here(parent, name)
    }

    pub(super) fn look_up_here(&self, parent: u64, name: &OsStr) -> Result<Attr> {
        match self.see(parent, name)? {
            Seen::Upper(stat) => self.meet(parent, name, stat),
            Seen::Lower(target) => {
                let draft = self.lock_nodes().draft(parent)?;
                let stat = self.lower_stat(&draft, &target)?;
                let id = self.lock_nodes().look_up_lower(parent, name, target)?;
                Ok(Attr { id, stat })
            }
        }
    }

    /// Returns the node of an upper entry; counts as a look-up.
    fn meet(&self, parent: u64, name: &OsStr, stat: Stat) -> Result<Attr> {
        let path = self.lock_nodes().entry(parent, name)?;
        let upper = stat.st_ino;
        let unknown = is_directory(&stat) && !self.lock_nodes().knows_as(parent, name, upper);
        let xattr = if unknown { self.tree_xattr(&path)? } else { None };
        let id = self.lock_nodes().look_up((parent, name), upper, last_name(&stat), xattr)?;
        Ok(Attr { id, stat: self.visible_stat(stat, Some(&path))? })
    }

    /// Subtracts look-ups of a node that the kernel forgets.
    pub(crate) fn forget(&self, id: u64, lookups: u64) {
        let held = self.lock_nodes().forget(id, lookups);
        drop(held);
    }

    /// Sets owner and mode of a new node, in that order: chown(2) clears set-user-id.
    fn set_owner_and_mode(&self, path: &Path, owner: Owner, mode: Option<u32>) -> Result<()> {
        if let Some((uid, gid)) = owner.given {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            self.upper.chown(path, uid, gid)?;
        }
        match mode {
            Some(mode) => {
                let mode = Mode::from_raw_mode(mode & 0o7777);
                self.upper.chmod(path, mode)
            }
            None => Ok(()),
        }
    }

    /// Returns the owner of a node that `caller` creates in `parent`.
    fn owner(&self, parent: u64, caller: Caller) -> Result<Owner> {
        let path = self.lock_nodes().path(parent)?;
        let stat = self.stat(&path)?;
        let inherits = Mode::from_raw_mode(stat.st_mode).contains(Mode::SGID);
        let gid = if inherits { stat.st_gid } else { caller.gid };
        let root = rustix::process::geteuid().is_root();
        Ok(Owner { given: root.then_some((caller.uid, gid)), inherits })
    }

    /// Returns EEXIST if the name is visible; without a lower tree the upper file system checks
    /// that.
    fn refuse_covered(&self, parent: u64, name: &OsStr) -> Result<()> {
        if self.lock_nodes().lower_tree(parent)?.0.is_none() {
            return Ok(());
        }
        match self.see_any(parent, name)? {
            Some(_) => Err(Errno::EXIST),
            None => Ok(()),
        }
    }

    /// Creates a name with `make`, in a directory that is copied up first.
    fn make(
        &self,
        (parent, name): (u64, &OsStr),
        caller: Caller,
        directory: bool,
        make: impl FnOnce(&Path, Owner) -> Result<()>,
    ) -> Result<Attr> {
        let _change = self.change(parent)?;
        self.make_in_change((parent, name), caller, directory, make)
    }

    /// Creates a name as [`Drafts::make`] does, for a caller that already holds a `Change`.
    pub(super) fn make_in_change(
        &self,
        (parent, name): (u64, &OsStr),
        caller: Caller,
        directory: bool,
        make: impl FnOnce(&Path, Owner) -> Result<()>,
    ) -> Result<Attr> {
        self.ensure_upper(parent)?;
        let _names = self.shared(parent)?;
        let owner = self.owner(parent, caller)?;
        self.refuse_covered(parent, name)?;
        let path = self.lock_nodes().entry(parent, name)?;
        self.move_into_place(&path, directory, |path| make(path, owner))?;
        self.look_up_here(parent, name)
    }

    /// Creates a file, FIFO, socket or device.
    ///
    /// # Errors
    /// EPERM for the device number that the upper uses for 0:0, and any error of the upper file
    /// system.
    pub(crate) fn mknod(
        &self,
        parent: u64,
        name: &OsStr,
        caller: Caller,
        mode: u32,
        device: u64,
    ) -> Result<Attr> {
        let kind = FileType::from_raw_mode(mode);
        let device = match (kind, device) {
            (FileType::CharacterDevice, 0) => STANDS_FOR_ZERO,
            (FileType::CharacterDevice, STANDS_FOR_ZERO) => return Err(Errno::PERM),
            (_, device) => device,
        };
        self.make((parent, name), caller, false, |path, owner| {
            let private = Mode::from_raw_mode(0o600);
            self.upper.mknod(path, kind, private, device)?;
            self.set_owner_and_mode(path, owner, Some(mode))
        })
    }

    /// Creates a directory.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn mkdir(
        &self,
        parent: u64,
        name: &OsStr,
        caller: Caller,
        mode: u32,
    ) -> Result<Attr> {
        self.make((parent, name), caller, true, |path, owner| {
            self.upper.mkdir(path, Mode::from_raw_mode(0o700))?;
            let inherited = if owner.inherits { Mode::SGID.as_raw_mode() } else { 0 };
            self.set_owner_and_mode(path, owner, Some(mode | inherited))
        })
    }

    /// Creates a symlink.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn symlink(
        &self,
        parent: u64,
        name: &OsStr,
        caller: Caller,
        target: &Path,
    ) -> Result<Attr> {
        self.make((parent, name), caller, false, |path, owner| {
            self.upper.symlink(target.as_os_str(), path)?;
            self.set_owner_and_mode(path, owner, None)
        })
    }

    /// Creates a file with the lower content `content`, without reading it.
    ///
    /// # Errors
    /// EXDEV if drafts cannot be based on versions here, and any error of the upper file system.
    pub(crate) fn link_content(
        &self,
        (parent, name): (u64, &OsStr),
        caller: Caller,
        content: Content,
        executable: bool,
    ) -> Result<Attr> {
        if !self.can_stand() {
            return Err(Errno::XDEV);
        }
        let target = Target::File { content, executable };
        let draft = self.lock_nodes().draft(parent)?;
        let mut stat = self.lower_stat(&draft, &target)?;
        self.make((parent, name), caller, false, |path, owner| {
            if let Err(Errno::NOENT) = self.stat(path) {
                if let Some((uid, gid)) = owner.given {
                    (stat.st_uid, stat.st_gid) = (uid, gid);
                }
                return self.build(path, &target, &stat);
            }
            Err(Errno::EXIST)
        })
    }

    /// Gives a node another name.
    ///
    /// # Errors
    /// EXDEV in another draft, and any error of the upper file system.
    pub(crate) fn link(&self, id: u64, parent: u64, name: &OsStr) -> Result<Attr> {
        let _change = self.change(parent)?;
        let drafts = {
            let nodes = self.lock_nodes();
            (nodes.draft(id)?, nodes.draft(parent)?)
        };
        if drafts.0 != drafts.1 {
            return Err(Errno::XDEV);
        }
        self.ensure_upper(parent)?;
        self.copy_up_node(id)?;
        // From now on the file may be changed by a name that does not lead through these
        // directories.
        let others = self.lock_nodes().parents(id);
        others.into_iter().try_for_each(|other| self.ensure_upper(other))?;
        let _names = self.exclusive(parent)?;
        self.refuse_covered(parent, name)?;
        let (old, new) = {
            let nodes = self.lock_nodes();
            (nodes.path(id)?, nodes.entry(parent, name)?)
        };
        self.move_into_place(&new, false, |new| self.upper.link(&old, new))?;
        self.look_up_here(parent, name)
    }

    /// Removes a name; `directory` for rmdir.
    ///
    /// # Errors
    /// ENOTEMPTY, EISDIR, ENOTDIR, and any error of the upper file system.
    pub(crate) fn unlink(&self, parent: u64, name: &OsStr, directory: bool) -> Result<()> {
        let _change = self.change(parent)?;
        self.ensure_upper(parent)?;
        // Declared before the lock, so dropped after it: no caller waits while blocks are freed.
        let _spare;
        let left;
        {
            let _names = self.exclusive(parent)?;
            let seen = self.see(parent, name)?;
            let path = self.lock_nodes().entry(parent, name)?;
            match (seen.is_directory(), directory) {
                (true, false) => return Err(Errno::ISDIR),
                (false, true) => return Err(Errno::NOTDIR),
                (true, true) if !self.shows_nothing(&seen, &path)? => {
                    return Err(Errno::NOTEMPTY);
                }
                _ => {}
            }
            _spare = self.hold(&seen, &path)?;
            left = self.remove_seen(parent, name, &seen, &path)?;
        }
        match left {
            Some(part) => self.sweep_work(&part),
            None => Ok(()),
        }
    }

    /// Removes a name, of a directory without visible entries or of anything else; the caller holds
    /// the names exclusively. Returns the path of its remains in the work directory, if any.
    pub(super) fn remove_seen(
        &self,
        parent: u64,
        name: &OsStr,
        seen: &Seen,
        path: &Path,
    ) -> Result<Option<PathBuf>> {
        let cover = self.lower_has(parent, name)?;
        let mut left = None;
        match seen {
            Seen::Lower(_) => {
                self.whiteout_at(path)?;
                self.lock_nodes().unlink_lower(parent, name);
                return Ok(None);
            }
            Seen::Upper(stat) if is_directory(stat) => left = self.take_directory(path, cover)?,
            Seen::Upper(_) if cover => {
                let part = self.whiteout()?;
                self.upper.rename(&part, path)?;
            }
            Seen::Upper(_) => self.upper.unlink(path)?,
        }
        if let Seen::Upper(stat) = seen {
            self.lock_nodes().unlink(parent, name, stat.st_ino, last_name(stat));
        }
        Ok(left)
    }

    /// Holds a node that is about to lose its last name, because a request by its number may still
    /// come. Dropping the returned file frees the blocks of a long file.
    ///
    /// # Errors
    /// Any error of opening a node that is known: its inode number could go to a file of another
    /// draft before the node is forgotten.
    pub(super) fn hold(&self, seen: &Seen, path: &Path) -> Result<Option<File>> {
        let Seen::Upper(stat) = seen else { return Ok(None) };
        let known = self.lock_nodes().knows(stat.st_ino);
        if !last_name(stat) || !(known || stat.st_size >= SLOW_TO_FREE_BYTES) {
            return Ok(None);
        }
        match self.open_upper(path, OFlags::PATH) {
            Ok(file) => Ok(self.lock_nodes().keep(stat.st_ino, file)),
            Err(e) if known => Err(e),
            Err(_) => Ok(None),
        }
    }
}

/// Returns whether removing one name removes the inode: directories have no second name.
pub(super) fn last_name(stat: &Stat) -> bool {
    is_directory(stat) || stat.st_nlink <= 1
}
