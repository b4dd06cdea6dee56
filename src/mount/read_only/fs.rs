//! The read-only file system: projects, versions by number and alias, their trees. Knows no FUSE.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::content::directory;
use crate::content::external::Readers;
use crate::content::reader::Reader;
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::name::{EntryName, ProjectName, RunId};
use crate::model::reference::{ArtifactPath, Reference, Selector, parse_artifact_name};
use crate::model::tree::{Content, Entry, Target};
use crate::model::version::VersionInfo;
use crate::mount::attr::{Attr, FOR_EVER, Owner};
use crate::mount::inode::description::{DESCRIPTION_FILE, Description};
use crate::mount::inode::files::{FileNode, FileTable, Place};
use crate::mount::inode::node::Node;
use crate::mount::inode::paths::{PathTable, ROOT, is_path};
use crate::mount::inode::version::{RunUse, VersionNode};
use crate::mount::read_only::listings::Listings;
use crate::ops::browse;
use crate::ops::repository::Repository;

/// The directory with the mount as each run sees it: in the root, not listed.
pub(crate) const RUNS_DIRECTORY: &str = ".runs";
/// The time that the kernel may cache a name that can move. Notifications make it forget earlier;
/// this bounds the effect of a look-up and a move that cross.
pub(crate) const NAMES_TTL: Duration = Duration::from_secs(1);

/// An entry that was found.
pub(crate) struct Found {
    /// Its attributes, with its number.
    pub(crate) attr: Attr,
    /// The time that name and attributes may be cached.
    pub(crate) ttl: Duration,
}

/// One line of a listing.
pub(crate) struct Line {
    /// The position where the next reading begins.
    pub(crate) next: u64,
    /// The name.
    pub(crate) name: Vec<u8>,
    /// The entry.
    pub(crate) found: Found,
}

/// The file system.
pub(crate) struct ReadFs {
    repository: Arc<Repository>,
    owner: Owner,
    /// True if other users may open files without a request to us: the modes of external files must
    /// then be exact.
    shared: bool,
    paths: Mutex<PathTable>,
    files: Mutex<FileTable>,
    pub(super) listings: Listings,
}

impl ReadFs {
    /// Creates a view of the versions of `repository`, owned by `uid` and `gid`. Set `shared` if
    /// other users may read and the kernel sends no request when they open a file.
    pub(crate) fn new(repository: Arc<Repository>, uid: u32, gid: u32, shared: bool) -> Self {
        let created_seconds = repository.settings.created.seconds();
        let owner = Owner { uid, gid, created_seconds, writable: false };
        let (paths, files, listings) = Default::default();
        Self { repository, owner, shared, paths, files, listings }
    }

    /// Sets the owner's write bits in all modes.
    pub(crate) fn writable(mut self) -> Self {
        self.owner.writable = true;
        self
    }

    /// Returns the repository.
    pub(crate) fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    pub(super) fn paths(&self) -> std::sync::MutexGuard<'_, PathTable> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> std::sync::MutexGuard<'_, FileTable> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the node of a number that is no file's.
    ///
    /// # Errors
    /// [`Kind::Stale`] for an unknown number.
    pub(crate) fn node(&self, ino: u64) -> Result<Node> {
        self.paths().get(ino).ok_or_else(unknown_inode)
    }

    /// Looks up `name` in `parent`; `None` if there is no such entry and never will be.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is none now, and any error of the registry or the store.
    pub(crate) fn lookup(
        &self,
        reader: &Reader,
        parent: u64,
        name: &OsStr,
    ) -> Result<Option<Found>> {
        match self.node(parent)? {
            Node::Root | Node::Run(_) if name == RUNS_DIRECTORY => {
                self.found(parent, name.as_bytes(), Node::Runs).map(Some)
            }
            Node::Root => self.project(parent, name, None).map(Some),
            Node::Runs => self.run(parent, name).map(Some),
            Node::Run(run) => self.project(parent, name, Some(run)).map(Some),
            Node::Project(project, run) => self.version(parent, &project, name, run).map(Some),
            Node::Version(version) if name == DESCRIPTION_FILE => {
                let node = Node::Description(Arc::new(Description::of(version)));
                Ok(Some(self.found(parent, name.as_bytes(), node)?))
            }
            Node::Version(version) => {
                self.record_use(&version)?;
                self.within(reader, parent, (&version.place, version.place.root), name)
            }
            Node::Directory { place, tree } => self.within(reader, parent, (&place, tree), name),
            Node::Symlink { .. } | Node::Description(_) => Err(not_a_directory()),
        }
    }

    fn project(&self, parent: u64, name: &OsStr, run: Option<RunId>) -> Result<Found> {
        let project: ProjectName = parse_name(name)?;
        if !browse::has_project(&self.repository, &project)? {
            return Err(no_such_name());
        }
        self.found(parent, name.as_bytes(), Node::Project(project, run))
    }

    /// Looks up the directory of a project, whether or not it has artifacts.
    ///
    /// # Errors
    /// None that a caller could cause.
    pub(crate) fn project_node(&self, project: &ProjectName) -> Result<Found> {
        self.found(ROOT, project.as_str().as_bytes(), Node::Project(project.clone(), None))
    }

