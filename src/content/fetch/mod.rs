//! Reads of a remote store through the cache: which ranges are requested, when, and only once.
//!
//! A reader finds the blocks it wants in the cache, or in a flight that is under way, or starts
//! one. Readers get the bytes of a flight before the cache does, so no read depends on a cache that
//! is full or fails. Requests and the memory they need have bounds; nodes have bounds of their own,
//! so metadata never waits for data.

mod counters;
mod flight;
mod prefetch;
mod request;
mod segment;
mod window;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use lru::LruCache;
use rustix::fs::{Timespec, Timestamps, futimens};
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub(crate) use counters::Counters;
use segment::{Segment, State};

use super::Locate;
use super::cache::{BLOCK_BYTES, Blocks, Cache, SEGMENT_BLOCKS, SEGMENT_BYTES, SegmentKey};
use super::cache::{blocks_of, part_of};
use super::external::origin::Origin;
use super::options::Deadlines;
use super::remote::Client;
use super::threads::Threads;
use crate::error::{Error, Kind, Result};
use crate::model::object::{Extent, PackId};

/// The number of segments held at a time, each with a descriptor at most: a process may have 1,024.
const SEGMENTS: NonZeroUsize = NonZeroUsize::new(384).expect("384 is not zero");
/// The number of packs whose length is remembered.
const LENGTHS: NonZeroUsize = NonZeroUsize::new(16 << 10).expect("it is not zero");
/// The number of external files registered at a time: some 10 MiB.
const ORIGINS: NonZeroUsize = NonZeroUsize::new(16 << 10).expect("it is not zero");
/// The maximum length of a request: several in parallel are faster than one.
const FLIGHT_BYTES: u64 = 4 << 20;
/// The length of the aligned piece that is fetched around a node, since nodes lie together.
const NODE_WINDOW_BYTES: u64 = 2 << 20;
/// The number of requests for data under way.
const DATA_REQUESTS: usize = 32;
/// The number of these that no reader waits for yet.
const PREFETCH_REQUESTS: usize = 12;
/// The number of requests for nodes under way.
const NODE_REQUESTS: usize = 8;
/// The memory for data under way, in KiB.
const DATA_KIB: u32 = 64 << 10;
/// The number of prefetches that wait for their turn; more are dropped.
const PREFETCH_QUEUE: usize = 512;
/// The accuracy, in seconds, with which a segment's last read is recorded.
const TOUCH_EVERY_SECONDS: u64 = 5;

/// The kind of a read. It decides how much is fetched around the bytes that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A tree or recipe node.
    Node,
    /// A whole small file, whose neighbours may be wanted too.
    SmallFile,
    /// A piece of a big file.
    Piece,
    /// Bytes that no reader waits for yet.
    Prefetch,
}

/// The time that a reader waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// No time: what is not cached gives [`Kind::WouldBlock`].
    Now,
    /// The time until the deadline of its class.
    Deadline,
}

/// A reader of the packs of a remote store, and of external files, through the cache.
pub(crate) struct Fetcher {
    /// The client of the store; `None` if the store is a local directory.
    remote: Option<Arc<Client>>,
    threads: Arc<Threads>,
    /// The external files, by the id of the pack that stands for each.
    origins: Mutex<LruCache<PackId, Arc<Origin>>>,
    cache: Option<Cache>,
    deadlines: Deadlines,
    /// True if more is fetched than a read needs.
    reads_ahead: bool,
    segments: Mutex<LruCache<SegmentKey, Arc<Segment>>>,
    lengths: Mutex<LruCache<PackId, u64>>,
    locate: OnceLock<Arc<dyn Locate>>,
    instances: AtomicU64,
    data: Semaphore,
    nodes: Semaphore,
    prefetches: Semaphore,
    memory: Semaphore,
    queued: AtomicUsize,
    /// The counters since the process began.
    pub(crate) counters: Counters,
}

fn seconds_now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

