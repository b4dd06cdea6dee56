//! Nodes: what the kernel knows of the drafts, by number.
//!
//! No descriptor is held for a node: a draft may have more files than a process may have
//! descriptors. A node knows the names it was seen under, and its path is made of them when it is
//! needed.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;

use super::Result;
use super::base_xattr::TreeXattr;
use super::freeze::DraftKey;
use crate::model::digest::Digest;
use crate::model::reference::ArtifactPath;
use crate::model::tree::Target;

/// Set in the number of every node of a draft, and of nothing else in a mount.
pub const NODE_BIT: u64 = 1 << 62;

/// Nodes without a name of which the inode is held. The kernel forgets most of them at once.
const KEPT_MAX: usize = 4096;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Link {
    parent: u64,
    name: Box<[u8]>,
}

impl Link {
    fn is(&self, parent: u64, name: &OsStr) -> bool {
        self.parent == parent && *self.name == *name.as_bytes()
    }
}

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// On the host, with this inode number.
    Upper(u64),
    /// Only in the tree that its directory stands on.
    Lower(Target),
}

struct Node {
    draft: DraftKey,
    body: Body,
    /// Of a directory on the host: what it stands on.
    xattr: Option<TreeXattr>,
    links: Vec<Link>,
    lookups: u64,
    root: bool,
    /// Its whole draft is gone.
    removed: bool,
    /// Without a name: what it was (O_PATH).
    kept: Option<Arc<File>>,
}

/// What has to happen to a directory before something in it changes.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Owned,
    /// It is on the host, and marked clean.
    Dirty(PathBuf, TreeXattr),
    /// It is not on the host yet.
    CopyUp(Digest),
}

/// The nodes the kernel knows.
#[derive(Default)]
pub struct Nodes {
    known: HashMap<u64, Node>,
    /// The roots of drafts.
    roots: HashMap<DraftKey, u64>,
    /// By the host's inode number: hard links are one node.
    by_host: HashMap<u64, u64>,
    /// What is only in the base.
    by_base: HashMap<Link, u64>,
    /// Nodes that hold something, oldest first; some were forgotten since.
    keepers: VecDeque<u64>,
    counted: u64,
}

impl Nodes {
    fn add(&mut self, draft: DraftKey, body: Body, links: Vec<Link>, root: bool) -> u64 {
        self.counted += 1;
        let id = NODE_BIT | self.counted;
        match &body {
            Body::Upper(upper) => {
                self.by_host.insert(*upper, id);
            }
            Body::Lower(_) => {
                self.by_base.extend(links.iter().map(|link| (link.clone(), id)));
            }
        }
        let (xattr, kept, removed) = (None, None, false);
        let node = Node { draft, body, xattr, links, lookups: 1, root, removed, kept };
        self.known.insert(id, node);
        id
    }

    /// Whether the host's inode `host` is known.
    pub fn knows(&self, upper: u64) -> bool {
        self.by_host.contains_key(&upper)
    }

    /// The node of the host's inode `host`.
    pub fn node_of_upper(&self, upper: u64) -> Option<u64> {
        self.by_host.get(&upper).copied()
    }

    /// Whether the host's inode `host` is known as the root of a draft.
    pub fn knows_root(&self, draft: &ArtifactPath, upper: u64) -> bool {
        let node = self.by_host.get(&upper).and_then(|id| self.known.get(id));
        node.is_some_and(|node| node.root && !node.removed && *node.draft == *draft)
    }

    /// The root of a draft, looked up once more.
    pub fn look_up_root(&mut self, draft: &DraftKey, upper: u64, xattr: Option<TreeXattr>) -> u64 {
        match self.by_host.get(&upper).copied() {
            Some(id) if self.knows_root(draft, upper) => self.look_up_again(id),
            _ => {
                let id = self.add(Arc::clone(draft), Body::Upper(upper), Vec::new(), true);
                self.roots.insert(Arc::clone(draft), id);
                self.set_xattr(id, xattr);
                id
            }
        }
    }

    fn look_up_again(&mut self, id: u64) -> u64 {
        if let Some(node) = self.known.get_mut(&id) {
            node.lookups += 1;
        }
        id
    }

    /// Whether the host's inode `host` is known as `name` in `parent`.
    pub fn knows_as(&self, parent: u64, name: &OsStr, upper: u64) -> bool {
        let node = self.by_host.get(&upper).and_then(|id| self.known.get(id));
        node.is_some_and(|node| node.links.iter().any(|link| link.is(parent, name)))
    }

