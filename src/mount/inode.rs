//! Inodes of everything that is not a file: numbered by path, because the kernel keeps one dentry
//! for a directory.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::model::digest::Digest;
use crate::model::name::{Alias, ProjectName, RunId, VersionNumber};
use crate::model::reference::ArtifactPath;
use crate::model::version::Timestamp;

/// The root of the mount (FUSE_ROOT_ID).
pub const ROOT: u64 = 1;
/// Numbers of this table have bit 32 set; those of files have it clear.
const TABLE_BIT: u64 = 1 << 32;
const COUNT_SHIFT: u32 = 33;

/// Whether a number is one of this table.
pub const fn is_path(ino: u64) -> bool {
    ino == ROOT || ino & TABLE_BIT != 0
}

/// What an inode stands for.
#[derive(Debug, Clone)]
pub enum Node {
    /// The mount itself.
    Root,
    /// `.runs`: the mount as each run sees it.
    Runs,
    /// The mount as a run sees it.
    Run(RunId),
    /// A project, as a run sees it if one is given.
    Project(ProjectName, Option<RunId>),
    /// The root of a version, by whichever name.
    Version(Arc<VersionNode>),
    /// A directory of a version.
    Directory {
        /// The version's time.
        created: Timestamp,
        /// Its tree.
        tree: Digest,
    },
    /// A symlink of a version.
    Symlink(Arc<[u8]>),
    /// `.artifact.json` of a version.
    Description(Arc<VersionNode>),
}

/// Who is to be told that a version is used.
#[derive(Debug)]
pub struct RunUse {
    /// The run.
    pub run: RunId,
    /// The alias the version was found by.
    pub alias: Option<Alias>,
    /// Whether it was told.
    pub told: AtomicBool,
}

/// A version as a mount knows it.
#[derive(Debug)]
pub struct VersionNode {
    /// The artifact.
    pub path: ArtifactPath,
    /// The number.
    pub number: VersionNumber,
    /// The root tree.
    pub tree: Digest,
    /// When it was committed.
    pub created: Timestamp,
    /// The run in whose view it is.
    pub used: Option<RunUse>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    parent: u64,
    name: Box<[u8]>,
    /// Of a version: an alias that moved is another inode, so that what is open stays what it is.
    number: Option<VersionNumber>,
}

struct Known {
    node: Node,
    key: Arc<Key>,
    lookups: u64,
}

/// The inodes the kernel knows.
#[derive(Default)]
pub struct PathTable {
    known: HashMap<u64, Known>,
    by_key: HashMap<Arc<Key>, u64>,
    /// Those that list runs: they change often, and are few.
    runs: BTreeSet<u64>,
    counted: u64,
}

impl PathTable {
    /// The number of `node`, found as `name` in `parent`; the kernel looked it up once more.
    pub fn look_up(&mut self, parent: u64, name: &[u8], node: Node) -> u64 {
        let number = match &node {
            Node::Version(version) => Some(version.number),
            _ => None,
        };
        let key = Key { parent, name: name.into(), number };
        if let Some(&ino) = self.by_key.get(&key) {
            if let Some(known) = self.known.get_mut(&ino) {
                known.lookups += 1;
            }
            return ino;
        }
        self.counted += 1;
        let ino = self.counted << COUNT_SHIFT | TABLE_BIT;
        if matches!(node, Node::Runs) {
            self.runs.insert(ino);
        }
        let key = Arc::new(key);
        self.by_key.insert(Arc::clone(&key), ino);
        self.known.insert(ino, Known { node, key, lookups: 1 });
        ino
    }

    /// What a number stands for.
    pub fn get(&self, ino: u64) -> Option<Node> {
        match ino {
            ROOT => Some(Node::Root),
            _ => self.known.get(&ino).map(|known| known.node.clone()),
        }
    }

    /// The directory an inode was found in.
    pub fn parent(&self, ino: u64) -> u64 {
        self.known.get(&ino).map_or(ROOT, |known| known.key.parent)
    }

    /// The kernel forgets `lookups` look-ups.
    pub fn forget(&mut self, ino: u64, lookups: u64) {
        let Some(known) = self.known.get_mut(&ino) else {
            return;
        };
        known.lookups = known.lookups.saturating_sub(lookups);
        if known.lookups == 0
            && let Some(known) = self.known.remove(&ino)
        {
            self.by_key.remove(&known.key);
            self.runs.remove(&ino);
        }
    }

    /// The directories that list runs.
    pub fn run_lists(&self) -> Vec<u64> {
        self.runs.iter().copied().collect()
    }

    /// Every inode that a change of an artifact touches: the entries of the versions in their
    /// project (parent, name), and the descriptions.
    pub fn touched(&self, path: &ArtifactPath) -> Touched {
        let mut touched = Touched::default();
        for (ino, known) in &self.known {
            match &known.node {
                Node::Project(project, _) if *project == path.project => {
                    touched.projects.push(*ino)
                }
                Node::Version(version) if version.path == *path => {
                    touched.versions.push((known.key.parent, known.key.name.to_vec()));
                }
                Node::Description(version) if version.path == *path => {
                    touched.descriptions.push(*ino);
                }
                _ => {}
            }
        }
        touched
    }
}

/// What the kernel has to look at anew.
#[derive(Debug, Default)]
pub struct Touched {
    /// Directories whose listing changed.
    pub projects: Vec<u64>,
    /// Entries that may stand for something else.
    pub versions: Vec<(u64, Vec<u8>)>,
    /// Files whose content changed.
    pub descriptions: Vec<u64>,
}
