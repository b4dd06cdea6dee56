//! The place of an external file of this machine, and its readers there. The daemon may read what
//! its readers may not, and the owner of a folder may put anything in the place of a file.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, fstat, major, minor,
    open as open_at_root, openat, openat2, statx,
};
use rustix::io::Errno;

/// The number of look-ups of a path that is renamed meanwhile.
const LOOKUPS: u32 = 8;
/// The right to read, among the three bits of a class. `SEARCH` is the right to search a directory.
const READ: u32 = 0o4;
const SEARCH: u32 = 0o1;

/// A user that reads through a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Requester {
    /// The user.
    pub(crate) uid: u32,
    /// The group.
    pub(crate) gid: u32,
    /// The process, which may have more groups.
    pub(crate) pid: u32,
}

fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY
}

/// Opens a path that may be a file, without waiting for a FIFO's other end. Symlinks are followed.
///
/// # Errors
/// Any error of open(2).
pub(crate) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(flags().bits().cast_signed()).open(path)
}

/// Locates a file without opening it (O_PATH of open(2)), so that its file system gets no request.
/// Symlinks are followed.
///
/// # Errors
/// Any error of open(2).
pub(crate) fn find(path: &Path) -> io::Result<File> {
    Ok(open_at_root(path, found(), Mode::empty())?.into())
}

/// Opens a located file for reading. A FIFO does not block.
///
/// # Errors
/// Any error of open(2).
pub(crate) fn open_found(file: &File) -> io::Result<File> {
    open(&link_of(file))
}

/// Opens the file that `find_below` locates.
///
/// # Errors
/// As `find_below`.
pub(crate) fn open_below(path: &Path, depth: u32) -> io::Result<File> {
    open_found(&find_below(path, depth)?)
}

fn found() -> OFlags {
    OFlags::PATH | OFlags::CLOEXEC
}

/// Returns the /proc symlink of a descriptor.
fn link_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// The attributes that the kernel holds without a request to the file system.
pub(crate) struct Known {
    /// Major and minor number of the device.
    pub(crate) device: (u32, u32),
    /// The file type.
    pub(crate) kind: FileType,
}

impl Known {
    /// Reads the attributes by statx(2) with `AT_STATX_DONT_SYNC`.
    ///
    /// # Errors
    /// Any error of statx(2).
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        match statx(file, "", flags, StatxFlags::TYPE) {
            // Before Linux 4.11, and in some containers, the file system gets a request instead.
            Err(Errno::NOSYS | Errno::PERM) => {
                let stat = fstat(file)?;
                let device = (major(stat.st_dev), minor(stat.st_dev));
                Ok(Self { device, kind: FileType::from_raw_mode(stat.st_mode) })
            }
            known => {
                let known = known?;
                let kind = FileType::from_raw_mode(known.stx_mode.into());
                Ok(Self { device: (known.stx_dev_major, known.stx_dev_minor), kind })
            }
        }
    }
}

/// Locates a file as [`find`] does, and refuses to leave the folder `depth` names above it. The
/// file itself must not be a symlink.
///
/// # Errors
/// ELOOP or EXDEV for a symlink that is not allowed, and any error of openat2(2).
pub(crate) fn find_below(path: &Path, depth: u32) -> io::Result<File> {
    no_symlink(look_below(path, depth)?)
}

fn no_symlink(file: File) -> io::Result<File> {
    match Known::of(&file)?.kind {
        FileType::Symlink => Err(Errno::LOOP.into()),
        _ => Ok(file),
    }
}

