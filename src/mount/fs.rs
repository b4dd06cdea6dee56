//! The read-only file system: projects, versions by number and alias, their trees. Knows no FUSE.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fuser::FileAttr;
use serde_json::json;

use super::attr::{FOR_EVER, Owner};
use super::inode::{Node, PathTable, ROOT, RunUse, Touched, VersionNode, is_path};
use super::table::{FileKey, FileTable};
use crate::content::directory;
use crate::content::reader::Reader;
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::name::{Alias, EntryName, ProjectName, RunId};
use crate::model::reference::{ArtifactPath, Reference, Selector, parse_artifact_name};
use crate::model::run::RunState;
use crate::model::tree::{Content, Entry, Target};
use crate::model::version::{Timestamp, VersionInfo};
use crate::ops::repository::Repository;
use crate::ops::{listing, runs};

/// In the root of every version, not listed: what the registry says of it.
pub const DESCRIPTION_FILE: &str = ".artifact.json";
/// In the root, not listed: the mount as each run sees it.
pub const RUNS_DIRECTORY: &str = ".runs";
/// How long the kernel may believe a name that can move. Notifications make it forget earlier;
/// this bounds what happens when a look-up and a move cross.
pub const NAMES_TTL: Duration = Duration::from_secs(1);

/// An entry that was found.
pub struct Found {
    /// Its attributes, with its number.
    pub attr: FileAttr,
    /// How long name and attributes may be believed.
    pub ttl: Duration,
}

/// One line of a listing.
pub struct Line {
    /// Where the next reading begins.
    pub next: u64,
    /// The name.
    pub name: Vec<u8>,
    /// What it is.
    pub found: Found,
}

/// The file system.
pub struct ReadFs {
    repository: Arc<Repository>,
    owner: Owner,
    paths: Mutex<PathTable>,
    files: Mutex<FileTable>,
}

impl ReadFs {
    /// The versions of `repository`, owned by `uid` and `gid`; `writable` to look at.
    pub fn new(repository: Arc<Repository>, uid: u32, gid: u32, writable: bool) -> Self {
        let owner = Owner { uid, gid, created: repository.settings.created, writable };
        Self { repository, owner, paths: Mutex::default(), files: Mutex::default() }
    }

    /// The repository below.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    fn paths(&self) -> std::sync::MutexGuard<'_, PathTable> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> std::sync::MutexGuard<'_, FileTable> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a number that is no file's stands for.
    ///
    /// # Errors
    /// [`Kind::Stale`] for a number the kernel should not know.
    pub fn node(&self, ino: u64) -> Result<Node> {
        self.paths().get(ino).ok_or_else(unknown_inode)
    }

    /// The entry `name` of `parent`; `None` when there is none and never will be.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is none now, and what the registry or the store says.
    pub fn lookup(&self, reader: &Reader, parent: u64, name: &OsStr) -> Result<Option<Found>> {
        match self.node(parent)? {
            Node::Root | Node::Run(_) if name == RUNS_DIRECTORY => {
                self.found(parent, name.as_bytes(), Node::Runs).map(Some)
            }
            Node::Root => self.project(parent, name, None).map(Some),
            Node::Runs => self.run(parent, name).map(Some),
            Node::Run(run) => self.project(parent, name, Some(run)).map(Some),
            Node::Project(project, run) => self.version(parent, &project, name, run).map(Some),
            Node::Version(version) if name == DESCRIPTION_FILE => {
                let node = Node::Description(version);
                Ok(Some(self.found(parent, name.as_bytes(), node)?))
            }
            Node::Version(version) => {
                self.tell_use(&version)?;
                self.within(reader, parent, (version.tree, version.created), name)
            }
            Node::Directory { created, tree } => self.within(reader, parent, (tree, created), name),
            Node::Symlink(_) | Node::Description(_) => Err(not_a_directory()),
        }
    }

    fn project(&self, parent: u64, name: &OsStr, run: Option<RunId>) -> Result<Found> {
        let project: ProjectName = parse_name(name)?;
        self.repository.registry.names(project.clone())?;
        self.found(parent, name.as_bytes(), Node::Project(project, run))
    }

    /// The directory of a project, whether or not it has artifacts.
    ///
    /// # Errors
    /// None that a caller could cause.
    pub fn project_node(&self, project: &ProjectName) -> Result<Found> {
        self.found(ROOT, project.as_str().as_bytes(), Node::Project(project.clone(), None))
    }

