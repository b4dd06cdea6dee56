//! Long sequences as trees of nodes whose boundaries depend on content (prolly trees).
//!
//! A sequence of items is cut into runs after items whose hash marks a boundary. Each run is a
//! node. The nodes' summaries are a sequence again, cut the same way, until one node is left. One
//! item added to a million changes the node that it falls into and the few above it, and nothing
//! else.

use super::digest::Digest;
use super::object_kind::ObjectKind;
use super::zone::Zone;

/// The bits of an item's hash that are zero at the end of a run: 128 items on average.
const BOUNDARY_MASK: u64 = 127;
/// The number of bits of the hash that one level uses.
const BOUNDARY_BITS: u32 = 7;
/// The longest run. It bounds a node at some tens of KiB, also in a run of equal items (a file of
/// zeros).
pub(crate) const RUN_MAX_ITEMS: usize = 1024;
/// The number of levels that have bits of their own; above them the lowest bits are used again.
const LEVELS_WITH_BITS: u32 = 8;

/// Returns whether a run of `level` ends after an item with this hash.
fn ends_run(hash: u64, level: u8) -> bool {
    (hash >> (BOUNDARY_BITS * (u32::from(level) % LEVELS_WITH_BITS))) & BOUNDARY_MASK == 0
}

/// An item of a sequence.
pub(crate) trait Item: Sized {
    /// The kind of node that holds a run of these.
    const KIND: ObjectKind;

    /// Returns a hash that stays with the item wherever it is.
    fn spread(&self) -> u64;

    /// Returns the body of the node of a zone that holds `run`.
    fn encode(zone: Zone, level: u8, run: &[Self]) -> Vec<u8>;

    /// Returns the item that stands for that node one level up.
    fn summary(run: &[Self], digest: Digest) -> Self;

    /// Returns the objects that `run` points at.
    fn children(run: &[Self]) -> Vec<Digest>;
}

/// A finished node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// The digest of the body.
    pub(crate) digest: Digest,
    /// The kind of the node.
    pub(crate) kind: ObjectKind,
    /// The bytes of the node.
    pub(crate) body: Vec<u8>,
    /// The objects that it points at, each once.
    pub(crate) children: Vec<Digest>,
}

/// A builder of the nodes of one sequence from its items in order. It holds one run per level.
pub(crate) struct Builder<I> {
    zone: Zone,
    levels: Vec<Level<I>>,
}

struct Level<I> {
    open: Vec<I>,
    flushed: bool,
}

impl<I: Item> Builder<I> {
    /// Returns a builder of nodes of a zone, to which all items must belong.
    pub(crate) fn new(zone: Zone) -> Self {
        Self { zone, levels: vec![Level { open: Vec::new(), flushed: false }] }
    }

    /// Adds the next item. Finished nodes go to `emit`, children before parents.
    pub(crate) fn push(&mut self, item: I, emit: &mut impl FnMut(Node)) {
        self.push_at(0, item, emit);
    }

    /// Adds a finished run of the lowest level by its summary. Returns `false` if a run is open:
    /// its items must then be pushed one by one. The run must have ended at an item that ends runs
    /// or at its maximum length, not at the end of a sequence.
    pub(crate) fn push_run(&mut self, summary: I, emit: &mut impl FnMut(Node)) -> bool {
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
        let body = I::encode(self.zone, level as u8, &run);
        let digest = Digest::of(I::KIND, &body).in_zone(self.zone);
        let mut children = I::children(&run);
        children.sort_unstable();
        children.dedup();
        emit(Node { digest, kind: I::KIND, body, children });
        I::summary(&run, digest)
    }

    /// Ends the sequence, and returns the summary of its root. An empty sequence is one empty node.
    pub(crate) fn finish(mut self, emit: &mut impl FnMut(Node)) -> I {
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
