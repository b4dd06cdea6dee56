//! The visible tree of a draft: its upper over its lower tree.
//!
//! A name in a directory with a lower tree comes from the upper if that has it, else from the lower
//! tree. A *whiteout* covers a name of the lower tree that was removed. It is a character device
//! 0:0, which rename(2) can leave behind in the same step (`RENAME_WHITEOUT`). Before an entry of a
//! directory changes, the directory and all above it are copied up and lose their clean flag.
//! Before a file changes, an empty file with its base xattr is copied up. No content is copied.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

use super::Result;
use super::base_xattr::{ContentXattr, TreeXattr};
use super::drafts::{Drafts, WORK};
use super::freeze::DraftKey;
use super::lower::{self, errno_of};
use super::node::{Body, Step};
use crate::model::digest::Digest;
use crate::model::tree::Target;

/// Unit of `st_blocks` (stat(2)).
pub(crate) const STAT_BLOCK_BYTES: u64 = 512;
/// The I/O size that `st_blksize` recommends to programs: fewer round trips.
const PREFERRED_IO_BYTES: i64 = 1 << 20;

/// The upper device number of a character device that a user made as 0:0, which in the upper means
/// a whiteout. It is the highest number there is (makedev(3)), which no driver has.
pub(crate) const STANDS_FOR_ZERO: u64 = 0xffff_ffff;

/// A visible entry of a draft.
pub(crate) enum Seen {
    /// An entry of the upper.
    Upper(Stat),
    /// An entry that only the lower tree has.
    Lower(Target),
}

/// Returns whether this is a whiteout.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_stand_in(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == STANDS_FOR_ZERO
}

/// Returns whether this is a directory.
pub(crate) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

impl Seen {
    /// Returns whether the entry is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        match self {
            Self::Upper(stat) => is_directory(stat),
            Self::Lower(target) => matches!(target, Target::Directory(_)),
        }
    }
}

impl Drafts {
    pub(super) fn stat(&self, path: &Path) -> Result<Stat> {
        self.upper.stat(path)
    }

    /// Returns the visible entry `name` of `parent`; ENOENT if there is none.
    pub(super) fn see(&self, parent: u64, name: &OsStr) -> Result<Seen> {
        let (path, (tree, on_host)) = {
            let nodes = self.lock_nodes();
            (nodes.entry(parent, name)?, nodes.lower_tree(parent)?)
        };
        if on_host {
            match self.stat(&path) {
                Ok(stat) if is_whiteout(&stat) => return Err(Errno::NOENT),
                Ok(stat) => return Ok(Seen::Upper(stat)),
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            }
        }
        let tree = tree.ok_or(Errno::NOENT)?;
        lower::entry(&*self.lower, tree, name)?.map(Seen::Lower).ok_or(Errno::NOENT)
    }

    /// Returns the visible entry, or `None`.
    pub(super) fn see_any(&self, parent: u64, name: &OsStr) -> Result<Option<Seen>> {
        match self.see(parent, name) {
            Err(Errno::NOENT) => Ok(None),
            seen => seen.map(Some),
        }
    }

    /// Returns whether the lower tree of `parent` has the name, visible or covered.
    pub(super) fn lower_has(&self, parent: u64, name: &OsStr) -> Result<bool> {
        let (tree, _) = self.lock_nodes().lower_tree(parent)?;
        match tree {
            Some(tree) => Ok(lower::entry(&*self.lower, tree, name)?.is_some()),
            None => Ok(false),
        }
    }

    /// Reads the base xattr of the upper directory at `path`.
    pub(super) fn tree_xattr(&self, path: &Path) -> Result<Option<TreeXattr>> {
        TreeXattr::of(&self.upper.placed(path)?)
    }

    /// Returns an unused path in the work directory.
    pub(super) fn work_path(&self) -> PathBuf {
        let number = self.worked.fetch_add(1, Ordering::Relaxed);
        Path::new(WORK).join(number.to_string())
    }