    fn run(&self, parent: u64, name: &OsStr) -> Result<Found> {
        let run: RunId = parse_name(name)?;
        self.repository.registry.run(run.clone())?;
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
        let selector = selector.unwrap_or_else(|| Selector::Alias(Alias::latest()));
        let reference = Reference { path, selector: selector.clone() };
        let info = match &run {
            Some(run) => self.repository.registry.lookup_for_run(run.clone(), reference)?,
            None => self.repository.registry.lookup(reference)?,
        };
        self.found(parent, name.as_bytes(), version_node(&info, run.map(|run| (run, selector))))
    }

    /// A run enters a version: that it uses it is durable before it sees anything of it.
    fn tell_use(&self, version: &VersionNode) -> Result<()> {
        let Some(RunUse { run, alias, told }) = &version.used else { return Ok(()) };
        if told.load(Ordering::Acquire) {
            return Ok(());
        }
        let used = (&version.path, version.number);
        runs::tell_use(&*self.repository.registry, run, used, alias.clone())?;
        told.store(true, Ordering::Release);
        Ok(())
    }

    fn within(
        &self,
        reader: &Reader,
        parent: u64,
        (tree, created): (Digest, Timestamp),
        name: &OsStr,
    ) -> Result<Option<Found>> {
        let Ok(name) = EntryName::try_from(name) else {
            return Ok(None);
        };
        let entry = directory::lookup(reader, tree, &name)?;
        entry.map(|entry| self.entry(parent, created, &entry)).transpose()
    }

    /// The inode of an entry of a version; counts as a look-up.
    fn entry(&self, parent: u64, created: Timestamp, entry: &Entry) -> Result<Found> {
        match &entry.target {
            Target::File { content, executable } => {
                let key = FileKey { content: *content, executable: *executable };
                let ino = self.files().look_up(&key, parent);
                let attr = self.owner.file(ino, content.size_bytes(), *executable);
                Ok(Found { attr, ttl: FOR_EVER })
            }
            Target::Directory(tree) => {
                let node = Node::Directory { created, tree: *tree };
                self.found(parent, entry.name.as_bytes(), node)
            }
            Target::Symlink(target) => {
                let node = Node::Symlink(target.as_ref().into());
                self.found(parent, entry.name.as_bytes(), node)
            }
        }
    }

    fn found(&self, parent: u64, name: &[u8], node: Node) -> Result<Found> {
        let ino = self.paths().look_up(parent, name, node.clone());
        self.describe(ino, &node)
    }

    /// Attributes of a node, and how long they hold.
    fn describe(&self, ino: u64, node: &Node) -> Result<Found> {
        let (attr, ttl) = match node {
            Node::Root => (self.owner.directory(ino, 0o555, self.owner.created), NAMES_TTL),
            Node::Project(..) | Node::Runs | Node::Run(_) => {
                (self.owner.directory(ino, 0o555, self.owner.created), NAMES_TTL)
            }
            Node::Version(version) => {
                (self.owner.directory(ino, 0o555, version.created), NAMES_TTL)
            }
            Node::Directory { created, .. } => {
                (self.owner.directory(ino, 0o555, *created), FOR_EVER)
            }
            Node::Symlink(target) => (self.owner.symlink(ino, target.len() as u64), FOR_EVER),
            Node::Description(version) => {
                let text = self.description(version)?;
                (self.owner.file(ino, text.len() as u64, false), Duration::ZERO)
            }
        };
        Ok(Found { attr, ttl })
    }

    /// The attributes of a number.
    ///
    /// # Errors
    /// [`Kind::Stale`] for a number the kernel should not know.
    pub fn getattr(&self, ino: u64) -> Result<Found> {
        if is_path(ino) {
            return self.describe(ino, &self.node(ino)?);
        }
        let FileKey { content, executable } = self.file(ino)?;
        Ok(Found { attr: self.owner.file(ino, content.size_bytes(), executable), ttl: FOR_EVER })
    }

    /// The file with a number.
    ///
    /// # Errors
    /// [`Kind::Stale`] for a number the kernel should not know.
    pub fn file(&self, ino: u64) -> Result<FileKey> {
        self.files().get(ino).ok_or_else(unknown_inode)
    }

    /// The file with a number, and the root tree of a version that has it.
    ///
    /// # Errors
    /// [`Kind::Stale`] for a number the kernel should not know.
    pub fn file_of_version(&self, ino: u64) -> Result<(FileKey, Digest)> {
        let mut directory = self.files().seen_in(ino).ok_or_else(unknown_inode)?;
        loop {
            match self.node(directory)? {
                Node::Version(version) => return Ok((self.file(ino)?, version.tree)),
                Node::Directory { .. } => directory = self.parent(directory),
                _ => return Err(unknown_inode()),
            }
        }
    }

