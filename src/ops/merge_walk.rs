//! One directory of several trees, walked together in the order of names.
//!
//! A node is not read if only one tree has names in its range, or if all trees with names there
//! share it. So the cost follows the overlap of the trees. Memory is a node per level and tree.

use crate::content::cursor::Cursor;
use crate::content::reader::Reader;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::name::EntryName;
use crate::model::tree::{Child, Target};

/// A step of the walk.
#[derive(Debug)]
pub(crate) enum Step {
    /// A leaf node, and the number of trees that share it; no other tree has names in its range.
    /// The node ends at a boundary that its entries set, not at the end of the directory.
    Run(Child, u64),
    /// A name, and its target in each tree that has it, by the tree's index, in the order of trees.
    Name(EntryName, Vec<(usize, Target)>),
}

/// A walk through one directory of several trees.
pub(crate) struct MergeWalk<'a> {
    reader: &'a Reader,
    cursors: Vec<Cursor>,
}

impl<'a> MergeWalk<'a> {
    /// Begins a walk of the directories with these roots.
    ///
    /// # Errors
    /// As [`Reader::tree`].
    pub(crate) fn new(reader: &'a Reader, roots: &[Digest]) -> Result<Self> {
        let cursors = roots.iter().map(|root| Cursor::new(reader, *root));
        Ok(Self { reader, cursors: cursors.collect::<Result<_>>()? })
    }

    /// Returns the next step; `None` at the end.
    ///
    /// # Errors
    /// As [`Reader::tree`].
    pub(crate) fn next(&mut self) -> Result<Option<Step>> {
        loop {
            let Some(least) = self.cursors.iter().filter_map(Cursor::name).min().cloned() else {
                return Ok(None);
            };
            let at_least = |cursor: &Cursor| cursor.name() == Some(&least);
            let here: Vec<usize> =
                (0..self.cursors.len()).filter(|index| at_least(&self.cursors[*index])).collect();
            let before_node = |index: &&usize| self.cursors[**index].unread().is_some();
            let unread: Vec<usize> = here.iter().filter(before_node).copied().collect();
            if unread.is_empty() {
                let targets = here.into_iter().filter_map(|index| {
                    let entry = self.cursors[index].take()?;
                    Some((index, entry.target))
                });
                return Ok(Some(Step::Name(least, targets.collect())));
            }
            if unread.len() == here.len()
                && let Some(child) = self.run_at(&here)
            {
                here.iter().for_each(|index| drop(self.cursors[*index].skip()));
                return Ok(Some(Step::Run(child, here.len() as u64)));
            }
            for index in unread {
                self.cursors[index].open(self.reader)?;
            }
        }
    }

    /// Returns the node that all cursors in `here` stand before, if it can be taken unread.
    fn run_at(&self, here: &[usize]) -> Option<Child> {
        let nodes = || here.iter().filter_map(|index| self.cursors[*index].unread());
        let first = nodes().next()?;
        if !first.is_leaf || nodes().any(|node| node.child.digest != first.child.digest) {
            return None;
        }
        // The node's entries come before the name that follows it in any tree.
        let bound = nodes().filter_map(|node| node.behind.as_ref()).min()?;
        let others = (0..self.cursors.len()).filter(|index| !here.contains(index));
        let mut names = others.filter_map(|index| self.cursors[index].name());
        names.all(|name| name >= bound).then(|| first.child.clone())
    }
}
