//! One directory of several trees, walked together in the order of names.
//!
//! Of a node that only one tree has names in, or that several share, nothing is read: the cost
//! follows where trees overlap. Memory is a node per level and tree.

use std::sync::Arc;

use crate::content::reader::Reader;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::name::EntryName;
use crate::model::tree::{Child, Entry, Target, TreeNode};

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// A node of entries that so many trees share, and in which no other has names. It ends where its
    /// entries say so, not where the directory does.
    Run(Child, u64),
    /// A name, and what it stands for in the trees that have it, in their order.
    Name(EntryName, Vec<(usize, Target)>),
}

/// The walk.
pub struct MergeWalk<'a> {
    reader: &'a Reader,
    cursors: Vec<Cursor>,
}

/// A node that was not read.
struct Ahead {
    child: Child,
    /// Whether it is known to hold entries.
    is_leaf: bool,
    /// The first name behind it; none at the end of the directory.
    behind: Option<EntryName>,
}

/// A position in one directory.
struct Cursor {
    /// Nodes still to come, the nearest last.
    ahead: Vec<Ahead>,
    /// The node that was read, and how many of its entries are behind.
    leaf: Option<(Arc<TreeNode>, usize)>,
}

impl Cursor {
    fn new(reader: &Reader, root: Digest) -> Result<Self> {
        let mut cursor = Self { ahead: Vec::new(), leaf: None };
        cursor.read(reader, root, None)?;
        Ok(cursor)
    }

    fn entry(&self) -> Option<&Entry> {
        match &self.leaf {
            Some((node, at)) => match &**node {
                TreeNode::Leaf(entries) => entries.get(*at),
                TreeNode::Inner(_) => None,
            },
            None => None,
        }
    }

    /// The name it stands at, or before the node that begins with it.
    fn name(&self) -> Option<&EntryName> {
        let entry = self.entry().map(|entry| &entry.name);
        entry.or_else(|| self.ahead.last().map(|node| &node.child.first))
    }

    /// The node it stands before.
    fn node(&self) -> Option<&Ahead> {
        match self.entry() {
            Some(_) => None,
            None => self.ahead.last(),
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
                    self.ahead.push(Ahead { child: child.clone(), is_leaf, behind });
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, reader: &Reader) -> Result<()> {
        match self.ahead.pop() {
            Some(node) => self.read(reader, node.child.digest, node.behind),
            None => Ok(()),
        }
    }

    fn take(&mut self) -> Option<Target> {
        let target = self.entry()?.target.clone();
        if let Some((_, at)) = &mut self.leaf {
            *at += 1;
        }
        Some(target)
    }
}

impl<'a> MergeWalk<'a> {
    /// A walk of the directories with these roots.
    ///
    /// # Errors
    /// As [`Reader::tree`].
    pub fn new(reader: &'a Reader, roots: &[Digest]) -> Result<Self> {
        let cursors = roots.iter().map(|root| Cursor::new(reader, *root));
        Ok(Self { reader, cursors: cursors.collect::<Result<_>>()? })
    }

    /// The next step; `None` at the end.
    ///
    /// # Errors
    /// As [`Reader::tree`].
    pub fn next(&mut self) -> Result<Option<Step>> {
        loop {
            let Some(least) = self.cursors.iter().filter_map(Cursor::name).min().cloned() else {
                return Ok(None);
            };
            let at_least = |cursor: &Cursor| cursor.name() == Some(&least);
            let here: Vec<usize> =
                (0..self.cursors.len()).filter(|index| at_least(&self.cursors[*index])).collect();
            let before_node = |index: &&usize| self.cursors[**index].node().is_some();
            let unread: Vec<usize> = here.iter().filter(before_node).copied().collect();
            if unread.is_empty() {
                let targets = here.into_iter().filter_map(|index| {
                    let target = self.cursors[index].take()?;
                    Some((index, target))
                });
                return Ok(Some(Step::Name(least, targets.collect())));
            }
            if unread.len() == here.len()
                && let Some(child) = self.run_at(&here)
            {
                here.iter().for_each(|index| drop(self.cursors[*index].ahead.pop()));
                return Ok(Some(Step::Run(child, here.len() as u64)));
            }
            for index in unread {
                self.cursors[index].open(self.reader)?;
            }
        }
    }

    /// The node that all cursors in `here` stand before, if it can stand as it is.
    fn run_at(&self, here: &[usize]) -> Option<Child> {
        let nodes = || here.iter().filter_map(|index| self.cursors[*index].node());
        let first = nodes().next()?;
        if !first.is_leaf || nodes().any(|node| node.child.digest != first.child.digest) {
            return None;
        }
        // The same entries end before whatever is behind them in any tree.
        let bound = nodes().filter_map(|node| node.behind.as_ref()).min()?;
        let others = (0..self.cursors.len()).filter(|index| !here.contains(index));
        let mut names = others.filter_map(|index| self.cursors[index].name());
        names.all(|name| name >= bound).then(|| first.child.clone())
    }
}