    /// The node of the host's inode `host`, found as `name` in `parent`, looked up once more; `sole` when it
    /// has no other name there. The mark of one that is known under this name stays.
    pub fn look_up(
        &mut self,
        (parent, name): (u64, &OsStr),
        upper: u64,
        sole: bool,
        xattr: Option<TreeXattr>,
    ) -> Result<u64> {
        let draft = self.draft(parent)?;
        let link = Link { parent, name: name.as_bytes().into() };
        let here = |node: &Node| !node.root && !node.removed && node.draft == draft;
        match self.by_host.get(&upper).copied() {
            Some(id) if self.known.get(&id).is_some_and(here) => {
                if sole && !self.knows_as(parent, name, upper) {
                    // What it was known as, it is not any more: somebody renamed it on the host by hand, or
                    // removed that and its number is another's now.
                    if let Some(node) = self.known.get_mut(&id) {
                        (node.links, node.xattr) = (vec![link], xattr);
                    }
                } else {
                    self.add_link(id, link);
                }
                Ok(self.look_up_again(id))
            }
            _ => {
                let id = self.add(draft, Body::Upper(upper), vec![link], false);
                self.set_xattr(id, xattr);
                Ok(id)
            }
        }
    }

    /// The node of what is only in the base, as `name` in `parent`, looked up once more.
    pub fn look_up_lower(&mut self, parent: u64, name: &OsStr, target: Target) -> Result<u64> {
        let link = Link { parent, name: name.as_bytes().into() };
        if let Some(&id) = self.by_base.get(&link) {
            return Ok(self.look_up_again(id));
        }
        let draft = self.draft(parent)?;
        Ok(self.add(draft, Body::Lower(target), vec![link], false))
    }

    /// The node of what is only in the base, if it is known.
    pub fn find_lower(&self, parent: u64, name: &OsStr) -> Option<u64> {
        self.by_base.get(&Link { parent, name: name.as_bytes().into() }).copied()
    }

    fn add_link(&mut self, id: u64, link: Link) {
        let Some(node) = self.known.get(&id) else { return };
        if node.links.contains(&link) {
            return;
        }
        // Directories that the kernel forgot were found anew, by another number.
        let there = |link: &Link| self.known.contains_key(&link.parent);
        let mut links: Vec<Link> = node.links.iter().filter(|link| there(link)).cloned().collect();
        links.push(link);
        if let Some(node) = self.known.get_mut(&id) {
            node.links = links;
        }
    }

    /// What was only in the base is on the host now, with this inode number.
    pub fn copied_up(&mut self, id: u64, upper: u64, xattr: Option<TreeXattr>) {
        if let Some(node) = self.known.get_mut(&id) {
            (node.body, node.xattr) = (Body::Upper(upper), xattr);
            for link in &node.links {
                self.by_base.remove(link);
            }
            self.by_host.insert(upper, id);
        }
    }

    /// The same file has another inode on the host now.
    pub fn replaced(&mut self, before: u64, upper: u64) {
        if let Some(id) = self.by_host.remove(&before)
            && let Some(node) = self.known.get_mut(&id)
        {
            node.body = Body::Upper(upper);
            self.by_host.insert(upper, id);
        }
    }

    fn node(&self, id: u64) -> Result<&Node> {
        self.known.get(&id).filter(|node| !node.removed).ok_or(Errno::STALE)
    }

    /// The draft a node belongs to.
    pub fn draft(&self, id: u64) -> Result<DraftKey> {
        self.known.get(&id).map(|node| Arc::clone(&node.draft)).ok_or(Errno::STALE)
    }

    /// Whether the root of a node's draft stands on a tree, as far as is known.
    pub fn has_lower(&self, id: u64) -> bool {
        let root = self.known.get(&id).and_then(|node| self.roots.get(&node.draft));
        root.and_then(|root| self.known.get(root)).is_none_or(|root| root.xattr.is_some())
    }

    /// Whether it is the root of a draft that is there.
    pub fn is_root(&self, id: u64) -> bool {
        self.node(id).is_ok_and(|node| node.root)
    }

    /// Where a node is.
    pub fn body(&self, id: u64) -> Result<Body> {
        Ok(self.node(id)?.body.clone())
    }