    /// The tree of a version's root directory.
    pub fn version_tree(&self, ino: u64) -> Option<Digest> {
        match is_path(ino).then(|| self.node(ino)) {
            Some(Ok(Node::Version(version))) => Some(version.tree),
            _ => None,
        }
    }

    /// The root tree of a version that has the small file with a number.
    pub fn tree_of_small_file(&self, ino: u64) -> Option<Digest> {
        let (file, tree) = if is_path(ino) { None } else { self.file_of_version(ino).ok() }?;
        matches!(file.content, Content::Chunk { .. }).then_some(tree)
    }

    /// The kernel forgets.
    pub fn forget(&self, ino: u64, lookups: u64) {
        if is_path(ino) {
            self.paths().forget(ino, lookups);
        } else {
            self.files().forget(ino, lookups);
        }
    }

    /// Where a symlink points.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it is none.
    pub fn readlink(&self, ino: u64) -> Result<Arc<[u8]>> {
        match is_path(ino).then(|| self.node(ino)).transpose()? {
            Some(Node::Symlink(target)) => Ok(target),
            _ => Err(Error::new(Kind::Usage, "not a symlink")),
        }
    }

    /// Fills `buffer` from byte `offset` of a file; how much was there.
    ///
    /// # Errors
    /// [`Kind::Corrupt`], [`Kind::Stale`], and what the store says.
    pub fn read(&self, reader: &Reader, ino: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        if !is_path(ino) {
            let file = self.file(ino)?;
            return reader.read_at(&file.content, offset, buffer);
        }
        let Node::Description(version) = self.node(ino)? else {
            return Err(is_a_directory());
        };
        let text = self.description(&version)?;
        let rest = usize::try_from(offset).ok().and_then(|at| text.as_bytes().get(at..));
        let rest = rest.unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    /// What `.artifact.json` says.
    fn description(&self, version: &VersionNode) -> Result<String> {
        let path = version.path.clone();
        let reference = Reference { path, selector: Selector::Version(version.number) };
        let info = self.repository.registry.lookup(reference)?;
        let document = json!({
            "name": info.path.to_string(),
            "type": info.artifact_type,
            "version": info.number.to_string(),
            "aliases": info.aliases,
            "digest": info.root.to_string(),
            "description": info.description,
            "metadata": info.metadata.to_object(),
            "tags": info.tags,
            "ttl": info.ttl.to_string(),
            "expires": info.expires.map(|at| at.to_string()),
            "protected": info.protected,
            "size": info.totals.size_bytes,
            "external": info.totals.external,
            "created": info.created.to_string(),
        });
        Ok(format!("{document:#}\n"))
    }

    /// Calls `each` with the lines of a directory from `position` on, until it says that it is full
    /// (`false`). Each line that it takes counts as a look-up.
    ///
    /// # Errors
    /// What the registry or the store says.
    pub fn list(
        &self,
        reader: &Reader,
        ino: u64,
        position: u64,
        each: &mut dyn FnMut(Line) -> bool,
    ) -> Result<()> {
        match self.node(ino)? {
            Node::Root => self.list_nodes(ino, position, self.project_nodes(None)?, each),
            Node::Run(run) => self.list_nodes(ino, position, self.project_nodes(Some(&run))?, each),
            Node::Runs => self.list_nodes(ino, position, self.run_nodes()?, each),
            Node::Project(project, run) => {
                let nodes = self.project_listing(&project, run.as_ref())?;
                // What a name stands for in a run is settled when it is looked up.
                self.list_nodes(ino, position, nodes, &mut |mut line| {
                    if run.is_some() {
                        line.found.ttl = Duration::ZERO;
                    }
                    each(line)
                })
            }
            Node::Version(version) => {
                self.tell_use(&version)?;
                self.list_tree(reader, ino, (version.tree, version.created), position, each)
            }
            Node::Directory { created, tree } => {
                self.list_tree(reader, ino, (tree, created), position, each)
            }
            Node::Symlink(_) | Node::Description(_) => Err(not_a_directory()),
        }
    }

    fn project_nodes(&self, run: Option<&RunId>) -> Result<Vec<(Vec<u8>, Node)>> {
        let projects = self.repository.registry.projects()?;
        let nodes = projects.into_iter().map(|project| {
            let name = project.name.as_str().as_bytes().to_vec();
            (name, Node::Project(project.name, run.cloned()))
        });
        Ok(nodes.collect())
    }

    /// The runs that go on; the others can be looked up.
    fn run_nodes(&self) -> Result<Vec<(Vec<u8>, Node)>> {
        let registry = &*self.repository.registry;
        let mut nodes = Vec::new();
        for project in registry.projects()? {
            runs::each_run(registry, &project.name, &mut |run| {
                if run.state == RunState::Running {
                    let name = run.start.id.as_str().as_bytes().to_vec();
                    nodes.push((name, Node::Run(run.start.id)));
                }
                Ok(())
            })?;
        }
        Ok(nodes)
    }

    /// Everything that is listed in a project: versions by number, then aliases.
    fn project_listing(
        &self,
        project: &ProjectName,
        run: Option<&RunId>,
    ) -> Result<Vec<(Vec<u8>, Node)>> {
        let registry = &self.repository.registry;
        let artifacts = match registry.artifacts(project.clone()) {
            // A project that has only drafts.
            Err(e) if e.kind() == Kind::NotFound => Vec::new(),
            artifacts => artifacts?,
        };
        let mut nodes = Vec::new();
        for artifact in artifacts {
            let name = &artifact.path.artifact;
            for info in listing::versions(&**registry, &artifact.path)? {
                let aliases = info.aliases.iter().cloned().map(Selector::Alias);
                let all = std::iter::once(Selector::Version(info.number)).chain(aliases);
                nodes.extend(all.map(|selector| {
                    let name = format!("{name}:{selector}").into_bytes();
                    (name, version_node(&info, run.map(|run| (run.clone(), selector))))
                }));
            }
        }
        Ok(nodes)
    }

    fn list_nodes(
        &self,
        parent: u64,
        position: u64,
        nodes: Vec<(Vec<u8>, Node)>,
        each: &mut dyn FnMut(Line) -> bool,
    ) -> Result<()> {
        let skip = usize::try_from(position).unwrap_or(usize::MAX);
        for (index, (name, node)) in nodes.into_iter().enumerate().skip(skip) {
            let found = self.found(parent, &name, node)?;
            if !self.offer(Line { next: index as u64 + 1, name, found }, each) {
                break;
            }
        }
        Ok(())
    }

    fn list_tree(
        &self,
        reader: &Reader,
        parent: u64,
        (tree, created): (Digest, Timestamp),
        mut position: u64,
        each: &mut dyn FnMut(Line) -> bool,
    ) -> Result<()> {
        while let Some(run) = directory::run_at(reader, tree, position)? {
            for entry in run.entries() {
                position += 1;
                let found = self.entry(parent, created, entry)?;
                let name = entry.name.as_bytes().to_vec();
                if !self.offer(Line { next: position, name, found }, each) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// A line that did not fit was not looked up.
    fn offer(&self, line: Line, each: &mut dyn FnMut(Line) -> bool) -> bool {
        let ino = line.found.attr.ino.0;
        let taken = each(line);
        if !taken {
            self.forget(ino, 1);
        }
        taken
    }

    /// The number of the directory above.
    pub fn parent(&self, ino: u64) -> u64 {
        self.paths().parent(ino)
    }

    /// What the kernel has to look at anew when an artifact changes.
    pub fn touched(&self, path: &ArtifactPath) -> Touched {
        self.paths().touched(path)
    }

    /// The directories that the kernel has to list anew when a run begins or ends.
    pub fn run_lists(&self) -> Vec<u64> {
        self.paths().run_lists()
    }
}

fn version_node(info: &VersionInfo, run: Option<(RunId, Selector)>) -> Node {
    let used = run.map(|(run, selector)| {
        let alias = match selector {
            Selector::Alias(alias) => Some(alias),
            Selector::Version(_) => None,
        };
        RunUse { run, alias, told: AtomicBool::new(false) }
    });
    Node::Version(Arc::new(VersionNode {
        path: info.path.clone(),
        number: info.number,
        tree: info.root,
        created: info.created,
        used,
    }))
}

fn parse_name<T: std::str::FromStr>(name: &OsStr) -> Result<T> {
    name.to_str().and_then(|text| text.parse().ok()).ok_or_else(no_such_name)
}

fn no_such_name() -> Error {
    Error::new(Kind::NotFound, "no such name")
}

fn unknown_inode() -> Error {
    Error::new(Kind::Stale, "an inode that is not known")
}

fn not_a_directory() -> Error {
    Error::new(Kind::NotFound, "not a directory")
}

fn is_a_directory() -> Error {
    Error::new(Kind::Usage, "is a directory")
}