    /// Returns the attributes of a node that is only in the lower tree: its own mode and size, and
    /// the owner and times of [`Drafts::template`].
    pub(super) fn lower_stat(&self, draft: &DraftKey, target: &Target) -> Result<Stat> {
        let mut stat = self.template(draft)?;
        let (mode, size) = match target {
            Target::File { content, executable } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                (FileType::RegularFile.as_raw_mode() | mode, content.size_bytes())
            }
            Target::Directory(_) => (FileType::Directory.as_raw_mode() | 0o755, 0),
            Target::Symlink(to) => (FileType::Symlink.as_raw_mode() | 0o777, to.len() as u64),
        };
        (stat.st_mode, stat.st_size) = (mode, i64::try_from(size).unwrap_or(i64::MAX));
        stat.st_blocks = size.div_ceil(STAT_BLOCK_BYTES) as _;
        stat.st_nlink = 1;
        stat.st_blksize = PREFERRED_IO_BYTES as _;
        Ok(stat)
    }

    /// Returns owner and times of all nodes of a draft that are only in the lower tree.
    fn template(&self, draft: &DraftKey) -> Result<Stat> {
        let mut templates = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stat) = templates.get(draft) {
            return Ok(*stat);
        }
        let record = self.record(draft).map_err(|e| errno_of(&e))?;
        let mut stat = rustix::fs::stat(self.tree_path(draft))?;
        if let Some((uid, gid)) = record.owner {
            (stat.st_uid, stat.st_gid) = (uid, gid);
        }
        let (seconds, nanoseconds) = record.since;
        (stat.st_atime, stat.st_mtime, stat.st_ctime) = (seconds, seconds, seconds);
        stat.st_atime_nsec = nanoseconds as _;
        stat.st_mtime_nsec = nanoseconds as _;
        stat.st_ctime_nsec = nanoseconds as _;
        templates.insert(DraftKey::clone(draft), stat);
        Ok(stat)
    }

    /// Returns the attributes of an upper file as users see them. A file with lower content takes
    /// blocks: otherwise `cp` would look for its holes one by one.
    pub(super) fn visible_stat(&self, mut stat: Stat, path: Option<&Path>) -> Result<Stat> {
        stat.st_blksize = PREFERRED_IO_BYTES as _;
        if is_stand_in(&stat) {
            stat.st_rdev = 0;
        }
        let sparse = (stat.st_blocks as u64) * STAT_BLOCK_BYTES < stat.st_size as u64;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if let (true, true, Some(path)) = (sparse, regular, path)
            && let Some(xattr) = ContentXattr::at(&self.upper.placed(path)?)?
        {
            let blocks = xattr.visible_bytes.div_ceil(STAT_BLOCK_BYTES);
            stat.st_blocks = (stat.st_blocks as u64).max(blocks) as _;
        }
        Ok(stat)
    }

    /// Copies up a directory and all above it, and clears their clean flags. Only a commit sets
    /// them again, and none can begin while the caller holds a `Change` of the draft.
    pub(super) fn ensure_upper(&self, directory: u64) -> Result<()> {
        if self.lock_nodes().step(directory)? == Step::Owned {
            return Ok(());
        }
        let _names = self.exclusive(directory)?;
        self.own_exclusively(directory)
    }

    fn own_exclusively(&self, directory: u64) -> Result<()> {
        let mut chain = vec![directory];
        loop {
            let nodes = self.lock_nodes();
            let at = *chain.last().expect("it begins with one");
            // If a directory is owned, everything above it is too.
            match nodes.step(at)? {
                Step::Owned => break,
                _ => match nodes.link_of(at) {
                    Some((parent, _)) => chain.push(parent),
                    None => break,
                },
            }
        }
        // From the top down: a directory needs the one above it. A crash in between leaves a
        // directory clean only if everything below it is.
        for at in chain.into_iter().rev() {
            let step = self.lock_nodes().step(at)?;
            match step {
                Step::Owned => {}
                Step::Dirty(path, xattr) => {
                    let soiled = TreeXattr { clean: false, ..xattr };
                    soiled.set(&self.upper.placed(&path)?)?;
                    self.lock_nodes().set_xattr(at, Some(soiled));
                }
                Step::CopyUp(tree) => self.bring_directory(at, tree, false)?,
            }
        }
        Ok(())
    }

    /// Makes the upper directory of a lower directory; the upper directory above it exists.
    fn bring_directory(&self, id: u64, tree: Digest, clean: bool) -> Result<()> {
        let (path, draft) = {
            let nodes = self.lock_nodes();
            (nodes.path(id)?, nodes.draft(id)?)
        };
        let xattr = TreeXattr { tree, clean };
        let stat = self.lower_stat(&draft, &Target::Directory(tree))?;
        self.build_directory(&path, &stat, xattr)?;
        let upper = self.stat(&path)?.st_ino;
        self.lock_nodes().copied_up(id, upper, Some(xattr));
        Ok(())
    }

    /// Makes a directory with a lower tree at `path`, in one step.
    pub(super) fn build_directory(&self, path: &Path, stat: &Stat, xattr: TreeXattr) -> Result<()> {
        let part = self.work_path();
        self.upper.mkdir(&part, Mode::from_raw_mode(0o700))?;
        xattr.set(&self.upper.placed(&part)?)?;
        self.dress(&part, stat)?;
        self.upper.rename(&part, path)
    }

    /// Sets owner, mode and times, in this order.
    pub(super) fn dress(&self, path: &Path, stat: &Stat) -> Result<()> {
        let link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            self.upper.chown(path, Some(uid), Some(gid))?;
        }
        if !link {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            self.upper.chmod(path, mode)?;
        }
        let at = |seconds: i64, nanoseconds: u64| Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds as _,
        };
        let times = Timestamps {
            last_access: at(stat.st_atime, stat.st_atime_nsec),
            last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
        };
        self.upper.utimens(path, &times)
    }

    /// Makes an upper entry for `target` at `path`, which replaces anything there but a directory.
    pub(super) fn build(&self, path: &Path, target: &Target, stat: &Stat) -> Result<()> {
        let part = self.work_path();
        match target {
            Target::Directory(tree) => {
                return self.build_directory(path, stat, TreeXattr { tree: *tree, clean: true });
            }
            Target::Symlink(to) => {
                self.upper.symlink(OsStr::from_bytes(to), &part)?;
            }
            Target::File { content, .. } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
                let private = Mode::from_raw_mode(0o600);
                let file = self.upper.open_at(&part, flags, private)?;
                if let Some(xattr) = ContentXattr::whole(*content) {
                    xattr.set(&file)?;
                    rustix::fs::ftruncate(&file, content.size_bytes())?;
                }
            }
        }
        self.dress(&part, stat)?;
        self.upper.rename(&part, path)
    }

    /// Copies up an entry that is only in the lower tree: of a file its attributes and base xattr,
    /// of a directory no entries. The directory above is owned; the caller holds the names
    /// exclusively.
    pub(super) fn copy_up(&self, parent: u64, name: &OsStr, target: &Target) -> Result<Stat> {
        let (path, draft, known) = {
            let nodes = self.lock_nodes();
            let known = nodes.find_lower(parent, name);
            (nodes.entry(parent, name)?, nodes.draft(parent)?, known)
        };
        let stat = self.lower_stat(&draft, target)?;
        self.build(&path, target, &stat)?;
        let stat = self.stat(&path)?;
        if let Some(id) = known {
            let xattr = match target {
                Target::Directory(tree) => Some(TreeXattr { tree: *tree, clean: true }),
                _ => None,
            };
            self.lock_nodes().copied_up(id, stat.st_ino, xattr);
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                self.handles.copied_up(id, || self.open_upper(&path, OFlags::RDONLY))?;
            }
        }
        Ok(stat)
    }

    /// Copies up a node, if it is only in the lower tree.
    pub(super) fn copy_up_node(&self, id: u64) -> Result<()> {
        if matches!(self.lock_nodes().body(id)?, Body::Upper(_)) {
            return Ok(());
        }
        let (parent, name) = self.lock_nodes().link_of(id).ok_or(Errno::NOENT)?;
        self.ensure_upper(parent)?;
        let _names = self.exclusive(id)?;
        let body = self.lock_nodes().body(id)?;
        match body {
            Body::Lower(target) => self.copy_up(parent, &name, &target).map(drop),
            // Another caller copied it up first.
            Body::Upper(_) => Ok(()),
        }
    }

    pub(super) fn open_upper(&self, path: &Path, flags: OFlags) -> Result<std::fs::File> {
        self.upper.open_at(path, flags, Mode::empty())
    }

    /// Makes an entry at `path` with `make`, also over a whiteout; it appears in one step.
    pub(super) fn move_into_place(
        &self,
        path: &Path,
        directory: bool,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        match self.stat(path) {
            Ok(stat) if is_whiteout(&stat) => {}
            _ => return make(path),
        }
        let part = self.work_path();
        make(&part)?;
        if directory {
            // A directory cannot be renamed over a file.
            self.upper.rename_with(&part, path, RenameFlags::EXCHANGE)?;
            return self.upper.unlink(&part);
        }
        self.upper.rename(&part, path)
    }

    /// Makes a whiteout in the work directory.
    pub(super) fn whiteout(&self) -> Result<PathBuf> {
        let part = self.work_path();
        self.whiteout_at(&part)?;
        Ok(part)
    }

    pub(super) fn whiteout_at(&self, path: &Path) -> Result<()> {
        let none = Mode::empty();
        self.upper.mknod(path, FileType::CharacterDevice, none, 0)
    }

    /// Returns whether the draft shows no entry in this directory; `path` is its upper path.
    pub(super) fn shows_nothing(&self, seen: &Seen, path: &Path) -> Result<bool> {
        let tree = match seen {
            Seen::Lower(Target::Directory(tree)) => Some(*tree),
            Seen::Lower(_) => return Err(Errno::NOTDIR),
            Seen::Upper(_) => {
                if !self.host_names(path, |stat| !is_whiteout(stat))? {
                    return Ok(false);
                }
                self.tree_xattr(path)?.map(|xattr| xattr.tree)
            }
        };
        let Some(tree) = tree else { return Ok(true) };
        let mut position = 0;
        loop {
            let run = self.lower.run(tree, position).map_err(|e| errno_of(&e))?;
            if run.is_empty() {
                return Ok(true);
            }
            for entry in &run {
                if matches!(seen, Seen::Lower(_)) {
                    return Ok(false);
                }
                // All upper entries are whiteouts: the name is visible if none of them covers it.
                match self.stat(&path.join(entry.name.as_os_str())) {
                    Ok(_) => {}
                    Err(Errno::NOENT) => return Ok(false),
                    Err(e) => return Err(e),
                }
            }
            position += run.len() as u64;
        }
    }

    /// Returns whether the upper directory at `path` has no entry that is `wanted`.
    fn host_names(&self, path: &Path, wanted: impl Fn(&Stat) -> bool) -> Result<bool> {
        let fd = self.open_upper(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if wanted(&stat) => return Ok(false),
                Ok(_) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Removes a directory without visible entries from the upper, and leaves a whiteout if
    /// `cover`. Returns the path of its remains, to be deleted with [`Drafts::sweep_work`] without
    /// a lock held.
    pub(super) fn take_directory(&self, path: &Path, cover: bool) -> Result<Option<PathBuf>> {
        if !cover {
            match self.upper.rmdir(path) {
                Err(Errno::NOTEMPTY) => {}
                done => return done.map(|()| None),
            }
        }
        let part = if cover { self.whiteout()? } else { self.work_path() };
        let flags = if cover { RenameFlags::EXCHANGE } else { RenameFlags::empty() };
        self.upper.rename_with(path, &part, flags)?;
        Ok(Some(part))
    }

    /// Deletes an entry of the work directory: a file, or a directory of whiteouts.
    pub(super) fn sweep_work(&self, part: &Path) -> Result<()> {
        let full = self.upper.placed(part)?;
        let done = match std::fs::symlink_metadata(&*full) {
            Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(&*full),
            Ok(_) => std::fs::remove_file(&*full),
            Err(e) => Err(e),
        };
        done.map_err(|e| e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
    }
}
