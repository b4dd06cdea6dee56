//! The staging file system: versions read-only, and beside them drafts, whose names have no colon.
//!
//! Numbers with [`NODE_BIT`] belong to drafts, all others to the read-only side.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo};
use rustix::fs::Stat;

use super::errno;
use super::fs::{Found, Line, ReadFs};
use super::inode::{Node, ROOT};
use crate::content::reader::Reader;
use crate::error::Error;
use crate::model::name::{Alias, ProjectName};
use crate::model::reference::{ArtifactPath, Selector, parse_artifact_name};
use crate::ops::drafts::{CommitDraft, DraftDesk, WRITERS_WAIT};
use crate::ops::runs;
use crate::staging::{Attr, Caller, Drafts, NODE_BIT};

/// How long the kernel may believe a draft's names and attributes. Only the kernel's own requests
/// change them, and after those it asks again; a draft that is discarded or committed goes within
/// this time.
pub const DRAFT_TTL: Duration = Duration::from_secs(1);

/// The staging file system.
pub struct StagingFs {
    /// The read-only side.
    pub read: Arc<ReadFs>,
    /// The drafts.
    pub desk: Arc<DraftDesk>,
    /// Whether other users may make drafts.
    pub shared: bool,
}

/// A name in the root or in a project.
pub enum Place {
    /// In the root: a project.
    Project(ProjectName),
    /// In a project: a draft.
    Draft(ArtifactPath),
    /// In a project: a version.
    Version(ArtifactPath, Selector),
}

/// Whether a number belongs to a draft.
pub const fn is_draft(ino: u64) -> bool {
    ino & NODE_BIT != 0
}

