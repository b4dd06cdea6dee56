//! Restoring paths of a draft from its lower version.

use std::ffi::OsStr;

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use super::Result;
use super::drafts::Drafts;
use super::overlay::{Seen, is_directory, is_whiteout};
use crate::model::name::EntryName;
use crate::model::reference::ArtifactPath;
use crate::model::tree::Target;

impl Drafts {
    /// Replaces the entry at `path` by an upper entry for `target`.
    ///
    /// # Errors
    /// ENOENT if a directory above it does not exist, ENOTDIR if one is a file, EINVAL for the
    /// root. EBUSY while the draft is being committed.
    pub(crate) fn restore(
        &self,
        key: &ArtifactPath,
        path: &[EntryName],
        target: &Target,
    ) -> Result<()> {
        let Some((name, above)) = path.split_last() else {
            return Err(Errno::INVAL);
        };
        let mut held = vec![self.root_of(key)?.id];
        let done = (|| {
            let _change = self.change(held[0])?;
            for name in above {
                let parent = *held.last().expect("it begins with the root");
                let found = self.lookup(parent, name.as_os_str())?;
                held.push(found.id);
                if !is_directory(&found.stat) {
                    return Err(Errno::NOTDIR);
                }
            }
            let parent = *held.last().expect("it begins with the root");
            self.restore_entry(parent, name.as_os_str(), target)
        })();
        held.into_iter().for_each(|id| self.forget(id, 1));
        done
    }

    /// Replaces the visible entry of a name by an upper entry for `target`.
    fn restore_entry(&self, parent: u64, name: &OsStr, target: &Target) -> Result<()> {
        self.ensure_upper(parent)?;
        let left;
        {
            let _names = self.exclusive(parent)?;
            let (path, draft) = {
                let nodes = self.lock_nodes();
                (nodes.entry(parent, name)?, nodes.draft(parent)?)
            };
            let stat = self.lower_stat(&draft, target)?;
            let part = self.work_path();
            self.build(&part, target, &stat)?;
            left = match self.stat(&path) {
                Ok(before) => {
                    drop(self.hold(&Seen::Upper(before), &path)?);
                    self.upper.rename_with(&part, &path, RenameFlags::EXCHANGE)?;
                    let gone = is_directory(&before) || before.st_nlink <= 1;
                    if !is_whiteout(&before) {
                        self.lock_nodes().unlink(parent, name, before.st_ino, gone);
                    }
                    Some(part)
                }
                Err(Errno::NOENT) => {
                    self.upper.rename(&part, &path)?;
                    self.lock_nodes().unlink_lower(parent, name);
                    None
                }
                Err(e) => return Err(e),
            };
        }
        match left {
            Some(part) => self.sweep_work(&part),
            None => Ok(()),
        }
    }
}