    /// The tree a directory stands on, and whether there is a directory on the host.
    pub fn lower_tree(&self, id: u64) -> Result<(Option<Digest>, bool)> {
        let node = self.node(id)?;
        Ok(match &node.body {
            Body::Lower(Target::Directory(tree)) => (Some(*tree), false),
            Body::Lower(_) => return Err(Errno::NOTDIR),
            Body::Upper(_) => (node.xattr.map(|xattr| xattr.tree), true),
        })
    }

    /// What a directory on the host stands on now.
    pub fn set_xattr(&mut self, id: u64, xattr: Option<TreeXattr>) {
        if let Some(node) = self.known.get_mut(&id) {
            node.xattr = xattr;
        }
    }

    /// What the directory with the host's inode `host` stands on now.
    pub fn set_xattr_of_upper(&mut self, upper: u64, xattr: Option<TreeXattr>) {
        if let Some(&id) = self.by_host.get(&upper) {
            self.set_xattr(id, xattr);
        }
    }

    /// What has to happen to a directory before something in it changes.
    pub fn step(&self, id: u64) -> Result<Step> {
        let node = self.node(id)?;
        Ok(match (&node.body, node.xattr) {
            (Body::Lower(Target::Directory(tree)), _) => Step::CopyUp(*tree),
            (Body::Lower(_), _) => return Err(Errno::NOTDIR),
            (Body::Upper(_), Some(xattr)) if xattr.clean => Step::Dirty(self.path(id)?, xattr),
            (Body::Upper(_), _) => Step::Owned,
        })
    }

    /// Name and directory of a node, by one of its links; `None` for the root of a draft and for
    /// what has no name any more.
    pub fn link_of(&self, id: u64) -> Option<(u64, Box<OsStr>)> {
        let links = &self.known.get(&id)?.links;
        let link = links.iter().find(|link| self.known.contains_key(&link.parent))?;
        Some((link.parent, OsStr::from_bytes(&link.name).into()))
    }

    /// The directories in which a node has a name, as far as the kernel knows them. A file with one
    /// name is reached by that; where one of several names is, nothing is marked clean.
    pub fn parents(&self, id: u64) -> Vec<u64> {
        let links = self.known.get(&id).map_or(&[][..], |node| &node.links);
        let parents = links.iter().map(|link| link.parent);
        parents.filter(|parent| self.known.contains_key(parent)).collect()
    }

    /// Where a node is, or would be, relative to the scratch directory; ENOENT when it has no name any
    /// more, ESTALE when its draft is gone: the kernel then looks the path up anew, and finds the
    /// version that the draft was renamed to.
    pub fn path(&self, id: u64) -> Result<PathBuf> {
        let node = self.node(id)?;
        if node.root {
            let draft = &node.draft;
            return Ok([draft.project.as_str(), draft.artifact.as_str(), "tree"].iter().collect());
        }
        // A parent that the kernel forgot cannot be asked; another name may still lead here.
        let paths = node.links.iter().filter_map(|link| {
            let parent = self.path(link.parent).ok()?;
            Some(parent.join(OsStr::from_bytes(&link.name)))
        });
        paths.into_iter().next().ok_or(Errno::NOENT)
    }

    /// Where a node is that somebody asks for by its number; ESTALE when it has no name any more: the
    /// kernel then looks its path up anew, and finds what has replaced it, or nothing.
    pub fn named(&self, id: u64) -> Result<PathBuf> {
        self.path(id).map_err(|_| Errno::STALE)
    }

    /// Holds what the host's inode `host` is, whose last name is about to go, for as long as the
    /// kernel knows its node. What is given back is not needed.
    pub fn keep(&mut self, upper: u64, file: File) -> Option<File> {
        let Some(&id) = self.by_host.get(&upper) else { return Some(file) };
        let Some(node) = self.known.get_mut(&id) else { return Some(file) };
        node.kept = Some(Arc::new(file));
        self.keepers.push_back(id);
        if self.keepers.len() <= KEPT_MAX {
            return None;
        }
        let oldest = self.keepers.pop_front().and_then(|id| self.known.get_mut(&id)?.kept.take());
        oldest.and_then(Arc::into_inner)
    }

    /// What is held of a node without a name.
    pub fn kept(&self, id: u64) -> Option<Arc<File>> {
        self.known.get(&id)?.kept.clone()
    }