impl Fetcher {
    /// Returns a fetcher that reads `remote`, if there is one, and external files through `cache`.
    /// Without a cache every read makes a request.
    pub(crate) fn new(
        remote: Option<Arc<Client>>,
        threads: Arc<Threads>,
        cache: Option<Cache>,
        deadlines: Deadlines,
        reads_ahead: bool,
    ) -> Self {
        Self {
            remote,
            threads,
            origins: Mutex::new(LruCache::new(ORIGINS)),
            cache,
            deadlines,
            reads_ahead,
            segments: Mutex::new(LruCache::new(SEGMENTS)),
            lengths: Mutex::new(LruCache::new(LENGTHS)),
            locate: OnceLock::new(),
            instances: AtomicU64::new(1),
            data: Semaphore::new(DATA_REQUESTS),
            nodes: Semaphore::new(NODE_REQUESTS),
            prefetches: Semaphore::new(PREFETCH_REQUESTS),
            memory: Semaphore::new(DATA_KIB as usize),
            queued: AtomicUsize::new(0),
            counters: Counters::default(),
        }
    }

    /// Sets the source of the lengths of packs: no request goes beyond an end that is known.
    pub(crate) fn learn_from(&self, locate: Arc<dyn Locate>) {
        // The source is set once, when the repository is opened.
        let _ = self.locate.set(locate);
    }

    /// Gets the length of a pack from the registry, if it is not known. Only threads that may wait
    /// call it.
    fn learn_length(&self, pack: PackId) -> Result<()> {
        let Some(locate) = self.locate.get().filter(|_| self.length(pack).is_none()) else {
            return Ok(());
        };
        if let Some(length) = locate.pack_length(pack)?.filter(|length| *length > 0) {
            self.lengths.lock().unwrap_or_else(PoisonError::into_inner).put(pack, length);
        }
        Ok(())
    }

    /// Registers an external file, which can then be read like a pack.
    pub(crate) fn register(&self, origin: &Arc<Origin>) {
        let (pack, length) = (origin.pack(), origin.pack_bytes());
        self.lengths.lock().unwrap_or_else(PoisonError::into_inner).put(pack, length);
        self.origins.lock().unwrap_or_else(PoisonError::into_inner).put(pack, Arc::clone(origin));
    }

    fn origin(&self, pack: PackId) -> Option<Arc<Origin>> {
        let mut guests = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        guests.get(&pack).cloned()
    }

    /// Returns the threads that make requests.
    pub(crate) fn threads(&self) -> &Arc<Threads> {
        &self.threads
    }

