//! Prefetching: bytes are cached before a reader needs them.

use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::super::cache::{BLOCK_BYTES, SegmentKey, blocks_of, part_of};
use super::segment::Segment;
use super::{Class, FLIGHT_BYTES, Fetcher, PREFETCH_QUEUE, PREFETCH_REQUESTS};
use crate::error::Result;
use crate::model::object::PackId;

impl Fetcher {
    /// Closes segments that another process removed: the disk keeps their bytes while they are
    /// open.
    pub(crate) fn forget_removed(&self) {
        let known: Vec<_> = self.segments().iter().map(|(_, it)| Arc::clone(it)).collect();
        for segment in known {
            let file = segment.state().file.clone();
            let gone = |file: Arc<std::fs::File>| file.metadata().is_ok_and(|it| it.nlink() == 0);
            if file.is_some_and(gone) {
                self.forget(&segment);
            }
        }
    }

    /// Queues bytes of a pack that may be read soon. It never waits for the store, but queries the
    /// registry for a length that is not known.
    pub(crate) fn readahead(self: &Arc<Self>, pack: PackId, range: Range<u64>) {
        if let Err(e) = self.learn_length(pack) {
            return tracing::debug!(%pack, "readahead failed: {e}");
        }
        if !self.reads_ahead || self.queued.fetch_add(1, Ordering::Relaxed) >= PREFETCH_QUEUE {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let fetcher = Arc::clone(self);
        self.threads.handle().spawn(async move {
            if let Err(e) = fetcher.prefetch(pack, range).await {
                tracing::debug!(%pack, "readahead failed: {e}");
            }
            fetcher.queued.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Caches those bytes of a pack that are not cached yet. Returns when the cache has them.
    ///
    /// # Errors
    /// The error of the first request that failed.
    pub(crate) async fn prefetch(self: &Arc<Self>, pack: PackId, range: Range<u64>) -> Result<()> {
        for (number, part) in part_of(range) {
            let segment = self.segment(SegmentKey { pack, number });
            let step = (FLIGHT_BYTES / BLOCK_BYTES) as usize;
            let wanted = self.within_pack(segment.key, blocks_of(&part));
            let pieces = wanted.clone().step_by(step).map(|start| {
                let blocks = start..wanted.end.min(start + step as u32);
                self.prefetch_piece(&segment, blocks)
            });
            let all = stream::iter(pieces).buffer_unordered(PREFETCH_REQUESTS);
            all.try_for_each(|()| async { Ok(()) }).await?;
        }
        Ok(())
    }

    /// Caches `blocks` of a segment. It holds no turn while it waits for another.
    async fn prefetch_piece(
        self: &Arc<Self>,
        segment: &Arc<Segment>,
        blocks: Range<u32>,
    ) -> Result<()> {
        let turn = self.prefetches.acquire().await;
        let flights = {
            let mut state = segment.state();
            for gap in state.wanting(blocks.clone()) {
                self.start(segment, &mut state, gap, Class::Prefetch);
            }
            state.flights_with(&blocks)
        };
        let deadline = self.deadline(Class::Prefetch);
        for flight in &flights {
            flight.outcome(deadline).await?;
        }
        drop(turn);
        for flight in &flights {
            flight.landed(deadline).await?;
        }
        Ok(())
    }

    /// Runs [`Fetcher::prefetch`] for several ranges, some at a time, and waits for all.
    ///
    /// # Errors
    /// The first error.
    pub(crate) fn prefetch_all(self: &Arc<Self>, ranges: Vec<(PackId, Range<u64>)>) -> Result<()> {
        for (pack, _) in &ranges {
            self.learn_length(*pack)?;
        }
        let bring = ranges.into_iter().map(|(pack, range)| {
            let fetcher = Arc::clone(self);
            async move { fetcher.prefetch(pack, range).await }
        });
        let all = stream::iter(bring).buffer_unordered(PREFETCH_REQUESTS);
        self.threads.wait(all.try_for_each(|()| async { Ok(()) }))
    }
}
