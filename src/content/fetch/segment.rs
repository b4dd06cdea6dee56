//! The state of a segment in this process.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::cache::{BLOCK_BYTES, Blocks, SEGMENT_BYTES, SegmentKey};
use super::flight::Flight;
use super::window::MissWindow;

/// A segment that this process uses.
pub(crate) struct Segment {
    /// The key of the segment.
    pub(crate) key: SegmentKey,
    /// A number that no other segment has or had: what was verified in one is not verified in
    /// another.
    pub(crate) instance: u64,
    /// True if the segment was evicted: bytes that arrive for it are not kept.
    pub(crate) evicted: AtomicBool,
    /// The time of the last read that was recorded, in seconds since 1970.
    pub(crate) touched: AtomicU64,
    /// The part that changes.
    pub(crate) state: Mutex<State>,
}

/// The part of a segment that changes.
#[derive(Default)]
pub(crate) struct State {
    /// The file in the cache, if there is one.
    pub(crate) file: Option<Arc<std::fs::File>>,
    /// True if the disk failed: reads go to the store.
    pub(crate) broken: bool,
    /// The blocks that are cached.
    pub(crate) present: Blocks,
    /// The requests under way.
    pub(crate) flights: Vec<Arc<Flight>>,
    /// The misses so far.
    pub(crate) window: MissWindow,
}

impl Segment {
    /// Locks the part that changes.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the bytes of the pack that `blocks` of this segment hold.
    pub(crate) fn bytes_of(&self, blocks: &Range<u32>) -> Range<u64> {
        let start = u64::from(self.key.number) * SEGMENT_BYTES;
        start + u64::from(blocks.start) * BLOCK_BYTES..start + u64::from(blocks.end) * BLOCK_BYTES
    }
}

impl State {
    /// Returns the flight that fetches block `index`.
    pub(crate) fn flight_with(&self, index: u32) -> Option<Arc<Flight>> {
        self.flights.iter().find(|flight| flight.blocks.contains(&index)).cloned()
    }

    /// Returns the flights that fetch any of `blocks`.
    pub(crate) fn flights_with(&self, blocks: &Range<u32>) -> Vec<Arc<Flight>> {
        let brings = |flight: &&Arc<Flight>| {
            flight.blocks.start < blocks.end && blocks.start < flight.blocks.end
        };
        self.flights.iter().filter(brings).cloned().collect()
    }

    /// Returns the runs of `blocks` that are neither cached nor under way.
    pub(crate) fn wanting(&self, blocks: Range<u32>) -> Vec<Range<u32>> {
        let mut known = self.present.clone();
        self.flights.iter().for_each(|flight| known.add(flight.blocks.clone()));
        known.gaps(blocks)
    }
}