    /// Returns the cache, if there is one.
    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref()
    }

    fn segments(&self) -> MutexGuard<'_, LruCache<SegmentKey, Arc<Segment>>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn segment(&self, key: SegmentKey) -> Arc<Segment> {
        if let Some(segment) = self.segments().get(&key) {
            return Arc::clone(segment);
        }
        // The file is opened without the lock, so a slow disk delays no other reader.
        let file = self.cache.as_ref().and_then(|cache| cache.segment(key)).map(Arc::new);
        let present = file.as_ref().map(|file| Blocks::of_file(file)).unwrap_or_default();
        let state = State { file, present, ..State::default() };
        let segment = Arc::new(Segment {
            key,
            instance: self.instances.fetch_add(1, Ordering::Relaxed),
            evicted: AtomicBool::new(false),
            touched: AtomicU64::new(0),
            state: Mutex::new(state),
        });
        let mut segments = self.segments();
        Arc::clone(segments.get_or_insert(key, || segment))
    }

    /// Forgets a segment that another process or an eviction removed.
    fn forget(&self, segment: &Arc<Segment>) {
        segment.evicted.store(true, Ordering::Relaxed);
        let mut segments = self.segments();
        if segments.peek(&segment.key).is_some_and(|known| Arc::ptr_eq(known, segment)) {
            segments.pop(&segment.key);
        }
    }

    fn deadline(&self, class: Class) -> Instant {
        Instant::now()
            + if class == Class::Node { self.deadlines.metadata } else { self.deadlines.data }
    }

    /// Fills `buffer` with the bytes of `extent` from its `skip`th on. If they are not cached, the
    /// whole extent is fetched.
    ///
    /// # Errors
    /// [`Kind::WouldBlock`] if they are not cached and `patience` is `Now`; [`Kind::NotFound`] for
    /// a pack that is gone; [`Kind::TimedOut`] and the errors of the store.
    pub(crate) fn read(
        self: &Arc<Self>,
        extent: Extent,
        skip: u64,
        buffer: &mut [u8],
        class: Class,
        patience: Patience,
    ) -> Result<()> {
        if patience == Patience::Deadline {
            self.learn_length(extent.pack)?;
        }
        let start = extent.offset + skip;
        let wanted = start..start + buffer.len() as u64;
        let object = extent.offset..extent.offset + u64::from(extent.stored_bytes);
        if wanted.start / SEGMENT_BYTES != wanted.end.saturating_sub(1) / SEGMENT_BYTES
            && patience == Patience::Deadline
        {
            // All requests are started before the first wait.
            for (number, part) in part_of(object.clone()) {
                let segment = self.segment(SegmentKey { pack: extent.pack, number });
                self.demand(&segment, &mut segment.state(), &part, class);
            }
        }
        let deadline = self.deadline(class);
        let mut rest = buffer;
        for (number, part) in part_of(wanted) {
            let own = part_of(object.clone()).find(|(own, _)| *own == number);
            let own = own.map_or_else(|| part.clone(), |(_, own)| own);
            let (here, after) = rest.split_at_mut((part.end - part.start) as usize);
            let key = SegmentKey { pack: extent.pack, number };
            self.read_part(key, &own, part.start, here, class, patience, deadline)?;
            rest = after;
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn read_part(
        self: &Arc<Self>,
        key: SegmentKey,
        object: &Range<u64>,
        start: u64,
        buffer: &mut [u8],
        class: Class,
        patience: Patience,
        deadline: Instant,
    ) -> Result<()> {
        let end = start + buffer.len() as u64;
        let mut at = start;
        let mut waited = false;
        while at < end {
            let segment = self.segment(key);
            let index = (at / BLOCK_BYTES) as u32;
            let flight = {
                let mut state = segment.state();
                if state.present.has(index) {
                    let run = state.present.gaps(index..blocks_of(&(at..end)).end);
                    let until = run.first().map_or(end, |gap| u64::from(gap.start) * BLOCK_BYTES);
                    let file = state.file.clone();
                    drop(state);
                    let part = &mut buffer[(at - start) as usize..(until - start) as usize];
                    if self.read_cached(&segment, file, at, part) {
                        at = until;
                    }
                    continue;
                }
                if patience == Patience::Now {
                    return Err(would_block());
                }
                // Bytes that came before, and are only still being written to the disk, cost no wait.
                waited |= state.flight_with(index).is_none_or(|flight| !flight.has_ended());
                self.demand(&segment, &mut state, object, class);
                state.flight_with(index)
            };
            let flight = flight.ok_or_else(|| ends_early(key, at))?;
            let bytes = self.threads.wait(flight.outcome(deadline))?;
            let from = u64::from(flight.blocks.start) * BLOCK_BYTES;
            let until = end.min(from + bytes.len() as u64);
            if until <= at {
                return Err(ends_early(key, at));
            }
            buffer[(at - start) as usize..(until - start) as usize]
                .copy_from_slice(&bytes[(at - from) as usize..(until - from) as usize]);
            at = until;
        }
        self.counters.read(waited, end - start);
        Ok(())
    }

    /// Reads from the cache. Returns `false` if the disk failed: the blocks must be fetched.
    fn read_cached(
        &self,
        segment: &Arc<Segment>,
        file: Option<Arc<std::fs::File>>,
        at: u64,
        buffer: &mut [u8],
    ) -> bool {
        let read = file.as_ref().map(|file| file.read_exact_at(buffer, at));
        if let Some(Ok(())) = read {
            self.touch(segment, file.as_deref());
            return true;
        }
        if let (Some(Err(e)), Some(cache)) = (read, &self.cache) {
            cache.complain(&e);
        }
        let mut state = segment.state();
        (state.broken, state.file, state.present) = (true, None, Blocks::default());
        false
    }

    fn touch(&self, segment: &Arc<Segment>, file: Option<&std::fs::File>) {
        let now = seconds_now();
        if now < segment.touched.load(Ordering::Relaxed) + TOUCH_EVERY_SECONDS {
            return;
        }
        segment.touched.store(now, Ordering::Relaxed);
        let Some(file) = file else { return };
        let times = Timestamps {
            last_access: Timespec { tv_sec: now as i64, tv_nsec: 0 },
            last_modification: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        };
        // If this fails, as in a cache that is read-only, eviction follows the order of writing.
        let _ = futimens(file, &times);
        if file.metadata().is_ok_and(|meta| meta.nlink() == 0) {
            self.forget(segment);
        }
    }

    /// Starts requests for bytes `object` of the segment, and for what is worth fetching with them.
    fn demand(
        self: &Arc<Self>,
        segment: &Arc<Segment>,
        state: &mut State,
        object: &Range<u64>,
        class: Class,
    ) {
        let blocks = blocks_of(object);
        if state.wanting(blocks.clone()).is_empty() {
            return;
        }
        let around = match class {
            Class::Node => {
                let window = (NODE_WINDOW_BYTES / BLOCK_BYTES) as u32;
                let start = blocks.start / window * window;
                start..blocks.end.max(start + window)
            }
            Class::SmallFile if self.reads_ahead => state.window.missed(&blocks),
            _ => blocks.clone(),
        };
        let around = self.within_pack(segment.key, around);
        let least = blocks.start.min(around.start)..blocks.end.max(around.end);
        let short = u64::from(least.end - least.start) * BLOCK_BYTES <= NODE_WINDOW_BYTES;
        // A slow prefetch must not delay a small read.
        let first = if short { least.clone() } else { blocks.clone() };
        for gap in state.wanting(first) {
            self.start(segment, state, gap, class);
        }
        if !short {
            self.readahead(segment.key.pack, segment.bytes_of(&least));
        }
    }

    /// Cuts `blocks` off at the pack's end, if that is known.
    fn within_pack(&self, key: SegmentKey, blocks: Range<u32>) -> Range<u32> {
        let length = self.length(key.pack);
        let start = u64::from(key.number) * SEGMENT_BYTES;
        let last = length.map_or(SEGMENT_BLOCKS, |length| {
            let here = length.saturating_sub(start).min(SEGMENT_BYTES);
            here.div_ceil(BLOCK_BYTES) as u32
        });
        let end = blocks.end.min(last);
        blocks.start.min(end)..end
    }

    fn length(&self, pack: PackId) -> Option<u64> {
        self.lengths.lock().unwrap_or_else(PoisonError::into_inner).get(&pack).copied()
    }

    /// Fetches the bytes of `extent` from the store, whatever the cache has.
    ///
    /// # Errors
    /// As [`Fetcher::read`].
    pub(crate) fn refetch(&self, extent: Extent, class: Class) -> Result<Bytes> {
        let range = extent.offset..extent.offset + u64::from(extent.stored_bytes);
        self.threads.wait(self.fetch(extent.pack, range, self.deadline(class)))
    }

    /// Drops the cached blocks of `extent`, whose bytes are wrong.
    pub(crate) fn distrust(&self, extent: Extent) {
        for (number, part) in part_of(extent.offset..extent.offset + u64::from(extent.stored_bytes))
        {
            let segment = self.segment(SegmentKey { pack: extent.pack, number });
            let blocks = blocks_of(&part);
            segment.state().present.take(blocks);
        }
    }

    /// Returns a number that no other cached copy of `extent` has; `None` if not all of it is
    /// cached.
    pub(crate) fn instance(&self, extent: Extent) -> Option<u64> {
        let mut instance: u64 = 0;
        for (number, part) in part_of(extent.offset..extent.offset + u64::from(extent.stored_bytes))
        {
            let segment =
                self.segments().get(&SegmentKey { pack: extent.pack, number }).cloned()?;
            if !segment.state().present.has_all(blocks_of(&part)) {
                return None;
            }
            // An object is shorter than a segment, so it touches two at most.
            instance = instance << 32 | segment.instance;
        }
        Some(instance)
    }
}

fn would_block() -> Error {
    Error::new(Kind::WouldBlock, "not cached: it has to be fetched")
}

fn ends_early(key: SegmentKey, at: u64) -> Error {
    let at = u64::from(key.number) * SEGMENT_BYTES + at;
    Error::new(Kind::Corrupt, format!("pack {} ends before byte {at}", key.pack))
}
