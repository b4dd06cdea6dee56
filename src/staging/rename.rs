//! rename(2).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, RenameFlags, Stat};
use rustix::io::Errno;

use super::Result;
use super::drafts::Drafts;
use super::names::last_name;
use super::overlay::{Seen, is_directory, is_whiteout};

impl Drafts {
    /// Moves a name; `flags` are those of renameat2(2).
    ///
    /// # Errors
    /// Any error of the upper file system; EXDEV between drafts.
    pub(crate) fn rename(
        &self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        flags: RenameFlags,
    ) -> Result<()> {
        let drafts = {
            let nodes = self.lock_nodes();
            (nodes.draft(from.0)?, nodes.draft(to.0)?)
        };
        if drafts.0 != drafts.1 {
            return Err(Errno::XDEV);
        }
        let _change = self.gates.change(&drafts.0)?;
        self.ensure_upper(from.0)?;
        self.ensure_upper(to.0)?;
        // Declared before the lock, so dropped after it: no caller waits while blocks are freed.
        let _spare;
        let mut left = Vec::new();
        {
            let _names = self.names.moving(&drafts.0);
            let source = self.see(from.0, from.1)?;
            let target = self.see_any(to.0, to.1)?;
            let exchange = flags.contains(RenameFlags::EXCHANGE);
            match &target {
                Some(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EXIST),
                None if exchange => return Err(Errno::NOENT),
                _ => {}
            }
            let moved = self.on_host(from, source)?;
            let replaced = match target {
                Some(target) if exchange => Some(Seen::Upper(self.on_host(to, target)?)),
                target => target,
            };
            _spare = match &replaced {
                Some(seen) if !exchange && !same_inode(seen, &moved) => {
                    let path = self.lock_nodes().entry(to.0, to.1)?;
                    self.hold(seen, &path)?
                }
                _ => None,
            };
            self.rename_on_host(from, to, &moved, replaced.as_ref(), exchange, &mut left)?;
            self.follow(from, to, &moved, replaced.as_ref(), exchange);
        }
        left.iter().try_for_each(|part: &PathBuf| self.sweep_work(part))
    }

    /// Returns the upper attributes of an entry, which is copied up if need be.
    fn on_host(&self, (parent, name): (u64, &OsStr), seen: Seen) -> Result<Stat> {
        match seen {
            Seen::Upper(stat) => Ok(stat),
            Seen::Lower(target) => self.copy_up(parent, name, &target),
        }
    }

    fn rename_on_host(
        &self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        moved: &Stat,
        replaced: Option<&Seen>,
        exchange: bool,
        left: &mut Vec<PathBuf>,
    ) -> Result<()> {
        let (old, new) = {
            let nodes = self.lock_nodes();
            (nodes.entry(from.0, from.1)?, nodes.entry(to.0, to.1)?)
        };
        if exchange {
            return self.upper.rename_with(&old, &new, RenameFlags::EXCHANGE);
        }
        if replaced.is_some_and(|seen| same_inode(seen, moved)) {
            // Both are names of one file: rename(2) does nothing.
            return Ok(());
        }
        if let Some(seen) = replaced.filter(|seen| seen.is_directory()) {
            if !is_directory(moved) {
                return Err(Errno::ISDIR);
            }
            if !self.shows_nothing(seen, &new)? {
                return Err(Errno::NOTEMPTY);
            }
            if matches!(seen, Seen::Upper(_)) {
                left.extend(self.empty_on_host(&new)?);
            }
        }
        let cover = self.lower_has(from.0, from.1)?;
        let over_whiteout = self.stat(&new).is_ok_and(|stat| is_whiteout(&stat));
        if is_directory(moved) && over_whiteout {
            // A directory cannot be renamed over a device; an exchange leaves the whiteout at the
            // old name.
            self.upper.rename_with(&old, &new, RenameFlags::EXCHANGE)?;
            if !cover {
                self.upper.unlink(&old)?;
            }
            return Ok(());
        }
        let flags = if cover { RenameFlags::WHITEOUT } else { RenameFlags::empty() };
        self.upper.rename_with(&old, &new, flags)
    }

    /// Replaces a directory that holds only whiteouts by an empty one, and returns the path of the
    /// old one.
    fn empty_on_host(&self, path: &Path) -> Result<Option<PathBuf>> {
        let part = self.work_path();
        self.upper.mkdir(&part, Mode::from_raw_mode(0o700))?;
        self.upper.rename_with(&part, path, RenameFlags::EXCHANGE)?;
        Ok(Some(part))
    }

    /// Updates the nodes after the rename in the upper.
    fn follow(
        &self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        moved: &Stat,
        replaced: Option<&Seen>,
        exchange: bool,
    ) {
        let mut nodes = self.lock_nodes();
        match replaced {
            Some(Seen::Upper(stat)) if stat.st_ino == moved.st_ino => return,
            Some(Seen::Upper(stat)) => {
                nodes.unlink(to.0, to.1, stat.st_ino, !exchange && last_name(stat));
                nodes.unlink(from.0, from.1, moved.st_ino, false);
                if exchange {
                    nodes.link(from.0, from.1, stat.st_ino);
                }
            }
            Some(Seen::Lower(_)) => {
                nodes.unlink_lower(to.0, to.1);
                nodes.unlink(from.0, from.1, moved.st_ino, false);
            }
            None => nodes.unlink(from.0, from.1, moved.st_ino, false),
        }
        nodes.link(to.0, to.1, moved.st_ino);
    }
}

fn same_inode(seen: &Seen, other: &Stat) -> bool {
    matches!(seen, Seen::Upper(stat) if stat.st_ino == other.st_ino)
}
