//! Listings of a staging mount.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fuser::{Errno, FileHandle, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::fs::{found, is_draft};
use crate::mount::attr::Attr;
use crate::mount::kernel::{DOTS, GENERATION, add_dots, dot, file_attr, file_type, host, report};
use crate::mount::read_only::fs::{Found, Line};
use crate::mount::staging::files::Staging;
use crate::staging::Listed;

type Done = Result<(), Errno>;

impl Staging {
    fn draft_entries(
        &self,
        handle: FileHandle,
        offset: u64,
        each: &mut dyn FnMut(Listed) -> bool,
    ) -> Done {
        self.fs.drafts().list_directory(handle.0, offset, each).map_err(host)
    }

    fn lines(&self, ino: u64, offset: u64, each: &mut dyn FnMut(Line) -> bool) -> Done {
        let listed = self.fs.list(ino, offset.saturating_sub(DOTS), each);
        listed.map_err(|e| report("readdir", &e))
    }

    /// Replies to readdir.
    pub(crate) fn list(
        &self,
        ino: u64,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = if is_draft(ino) {
            self.draft_entries(handle, offset, &mut |line| {
                !reply.add(INodeNo(line.inode), line.next, file_type(line.kind), &line.name)
            })
        } else {
            add_dots(ino, self.fs.read.parent(ino), offset, &mut |dot, next, name| {
                !reply.add(dot, next, fuser::FileType::Directory, name)
            });
            self.lines(ino, offset, &mut |line| {
                let Attr { ino, kind, .. } = line.found.attr;
                let name = OsStr::from_bytes(&line.name);
                let taken = !reply.add(INodeNo(ino), line.next + DOTS, file_type(kind), name);
                // A line without attributes is no look-up; `StagingFs::list` undoes that of a line
                // that is not taken.
                if taken {
                    self.fs.forget(ino, 1);
                }
                taken
            })
        };
        match listed {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        }
    }

    /// Replies to readdirplus: with attributes, each line a look-up.
    pub(crate) fn list_with_attributes(
        &self,
        ino: u64,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let mut add = |found: &Found, next: u64, name: &OsStr| {
            let attr = file_attr(&found.attr);
            !reply.add(attr.ino, next, name, &found.ttl, &attr, GENERATION)
        };
        let listed = if is_draft(ino) {
            self.draft_entries(handle, offset, &mut |line| {
                if line.name == "." || line.name == ".." {
                    return add(&dot(line.inode), line.next, &line.name);
                }
                // The entry was removed after it was listed.
                let Ok(attr) = self.fs.drafts().lookup(ino, &line.name) else {
                    return true;
                };
                let taken = add(&found(&attr), line.next, &line.name);
                if !taken {
                    self.fs.forget(attr.id, 1);
                }
                taken
            })
        } else {
            add_dots(ino, self.fs.read.parent(ino), offset, &mut |number, next, name| {
                add(&dot(number.0), next, OsStr::new(name))
            });
            self.lines(ino, offset, &mut |line| {
                add(&line.found, line.next + DOTS, OsStr::from_bytes(&line.name))
            })
        };
        match listed {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        }
    }
}
