//! The requests of flights: their turn, their bytes, and the write to the cache.

use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::flight::Flight;
use super::segment::{Segment, State};
use super::{Class, DATA_KIB, FLIGHT_BYTES, Fetcher};
use crate::content::cache::BLOCK_BYTES;
use crate::content::pack::pack_key;
use crate::error::{Error, Kind, Result};
use crate::model::object::PackId;

impl Fetcher {
    /// Starts flights for `blocks`, none of which is cached or under way.
    pub(super) fn start(
        self: &Arc<Self>,
        segment: &Arc<Segment>,
        state: &mut State,
        blocks: Range<u32>,
        class: Class,
    ) {
        let step = (FLIGHT_BYTES / BLOCK_BYTES) as usize;
        for start in blocks.clone().step_by(step) {
            let flight = Arc::new(Flight::new(start..blocks.end.min(start + step as u32)));
            state.flights.push(Arc::clone(&flight));
            let (fetcher, segment) = (Arc::clone(self), Arc::clone(segment));
            self.threads.handle().spawn(async move { fetcher.fly(segment, flight, class).await });
        }
    }

    async fn fly(self: Arc<Self>, segment: Arc<Segment>, flight: Arc<Flight>, class: Class) {
        let deadline = self.deadline(class);
        let range = segment.bytes_of(&flight.blocks);
        let kib = u32::try_from((range.end - range.start).div_ceil(1024)).unwrap_or(DATA_KIB);
        let (requests, memory) = match class {
            Class::Node => (&self.nodes, 0),
            _ => (&self.data, kib.min(DATA_KIB)),
        };
        let turn = timeout_at(deadline, async {
            let memory = self.memory.acquire_many(memory).await;
            (memory, requests.acquire().await)
        });
        let outcome = match turn.await {
            Ok(held) => {
                let fetched = self.fetch(segment.key.pack, range, deadline).await;
                let (memory, request) = held;
                drop(request);
                fetched.map(|bytes| (bytes, memory))
            }
            Err(_) => Err(Error::new(Kind::TimedOut, "too many requests to the store are waiting")),
        };
        match outcome {
            Ok((bytes, memory)) => {
                flight.end(Ok(bytes.clone()));
                let (fetcher, kept, flown) =
                    (Arc::clone(&self), Arc::clone(&segment), Arc::clone(&flight));
                let writing = tokio::task::spawn_blocking(move || {
                    fetcher.write_to_cache(&kept, &flown.blocks, &bytes)
                });
                // A thread that panicked has cached nothing; no reader waits for it.
                let _ = writing.await;
                drop(memory);
            }
            Err(error) => flight.end(Err(error.to_wire())),
        }
        segment.state().flights.retain(|other| !Arc::ptr_eq(other, &flight));
        flight.land();
    }

    pub(super) async fn fetch(
        &self,
        pack: PackId,
        range: Range<u64>,
        deadline: Instant,
    ) -> Result<Bytes> {
        let watch = self.counters.begin(pack, range.clone());
        let key = pack_key(pack, "pack");
        let length = self.length(pack).unwrap_or(u64::MAX);
        let range = range.start..range.end.min(length);
        let whole = range == (0..length);
        let fetched = match (self.origin(pack), &self.remote) {
            (Some(origin), _) => origin.fetch(range, deadline).await,
            (None, Some(client)) if whole => client.get_whole(&key, deadline).await,
            (None, Some(client)) => client.get(&key, range, deadline).await,
            (None, None) => Err(Error::new(Kind::NotFound, format!("pack {pack} is not there"))),
        };
        watch.end(&fetched);
        let fetched = fetched?;
        let mut lengths = self.lengths.lock().unwrap_or_else(PoisonError::into_inner);
        lengths.put(pack, fetched.object_bytes);
        Ok(fetched.bytes)
    }

    /// Writes the bytes of a flight to the cache, if there is room.
    fn write_to_cache(&self, segment: &Arc<Segment>, blocks: &Range<u32>, bytes: &[u8]) {
        let Some(cache) = &self.cache else { return };
        let end = blocks.start + (bytes.len() as u64).div_ceil(BLOCK_BYTES) as u32;
        let blocks = blocks.start..end.min(blocks.end);
        let file = {
            let mut state = segment.state();
            if state.broken || segment.evicted.load(Ordering::Relaxed) {
                return;
            }
            if state.file.is_none() {
                state.file = cache.make_segment(segment.key).map(Arc::new);
            }
            state.file.clone()
        };
        let Some(file) = file else { return };
        if file.metadata().is_ok_and(|meta| meta.nlink() == 0) {
            return self.forget(segment);
        }
        let new = segment.state().present.lacking(blocks.clone()) * BLOCK_BYTES;
        let mut evicted = Vec::new();
        let room = cache.reserve(new, &mut |key| evicted.push(key));
        for key in evicted {
            self.counters.evicted();
            let gone = self.segments().pop(&key);
            if let Some(gone) = gone {
                gone.evicted.store(true, Ordering::Relaxed);
            }
        }
        let Some(room) = room.filter(|_| !segment.evicted.load(Ordering::Relaxed)) else { return };
        match file.write_all_at(bytes, u64::from(blocks.start) * BLOCK_BYTES) {
            Ok(()) => {
                room.used();
                segment.state().present.add(blocks);
            }
            Err(e) => cache.complain(&e),
        }
    }
}
