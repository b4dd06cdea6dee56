//! Fetches bytes into the cache before a reader asks for them.

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
    /// Closes segments that another process took away: while they are open the disk keeps their
    /// bytes.
    pub fn forget_removed(&self) {
        let known: Vec<_> = self.segments().iter().map(|(_, it)| Arc::clone(it)).collect();
        for segment in known {
            let file = segment.state().file.clone();
            let gone = |file: Arc<std::fs::File>| file.metadata().is_ok_and(|it| it.nlink() == 0);
            if file.is_some_and(gone) {
                self.forget(&segment);
            }
        }
    }

    /// Queues bytes of a pack that may be read soon. Never blocks.
    pub fn readahead(self: &Arc<Self>, pack: PackId, range: Range<u64>) {
        if let Err(e) = self.learn_length(pack) {
            return tracing::debug!(%pack, "not read ahead: {e}");
        }
        if !self.reads_ahead || self.queued.fetch_add(1, Ordering::Relaxed) >= PREFETCH_QUEUE {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let fetcher = Arc::clone(self);
        self.threads.handle().spawn(async move {
            if let Err(e) = fetcher.prefetch(pack, range).await {
                tracing::debug!(%pack, "not read ahead: {e}");
            }
            fetcher.queued.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Caches bytes of a pack, as far as they are not yet; ends when the cache has them.
    ///
    /// # Errors
    /// What the store says of the first request that failed.
    pub async fn prefetch(self: &Arc<Self>, pack: PackId, range: Range<u64>) -> Result<()> {
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

    /// Nobody holds a turn while waiting for another.
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

    /// Waits for [`Fetcher::prefetch`] of several ranges, some at a time.
    ///
    /// # Errors
    /// The first that failed.
    pub fn prefetch_all(self: &Arc<Self>, ranges: Vec<(PackId, Range<u64>)>) -> Result<()> {
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
