//! Nodes: the files of drafts that the kernel holds, by number.
//!
//! No descriptor is held for a node: a draft may have more files than a process may have
//! descriptors. A node stores the names it was looked up by; its path is built from them on demand.

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

/// The bit that is set in the number of every node of a draft, and in no other number of a mount.
pub(crate) const NODE_BIT: u64 = 1 << 62;

/// The most nodes without a name whose inode is held. The kernel forgets most of them at once.
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

/// The place of a node's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// In the upper, with this inode number.
    Upper(u64),
    /// Only in the lower tree of its directory.
    Lower(Target),
}

struct Node {
    draft: DraftKey,
    body: Body,
    /// The base xattr of an upper directory.
    xattr: Option<TreeXattr>,
    links: Vec<Link>,
    lookups: u64,
    root: bool,
    /// True if its whole draft is gone.
    removed: bool,
    /// The inode of a node without a name (O_PATH).
    kept: Option<Arc<File>>,
}

/// The step that a directory needs before an entry of it changes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Owned,
    /// It is in the upper, and marked clean.
    Dirty(PathBuf, TreeXattr),
    /// It is only in the lower tree.
    CopyUp(Digest),
}

/// The nodes that the kernel holds.
#[derive(Default)]
pub(crate) struct Nodes {
    known: HashMap<u64, Node>,
    /// The root of each draft.
    roots: HashMap<DraftKey, u64>,
    /// The node of each upper inode number: hard links are one node.
    by_host: HashMap<u64, u64>,
    /// The nodes that are only in the lower tree.
    by_base: HashMap<Link, u64>,
    /// The nodes with a held inode, oldest first; some were forgotten since.
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

    /// Returns whether the upper inode is known.
    pub(crate) fn knows(&self, upper: u64) -> bool {
        self.by_host.contains_key(&upper)
    }

    /// Returns the node of an upper inode.
    pub(crate) fn node_of_upper(&self, upper: u64) -> Option<u64> {
        self.by_host.get(&upper).copied()
    }

    /// Returns whether the upper inode is known as the root of a draft.
    pub(crate) fn knows_root(&self, draft: &ArtifactPath, upper: u64) -> bool {
        let node = self.by_host.get(&upper).and_then(|id| self.known.get(id));
        node.is_some_and(|node| node.root && !node.removed && *node.draft == *draft)
    }

