//! Rebase: after a commit the upper is in the new version, which becomes the draft's lower.
//!
//! Every step keeps the visible tree as it is, so a crash between two of them does no harm. The
//! draft is frozen meanwhile; reading goes on.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::Result;
use super::base_xattr::{ContentXattr, OWN_PREFIX, TreeXattr};
use super::drafts::Drafts;
use super::in_use::is_used_elsewhere;
use super::io::is_all_hole;
use super::overlay::is_whiteout;
use crate::model::digest::Digest;
use crate::model::reference::ArtifactPath;
use crate::model::tree::Content;

/// The mode of a pack that was a file of a draft.
const PACK_MODE: u32 = 0o644;

/// The outcome of rebasing a file whose content is in a version now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It is based on that content alone.
    Wholly,
    /// It keeps its own bytes, and needs no others but those of the version.
    NotAtAll,
    /// It is still based on this content of an earlier version, which must stay.
    On(Content),
}

impl Drafts {
    fn in_draft(&self, key: &ArtifactPath, path: &Path) -> PathBuf {
        let root: PathBuf = [key.project.as_str(), key.artifact.as_str(), "tree"].iter().collect();
        if path.as_os_str().is_empty() { root } else { root.join(path) }
    }

    /// Waits until a file is opened for writing, at most `wait`.
    pub(crate) fn wait_written(&self, wait: std::time::Duration) {
        self.gates.wait_written(wait);
    }

    /// Opens for reading each file without lower content that is open for writing.
    pub(crate) fn written(&self) -> Vec<File> {
        let open = self.handles.written().into_iter();
        open.filter_map(|file| super::posix::open_again(&file, OFlags::RDONLY).ok()).collect()
    }

    /// Returns whether the node of an upper inode is not open, so that its bytes may become a pack.
    pub(crate) fn may_share(&self, upper: u64) -> bool {
        let node = self.lock_nodes().node_of_upper(upper);
        node.is_none_or(|node| !self.handles.is_open(node))
    }

    /// Lists the lower content of the draft's files that are open but removed.
    pub(crate) fn nameless_content(&self, key: &ArtifactPath) -> Vec<Content> {
        let standing = self.handles.with_lower(&Arc::new(key.clone()));
        let nodes = self.lock_nodes();
        let nameless = standing.into_iter().filter(|(node, _)| nodes.path(*node).is_err());
        nameless.map(|(_, content)| content).collect()
    }