    /// Where an entry is, or would be.
    pub fn entry(&self, parent: u64, name: &OsStr) -> Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    /// The host's inode `host` is no longer `name` in `parent`; `gone` when that was its last name.
    pub fn unlink(&mut self, parent: u64, name: &OsStr, upper: u64, gone: bool) {
        let Some(&id) = self.by_host.get(&upper) else {
            return;
        };
        if let Some(node) = self.known.get_mut(&id) {
            node.links.retain(|link| !link.is(parent, name));
        }
        if gone {
            // The host may use the number again for something else.
            self.by_host.remove(&upper);
        }
    }

    /// What is only in the base is no longer `name` in `parent`.
    pub fn unlink_lower(&mut self, parent: u64, name: &OsStr) {
        let link = Link { parent, name: name.as_bytes().into() };
        if let Some(id) = self.by_base.remove(&link)
            && let Some(node) = self.known.get_mut(&id)
        {
            node.links.clear();
        }
    }

    /// The host's inode `host` is now also `name` in `parent`.
    pub fn link(&mut self, parent: u64, name: &OsStr, upper: u64) {
        if let Some(&id) = self.by_host.get(&upper) {
            self.add_link(id, Link { parent, name: name.as_bytes().into() });
        }
    }

    /// A whole draft went away: its nodes have no names any more.
    pub fn remove_draft(&mut self, draft: &DraftKey) {
        self.roots.remove(draft);
        for (id, node) in &mut self.known {
            if node.draft != *draft {
                continue;
            }
            node.removed = true;
            match &node.body {
                Body::Upper(upper) if self.by_host.get(upper) == Some(id) => {
                    self.by_host.remove(upper);
                }
                Body::Upper(_) => {}
                Body::Lower(_) => node.links.iter().for_each(|link| {
                    self.by_base.remove(link);
                }),
            }
        }
    }

    /// The kernel forgets; what was held is given back, to be dropped when nobody waits.
    pub fn forget(&mut self, id: u64, lookups: u64) -> Option<Arc<File>> {
        let node = self.known.get_mut(&id)?;
        node.lookups = node.lookups.saturating_sub(lookups);
        if node.lookups > 0 {
            return None;
        }
        let node = self.known.remove(&id)?;
        if node.root && self.roots.get(&node.draft) == Some(&id) {
            self.roots.remove(&node.draft);
        }
        if self.keepers.len() > KEPT_MAX / 2 {
            let known = &self.known;
            self.keepers.retain(|id| known.contains_key(id));
        }
        match node.body {
            Body::Upper(upper) if self.by_host.get(&upper) == Some(&id) => {
                self.by_host.remove(&upper);
            }
            Body::Upper(_) => {}
            Body::Lower(_) => node.links.iter().for_each(|link| {
                if self.by_base.get(link) == Some(&id) {
                    self.by_base.remove(link);
                }
            }),
        }
        node.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::object_kind::ObjectKind;

    #[test]
    fn a_number_that_the_host_uses_again_is_not_what_it_was() {
        let name = |text: &'static str| OsStr::new(text);
        let [one, two] = ["p/one", "p/two"].map(|key| DraftKey::new(key.parse().unwrap()));
        let mut nodes = Nodes::default();
        let root = nodes.look_up_root(&one, 1, None);
        let gone = nodes.look_up((root, name("gone")), 2, true, None).unwrap();
        let tree = Digest::of(ObjectKind::Tree, b"");
        let xattr = TreeXattr { tree, clean: true };
        let directory = nodes.look_up((root, name("new")), 2, true, Some(xattr)).unwrap();
        assert_eq!(nodes.path(directory).unwrap().to_str(), Some("p/one/tree/new"));
        assert_eq!(nodes.lower_tree(directory).unwrap(), (Some(tree), true));
        // Of a file that has another name there, both stay.
        nodes.look_up((root, name("a")), 3, false, None).unwrap();
        let linked = nodes.look_up((root, name("b")), 3, false, None).unwrap();
        assert!(nodes.knows_as(root, name("a"), 3) && nodes.knows_as(root, name("b"), 3));
        // What is in another draft was never the same, nor is a root what was below one.
        let other = nodes.look_up_root(&two, 3, None);
        assert!(other != linked && nodes.is_root(other));
        let file = nodes.look_up((other, name("f")), 2, true, None).unwrap();
        assert!(file != gone && file != directory);
        assert_eq!(nodes.path(file).unwrap().to_str(), Some("p/two/tree/f"));
        assert_eq!(nodes.forget(directory, 2).map(drop), None);
        assert!(
            nodes.knows_as(other, name("f"), 2),
            "the old one is forgotten, and the new is not"
        );
    }
}
