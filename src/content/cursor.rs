//! A position in one directory, in the order of names, that reads only the nodes it has to.

use std::sync::Arc;

use super::reader::Reader;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::name::EntryName;
use crate::model::tree::{Child, Entry, TreeNode};

/// A node that was not read.
pub(crate) struct Unread {
    /// The node.
    pub(crate) child: Child,
    /// True if it is known to hold entries.
    pub(crate) is_leaf: bool,
    /// The first name behind it; `None` at the end of the directory.
    pub(crate) behind: Option<EntryName>,
}

/// The part of a directory that a cursor passes in one step.
#[derive(Debug)]
pub(crate) enum Step {
    /// A whole node of entries, unread.
    Run(Child),
    /// An entry.
    Entry(Entry),
}

/// A position in one directory. It holds only the nodes on the way from the root.
pub(crate) struct Cursor {
    /// The nodes still to come, the nearest last.
    ahead: Vec<Unread>,
    /// The node that was read, and the number of its entries that were passed.
    leaf: Option<(Arc<TreeNode>, usize)>,
}

impl Cursor {
    /// Returns a cursor at the beginning of directory `root`.
    ///
    /// # Errors
    /// As [`Reader::tree`].
    pub(crate) fn new(reader: &Reader, root: Digest) -> Result<Self> {
        let mut cursor = Self { ahead: Vec::new(), leaf: None };
        cursor.read(reader, root, None)?;
        Ok(cursor)
    }

    /// Returns the entry at the position; `None` before a node that was not read, and at the end.
    pub(crate) fn entry(&self) -> Option<&Entry> {
        match &self.leaf {
            Some((node, at)) => match &**node {
                TreeNode::Leaf(entries) => entries.get(*at),
                TreeNode::Inner(_) => None,
            },
            None => None,
        }
    }

    /// Returns the node at the position; `None` before an entry, and at the end.
    pub(crate) fn unread(&self) -> Option<&Unread> {
        match self.entry() {
            Some(_) => None,
            None => self.ahead.last(),
        }
    }

    /// Returns the next name, whether it was read or not.
    pub(crate) fn name(&self) -> Option<&EntryName> {
        let entry = self.entry().map(|entry| &entry.name);
        entry.or_else(|| self.ahead.last().map(|node| &node.child.first))
    }

    /// Reads the node at the position.
    ///
    /// # Errors
    /// As [`Reader::tree`].
    pub(crate) fn open(&mut self, reader: &Reader) -> Result<()> {
        match self.ahead.pop() {
            Some(node) => self.read(reader, node.child.digest, node.behind),
            None => Ok(()),
        }
    }

    /// Passes the node at the position without reading it.
    pub(crate) fn skip(&mut self) -> Option<Child> {
        self.ahead.pop().map(|node| node.child)
    }

    /// Passes the entry at the position.
    pub(crate) fn take(&mut self) -> Option<Entry> {
        let entry = self.entry()?.clone();
        if let Some((_, at)) = &mut self.leaf {
            *at += 1;
        }
        Some(entry)
    }

    /// Reads until an entry is at the position, or the end is reached.
    ///
    /// # Errors
    /// As [`Reader::tree`].
    pub(crate) fn find_entry(&mut self, reader: &Reader) -> Result<Option<&Entry>> {
        while self.unread().is_some() {
            self.open(reader)?;
        }
        Ok(self.entry())
    }

    /// Passes an entry, or a whole node that ends before `mine`. That is the next name of another
    /// directory, which comes at the position or later. Returns `None` at the end.
    ///
    /// # Errors
    /// As [`Reader::tree`].
    pub(crate) fn step(
        &mut self,
        reader: &Reader,
        mine: Option<&EntryName>,
    ) -> Result<Option<Step>> {
        loop {
            if let Some(entry) = self.take() {
                return Ok(Some(Step::Entry(entry)));
            }
            let Some(node) = self.unread() else { return Ok(None) };
            // The end of this directory is no cut: a longer directory may be cut elsewhere.
            let ends = |behind: &EntryName| mine.is_none_or(|mine| mine >= behind);
            if node.is_leaf && node.behind.as_ref().is_some_and(ends) {
                return Ok(self.skip().map(Step::Run));
            }
            self.open(reader)?;
        }
    }

    fn read(&mut self, reader: &Reader, digest: Digest, behind: Option<EntryName>) -> Result<()> {
        let node = reader.tree(digest)?;
        match &*node {
            TreeNode::Leaf(_) => self.leaf = Some((Arc::clone(&node), 0)),
            TreeNode::Inner(children) => {
                let is_leaf = match children.first() {
                    Some(first) => matches!(*reader.tree(first.digest)?, TreeNode::Leaf(_)),
                    None => false,
                };
                for (index, child) in children.iter().enumerate().rev() {
                    let next = children.get(index + 1).map(|next| next.first.clone());
                    let behind = next.or_else(|| behind.clone());
                    self.ahead.push(Unread { child: child.clone(), is_leaf, behind });
                }
            }
        }
        Ok(())
    }
}
