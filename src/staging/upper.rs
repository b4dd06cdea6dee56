//! The upper files below the scratch directory, by path. No path leaves it: users make symlinks in
//! drafts, and a directory of a moment ago may be one now. So the directory of a name is opened
//! beneath the scratch directory without following symlinks, and the name is used in that.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Timestamps, Uid,
};
use rustix::io::Errno;

use super::Result;

/// The scratch directory.
pub(crate) struct UpperDirectory(OwnedFd);

/// A name in an open directory.
struct Place<'a> {
    /// The directory of the name; `None` for a name in the scratch directory itself.
    above: Option<OwnedFd>,
    upper: BorrowedFd<'a>,
    name: &'a OsStr,
}

impl AsFd for Place<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.above.as_ref().map_or(self.upper, AsFd::as_fd)
    }
}

/// A path that leads to a name by its open directory. It is for calls that take no descriptor and
/// do not follow a symlink in the last place.
pub(crate) struct Placed {
    path: PathBuf,
    _above: Option<OwnedFd>,
}

impl std::ops::Deref for Placed {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.path
    }
}

const NOFOLLOW: AtFlags = AtFlags::SYMLINK_NOFOLLOW;

impl UpperDirectory {
    /// Opens the scratch directory.
    ///
    /// # Errors
    /// Any error of the upper file system.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH;
        rustix::fs::open(root, flags, Mode::empty()).map(Self)
    }

    /// Opens a directory as O_PATH, beneath the scratch directory.
    fn directory(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
            // A container's filter of system calls refuses it: go step by step.
            Err(Errno::NOSYS | Errno::PERM) => {
                let mut at = rustix::fs::openat(&self.0, ".", flags, Mode::empty())?;
                for part in path.components() {
                    let Component::Normal(name) = part else { return Err(Errno::INVAL) };
                    at = rustix::fs::openat(&at, name, flags, Mode::empty())?;
                }
                Ok(at)
            }
            opened => opened,
        }
    }

    fn place<'a>(&'a self, path: &'a Path) -> Result<Place<'a>> {
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        let above = above.map(|above| self.directory(above)).transpose()?;
        let name = path.file_name().unwrap_or(OsStr::new("."));
        Ok(Place { above, upper: self.0.as_fd(), name })
    }

    /// Returns a path for calls that take no descriptor.
    pub(crate) fn placed(&self, path: &Path) -> Result<Placed> {
        let Place { above, upper, name } = self.place(path)?;
        let fd = above.as_ref().map_or(upper.as_raw_fd(), AsRawFd::as_raw_fd);
        Ok(Placed { path: Path::new(&format!("/proc/self/fd/{fd}")).join(name), _above: above })
    }

    pub(crate) fn stat(&self, path: &Path) -> Result<Stat> {
        let at = self.place(path)?;
        rustix::fs::statat(&at, at.name, NOFOLLOW)
    }

    /// Opens a file; a symlink is not followed.
    pub(crate) fn open_at(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<File> {
        let at = self.place(path)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&at, at.name, flags, mode).map(File::from)
    }

    pub(crate) fn chown(&self, path: &Path, uid: Option<Uid>, gid: Option<Gid>) -> Result<()> {
        let at = self.place(path)?;
        rustix::fs::chownat(&at, at.name, uid, gid, NOFOLLOW)
    }

    /// Sets the mode of anything but a symlink, which has none of its own.
    pub(crate) fn chmod(&self, path: &Path, mode: Mode) -> Result<()> {
        let file = self.open_at(path, OFlags::PATH, Mode::empty())?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
        if kind == FileType::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        rustix::fs::chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), mode)
    }

    pub(crate) fn utimens(&self, path: &Path, times: &Timestamps) -> Result<()> {
        let at = self.place(path)?;
        rustix::fs::utimensat(&at, at.name, times, NOFOLLOW)
    }

    pub(crate) fn mknod(&self, path: &Path, kind: FileType, mode: Mode, device: u64) -> Result<()> {
        let at = self.place(path)?;
        rustix::fs::mknodat(&at, at.name, kind, mode, device)
    }

    pub(crate) fn mkdir(&self, path: &Path, mode: Mode) -> Result<()> {
        let at = self.place(path)?;
        rustix::fs::mkdirat(&at, at.name, mode)
    }

    pub(crate) fn symlink(&self, target: &OsStr, path: &Path) -> Result<()> {
        let at = self.place(path)?;
        rustix::fs::symlinkat(target, &at, at.name)
    }

    pub(crate) fn link(&self, old: &Path, new: &Path) -> Result<()> {
        let (old, new) = (self.place(old)?, self.place(new)?);
        rustix::fs::linkat(&old, old.name, &new, new.name, AtFlags::empty())
    }

    pub(crate) fn unlink(&self, path: &Path) -> Result<()> {
        let at = self.place(path)?;
        rustix::fs::unlinkat(&at, at.name, AtFlags::empty())
    }

    pub(crate) fn rmdir(&self, path: &Path) -> Result<()> {
        let at = self.place(path)?;
        rustix::fs::unlinkat(&at, at.name, AtFlags::REMOVEDIR)
    }

    pub(crate) fn readlink(&self, path: &Path) -> Result<Vec<u8>> {
        let at = self.place(path)?;
        rustix::fs::readlinkat(&at, at.name, Vec::new()).map(std::ffi::CString::into_bytes)
    }

    pub(crate) fn rename(&self, old: &Path, new: &Path) -> Result<()> {
        self.rename_with(old, new, RenameFlags::empty())
    }

    pub(crate) fn rename_with(&self, old: &Path, new: &Path, flags: RenameFlags) -> Result<()> {
        let (old, new) = (self.place(old)?, self.place(new)?);
        if flags.is_empty() {
            return rustix::fs::renameat(&old, old.name, &new, new.name);
        }
        rustix::fs::renameat_with(&old, old.name, &new, new.name, flags)
    }
}
