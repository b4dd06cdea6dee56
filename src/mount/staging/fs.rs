//! The staging file system: versions read-only, and beside them drafts, whose names have no colon.
//!
//! Numbers with [`NODE_BIT`] belong to drafts, all others to the read-only side.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::content::reader::Reader;
use crate::error::Error;
use crate::model::name::ProjectName;
use crate::model::reference::{ArtifactPath, Selector, parse_artifact_name};
use crate::mount::attr::Attr;
use crate::mount::errno;
use crate::mount::inode::node::Node;
use crate::mount::inode::paths::ROOT;
use crate::mount::read_only::fs::{Found, Line, ReadFs};
use crate::mount::read_only::listings;
use crate::ops::browse;
use crate::ops::drafts::{DraftService, WRITERS_WAIT};
use crate::staging::{Caller, Drafts, NODE_BIT};

/// The time that the kernel may cache a draft's names and attributes. Only the kernel's own
/// requests change them, and after those it requests them again. A draft that is discarded or
/// committed disappears within this time.
pub(crate) const DRAFT_TTL: Duration = Duration::from_secs(1);

/// The staging file system.
pub(crate) struct StagingFs {
    /// The read-only side.
    pub(crate) read: Arc<ReadFs>,
    /// The drafts.
    pub(crate) service: Arc<DraftService>,
    /// True if other users may create drafts.
    pub(crate) shared: bool,
}

/// A name in the root or in a project.
pub(crate) enum Place {
    /// In the root: a project.
    Project(ProjectName),
    /// In a project: a draft.
    Draft(ArtifactPath),
    /// In a project: a version.
    Version(ArtifactPath, Selector),
}

/// Returns whether a number belongs to a draft.
pub(crate) const fn is_draft(ino: u64) -> bool {
    ino & NODE_BIT != 0
}

impl StagingFs {
    /// Returns the reader of versions.
    pub(crate) fn reader(&self) -> &Reader {
        &self.read.repository().reader
    }

    /// Returns the drafts.
    pub fn drafts(&self) -> &Drafts {
        self.service.drafts()
    }

    /// Returns what `name` in the read-only directory `parent` would be.
    pub(crate) fn resolve(&self, parent: u64, name: &OsStr) -> Result<Place, Errno> {
        let text = name.to_str().ok_or(Errno::INVAL)?;
        match self.read.node(parent).map_err(|e| errno::report("look-up", &e))? {
            Node::Root => text.parse().map(Place::Project).map_err(|_| Errno::INVAL),
            Node::Project(project, None) => {
                let (artifact, selector) = parse_artifact_name(text).map_err(|_| Errno::INVAL)?;
                let path = ArtifactPath { project, artifact };
                Ok(match selector {
                    Some(selector) => Place::Version(path, selector),
                    None => Place::Draft(path),
                })
            }
            _ => Err(Errno::ROFS),
        }
    }

