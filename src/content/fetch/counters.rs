//! The counters of reads from a remote store.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::content::received::Fetched;
use crate::error::Result;
use crate::model::object::PackId;

/// The number of slow requests that are remembered.
const SLOWEST: usize = 8;
/// The time for which they are remembered.
const SLOW_FOR: Duration = Duration::from_secs(300);

/// The sums since the process began.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// The reads that did not wait for the store.
    pub(crate) hits: AtomicU64,
    /// The reads that waited for the store.
    pub(crate) misses: AtomicU64,
    /// The bytes of reads that did not wait for the store.
    pub(crate) hit_bytes: AtomicU64,
    /// The requests that ended, well or not.
    pub(crate) requests: AtomicU64,
    /// The bytes that were received.
    pub(crate) fetched_bytes: AtomicU64,
    /// The requests that failed.
    pub(crate) failures: AtomicU64,
    /// The objects whose bytes were wrong, in the cache or from the store.
    pub(crate) wrong_objects: AtomicU64,
    /// The segments that were evicted.
    pub(crate) evictions: AtomicU64,
    /// The requests under way.
    pub(crate) in_flight: AtomicU64,
    slowest: Mutex<Vec<Slow>>,
}

/// A request that took long.
#[derive(Debug, Clone)]
pub(crate) struct Slow {
    /// The pack and the range.
    pub(crate) what: String,
    /// The time that it took.
    pub(crate) took: Duration,
    /// The time at which it ended.
    pub(crate) ended: Instant,
}

/// A request that is measured.
pub(crate) struct Watch<'a> {
    counters: &'a Counters,
    pack: PackId,
    range: Range<u64>,
    begun: Instant,
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn read(&self, waited: bool, bytes: u64) {
        if waited {
            add(&self.misses, 1);
        } else {
            add(&self.hits, 1);
            add(&self.hit_bytes, bytes);
        }
    }

    pub(super) fn evicted(&self) {
        add(&self.evictions, 1);
    }

    /// Counts an object whose bytes do not match its digest.
    pub(crate) fn wrong(&self) {
        add(&self.wrong_objects, 1);
    }

    pub(super) fn begin(&self, pack: PackId, range: Range<u64>) -> Watch<'_> {
        add(&self.in_flight, 1);
        Watch { counters: self, pack, range, begun: Instant::now() }
    }

    /// Returns the slowest requests of the last five minutes, slowest first.
    pub(crate) fn slowest(&self) -> Vec<Slow> {
        let mut slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        slowest.retain(|slow| slow.ended.elapsed() < SLOW_FOR);
        slowest.clone()
    }

    fn remember(&self, slow: Slow) {
        let mut slowest = self.slowest.lock().unwrap_or_else(PoisonError::into_inner);
        slowest.retain(|slow| slow.ended.elapsed() < SLOW_FOR);
        let place = slowest.partition_point(|other| other.took >= slow.took);
        if place < SLOWEST {
            slowest.insert(place, slow);
            slowest.truncate(SLOWEST);
        }
    }
}

impl Watch<'_> {
    pub(super) fn end(self, fetched: &Result<Fetched>) {
        let counters = self.counters;
        add(&counters.requests, 1);
        match fetched {
            Ok(fetched) => {
                add(&counters.fetched_bytes, fetched.bytes.len() as u64);
            }
            Err(_) => add(&counters.failures, 1),
        }
        let Range { start, end } = self.range;
        let what = format!("pack {} bytes {start}-{end}", self.pack);
        let (took, ended) = (self.begun.elapsed(), Instant::now());
        counters.remember(Slow { what, took, ended });
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
