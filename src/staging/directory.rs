//! Listing a directory of a draft.
//!
//! A directory without a lower tree is listed by the upper file system's own cookies (`d_off`,
//! getdents64(2)). They stay valid while entries come and go, and a directory of a million names
//! needs no memory. A directory with a lower tree is listed in two parts. First come the names of
//! the lower tree that are not covered, by their position in it. Then come the names that only the
//! upper has, by number; the cookies of the last 16,384 are remembered.

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, OFlags, RawDir, SeekFrom, seek};
use rustix::io::Errno;

use super::Result;
use super::drafts::Drafts;
use super::lower::{entry, errno_of};
use super::open_directory::{Above, DirectoryHandle};
use super::overlay::is_whiteout;
use crate::model::digest::Digest;
use crate::model::tree::Target;

/// The bytes of entries read from the upper file system at once.
const BUFFER_BYTES: usize = 32 << 10;
/// The positions of `.` and `..` in a listing with a lower tree.
const DOTS: u64 = 2;

/// An entry of a listing.
pub(crate) struct Listed {
    /// The name; `.` and `..` are listed, too.
    pub(crate) name: OsString,
    /// A number, never 0; the kernel shows it only in a listing without attributes.
    pub(crate) inode: u64,
    /// The kind of file.
    pub(crate) kind: FileType,
    /// The position of the next entry.
    pub(crate) next: u64,
}

type Each<'a> = &'a mut dyn FnMut(Listed) -> bool;

impl Drafts {
    /// Opens a directory for listing, and returns the number of the handle.
    ///
    /// # Errors
    /// Any error of the upper file system; ENFILE if too many are open.
    pub(crate) fn open_directory(&self, id: u64) -> Result<u64> {
        let _names = self.shared(id)?;
        let (tree, on_host) = self.lock_nodes().lower_tree(id)?;
        let upper = match self.lock_nodes().path(id).is_ok() && on_host {
            true => Some(self.open_host_directory(id)?),
            false => None,
        };
        // A directory without a name has no entries.
        let tree = if self.lock_nodes().path(id).is_ok() { tree } else { None };
        let (upper, above) = (Mutex::new(upper), Mutex::default());
        self.handles.add_directory(DirectoryHandle { node: id, tree, upper, above })
    }

    fn open_host_directory(&self, id: u64) -> Result<OwnedFd> {
        let path = self.lock_nodes().path(id)?;
        self.open_upper(&path, OFlags::RDONLY | OFlags::DIRECTORY).map(OwnedFd::from)
    }

    /// Calls `each` with the entries from `position` on, until it returns `false` because it is
    /// full.
    ///
    /// # Errors
    /// EBADF for an unknown handle; any error of the upper file system or of the lower.
    pub(crate) fn list_directory(&self, handle: u64, position: u64, each: Each<'_>) -> Result<()> {
        let open = self.handles.directory(handle)?;
        let Some(tree) = open.tree else {
            let fd = open.upper.lock().unwrap_or_else(PoisonError::into_inner);
            return match &*fd {
                Some(fd) => list_host(fd, position, each),
                None => Ok(()),
            };
        };
        if position == 0 {
            // Reading from the start begins a new listing.
            *open.above.lock().unwrap_or_else(PoisonError::into_inner) = Above::default();
        }
        for (next, name) in [(1, "."), (DOTS, "..")] {
            let listed = Listed { name: name.into(), inode: next, kind: FileType::Directory, next };
            if next > position && !each(listed) {
                return Ok(());
            }
        }
        let mut at = position.saturating_sub(DOTS);
        loop {
            let run = self.lower.run(tree, at).map_err(|e| errno_of(&e))?;
            if run.is_empty() {
                break;
            }
            for found in run {
                at += 1;
                let name = OsStr::from_bytes(found.name.as_bytes());
                let Some((kind, inode)) = self.uncovered(&open, name, &found.target, at)? else {
                    continue;
                };
                if !each(Listed { name: name.to_owned(), inode, kind, next: at + DOTS }) {
                    return Ok(());
                }
            }
        }
        let size = self.size_of(tree)?;
        self.list_above(&open, tree, (position.saturating_sub(DOTS), size), each)
    }

    /// Returns the number of entries of a tree.
    fn size_of(&self, tree: Digest) -> Result<u64> {
        // Finds the position of the end by doubling, then by halving; each step reads one node per
        // level, from memory.
        let ends = |at: u64| Ok(self.lower.run(tree, at).map_err(|e| errno_of(&e))?.is_empty());
        let (mut inside, mut end) = (0, 1);
        while !ends(end)? {
            (inside, end) = (end, end * 2);
        }
        while inside < end {
            let middle = inside + (end - inside) / 2;
            if ends(middle)? { end = middle } else { inside = middle + 1 }
        }
        Ok(end)
    }