/// The errno of a draft operation.
pub fn host(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

impl StagingFs {
    /// What reads versions.
    pub fn reader(&self) -> &Reader {
        &self.read.repository().reader
    }

    /// The drafts.
    pub fn drafts(&self) -> &Drafts {
        self.desk.drafts()
    }

    /// What `name` in the read-only directory `parent` would be.
    pub fn place(&self, parent: u64, name: &OsStr) -> Result<Place, Errno> {
        let text = name.to_str().ok_or(Errno::EINVAL)?;
        match self.read.node(parent).map_err(|e| errno::told("look-up", &e))? {
            Node::Root => text.parse().map(Place::Project).map_err(|_| Errno::EINVAL),
            Node::Project(project, None) => {
                let (artifact, selector) = parse_artifact_name(text).map_err(|_| Errno::EINVAL)?;
                let path = ArtifactPath { project, artifact };
                Ok(match selector {
                    Some(selector) => Place::Version(path, selector),
                    None => Place::Draft(path),
                })
            }
            _ => Err(Errno::EROFS),
        }
    }

    /// The entry `name` of a directory that is no draft's.
    pub fn lookup(&self, parent: u64, name: &OsStr) -> Result<Option<Found>, Error> {
        match self.place(parent, name) {
            Ok(Place::Draft(path)) => self.draft(&path).map(Some),
            Ok(Place::Project(project)) if self.has_drafts(&project) => {
                let found = self.read.project_node(&project)?;
                Ok(Some(self.writable(found)))
            }
            Ok(Place::Project(_)) => {
                Ok(self.read.lookup(self.reader(), parent, name)?.map(|found| self.writable(found)))
            }
            _ => self.read.lookup(self.reader(), parent, name),
        }
    }

    fn has_drafts(&self, project: &ProjectName) -> bool {
        self.drafts().projects().is_ok_and(|projects| projects.contains(project))
    }

    /// The root directory of a draft.
    pub fn draft(&self, path: &ArtifactPath) -> Result<Found, Error> {
        let attr = self
            .drafts()
            .root_of(path)
            .map_err(|e| Error::io(format!("cannot look up draft {path}"), e.into()))?;
        Ok(found(&attr))
    }

    /// Attributes of a directory that is no draft's.
    pub fn getattr(&self, ino: u64) -> Result<Found, Error> {
        let found = self.read.getattr(ino)?;
        match self.read.node(ino) {
            Ok(Node::Root | Node::Project(_, None)) => Ok(self.writable(found)),
            _ => Ok(found),
        }
    }

    /// The root and projects take new names; with other users about, as /tmp does.
    fn writable(&self, mut found: Found) -> Found {
        found.attr.perm = if self.shared { 0o1777 } else { 0o755 };
        found
    }

    /// Calls `each` with the lines of a directory that is no draft's: what is there read-only, then
    /// drafts and projects that have nothing else.
    pub fn list(
        &self,
        ino: u64,
        position: u64,
        each: &mut dyn FnMut(Line) -> bool,
    ) -> Result<(), Error> {
        let mut next = 0;
        let mut full = false;
        let mut names = Vec::new();
        let only_here = matches!(self.read.node(ino)?, Node::Root | Node::Project(_, None));
        if !only_here {
            return self.read.list(self.reader(), ino, position, each);
        }
        self.read.list(self.reader(), ino, 0, &mut |mut line: Line| {
            next = line.next;
            names.push(line.name.clone());
            if line.next <= position {
                return self.skip(&line);
            }
            line.found = match ino {
                ROOT => self.writable(line.found),
                _ => line.found,
            };
            full = !each(line);
            !full
        })?;
        if full { Ok(()) } else { self.list_own(ino, position, next, &names, each) }
    }

    /// A line that was listed before: it is not looked up again.
    fn skip(&self, line: &Line) -> bool {
        self.read.forget(line.found.attr.ino.0, 1);
        true
    }

    fn list_own(
        &self,
        ino: u64,
        position: u64,
        mut next: u64,
        names: &[Vec<u8>],
        each: &mut dyn FnMut(Line) -> bool,
    ) -> Result<(), Error> {
        let own: Vec<Place> = match self.read.node(ino)? {
            Node::Root => self.drafts().projects()?.into_iter().map(Place::Project).collect(),
            Node::Project(p, None) => {
                self.drafts().drafts_of(&p)?.into_iter().map(Place::Draft).collect()
            }
            _ => Vec::new(),
        };
        for place in own {
            let (name, found) = match &place {
                Place::Project(project) => {
                    let name = project.as_str().as_bytes().to_vec();
                    if names.contains(&name) {
                        continue;
                    }
                    (name, self.read.project_node(project).map(|found| self.writable(found)))
                }
                Place::Draft(path) => {
                    (path.artifact.as_str().as_bytes().to_vec(), self.draft(path))
                }
                Place::Version(..) => continue,
            };
            next += 1;
            let found = found?;
            let ino = found.attr.ino.0;
            if next <= position || !each(Line { next, name, found }) {
                self.forget(ino, 1);
                if next > position {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The kernel forgets.
    pub fn forget(&self, ino: u64, lookups: u64) {
        if is_draft(ino) {
            self.drafts().forget(ino, lookups);
        } else {
            self.read.forget(ino, lookups);
        }
    }

    /// Makes a project or a draft.
    pub fn mkdir(
        &self,
        parent: u64,
        name: &OsStr,
        caller: Caller,
        mode: u32,
    ) -> Result<Found, Errno> {
        let io = |e: std::io::Error| Errno::from_i32(e.raw_os_error().unwrap_or(libc_eio()));
        match self.place(parent, name)? {
            Place::Project(project) => {
                let exists = self.read.repository().registry.names(project.clone()).is_ok();
                if exists {
                    return Err(Errno::EEXIST);
                }
                self.drafts().create_project(&project).map_err(io)?;
                let found = self.read.project_node(&project);
                found.map(|found| self.writable(found)).map_err(|e| errno::told("mkdir", &e))
            }
            Place::Draft(path) => {
                self.desk.create(&path, caller, mode).map_err(io)?;
                self.draft(&path).map_err(|e| errno::told("mkdir", &e))
            }
            Place::Version(..) => Err(Errno::EROFS),
        }
    }

    /// Removes an empty draft, or a project that has nothing.
    pub fn rmdir(&self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        let io = |e: std::io::Error| Errno::from_i32(e.raw_os_error().unwrap_or(libc_eio()));
        match self.place(parent, name)? {
            Place::Project(project) => self.drafts().remove_project(&project).map_err(io),
            Place::Draft(path) => {
                if !self.drafts().is_empty(&path).map_err(host)? {
                    return Err(Errno::ENOTEMPTY);
                }
                let frozen = self.drafts().freeze(&path, WRITERS_WAIT);
                let removed = frozen.and_then(|frozen| self.desk.remove(&path, frozen));
                removed.map_err(|e| errno::told("rmdir", &e))
            }
            Place::Version(..) => Err(Errno::EROFS),
        }
    }

    /// A rename by process `pid`, in the root or in a project: of a draft to a version's name, which
    /// commits it.
    pub fn publish(&self, from: Place, to: Place, pid: u32) -> Result<(), Errno> {
        let (Place::Draft(draft), Place::Version(path, selector)) = (from, to) else {
            // `mv` then copies.
            return Err(Errno::EXDEV);
        };
        let Selector::Alias(alias) = selector else {
            self.desk.trouble(format!(
                "mv {draft}: the registry numbers versions; rename it to an alias"
            ));
            return Err(Errno::EINVAL);
        };
        let aliases = if alias == Alias::latest() { Vec::new() } else { vec![alias] };
        let run = runs::of_process(pid);
        let request = CommitDraft { path, aliases, run, ..CommitDraft::plain(draft.clone()) };
        let done = self.desk.commit(&request, true);
        done.map(|_| ()).map_err(|e| {
            self.desk.trouble(format!("draft {draft} was not committed by mv: {e}"));
            errno::of(e.kind())
        })
    }
}

const fn libc_eio() -> i32 {
    rustix::io::Errno::IO.raw_os_error()
}

/// A draft's node as an entry.
pub fn found(attr: &Attr) -> Found {
    Found { attr: file_attr(attr), ttl: DRAFT_TTL }
}

/// A moment of the host.
fn moment(seconds: i64, nanoseconds: u64) -> SystemTime {
    let apart = Duration::from_secs(seconds.unsigned_abs());
    let whole = match seconds {
        0.. => UNIX_EPOCH.checked_add(apart),
        _ => UNIX_EPOCH.checked_sub(apart),
    };
    let nanoseconds = Duration::from_nanos(nanoseconds);
    whole.and_then(|at| at.checked_add(nanoseconds)).unwrap_or(UNIX_EPOCH)
}

/// The kind of a host's file.
pub fn file_type(kind: rustix::fs::FileType) -> FileType {
    use rustix::fs::FileType as Host;
    match kind {
        Host::Directory => FileType::Directory,
        Host::Symlink => FileType::Symlink,
        Host::Fifo => FileType::NamedPipe,
        Host::Socket => FileType::Socket,
        Host::CharacterDevice => FileType::CharDevice,
        Host::BlockDevice => FileType::BlockDevice,
        Host::RegularFile | Host::Unknown => FileType::RegularFile,
    }
}

/// The host's attributes as the kernel wants them.
pub fn file_attr(attr: &Attr) -> FileAttr {
    let stat: &Stat = &attr.stat;
    FileAttr {
        ino: INodeNo(attr.id),
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        blocks: u64::try_from(stat.st_blocks).unwrap_or_default(),
        atime: moment(stat.st_atime, stat.st_atime_nsec),
        mtime: moment(stat.st_mtime, stat.st_mtime_nsec),
        ctime: moment(stat.st_ctime, stat.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind: file_type(rustix::fs::FileType::from_raw_mode(stat.st_mode)),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: u32::try_from(stat.st_rdev).unwrap_or_default(),
        blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
        flags: 0,
    }
}