    fn run(&self, parent: u64, name: &OsStr) -> Result<Found> {
        let run: RunId = parse_name(name)?;
        browse::check_run(&self.repository, &run)?;
        self.found(parent, name.as_bytes(), Node::Run(run))
    }

    fn version(
        &self,
        parent: u64,
        project: &ProjectName,
        name: &OsStr,
        run: Option<RunId>,
    ) -> Result<Found> {
        let text = name.to_str().ok_or_else(no_such_name)?;
        let (artifact, selector) = parse_artifact_name(text).map_err(|_| no_such_name())?;
        let path = ArtifactPath { project: project.clone(), artifact };
        // A name without a colon is no version: a program that cuts a path at its colon must fail,
        // not read the latest.
        let selector = selector.ok_or_else(no_such_name)?;
        let reference = Reference { path, selector: selector.clone() };
        let info = browse::version(&self.repository, run.as_ref(), reference)?;
        self.found(parent, name.as_bytes(), version_node(&info, selector, run))
    }

    /// Records that a run uses the version it enters, durably, before the run sees anything of it.
    pub(super) fn record_use(&self, version: &VersionNode) -> Result<()> {
        let Some(RunUse { run, alias, recorded }) = &version.used else { return Ok(()) };
        if recorded.load(Ordering::Acquire) {
            return Ok(());
        }
        let used = (&version.path, version.number);
        browse::record_use(&self.repository, run, used, alias.clone())?;
        recorded.store(true, Ordering::Release);
        Ok(())
    }

    fn within(
        &self,
        reader: &Reader,
        parent: u64,
        (place, tree): (&Arc<Place>, Digest),
        name: &OsStr,
    ) -> Result<Option<Found>> {
        let Ok(name) = EntryName::try_from(name) else {
            return Ok(None);
        };
        let entry = directory::find(reader, tree, &name)?;
        entry.map(|(position, entry)| self.entry(parent, place, position, &entry)).transpose()
    }

    /// Looks up entry `position` of a directory of a version.
    pub(super) fn entry(
        &self,
        parent: u64,
        place: &Arc<Place>,
        position: u64,
        entry: &Entry,
    ) -> Result<Found> {
        let time_seconds = place.time_seconds;
        let node = match &entry.target {
            Target::File { content, executable } => {
                let (content, executable) = (*content, *executable);
                let file = FileNode { content, executable, place: Arc::clone(place) };
                let ino = self.files().look_up(&file, position)?;
                let attr = self.owner.file(ino, content.size_bytes(), executable, time_seconds);
                // Opening it requests its attributes, which say who may read.
                let ttl = if self.is_judged(&content) { Duration::ZERO } else { FOR_EVER };
                return Ok(Found { attr, ttl });
            }
            Target::Directory(tree) => {
                let place = Arc::new(place.below(entry.name.as_bytes()));
                Node::Directory { place, tree: *tree }
            }
            Target::Symlink(target) => {
                Node::Symlink { target: target.as_ref().into(), time_seconds }
            }
        };
        self.found(parent, entry.name.as_bytes(), node)
    }

    pub(super) fn found(&self, parent: u64, name: &[u8], node: Node) -> Result<Found> {
        let ino = self.paths().look_up(parent, name, node.clone());
        let known = match node {
            // A known description remembers its last text.
            Node::Description(_) => self.node(ino),
            node => Ok(node),
        };
        let found = known.and_then(|node| self.describe(ino, &node));
        if found.is_err() {
            self.forget(ino, 1);
        }
        found
    }

    /// Returns the attributes of a node, and the time that they may be cached.
    fn describe(&self, ino: u64, node: &Node) -> Result<Found> {
        let own = self.owner.created_seconds;
        let (attr, ttl) = match node {
            Node::Root | Node::Project(..) | Node::Runs | Node::Run(_) => {
                (self.owner.directory(ino, 0o555, own), NAMES_TTL)
            }
            Node::Version(version) => {
                (self.owner.directory(ino, 0o555, version.place.time_seconds), NAMES_TTL)
            }
            Node::Directory { place, .. } => {
                (self.owner.directory(ino, 0o555, place.time_seconds), FOR_EVER)
            }
            Node::Symlink { target, time_seconds } => {
                (self.owner.symlink(ino, target.len() as u64, *time_seconds), FOR_EVER)
            }
            Node::Description(description) => {
                let (text, since) = description.read(&self.repository)?;
                (self.owner.file(ino, text.len() as u64, false, since), Duration::ZERO)
            }
        };
        Ok(Found { attr, ttl })
    }

    /// Returns the attributes of an inode.
    ///
    /// # Errors
    /// [`Kind::Stale`] for an unknown number, and any error of the registry.
    pub(crate) fn getattr(&self, ino: u64) -> Result<Found> {
        if is_path(ino) {
            return self.describe(ino, &self.node(ino)?);
        }
        let FileNode { content, executable, place } = self.file(ino)?;
        let attr = self.owner.file(ino, content.size_bytes(), executable, place.time_seconds);
        if !self.is_judged(&content) {
            return Ok(Found { attr, ttl: FOR_EVER });
        }
        let readers = self.repository.reader.readers(&content)?;
        let attr = readers.map_or(attr, |readers| readable_by(attr, readers));
        Ok(Found { attr, ttl: Duration::ZERO })
    }