    /// Returns kind and inode number of a name of the lower tree, if it is not covered.
    fn uncovered(
        &self,
        open: &DirectoryHandle,
        name: &OsStr,
        target: &Target,
        at: u64,
    ) -> Result<Option<(FileType, u64)>> {
        let of_base = match target {
            Target::File { .. } => FileType::RegularFile,
            Target::Directory(_) => FileType::Directory,
            Target::Symlink(_) => FileType::Symlink,
        };
        let (place, now) = {
            let nodes = self.lock_nodes();
            let (now, on_host) = nodes.lower_tree(open.node).unwrap_or((open.tree, false));
            (if on_host { nodes.entry(open.node, name).ok() } else { None }, now)
        };
        let Some(path) = place else { return Ok(Some((of_base, at + DOTS))) };
        if let (Some(now), true) = (now, now != open.tree)
            && entry(&*self.lower, now, name)?.is_none()
            && matches!(self.stat(&path), Err(Errno::NOENT))
        {
            // The name was removed, and that was committed, since the listing began.
            return Ok(None);
        }
        match self.stat(&path) {
            Ok(stat) if is_whiteout(&stat) => Ok(None),
            Ok(stat) => Ok(Some((FileType::from_raw_mode(stat.st_mode), stat.st_ino))),
            Err(Errno::NOENT) => Ok(Some((of_base, at + DOTS))),
            Err(e) => Err(e),
        }
    }

    /// Lists the names that only the upper has.
    fn list_above(
        &self,
        open: &DirectoryHandle,
        tree: Digest,
        (position, size): (u64, u64),
        each: Each<'_>,
    ) -> Result<()> {
        let mut fd = open.upper.lock().unwrap_or_else(PoisonError::into_inner);
        if fd.is_none() {
            let on_host = self.lock_nodes().lower_tree(open.node).is_ok_and(|(_, on_host)| on_host);
            if !on_host {
                return Ok(());
            }
            *fd = Some(self.open_host_directory(open.node)?);
        }
        let Some(fd) = &*fd else { return Ok(()) };
        let mut above = open.above.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = position.saturating_sub(size);
        let (mut number, cookie) = above.near(wanted);
        let mut failed = None;
        list_host(fd, cookie, &mut |mut listed| {
            if listed.name == "." || listed.name == ".." {
                return true;
            }
            match self.only_above(fd, tree, &listed) {
                Ok(true) => {}
                Ok(false) => return true,
                Err(e) => {
                    failed = Some(e);
                    return false;
                }
            }
            let cookie = listed.next;
            if number < wanted {
                number += 1;
                above.remember(number, cookie);
                return true;
            }
            listed.next = size + number + 1 + DOTS;
            let taken = each(listed);
            if taken {
                number += 1;
                above.remember(number, cookie);
            }
            taken
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// Returns whether an upper entry is neither a whiteout nor a name of the lower tree.
    fn only_above(&self, fd: &OwnedFd, tree: Digest, listed: &Listed) -> Result<bool> {
        if entry(&*self.lower, tree, &listed.name)?.is_some() {
            return Ok(false);
        }
        if listed.kind != FileType::CharacterDevice && listed.kind != FileType::Unknown {
            return Ok(true);
        }
        match rustix::fs::statat(fd, &listed.name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(!is_whiteout(&stat)),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Makes the names of a directory durable.
    ///
    /// # Errors
    /// Any error of the disk.
    pub(crate) fn sync_directory(&self, handle: u64) -> Result<()> {
        let open = self.handles.directory(handle)?;
        let fd = open.upper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fd) = &*fd {
            return rustix::fs::fsync(fd);
        }
        let _names = self.shared(open.node)?;
        // Opening the directory locks the nodes once more, so this lock ends with the statement.
        let lower = self.lock_nodes().lower_tree(open.node);
        match lower {
            Ok((_, true)) => rustix::fs::fsync(self.open_host_directory(open.node)?),
            // No entry of it was ever changed.
            _ => Ok(()),
        }
    }
}

fn list_host(fd: &OwnedFd, position: u64, each: Each<'_>) -> Result<()> {
    seek(fd, SeekFrom::Start(position))?;
    let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
    let mut entries = RawDir::new(fd, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let listed = Listed {
            name: OsString::from_vec(entry.file_name().to_bytes().to_vec()),
            inode: entry.ino(),
            kind: entry.file_type(),
            next: entry.next_entry_cookie(),
        };
        if !each(listed) {
            break;
        }
    }
    Ok(())
}
