//! Where an external file of this machine is, and who may read it there: the daemon may read what its readers
//! may not, and whoever owns a folder may put anything in the place of a file.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, open as open_at_root, openat, openat2};
use rustix::io::Errno;

use crate::model::external::ExternalUrl;

/// How often a path is looked up again that others rename meanwhile.
const LOOKUPS: u32 = 8;
/// The right to read, or to search a directory, among the three bits of a class.
const READ: u32 = 0o4;
const SEARCH: u32 = 0o1;

/// Whoever reads through a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requester {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The process, which may have more groups.
    pub pid: u32,
}

fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY
}

/// Opens what may be a file, without waiting for a FIFO's other end. Symlinks are followed.
///
/// # Errors
/// What the host says.
pub fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(flags().bits().cast_signed()).open(path)
}

/// Opens the file at `path`, whose last `depth` names are below a folder that nothing on the way may leave. The
/// last of them is no symlink.
///
/// # Errors
/// ELOOP and EXDEV for symlinks that are not allowed, and what the host says.
pub fn open_below(path: &Path, depth: u32) -> io::Result<File> {
    let folder = path.ancestors().nth(depth as usize).unwrap_or(Path::new("/"));
    let below = path.strip_prefix(folder).map_err(io::Error::other)?;
    let at = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open_at_root(folder, at, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..LOOKUPS {
        let flags = flags() | OFlags::NOFOLLOW;
        match openat2(&folder, below, flags, Mode::empty(), resolve) {
            // Somebody renamed a directory on the way.
            Err(Errno::AGAIN) => {}
            // Before Linux 5.6, and in some containers: then no symlink at all is followed.
            Err(Errno::NOSYS | Errno::PERM) => return Ok(walk_below(folder.as_fd(), below)?),
            opened => return Ok(opened?.into()),
        }
    }
    Err(Errno::AGAIN.into())
}

fn walk_below(folder: impl AsFd, below: &Path) -> rustix::io::Result<File> {
    let (parents, name) = (below.parent().unwrap_or(Path::new("")), below.file_name());
    let mut at = openat(folder, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for part in parents {
        at = openat(&at, part, step, Mode::empty()).map_err(|e| match e {
            Errno::NOTDIR => Errno::LOOP,
            other => other,
        })?;
    }
    let name = name.ok_or(Errno::INVAL)?;
    Ok(openat(&at, name, flags() | OFlags::NOFOLLOW, Mode::empty())?.into())
}

/// Whether an open file is in one of `folders`, by whatever name it was reached.
///
/// # Errors
/// What the host says.
pub fn is_below(file: &File, folders: &[PathBuf]) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    Ok(folders
        .iter()
        .filter_map(|folder| fs::canonicalize(folder).ok())
        .any(|f| path.starts_with(f)))
}

/// Whether `requester` may read an open file there: by its mode and those of the directories above. Access control
/// lists grant nothing here.
pub fn may_read(requester: &Requester, url: &ExternalUrl, file: &File) -> bool {
    let own = rustix::process::geteuid().as_raw();
    if requester.uid == own || requester.uid == 0 {
        return true;
    }
    let Some(path) = url.path() else { return false };
    let Ok(path) = fs::canonicalize(path) else { return false };
    let mut above = path.ancestors().skip(1);
    let readable = file.metadata().is_ok_and(|meta| may(requester, &meta, READ));
    readable && above.all(|dir| fs::metadata(dir).is_ok_and(|meta| may(requester, &meta, SEARCH)))
}

fn may(requester: &Requester, meta: &fs::Metadata, right: u32) -> bool {
    let mode = meta.mode();
    if requester.uid == meta.uid() {
        return mode >> 6 & right != 0;
    }
    if mode & right == mode >> 3 & right {
        return mode & right != 0;
    }
    let in_group = requester.gid == meta.gid() || groups_of(requester.pid).contains(&meta.gid());
    if in_group { mode >> 3 & right != 0 } else { mode & right != 0 }
}

/// Returns the supplementary groups of a process (proc_pid_status(5)); none if it is gone.
fn groups_of(pid: u32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_whitespace().filter_map(|group| group.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_below_a_folder_leads_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("folder");
        fs::create_dir_all(root.join("d")).unwrap();
        fs::write(root.join("d/f"), "f").unwrap();
        fs::write(dir.path().join("out"), "out").unwrap();
        symlink("d", root.join("inside")).unwrap();
        symlink("..", root.join("outside")).unwrap();
        symlink("d/f", root.join("link")).unwrap();
        let opened = |below: &str, depth| open_below(&root.join(below), depth);
        let walked = |below: &str| walk_below(File::open(&root).unwrap(), Path::new(below));
        opened("d/f", 2).unwrap();
        opened("inside/f", 2).unwrap();
        walked("d/f").unwrap();
        let error = |opened: io::Result<File>| Errno::from_io_error(&opened.unwrap_err()).unwrap();
        assert_eq!(error(opened("outside/out", 2)), Errno::XDEV);
        assert_eq!(error(opened("link", 1)), Errno::LOOP);
        assert_eq!(error(opened("none", 1)), Errno::NOENT);
        assert_eq!(walked("outside/out").unwrap_err(), Errno::LOOP);
        assert_eq!(walked("link").unwrap_err(), Errno::LOOP);
        let file = opened("d/f", 2).unwrap();
        assert!(is_below(&file, &[dir.path().join("none"), root.clone()]).unwrap());
        assert!(!is_below(&file, &[dir.path().join("fold")]).unwrap());
    }
}