    /// Rebases the file at `path`, which is exactly `content` now: it gives its own bytes up. If
    /// `shared`, a pack has these. A file that is open or has other names stays as it is.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn rebase_file(
        &self,
        key: &ArtifactPath,
        path: &Path,
        content: Content,
        shared: bool,
    ) -> Result<Settled> {
        let path = self.in_draft(key, path);
        let Some(xattr) = ContentXattr::whole(content) else {
            let stat = self.stat(&path)?;
            let alone = stat.st_nlink == 1 && self.may_share(stat.st_ino);
            return Ok(if alone { Settled::Wholly } else { Settled::NotAtAll });
        };
        if shared {
            self.part_with(key, &path, xattr)?;
            return Ok(Settled::Wholly);
        }
        let settled = {
            // The lock keeps others from opening it between the check and the change.
            let _names = self.names.moving(key);
            let file = self.open_upper(&path, OFlags::RDWR)?;
            let stat = rustix::fs::fstat(&file)?;
            let size = stat.st_size as u64;
            let before = ContentXattr::of(&file, size)?;
            let left = before.map_or(Settled::NotAtAll, |before| Settled::On(before.content));
            // The directories of this name would not notice a change by another name.
            if !self.may_share(stat.st_ino) || stat.st_nlink > 1 {
                return Ok(if before == Some(xattr) { Settled::NotAtAll } else { left });
            }
            if before == Some(xattr) {
                return Ok(Settled::Wholly);
            }
            // A closed file may still be mapped: its reader would see the holes.
            if is_used(&file) {
                return Ok(left);
            }
            xattr.set(&file)?;
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // A partial block does not become a hole.
            let whole = size.next_multiple_of(self.block_bytes);
            rustix::fs::fallocate(&file, punch, 0, whole)?;
            let at =
                |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
            let times = Timestamps {
                last_access: at(stat.st_atime, stat.st_atime_nsec),
                last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
            };
            rustix::fs::futimens(&file, &times)?;
            is_all_hole(&file)?
        };
        if !settled {
            // Data that stayed would hide the content after a change.
            self.part_with(key, &path, xattr)?;
        }
        Ok(Settled::Wholly)
    }

    /// Replaces a file whose inode belongs to a pack by an empty one with the same attributes.
    fn part_with(&self, key: &ArtifactPath, path: &Path, xattr: ContentXattr) -> Result<()> {
        let stat = self.stat(path)?;
        let part = self.work_path();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let file = self.upper.open_at(&part, flags, rustix::fs::Mode::from_raw_mode(0o600))?;
        copy_xattrs(&self.upper.placed(path)?, &file)?;
        xattr.set(&file)?;
        rustix::fs::ftruncate(&file, xattr.visible_bytes)?;
        self.dress(&part, &stat)?;
        let _names = self.names.moving(key);
        // The open descriptor keeps the inode number from reuse until the node has the new one.
        let _before = self.open_upper(path, OFlags::PATH)?;
        self.upper.rename(&part, path)?;
        let upper = self.stat(path)?.st_ino;
        let node = self.lock_nodes().node_of_upper(stat.st_ino);
        self.lock_nodes().replaced(stat.st_ino, upper);
        if let Some(shared) = node.and_then(|node| self.handles.shared(node)) {
            let mut shared = shared.write();
            shared.xattr = Some(xattr);
            shared.came_up = Some(Arc::new(self.open_upper(path, OFlags::RDONLY)?));
        }
        Ok(())
    }

    /// Rebases the directory at `path`, which is `tree` now; `clean` if so is everything below it.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn rebase_directory(
        &self,
        key: &ArtifactPath,
        path: &Path,
        tree: Digest,
        clean: bool,
    ) -> Result<()> {
        let path = self.in_draft(key, path);
        let full = self.upper.placed(&path)?;
        let upper = self.stat(&path)?.st_ino;
        {
            let _names = self.names.moving(key);
            let xattr = TreeXattr { tree, clean };
            xattr.set(&full)?;
            self.lock_nodes().set_xattr_of_upper(upper, Some(xattr));
        }
        // The removed names are not in the new tree, so their whiteouts can go.
        let listed = self.open_upper(&path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let listed = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&listed));
        for entry in fs::read_dir(listed).map_err(|e| super::io::errno(&e))? {
            let entry = entry.map_err(|e| super::io::errno(&e))?;
            let device = entry
                .file_type()
                .is_ok_and(|kind| std::os::unix::fs::FileTypeExt::is_char_device(&kind));
            let name = path.join(entry.file_name());
            if device && self.stat(&name).is_ok_and(|stat| is_whiteout(&stat)) {
                self.upper.unlink(&name)?;
            }
        }
        Ok(())
    }

    /// Makes all changes so far durable, unless the next write of a record does. It does on ext4
    /// and xfs: their journals are written in order, so an fsync covers earlier changes.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn rebase_durably(&self) -> Result<()> {
        /// The file system types of ext4 and xfs (statfs(2)).
        const IN_ORDER: [i64; 2] = [0xEF53, 0x5846_5342];
        let root = self.open_upper(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY)?;
        if IN_ORDER.contains(&(rustix::fs::fstatfs(&root)?.f_type as i64)) {
            return Ok(());
        }
        rustix::fs::syncfs(&root)
    }

    /// Copies a file of a draft that shares its inode with a pack, so that it has its own bytes.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn unshare(&self, key: &ArtifactPath, path: &Path) -> Result<()> {
        let path = self.in_draft(key, path);
        let full = self.upper.placed(&path)?;
        let stat = match self.stat(&path) {
            Ok(stat) if stat.st_nlink > 1 => stat,
            Ok(_) | Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e),
        };
        let part = self.work_path();
        let upper = |e: std::io::Error| super::io::errno(&e);
        let mut source = self.open_upper(&path, OFlags::RDONLY)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mut copy = self.upper.open_at(&part, flags, rustix::fs::Mode::from_raw_mode(0o600))?;
        std::io::copy(&mut source, &mut copy).map_err(upper)?;
        copy_xattrs(&full, &copy)?;
        copy.sync_all().map_err(upper)?;
        self.dress(&part, &stat)?;
        let _names = self.names.moving(key);
        self.upper.rename(&part, &path)?;
        let now = self.stat(&path)?.st_ino;
        self.lock_nodes().replaced(stat.st_ino, now);
        Ok(())
    }
}

/// Returns whether a file is open or mapped elsewhere. The kernel releases a file shortly after it
/// has reported its close.
fn is_used(file: &File) -> bool {
    /// Longer than that release takes.
    const WAIT: Duration = Duration::from_millis(50);
    let deadline = Instant::now() + WAIT;
    while is_used_elsewhere(file) {
        if Instant::now() >= deadline {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

/// Gives a file of a user to the repository: sets owner and mode, and removes `user.` attributes.
///
/// # Errors
/// Any error of the upper file system.
pub(crate) fn give_to_store(path: &Path) -> std::io::Result<()> {
    let meta = fs::metadata(path)?;
    let mine = rustix::process::geteuid().as_raw();
    if meta.uid() != mine {
        chown(path, Some(mine), Some(rustix::process::getegid().as_raw()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(PACK_MODE))?;
    for name in xattr_names(path)? {
        rustix::fs::lremovexattr(path, &name)?;
    }
    Ok(())
}

/// Returns the names of a file's `user.` attributes.
fn xattr_names(path: &Path) -> Result<Vec<String>> {
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let names = names[..length].split(|b| *b == 0);
    let text = names.filter_map(|name| String::from_utf8(name.to_vec()).ok());
    Ok(text.filter(|name| name.starts_with("user.")).collect())
}

fn copy_xattrs(from: &Path, to: impl std::os::fd::AsFd) -> Result<()> {
    for name in xattr_names(from)?.iter().filter(|name| !name.starts_with(OWN_PREFIX)) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(from, name.as_str(), &mut value)?;
        let none = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(to.as_fd(), name.as_str(), &value[..length], none)?;
    }
    Ok(())
}