    fn is_judged(&self, content: &Content) -> bool {
        self.shared && content.is_external()
    }

    /// Returns whether reading the attributes of an inode may block: those of an external file do.
    pub(crate) fn waits_for_attributes(&self, ino: u64) -> bool {
        self.shared && !is_path(ino) && self.file(ino).is_ok_and(|file| file.content.is_external())
    }

    /// Returns the file with a number.
    ///
    /// # Errors
    /// [`Kind::Stale`] for an unknown number.
    pub(crate) fn file(&self, ino: u64) -> Result<FileNode> {
        self.files().get(ino).ok_or_else(unknown_inode)
    }

    /// Returns the root tree of the version whose root directory the inode is.
    pub(crate) fn version_tree(&self, ino: u64) -> Option<Digest> {
        match is_path(ino).then(|| self.node(ino)) {
            Some(Ok(Node::Version(version))) => Some(version.place.root),
            _ => None,
        }
    }

    /// Returns the root tree of the version that has the file, if the file is one chunk.
    pub(crate) fn tree_of_small_file(&self, ino: u64) -> Option<Digest> {
        let file = if is_path(ino) { None } else { self.file(ino).ok() }?;
        matches!(file.content, Content::Chunk { .. }).then_some(file.place.root)
    }

    /// Subtracts look-ups of an inode that the kernel forgets.
    pub(crate) fn forget(&self, ino: u64, lookups: u64) {
        if is_path(ino) {
            self.paths().forget(ino, lookups);
        } else {
            self.files().forget(ino, lookups);
        }
    }

    /// Returns the target of a symlink.
    ///
    /// # Errors
    /// [`Kind::Usage`] if it is none.
    pub(crate) fn readlink(&self, ino: u64) -> Result<Arc<[u8]>> {
        match is_path(ino).then(|| self.node(ino)).transpose()? {
            Some(Node::Symlink { target, .. }) => Ok(target),
            _ => Err(Error::new(Kind::Usage, "not a symlink")),
        }
    }

    /// Fills `buffer` from byte `offset` of a file, and returns the number of bytes that were
    /// there.
    ///
    /// # Errors
    /// [`Kind::Corrupt`], [`Kind::Stale`], and any error of the registry or the store.
    pub(crate) fn read(
        &self,
        reader: &Reader,
        ino: u64,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize> {
        if !is_path(ino) {
            let file = self.file(ino)?;
            return reader.read_at(&file.content, offset, buffer);
        }
        let Node::Description(description) = self.node(ino)? else {
            return Err(is_a_directory());
        };
        let (text, _) = description.read(&self.repository)?;
        let rest = usize::try_from(offset).ok().and_then(|at| text.as_bytes().get(at..));
        let rest = rest.unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    /// Returns the directory above an inode.
    pub(crate) fn parent(&self, ino: u64) -> u64 {
        self.paths().parent(ino)
    }

    /// Returns the directories of a project that the kernel holds.
    pub(crate) fn projects(&self, name: &ProjectName) -> Vec<u64> {
        self.paths().projects(name)
    }

    /// Returns the directories that the kernel must list again when a run begins or ends.
    pub(crate) fn run_lists(&self) -> Vec<u64> {
        self.listings.clear();
        self.paths().run_lists()
    }
}

/// Makes the node of a version found by `selector`, in the view of a run if one is given.
pub(super) fn version_node(info: &VersionInfo, selector: Selector, run: Option<RunId>) -> Node {
    let used = run.map(|run| {
        let alias = match &selector {
            Selector::Alias(alias) => Some(alias.clone()),
            Selector::Version(_) => None,
        };
        RunUse { run, alias, recorded: AtomicBool::new(false) }
    });
    let place = Place::of_version(&info.path, info.number, info.root, info.time_seconds);
    Node::Version(Arc::new(VersionNode {
        path: info.path.clone(),
        number: info.number,
        selector,
        place: Arc::new(place),
        used,
    }))
}

/// Replaces owner, group and mode by those of the readers of an external file.
fn readable_by(attr: Attr, readers: Readers) -> Attr {
    let Readers { uid, gid, perm: read } = readers;
    let run = if attr.perm & 0o111 == 0 { 0 } else { read >> 2 };
    Attr { uid, gid, perm: read | run, ..attr }
}

fn parse_name<T: std::str::FromStr>(name: &OsStr) -> Result<T> {
    name.to_str().and_then(|text| text.parse().ok()).ok_or_else(no_such_name)
}

fn no_such_name() -> Error {
    Error::new(Kind::NotFound, "no such name")
}

fn unknown_inode() -> Error {
    Error::new(Kind::Stale, "unknown inode")
}

pub(super) fn not_a_directory() -> Error {
    Error::new(Kind::NotFound, "not a directory")
}

fn is_a_directory() -> Error {
    Error::new(Kind::Usage, "is a directory")
}