fn look_below(path: &Path, depth: u32) -> io::Result<File> {
    let folder = path.ancestors().nth(depth as usize).unwrap_or(Path::new("/"));
    let below = path.strip_prefix(folder).map_err(io::Error::other)?;
    let at = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open_at_root(folder, at, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..LOOKUPS {
        let flags = found() | OFlags::NOFOLLOW;
        match openat2(&folder, below, flags, Mode::empty(), resolve) {
            // A directory on the way was renamed.
            Err(Errno::AGAIN) => {}
            // Before Linux 5.6, and in some containers, no symlink at all is followed.
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
    Ok(openat(&at, name, found() | OFlags::NOFOLLOW, Mode::empty())?.into())
}

/// Returns whether an open file is in one of `folders`, by whatever name it was reached.
///
/// # Errors
/// If the file's path cannot be read.
pub(crate) fn is_below(file: &File, folders: &[PathBuf]) -> io::Result<bool> {
    let path = fs::read_link(link_of(file))?;
    Ok(folders
        .iter()
        .filter_map(|folder| fs::canonicalize(folder).ok())
        .any(|f| path.starts_with(f)))
}

/// Returns whether `requester` may read an open file there, by its mode and those of the
/// directories above. Access control lists grant nothing here.
pub(crate) fn may_read(requester: &Requester, file: &File) -> bool {
    let own = rustix::process::geteuid().as_raw();
    if requester.uid == own || requester.uid == 0 {
        return true;
    }
    let Ok(path) = fs::read_link(link_of(file)) else { return false };
    let mut above = path.ancestors().skip(1);
    let readable = file.metadata().is_ok_and(|meta| may(requester, &meta, READ));
    readable && above.all(|dir| fs::metadata(dir).is_ok_and(|meta| may(requester, &meta, SEARCH)))
}

/// An owner, group and mode that describe the readers of a file at its place. They grant nothing
/// that `may_read` refuses. If several groups may read it, only one is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Readers {
    /// The owner.
    pub(crate) uid: u32,
    /// The group.
    pub(crate) gid: u32,
    /// The rights to read: bits of 0o444.
    pub(crate) perm: u16,
}

impl Readers {
    /// Returns a description that grants this process and root alone.
    pub(crate) fn ourselves() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        Self { uid, gid: rustix::process::getegid().as_raw(), perm: 0o400 }
    }

    /// Describes the readers of a located file. Unless this process is root, its own user becomes
    /// the owner.
    pub(crate) fn of(file: &File) -> Self {
        let ourselves = Self::ourselves();
        let (Ok(path), Ok(meta)) = (fs::read_link(link_of(file)), file.metadata()) else {
            return ourselves;
        };
        let above: io::Result<Vec<_>> = path.ancestors().skip(1).map(fs::metadata).collect();
        let Ok(above) = above else { return ourselves };
        let on_the_way: Vec<_> = std::iter::once((meta, READ))
            .chain(above.into_iter().map(|dir| (dir, SEARCH)))
            .map(|(meta, right)| Step {
                uid: meta.uid(),
                gid: meta.gid(),
                mode: meta.mode(),
                right,
            })
            .collect();
        ourselves.among(&on_the_way)
    }

    fn among(self, on_the_way: &[Step]) -> Self {
        let mut readers = Self { gid: on_the_way[0].gid, ..self };
        let owner = on_the_way[0].uid;
        if self.uid == 0 && on_the_way.iter().all(|step| step.allows_owner(owner)) {
            readers.uid = owner;
        }
        if let Some(group) = on_the_way
            .iter()
            .map(|step| step.gid)
            .find(|gid| on_the_way.iter().all(|step| step.allows_group(*gid)))
        {
            (readers.gid, readers.perm) = (group, readers.perm | 0o040);
        }
        if on_the_way.iter().all(Step::allows_all) {
            readers.perm |= 0o004;
        }
        readers
    }
}

/// A file, or a directory above it, and the right that a reader needs there.
struct Step {
    uid: u32,
    gid: u32,
    mode: u32,
    right: u32,
}

impl Step {
    fn allows_all(&self) -> bool {
        [0, 3, 6].iter().all(|class| self.mode >> class & self.right != 0)
    }

    fn allows_owner(&self, uid: u32) -> bool {
        self.allows_all() || (self.uid == uid && self.mode >> 6 & self.right != 0)
    }

    /// Returns whether every member of a group has the right, including the owner if it is a
    /// member.
    fn allows_group(&self, gid: u32) -> bool {
        let members = [3, 6].iter().all(|class| self.mode >> class & self.right != 0);
        self.allows_all() || (self.gid == gid && members)
    }
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

    const OURSELVES: Readers = Readers { uid: 0, gid: 0, perm: 0o400 };

    #[test]
    fn readers_are_those_who_may_read_on_the_whole_way() {
        let step = |(uid, gid, mode), right| Step { uid, gid, mode, right };
        let readers = |file, dir| {
            let found = OURSELVES.among(&[step(file, READ), step(dir, SEARCH)]);
            (found.uid, found.gid, found.perm)
        };
        let open = (0, 0, 0o755);
        assert_eq!(readers((7, 70, 0o644), open), (7, 70, 0o444));
        assert_eq!(readers((7, 70, 0o640), open), (7, 70, 0o440));
        assert_eq!(readers((7, 70, 0o600), open), (7, 70, 0o400));
        assert_eq!(readers((7, 70, 0o044), open), (0, 70, 0o400), "the owner is refused");
        assert_eq!(readers((7, 70, 0o604), open), (7, 70, 0o400), "the group is refused");
        assert_eq!(readers((7, 70, 0o644), (7, 70, 0o700)), (7, 70, 0o400));
        assert_eq!(readers((7, 70, 0o644), (0, 0, 0o700)), (0, 70, 0o400));
        assert_eq!(
            readers((7, 70, 0o644), (0, 80, 0o750)),
            (0, 80, 0o440),
            "by the folder's group"
        );
        assert_eq!(readers((7, 70, 0o640), (0, 80, 0o750)), (0, 70, 0o400));
    }

    /// Compares the described readers with the modes of 100,000 random paths.
    #[test]
    fn nobody_is_shown_as_a_reader_who_is_none() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..100_000 {
            let steps: Vec<_> = [READ, SEARCH, SEARCH]
                .map(|right| {
                    let (uid, gid) = (random(3) as u32, random(3) as u32);
                    Step { uid, gid, mode: random(0o1000) as u32, right }
                })
                .into();
            let shown = OURSELVES.among(&steps);
            for (uid, gid) in (1..4).flat_map(|uid| (0..4).map(move |gid| (uid, gid))) {
                let class = |of_uid, of_gid| match (uid == of_uid, gid == of_gid) {
                    (true, _) => 6,
                    (false, true) => 3,
                    (false, false) => 0,
                };
                let said = u32::from(shown.perm) >> class(shown.uid, shown.gid) & READ != 0;
                let may = |s: &Step| s.mode >> class(s.uid, s.gid) & s.right != 0;
                assert!(!said || steps.iter().all(may), "user {uid}, group {gid}: {shown:?}");
            }
        }
    }

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
        assert_eq!(error(no_symlink(walked("link").unwrap())), Errno::LOOP);
        let file = opened("d/f", 2).unwrap();
        assert!(is_below(&file, &[dir.path().join("none"), root.clone()]).unwrap());
        assert!(!is_below(&file, &[dir.path().join("fold")]).unwrap());
    }
}
