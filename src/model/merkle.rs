//! Long sequences as trees of nodes whose boundaries depend on content (prolly trees).
//!
//! A sequence of items is cut into runs where the hash of an item says so. Each run is a node; the
//! nodes' summaries are a sequence again, cut the same way, until one node is left. One item
//! added to a million changes the node it falls into and the few above it, and nothing else.

use super::digest::Digest;
use super::object_kind::ObjectKind;

/// Format number at the head of every node.
pub const NODE_FORMAT: u8 = 1;
/// A run ends after an item when these bits of its hash are zero: 128 items on average.
const BOUNDARY_MASK: u64 = 127;
/// Bits of the hash that one level uses.
const BOUNDARY_BITS: u32 = 7;
/// The longest run: bounds a node at some tens of KiB, and runs of equal items (a file of zeros).
pub const RUN_MAX_ITEMS: usize = 1024;
/// Levels that have bits of their own; above them the lowest bits are used again.
const LEVELS_WITH_BITS: u32 = 8;

/// Whether a run of `level` ends after an item with this hash.
fn ends_run(hash: u64, level: u8) -> bool {
    (hash >> (BOUNDARY_BITS * (u32::from(level) % LEVELS_WITH_BITS))) & BOUNDARY_MASK == 0
}

/// What a sequence is made of.
pub trait Item: Sized {
    /// The kind of node that holds a run of these.
    const KIND: ObjectKind;

    /// A hash that stays with the item wherever it stands.
    fn spread(&self) -> u64;

    /// The body of the node that holds `run`.
    fn encode(level: u8, run: &[Self]) -> Vec<u8>;

    /// The item that stands for that node one level up.
    fn summary(run: &[Self], digest: Digest) -> Self;

    /// The objects `run` points at.
    fn children(run: &[Self]) -> Vec<Digest>;
}

/// A finished node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub digest: Digest,
    /// What it is.
    pub kind: ObjectKind,
    /// Its bytes.
    pub body: Vec<u8>,
    /// The objects it points at, each once.
    pub children: Vec<Digest>,
}

/// Builds the nodes of one sequence from its items in order; memory is a run per level.
pub struct Builder<I> {
    levels: Vec<Level<I>>,
}

struct Level<I> {
    open: Vec<I>,
    flushed: bool,
}

impl<I: Item> Default for Builder<I> {
    fn default() -> Self {
        Self { levels: vec![Level { open: Vec::new(), flushed: false }] }
    }
}

impl<I: Item> Builder<I> {
    /// Adds the next item; finished nodes go to `emit`, children before parents.
    pub fn push(&mut self, item: I, emit: &mut impl FnMut(Node)) {
        self.push_at(0, item, emit);
    }

    /// Adds a finished run of the lowest level by its summary; `false` when it cannot stand as it is,
    /// because a run is open: its items then have to be pushed one by one. The run must have
    /// ended where an item or its length said so, not where a sequence ended.
    pub fn push_run(&mut self, summary: I, emit: &mut impl FnMut(Node)) -> bool {
        let lowest = &mut self.levels[0];
        if !lowest.open.is_empty() {
            return false;
        }
        lowest.flushed = true;
        self.push_at(1, summary, emit);
        true
    }

    fn push_at(&mut self, level: usize, item: I, emit: &mut impl FnMut(Node)) {
        if level == self.levels.len() {
            self.levels.push(Level { open: Vec::new(), flushed: false });
        }
        let ends = ends_run(item.spread(), level as u8);
        let open = &mut self.levels[level].open;
        open.push(item);
        // An inner node of one child would only make the tree deeper.
        let long_enough = level == 0 || open.len() > 1;
        if (ends && long_enough) || open.len() == RUN_MAX_ITEMS {
            let summary = self.flush(level, emit);
            self.push_at(level + 1, summary, emit);
        }
    }

    fn flush(&mut self, level: usize, emit: &mut impl FnMut(Node)) -> I {
        let run = std::mem::take(&mut self.levels[level].open);
        self.levels[level].flushed = true;
        let body = I::encode(level as u8, &run);
        let digest = Digest::of(I::KIND, &body);
        let mut children = I::children(&run);
        children.sort_unstable();
        children.dedup();
        emit(Node { digest, kind: I::KIND, body, children });
        I::summary(&run, digest)
    }

    /// Ends the sequence; the summary of its root. An empty sequence is one empty node.
    pub fn finish(mut self, emit: &mut impl FnMut(Node)) -> I {
        let mut level = 0;
        loop {
            let top = level + 1 == self.levels.len();
            let here = &mut self.levels[level];
            if top && level > 0 && here.open.len() == 1 && !here.flushed {
                return here.open.pop().expect("its length is one");
            }
            if top && !here.flushed {
                return self.flush(level, emit);
            }
            if !here.open.is_empty() {
                let summary = self.flush(level, emit);
                self.push_at(level + 1, summary, emit);
            }
            level += 1;
        }
    }
}