    /// Looks up `name` in a directory that is no draft's.
    pub(crate) fn lookup(&self, parent: u64, name: &OsStr) -> Result<Option<Found>, Error> {
        match self.resolve(parent, name) {
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

    /// Looks up the root directory of a draft.
    pub(crate) fn draft(&self, path: &ArtifactPath) -> Result<Found, Error> {
        let attr = self
            .drafts()
            .root_of(path)
            .map_err(|e| Error::io(format!("cannot look up draft {path}"), e.into()))?;
        Ok(found(&attr))
    }

    /// Returns the attributes of a directory that is no draft's.
    pub(crate) fn getattr(&self, ino: u64) -> Result<Found, Error> {
        let found = self.read.getattr(ino)?;
        match self.read.node(ino) {
            Ok(Node::Root | Node::Project(_, None)) => Ok(self.writable(found)),
            _ => Ok(found),
        }
    }

    /// Sets the mode of the root or a project, which take new names; for other users too, as in
    /// /tmp.
    fn writable(&self, mut found: Found) -> Found {
        found.attr.perm = if self.shared { 0o1777 } else { 0o755 };
        found
    }

    /// Calls `each` with the lines of a directory that is no draft's. Between those of the
    /// read-only side come drafts and projects that have nothing else.
    pub(crate) fn list(
        &self,
        ino: u64,
        position: u64,
        each: &mut dyn FnMut(Line) -> bool,
    ) -> Result<(), Error> {
        if !matches!(self.read.node(ino)?, Node::Root | Node::Project(_, None)) {
            return self.read.list(self.reader(), ino, position, each);
        }
        let read = self.read.names(ino, position)?;
        let first = read.partition_point(|named| named.position <= position);
        let mut lines: Vec<_> =
            read[first..].iter().map(|named| (named.position, Some(named), None)).collect();
        for (name, place) in self.own(ino)? {
            let at = listings::position(&name);
            let same = read.binary_search_by_key(&at, |named| named.position);
            if at > position && !same.is_ok_and(|index| read[index].name == name) {
                lines.push((at, None, Some((name, place))));
            }
        }
        lines.sort_by_key(|(position, ..)| *position);
        for line in lines {
            let taken = match line {
                (_, Some(named), _) => self.read.offer_named(ino, named, &mut |mut line| {
                    if ino == ROOT {
                        line.found = self.writable(line.found);
                    }
                    each(line)
                })?,
                (next, _, Some((name, place))) => self.offer_own(next, name, &place, each)?,
                _ => true,
            };
            if !taken {
                break;
            }
        }
        Ok(())
    }

    /// Returns the drafts of a project, or the projects that have drafts.
    fn own(&self, ino: u64) -> Result<Vec<(Vec<u8>, Place)>, Error> {
        Ok(match self.read.node(ino)? {
            Node::Root => {
                let projects = self.drafts().projects()?.into_iter();
                let name = |project: &ProjectName| project.as_str().as_bytes().to_vec();
                projects.map(|project| (name(&project), Place::Project(project))).collect()
            }
            Node::Project(project, None) => {
                let drafts = self.drafts().drafts_of(&project)?.into_iter();
                let name = |draft: &ArtifactPath| draft.artifact.as_str().as_bytes().to_vec();
                drafts.map(|draft| (name(&draft), Place::Draft(draft))).collect()
            }
            _ => Vec::new(),
        })
    }

    fn offer_own(
        &self,
        next: u64,
        name: Vec<u8>,
        place: &Place,
        each: &mut dyn FnMut(Line) -> bool,
    ) -> Result<bool, Error> {
        let found = match place {
            Place::Project(project) => self.read.project_node(project).map(|it| self.writable(it)),
            Place::Draft(path) if !self.drafts().exists(path)? => return Ok(true),
            Place::Draft(path) => self.draft(path),
            Place::Version(..) => return Ok(true),
        }?;
        let ino = found.attr.ino;
        let taken = each(Line { next, name, found });
        if !taken {
            self.forget(ino, 1);
        }
        Ok(taken)
    }

    /// Subtracts look-ups of an inode that the kernel forgets.
    pub(crate) fn forget(&self, ino: u64, lookups: u64) {
        if is_draft(ino) {
            self.drafts().forget(ino, lookups);
        } else {
            self.read.forget(ino, lookups);
        }
    }

    /// Creates a project or a draft.
    pub(crate) fn mkdir(
        &self,
        parent: u64,
        name: &OsStr,
        caller: Caller,
        mode: u32,
    ) -> Result<Found, Errno> {
        match self.resolve(parent, name)? {
            Place::Project(project) => {
                if browse::has_project(self.read.repository(), &project).is_ok_and(|there| there) {
                    return Err(Errno::EXIST);
                }
                self.drafts().create_project(&project).map_err(from_io)?;
                let found = self.read.project_node(&project);
                found.map(|found| self.writable(found)).map_err(|e| errno::report("mkdir", &e))
            }
            Place::Draft(path) => {
                self.service.create(&path, caller, mode).map_err(from_io)?;
                self.draft(&path).map_err(|e| errno::report("mkdir", &e))
            }
            Place::Version(..) => Err(Errno::ROFS),
        }
    }

    /// Removes an empty draft, or a project without drafts.
    pub(crate) fn rmdir(&self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        match self.resolve(parent, name)? {
            Place::Project(project) => self.drafts().remove_project(&project).map_err(from_io),
            Place::Draft(path) => {
                if !self.drafts().is_empty(&path)? {
                    return Err(Errno::NOTEMPTY);
                }
                let frozen = self.drafts().freeze(&path, WRITERS_WAIT);
                let removed = frozen.and_then(|frozen| self.service.remove(&path, frozen));
                removed.map_err(|e| errno::report("rmdir", &e))
            }
            Place::Version(..) => Err(Errno::ROFS),
        }
    }
}

fn from_io(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// Converts a draft's node to an entry.
pub(crate) fn found(attr: &crate::staging::Attr) -> Found {
    Found { attr: attributes(attr), ttl: DRAFT_TTL }
}

/// Converts a time of the upper file system.
fn moment(seconds: i64, nanoseconds: u64) -> SystemTime {
    let apart = Duration::from_secs(seconds.unsigned_abs());
    let whole = match seconds {
        0.. => UNIX_EPOCH.checked_add(apart),
        _ => UNIX_EPOCH.checked_sub(apart),
    };
    let nanoseconds = Duration::from_nanos(nanoseconds);
    whole.and_then(|at| at.checked_add(nanoseconds)).unwrap_or(UNIX_EPOCH)
}

/// Converts the attributes of a draft's node.
pub(crate) fn attributes(attr: &crate::staging::Attr) -> Attr {
    let stat: &Stat = &attr.stat;
    Attr {
        ino: attr.id,
        size_bytes: u64::try_from(stat.st_size).unwrap_or_default(),
        blocks: u64::try_from(stat.st_blocks).unwrap_or_default(),
        atime: moment(stat.st_atime, stat.st_atime_nsec),
        mtime: moment(stat.st_mtime, stat.st_mtime_nsec),
        ctime: moment(stat.st_ctime, stat.st_ctime_nsec),
        kind: FileType::from_raw_mode(stat.st_mode),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: u32::try_from(stat.st_rdev).unwrap_or_default(),
        block_bytes: u32::try_from(stat.st_blksize).unwrap_or(4096),
    }
}
