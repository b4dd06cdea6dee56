//! Directories: look-up by name, listing from any position, walking. Nodes are read as they are
//! needed.

use std::sync::Arc;

use super::reader::Reader;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::name::EntryName;
use crate::model::tree::{Entry, TreeNode};

/// A run of entries of a directory.
pub(crate) struct Run {
    node: Arc<TreeNode>,
    first: usize,
}

impl Run {
    /// Returns the entries, at least one.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &*self.node {
            TreeNode::Leaf(entries) => &entries[self.first..],
            TreeNode::Inner(_) => unreachable!("a run is made from a leaf"),
        }
    }
}

/// Returns the entry `name` of directory `root`. It reads one node per level.
///
/// # Errors
/// As [`Reader::body`].
pub(crate) fn lookup(reader: &Reader, root: Digest, name: &EntryName) -> Result<Option<Entry>> {
    Ok(find(reader, root, name)?.map(|(_, entry)| entry))
}

/// Returns the entry `name` of directory `root`, and its position there.
///
/// # Errors
/// As [`Reader::body`].
pub(crate) fn find(
    reader: &Reader,
    root: Digest,
    name: &EntryName,
) -> Result<Option<(u64, Entry)>> {
    let (mut at, mut before) = (root, 0);
    loop {
        match &*reader.tree(at)? {
            TreeNode::Leaf(entries) => {
                let found = entries.binary_search_by(|entry| entry.name.cmp(name)).ok();
                return Ok(found.map(|index| (before + index as u64, entries[index].clone())));
            }
            TreeNode::Inner(children) => {
                let after = children.partition_point(|child| child.first <= *name);
                let Some(index) = after.checked_sub(1) else { return Ok(None) };
                before += children[..index].iter().map(|child| child.count).sum::<u64>();
                at = children[index].digest;
            }
        }
    }
}

/// Returns the entry at `path` below `root`; `None` if a part of it does not exist. The root itself
/// has no entry.
///
/// # Errors
/// As [`Reader::body`].
pub(crate) fn resolve(reader: &Reader, root: Digest, path: &[EntryName]) -> Result<Option<Entry>> {
    let mut at = root;
    for (depth, name) in path.iter().enumerate() {
        let Some(entry) = lookup(reader, at, name)? else {
            return Ok(None);
        };
        if depth + 1 == path.len() {
            return Ok(Some(entry));
        }
        match entry.target {
            crate::model::tree::Target::Directory(digest) => at = digest,
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// Returns the entries of directory `root` from `position` on, up to the end of a node. Returns
/// `None` at the end.
///
/// # Errors
/// As [`Reader::body`].
pub(crate) fn run_at(reader: &Reader, root: Digest, position: u64) -> Result<Option<Run>> {
    let mut at = root;
    let mut left = position;
    loop {
        let node = reader.tree(at)?;
        match &*node {
            TreeNode::Leaf(entries) => {
                let first = usize::try_from(left).unwrap_or(usize::MAX);
                let inside = first < entries.len();
                return Ok(inside.then(|| Run { node: Arc::clone(&node), first }));
            }
            TreeNode::Inner(children) => {
                let mut next = None;
                for child in children {
                    if left < child.count {
                        next = Some(child.digest);
                        break;
                    }
                    left -= child.count;
                }
                match next {
                    Some(digest) => at = digest,
                    None => return Ok(None),
                }
            }
        }
    }
}

/// Calls `each` with every entry of one directory in the order of names; stops at the first error.
///
/// # Errors
/// As [`Reader::body`], and those of `each`.
pub(crate) fn each_entry(
    reader: &Reader,
    root: Digest,
    each: &mut dyn FnMut(&Entry) -> Result<()>,
) -> Result<()> {
    match &*reader.tree(root)? {
        TreeNode::Leaf(entries) => entries.iter().try_for_each(each),
        TreeNode::Inner(children) => {
            children.iter().try_for_each(|child| each_entry(reader, child.digest, each))
        }
    }
}
