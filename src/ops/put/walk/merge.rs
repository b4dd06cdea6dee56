//! The walk of trees that are merged: of two entries with one path, that of the later tree stays.

use std::collections::{HashMap, HashSet};

use super::event::Event;
use super::feed::Feed;
use crate::content::reader::Reader;
use crate::error::Result;
use crate::model::digest::Digest;
use crate::model::name::EntryName;
use crate::model::tree::{Entry, Target};
use crate::model::version::Totals;
use crate::ops::merge_walk::{MergeWalk, Step};
use crate::ops::totals::Difference;

/// The trees of a merge with their totals. Later trees hide earlier ones.
pub(crate) type Layers = [(Digest, Totals)];

/// The walk of [`Layers`].
pub(crate) struct MergeScan<'a> {
    layers: &'a Layers,
    reader: &'a Reader,
    feed: Feed<'a>,
    /// The correction for entries that the sum of the layers counts too often.
    hidden: Difference,
}

impl<'a> MergeScan<'a> {
    /// Returns a walk of `layers` that feeds `feed`.
    pub(crate) fn new(layers: &'a Layers, reader: &'a Reader, feed: Feed<'a>) -> Self {
        Self { layers, reader, feed, hidden: Difference::default() }
    }

    /// Walks to the end.
    pub(crate) fn run(mut self) -> Result<()> {
        let totals: HashMap<_, _> = self.layers.iter().copied().collect();
        let mut sum = Difference::default();
        totals.into_values().for_each(|inside| sum += inside.into());
        let trees: Vec<Digest> = self.layers.iter().map(|(tree, _)| *tree).collect();
        match distinct(&trees).as_slice() {
            [only] => self.feed.push(Event::Whole(*only), 0)?,
            trees => self.directory(trees)?,
        }
        sum += self.hidden;
        self.feed.push(Event::Adjust(sum), 0)?;
        self.feed.flush()
    }

    fn directory(&mut self, trees: &[Digest]) -> Result<()> {
        let mut walk = MergeWalk::new(self.reader, trees)?;
        while let Some(step) = walk.next()? {
            match step {
                Step::Run(child, times) => {
                    if times > 1 {
                        let inside = Difference::within(self.reader, child.digest)?;
                        self.hide(inside, times - 1);
                    }
                    self.feed.push(Event::Run(child), 0)?;
                }
                Step::Name(name, targets) => {
                    let targets = targets.into_iter().map(|(_, target)| target).collect();
                    self.name(name, targets)?;
                }
            }
        }
        Ok(())
    }

    fn hide(&mut self, what: Difference, times: u64) {
        (0..times).for_each(|_| self.hidden += what.negated());
    }

    /// Merges the entries of one name, which are in the order of the trees.
    fn name(&mut self, name: EntryName, mut targets: Vec<Target>) -> Result<()> {
        // Directories of one name are merged; any other entry hides the earlier ones.
        let other = targets.iter().rposition(|target| !matches!(target, Target::Directory(_)));
        let stands_from = other.map_or(0, |at| if at + 1 == targets.len() { at } else { at + 1 });
        let mut stands = targets.split_off(stands_from);
        for target in targets {
            self.hide(Difference::of(self.reader, &target)?, 1);
        }
        let trees: Vec<Digest> = stands.iter().filter_map(directory).collect();
        let different = distinct(&trees);
        for tree in &different {
            let times = trees.iter().filter(|other| *other == tree).count() as u64;
            if times > 1 {
                let inside = Difference::of(self.reader, &Target::Directory(*tree))?;
                self.hide(inside, times - 1);
            }
        }
        match stands.pop() {
            Some(target) if different.len() < 2 => {
                self.feed.push(Event::Unchanged(Entry { name, target }), 0)
            }
            _ => {
                // `Event::Leave` counts the merged directory.
                self.hide(Difference::DIRECTORY, different.len() as u64);
                self.feed.push(Event::Enter(name), 0)?;
                self.directory(&different)?;
                self.feed.push(Event::Leave, 0)
            }
        }
    }
}

fn directory(target: &Target) -> Option<Digest> {
    match target {
        Target::Directory(tree) => Some(*tree),
        _ => None,
    }
}

/// Returns each tree once, at its last position: there it hides all that it hides at earlier ones.
fn distinct(trees: &[Digest]) -> Vec<Digest> {
    let mut seen = HashSet::new();
    let mut last: Vec<Digest> =
        trees.iter().rev().filter(|tree| seen.insert(**tree)).copied().collect();
    last.reverse();
    last
}
