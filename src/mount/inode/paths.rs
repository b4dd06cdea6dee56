//! Inodes of everything that is not a file: numbered by path, because the kernel keeps one dentry
//! for a directory.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::node::Node;
use super::version::VersionNode;
use crate::model::name::{ProjectName, VersionNumber};
use crate::model::reference::{ArtifactPath, Selector};

/// The root of the mount (FUSE_ROOT_ID).
pub(crate) const ROOT: u64 = 1;
/// The bit that is set in numbers of this table and clear in those of files.
const TABLE_BIT: u64 = 1 << 32;
const COUNT_SHIFT: u32 = 33;

/// Returns whether a number is one of this table.
pub(crate) const fn is_path(ino: u64) -> bool {
    ino == ROOT || ino & TABLE_BIT != 0
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    parent: u64,
    name: Box<[u8]>,
    /// The number of a version. An alias that moved gets another inode, so that open directories
    /// stay what they are.
    number: Option<VersionNumber>,
}

struct Known {
    node: Node,
    key: Arc<Key>,
    lookups: u64,
    /// The number of look-ups of the table up to its last one.
    seen: u64,
}

/// The inodes that the kernel holds.
#[derive(Default)]
pub(crate) struct PathTable {
    known: HashMap<u64, Known>,
    by_key: HashMap<Arc<Key>, u64>,
    /// The inodes that list runs: they change often, and are few.
    runs: BTreeSet<u64>,
    counted: u64,
    looked_up: u64,
}

impl PathTable {
    /// Looks up `node` as `name` in `parent`, and returns its number.
    pub(crate) fn look_up(&mut self, parent: u64, name: &[u8], node: Node) -> u64 {
        let number = match &node {
            Node::Version(version) => Some(version.number),
            _ => None,
        };
        let key = Key { parent, name: name.into(), number };
        self.looked_up += 1;
        let seen = self.looked_up;
        if let Some(&ino) = self.by_key.get(&key) {
            if let Some(known) = self.known.get_mut(&ino) {
                known.lookups += 1;
                known.seen = seen;
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
        self.known.insert(ino, Known { node, key, lookups: 1, seen });
        ino
    }

    /// Returns the node of a number.
    pub(crate) fn get(&self, ino: u64) -> Option<Node> {
        match ino {
            ROOT => Some(Node::Root),
            _ => self.known.get(&ino).map(|known| known.node.clone()),
        }
    }

    /// Returns the directory in which an inode was found.
    pub(crate) fn parent(&self, ino: u64) -> u64 {
        self.known.get(&ino).map_or(ROOT, |known| known.key.parent)
    }

    /// Subtracts `lookups` look-ups that the kernel forgets.
    pub(crate) fn forget(&mut self, ino: u64, lookups: u64) {
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

    /// Returns the directories that list runs.
    pub(crate) fn run_lists(&self) -> Vec<u64> {
        self.runs.iter().copied().collect()
    }

    /// Returns the directories of a project: as it is, and as runs see it.
    pub(crate) fn projects(&self, name: &ProjectName) -> Vec<u64> {
        let is_it = |node: &Node| matches!(node, Node::Project(project, _) if project == name);
        self.known.iter().filter(|(_, known)| is_it(&known.node)).map(|(ino, _)| *ino).collect()
    }

    /// Returns everything of an artifact that the kernel holds.
    pub(crate) fn of_artifact(&self, path: &ArtifactPath) -> OfArtifact {
        let mut of = OfArtifact { projects: self.projects(&path.project), ..Default::default() };
        let mut newest: HashMap<(u64, &[u8]), (u64, &VersionNode)> = HashMap::new();
        for (ino, known) in &self.known {
            match &known.node {
                Node::Version(version) if version.path == *path => {
                    let name = (known.key.parent, &*known.key.name);
                    // Another version, to which the name led earlier, may still be in use.
                    let last = newest.entry(name).or_insert((known.seen, version));
                    if known.seen > last.0 {
                        *last = (known.seen, version);
                    }
                }
                Node::Description(description) if description.version.path == *path => {
                    of.descriptions.push(*ino);
                }
                _ => {}
            }
        }
        of.names.extend(newest.into_iter().map(|((parent, name), (_, version))| VersionName {
            parent,
            name: name.to_vec(),
            selector: match version.used {
                // The version that a name leads to in a run is fixed.
                Some(_) => Selector::Version(version.number),
                None => version.selector.clone(),
            },
            number: version.number,
        }));
        of
    }

    /// Returns the artifacts of which the kernel holds a version.
    pub(crate) fn artifacts(&self) -> Vec<ArtifactPath> {
        let paths = self.known.values().filter_map(|known| match &known.node {
            Node::Version(version) => Some(version.path.clone()),
            _ => None,
        });
        paths.collect::<std::collections::HashSet<_>>().into_iter().collect()
    }
}

/// Everything of an artifact that the kernel holds.
#[derive(Debug, Default)]
pub(crate) struct OfArtifact {
    /// Directories that list it.
    pub(crate) projects: Vec<u64>,
    /// Names of its versions.
    pub(crate) names: Vec<VersionName>,
    /// Descriptions of its versions.
    pub(crate) descriptions: Vec<u64>,
}

/// A name of a version, as the kernel holds it.
#[derive(Debug)]
pub(crate) struct VersionName {
    /// The directory it is in.
    pub(crate) parent: u64,
    /// The name.
    pub(crate) name: Vec<u8>,
    /// The selector that decides which version the name leads to.
    pub(crate) selector: Selector,
    /// The version that it led to when it was last looked up.
    pub(crate) number: VersionNumber,
}
