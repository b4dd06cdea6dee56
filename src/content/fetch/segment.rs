//! A segment as this process knows it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::cache::{BLOCK_BYTES, Blocks, SEGMENT_BYTES, SegmentKey};
use super::flight::Flight;
use super::window::MissWindow;

/// A segment that is known.
pub struct Segment {
    /// Which.
    pub key: SegmentKey,
    /// A number that no other segment has or had: what was verified in one is not verified in
    /// another.
    pub instance: u64,
    /// It went for others: what comes for it is not kept.
    pub evicted: AtomicBool,
    /// When its last use was written down, in seconds since 1970.
    pub touched: AtomicU64,
    /// The rest.
    pub state: Mutex<State>,
}

/// What changes of a segment.
#[derive(Default)]
pub struct State {
    /// Where it is cached, if it is.
    pub file: Option<Arc<std::fs::File>>,
    /// The disk failed: read through.
    pub broken: bool,
    /// What of it is there.
    pub present: Blocks,
    /// What is under way.
    pub flights: Vec<Arc<Flight>>,
    /// What was missed in it.
    pub window: MissWindow,
}

impl Segment {
    /// Locks what changes.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the pack that `blocks` of this segment are.
    pub fn bytes_of(&self, blocks: &Range<u32>) -> Range<u64> {
        let start = u64::from(self.key.number) * SEGMENT_BYTES;
        start + u64::from(blocks.start) * BLOCK_BYTES..start + u64::from(blocks.end) * BLOCK_BYTES
    }
}

impl State {
    /// The flight that brings block `index`.
    pub fn flight_with(&self, index: u32) -> Option<Arc<Flight>> {
        self.flights.iter().find(|flight| flight.blocks.contains(&index)).cloned()
    }

    /// The flights that bring any of `blocks`.
    pub fn flights_with(&self, blocks: &Range<u32>) -> Vec<Arc<Flight>> {
        let brings = |flight: &&Arc<Flight>| {
            flight.blocks.start < blocks.end && blocks.start < flight.blocks.end
        };
        self.flights.iter().filter(brings).cloned().collect()
    }

    /// Runs of `blocks` that are neither there nor under way.
    pub fn wanting(&self, blocks: Range<u32>) -> Vec<Range<u32>> {
        let mut known = self.present.clone();
        self.flights.iter().for_each(|flight| known.add(flight.blocks.clone()));
        known.gaps(blocks)
    }
}
