//! The window: how much of a pack is fetched when small files in it are missed. Pure.
//!
//! A miss costs a round trip, bytes cost bandwidth. Each second miss in the same pack doubles the
//! fetch size, in any order; misses of one file after the other double it sooner. So neither a few
//! files nor a whole epoch costs more than a small multiple of the best that could have been done
//! for it.

use std::ops::Range;

use super::super::cache::SEGMENT_BLOCKS;

/// The number of misses that fetch only what was missed.
const COLD_MISSES: u32 = 12;
/// The first window in blocks: 64 KiB.
const FIRST_WINDOW: u32 = 16;
/// The maximum distance in blocks at which a miss is the successor of the one before.
const NEXT_BLOCKS: u32 = 64;
/// The number of misses by which a successor counts more than another miss.
const NEXT_WEIGHT: u32 = 5;

/// The misses in one segment.
#[derive(Debug, Default)]
pub(crate) struct MissWindow {
    misses: u32,
    end: u32,
}

impl MissWindow {
    /// Notes that the file in `blocks` was missed, and returns what to fetch.
    pub(crate) fn missed(&mut self, blocks: &Range<u32>) -> Range<u32> {
        let next = self.end.saturating_sub(1)..self.end + NEXT_BLOCKS;
        let follows = self.misses > 0 && next.contains(&blocks.start);
        self.misses = (self.misses + 1 + if follows { NEXT_WEIGHT } else { 0 }).min(64);
        let Some(warm) = self.misses.checked_sub(COLD_MISSES) else {
            self.end = blocks.end;
            return blocks.clone();
        };
        let doublings = warm / 2;
        let window = FIRST_WINDOW.checked_shl(doublings).unwrap_or(SEGMENT_BLOCKS);
        let window = if doublings > 16 { SEGMENT_BLOCKS } else { window.min(SEGMENT_BLOCKS) };
        let start = if follows && window < SEGMENT_BLOCKS / 2 {
            blocks.start
        } else {
            blocks.start / window * window
        };
        let end = (start + window).max(blocks.end).min(SEGMENT_BLOCKS);
        self.end = end;
        start..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_few_misses_bring_what_was_missed() {
        let mut miss_window = MissWindow::default();
        for start in [4_000, 100, 7_000] {
            assert_eq!(miss_window.missed(&(start..start + 5)), start..start + 5);
        }
    }

    #[test]
    fn who_reads_on_has_the_segment_after_a_few() {
        let mut miss_window = MissWindow::default();
        let mut at = 0;
        let mut misses = 0;
        while at < SEGMENT_BLOCKS {
            let fetched = miss_window.missed(&(at..(at + 5).min(SEGMENT_BLOCKS)));
            at = fetched.end;
            misses += 1;
        }
        assert!(misses <= 8, "{misses}");
    }

    proptest! {
        #[test]
        fn what_was_missed_is_always_fetched_and_in_any_order_all_of_it_soon(
            starts in prop::collection::vec(0u32..SEGMENT_BLOCKS - 8, 60)
        ) {
            // After this many misses, weighted, the window is the whole segment.
            let whole = COLD_MISSES + 2 * (SEGMENT_BLOCKS / FIRST_WINDOW).ilog2();
            let mut miss_window = MissWindow::default();
            let mut fetched = crate::content::cache::Blocks::default();
            for start in starts {
                let blocks = start..start + 5;
                if fetched.has_all(blocks.clone()) {
                    continue;
                }
                let got = miss_window.missed(&blocks);
                prop_assert!(got.start <= blocks.start && got.end >= blocks.end);
                prop_assert!(got.end <= SEGMENT_BLOCKS);
                fetched.add(got);
            }
            prop_assert!(miss_window.misses <= whole + NEXT_WEIGHT, "{} misses", miss_window.misses);
            prop_assert!(miss_window.misses < whole || fetched.count() == u64::from(SEGMENT_BLOCKS));
        }
    }
}