    /// Looks up the root of a draft; counts as a look-up.
    pub(crate) fn look_up_root(
        &mut self,
        draft: &DraftKey,
        upper: u64,
        xattr: Option<TreeXattr>,
    ) -> u64 {
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

    /// Returns whether the upper inode is known as `name` in `parent`.
    pub(crate) fn knows_as(&self, parent: u64, name: &OsStr, upper: u64) -> bool {
        let node = self.by_host.get(&upper).and_then(|id| self.known.get(id));
        node.is_some_and(|node| node.links.iter().any(|link| link.is(parent, name)))
    }

    /// Looks up the upper inode, found as `name` in `parent`; counts as a look-up. `sole` if it has
    /// no other name. If it is known by this name, its stored base xattr stays.
    pub(crate) fn look_up(
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
                    // Its known name is gone: it was renamed in the upper by hand, or it was
                    // removed and its number is in use again.
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

    /// Looks up a node that is only in the lower tree, as `name` in `parent`; counts as a look-up.
    pub(crate) fn look_up_lower(
        &mut self,
        parent: u64,
        name: &OsStr,
        target: Target,
    ) -> Result<u64> {
        let link = Link { parent, name: name.as_bytes().into() };
        if let Some(&id) = self.by_base.get(&link) {
            return Ok(self.look_up_again(id));
        }
        let draft = self.draft(parent)?;
        Ok(self.add(draft, Body::Lower(target), vec![link], false))
    }

    /// Returns the node that is only in the lower tree, if it is known.
    pub(crate) fn find_lower(&self, parent: u64, name: &OsStr) -> Option<u64> {
        self.by_base.get(&Link { parent, name: name.as_bytes().into() }).copied()
    }

    fn add_link(&mut self, id: u64, link: Link) {
        let Some(node) = self.known.get(&id) else { return };
        if node.links.contains(&link) {
            return;
        }
        // A directory that the kernel forgot has another number when it is found again.
        let there = |link: &Link| self.known.contains_key(&link.parent);
        let mut links: Vec<Link> = node.links.iter().filter(|link| there(link)).cloned().collect();
        links.push(link);
        if let Some(node) = self.known.get_mut(&id) {
            node.links = links;
        }
    }

    /// Records that a node was copied up, to this inode number.
    pub(crate) fn copied_up(&mut self, id: u64, upper: u64, xattr: Option<TreeXattr>) {
        if let Some(node) = self.known.get_mut(&id) {
            (node.body, node.xattr) = (Body::Upper(upper), xattr);
            for link in &node.links {
                self.by_base.remove(link);
            }
            self.by_host.insert(upper, id);
        }
    }

    /// Records that the same file has another upper inode now.
    pub(crate) fn replaced(&mut self, before: u64, upper: u64) {
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

    /// Returns the draft of a node.
    pub(crate) fn draft(&self, id: u64) -> Result<DraftKey> {
        self.known.get(&id).map(|node| Arc::clone(&node.draft)).ok_or(Errno::STALE)
    }

    /// Returns whether the root of a node's draft has a lower tree, or is not known.
    pub(crate) fn has_lower(&self, id: u64) -> bool {
        let root = self.known.get(&id).and_then(|node| self.roots.get(&node.draft));
        root.and_then(|root| self.known.get(root)).is_none_or(|root| root.xattr.is_some())
    }

    /// Returns whether it is the root of an existing draft.
    pub(crate) fn is_root(&self, id: u64) -> bool {
        self.node(id).is_ok_and(|node| node.root)
    }

    /// Returns whether a node is in the upper or only in the lower tree.
    pub(crate) fn body(&self, id: u64) -> Result<Body> {
        Ok(self.node(id)?.body.clone())
    }

    /// Returns the lower tree of a directory, and whether there is an upper directory.
    pub(crate) fn lower_tree(&self, id: u64) -> Result<(Option<Digest>, bool)> {
        let node = self.node(id)?;
        Ok(match &node.body {
            Body::Lower(Target::Directory(tree)) => (Some(*tree), false),
            Body::Lower(_) => return Err(Errno::NOTDIR),
            Body::Upper(_) => (node.xattr.map(|xattr| xattr.tree), true),
        })
    }

    /// Sets the base xattr of an upper directory.
    pub(crate) fn set_xattr(&mut self, id: u64, xattr: Option<TreeXattr>) {
        if let Some(node) = self.known.get_mut(&id) {
            node.xattr = xattr;
        }
    }

    /// Sets the base xattr of the directory with this upper inode.
    pub(crate) fn set_xattr_of_upper(&mut self, upper: u64, xattr: Option<TreeXattr>) {
        if let Some(&id) = self.by_host.get(&upper) {
            self.set_xattr(id, xattr);
        }
    }

    /// Returns the step that a directory needs before an entry of it changes.
    pub(crate) fn step(&self, id: u64) -> Result<Step> {
        let node = self.node(id)?;
        Ok(match (&node.body, node.xattr) {
            (Body::Lower(Target::Directory(tree)), _) => Step::CopyUp(*tree),
            (Body::Lower(_), _) => return Err(Errno::NOTDIR),
            (Body::Upper(_), Some(xattr)) if xattr.clean => Step::Dirty(self.path(id)?, xattr),
            (Body::Upper(_), _) => Step::Owned,
        })
    }

    /// Returns the parent directory and the name of a node, by one of its links; `None` for the
    /// root of a draft and for a node without a name.
    pub(crate) fn link_of(&self, id: u64) -> Option<(u64, Box<OsStr>)> {
        let links = &self.known.get(&id)?.links;
        let link = links.iter().find(|link| self.known.contains_key(&link.parent))?;
        Some((link.parent, OsStr::from_bytes(&link.name).into()))
    }

    /// Returns the directories in which a node has a name, as far as the kernel holds them. A file
    /// with one name is reached by that; a directory with one of several names of a file is never
    /// clean.
    pub(crate) fn parents(&self, id: u64) -> Vec<u64> {
        let links = self.known.get(&id).map_or(&[][..], |node| &node.links);
        let parents = links.iter().map(|link| link.parent);
        parents.filter(|parent| self.known.contains_key(parent)).collect()
    }

    /// Returns the upper path of a node, relative to the scratch directory, whether or not it is
    /// copied up. ENOENT if it has no name any more. ESTALE if its draft is gone: the kernel then
    /// looks the path up again, and finds the version that the draft was renamed to.
    pub(crate) fn path(&self, id: u64) -> Result<PathBuf> {
        let node = self.node(id)?;
        if node.root {
            let draft = &node.draft;
            return Ok([draft.project.as_str(), draft.artifact.as_str(), "tree"].iter().collect());
        }
        // The path of a forgotten parent is not known; another name may still lead here.
        let paths = node.links.iter().filter_map(|link| {
            let parent = self.path(link.parent).ok()?;
            Some(parent.join(OsStr::from_bytes(&link.name)))
        });
        paths.into_iter().next().ok_or(Errno::NOENT)
    }

    /// Returns the upper path of a node for a request by number. ESTALE if it has no name any more:
    /// the kernel then looks its path up again, and finds its replacement, or nothing.
    pub(crate) fn named(&self, id: u64) -> Result<PathBuf> {
        self.path(id).map_err(|_| Errno::STALE)
    }

    /// Holds an upper inode that is about to lose its last name, for as long as the kernel holds
    /// its node. Returns a file that need not be held any more.
    pub(crate) fn keep(&mut self, upper: u64, file: File) -> Option<File> {
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

    /// Returns the held inode of a node without a name.
    pub(crate) fn kept(&self, id: u64) -> Option<Arc<File>> {
        self.known.get(&id)?.kept.clone()
    }

    /// Returns the upper path of an entry, whether or not it exists.
    pub(crate) fn entry(&self, parent: u64, name: &OsStr) -> Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    /// Removes the link `name` in `parent` of the upper inode; `gone` if that was its last name.
    pub(crate) fn unlink(&mut self, parent: u64, name: &OsStr, upper: u64, gone: bool) {
        let Some(&id) = self.by_host.get(&upper) else {
            return;
        };
        if let Some(node) = self.known.get_mut(&id) {
            node.links.retain(|link| !link.is(parent, name));
        }
        if gone {
            // The number may be used again for another file.
            self.by_host.remove(&upper);
        }
    }

    /// Removes the link `name` in `parent` of a node that is only in the lower tree.
    pub(crate) fn unlink_lower(&mut self, parent: u64, name: &OsStr) {
        let link = Link { parent, name: name.as_bytes().into() };
        if let Some(id) = self.by_base.remove(&link)
            && let Some(node) = self.known.get_mut(&id)
        {
            node.links.clear();
        }
    }

    /// Adds the link `name` in `parent` to the upper inode.
    pub(crate) fn link(&mut self, parent: u64, name: &OsStr, upper: u64) {
        if let Some(&id) = self.by_host.get(&upper) {
            self.add_link(id, Link { parent, name: name.as_bytes().into() });
        }
    }

    /// Removes a whole draft: its nodes have no names any more.
    pub(crate) fn remove_draft(&mut self, draft: &DraftKey) {
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

    /// Subtracts `lookups`, and removes the node at 0. Returns its held inode, to be dropped
    /// without the lock.
    pub(crate) fn forget(&mut self, id: u64, lookups: u64) -> Option<Arc<File>> {
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
        // A file that has another name there keeps both.
        nodes.look_up((root, name("a")), 3, false, None).unwrap();
        let linked = nodes.look_up((root, name("b")), 3, false, None).unwrap();
        assert!(nodes.knows_as(root, name("a"), 3) && nodes.knows_as(root, name("b"), 3));
        // A node of another draft was never the same, and a root was never a node below one.
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
