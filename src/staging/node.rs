//! Nodes: what the kernel knows of the drafts, by number.
//!
//! No descriptor is held for a node: a draft may have more files than a process may have
//! descriptors. A node knows the names it was seen under, and its path is made of them when it is
//! needed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;

use super::Result;
use super::gate::DraftKey;

/// Set in the number of every node of a draft, and of nothing else in a mount.
pub const NODE_BIT: u64 = 1 << 62;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    parent: u64,
    name: Box<[u8]>,
}

struct Node {
    draft: DraftKey,
    host: u64,
    links: Vec<Link>,
    lookups: u64,
    root: bool,
    /// Its whole draft is gone.
    removed: bool,
}

/// The nodes the kernel knows.
#[derive(Default)]
pub struct Nodes {
    known: HashMap<u64, Node>,
    /// By the host's inode number: hard links are one node.
    by_host: HashMap<u64, u64>,
    counted: u64,
}

impl Nodes {
    fn add(&mut self, draft: DraftKey, host: u64, links: Vec<Link>, root: bool) -> u64 {
        self.counted += 1;
        let id = NODE_BIT | self.counted;
        self.by_host.insert(host, id);
        self.known.insert(id, Node { draft, host, links, lookups: 1, root, removed: false });
        id
    }

    /// The root of a draft, looked up once more.
    pub fn look_up_root(&mut self, draft: &DraftKey, host: u64) -> u64 {
        match self.by_host.get(&host) {
            Some(&id) => self.look_up_again(id),
            None => self.add(Arc::clone(draft), host, Vec::new(), true),
        }
    }

    fn look_up_again(&mut self, id: u64) -> u64 {
        if let Some(node) = self.known.get_mut(&id) {
            node.lookups += 1;
        }
        id
    }

    /// The node of the host's inode `host`, found as `name` in `parent`, looked up once more.
    pub fn look_up(&mut self, parent: u64, name: &OsStr, host: u64) -> Result<u64> {
        let link = Link { parent, name: name.as_bytes().into() };
        if let Some(&id) = self.by_host.get(&host) {
            self.add_link(id, link);
            return Ok(self.look_up_again(id));
        }
        let draft = self.draft(parent)?;
        Ok(self.add(draft, host, vec![link], false))
    }

    fn add_link(&mut self, id: u64, link: Link) {
        if let Some(node) = self.known.get_mut(&id)
            && !node.links.contains(&link)
        {
            node.links.push(link);
        }
    }

    /// The draft a node belongs to.
    pub fn draft(&self, id: u64) -> Result<DraftKey> {
        self.known.get(&id).map(|node| Arc::clone(&node.draft)).ok_or(Errno::STALE)
    }

    /// Where a node is, relative to the scratch directory; ENOENT when it has no name any more, ESTALE
    /// when its draft is gone: the kernel then looks the path up anew, and finds the version that
    /// the draft was renamed to.
    pub fn path(&self, id: u64) -> Result<PathBuf> {
        let node = self.known.get(&id).filter(|node| !node.removed).ok_or(Errno::STALE)?;
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

    /// Where an entry is.
    pub fn entry(&self, parent: u64, name: &OsStr) -> Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    /// The host's inode `host` is no longer `name` in `parent`; `gone` when that was its last name.
    pub fn unlink(&mut self, parent: u64, name: &OsStr, host: u64, gone: bool) {
        let Some(&id) = self.by_host.get(&host) else {
            return;
        };
        if let Some(node) = self.known.get_mut(&id) {
            node.links.retain(|l| l.parent != parent || *l.name != *name.as_bytes());
        }
        if gone {
            // The host may use the number again for something else.
            self.by_host.remove(&host);
        }
    }

    /// The host's inode `host` is now also `name` in `parent`.
    pub fn link(&mut self, parent: u64, name: &OsStr, host: u64) {
        if let Some(&id) = self.by_host.get(&host) {
            let draft = self.draft(parent);
            self.add_link(id, Link { parent, name: name.as_bytes().into() });
            if let (Some(node), Ok(draft)) = (self.known.get_mut(&id), draft) {
                node.draft = draft;
            }
        }
    }

    /// A whole draft went away: its nodes have no names any more.
    pub fn remove_draft(&mut self, draft: &DraftKey) {
        let nodes = self.known.values_mut().filter(|node| node.draft == *draft);
        for node in nodes {
            node.removed = true;
            self.by_host.remove(&node.host);
        }
    }

    /// The kernel forgets.
    pub fn forget(&mut self, id: u64, lookups: u64) {
        let Some(node) = self.known.get_mut(&id) else {
            return;
        };
        node.lookups = node.lookups.saturating_sub(lookups);
        if node.lookups == 0
            && let Some(node) = self.known.remove(&id)
            && self.by_host.get(&node.host) == Some(&id)
        {
            self.by_host.remove(&node.host);
        }
    }
}
