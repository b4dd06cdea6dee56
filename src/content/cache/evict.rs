//! The choice of the segments to evict: pure.

use std::collections::HashSet;
use std::time::SystemTime;

use super::segment::SegmentKey;

/// A segment in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CachedSegment {
    /// The key of the segment.
    pub(crate) key: SegmentKey,
    /// The bytes that it takes on the disk.
    pub(crate) bytes: u64,
    /// The time of its last read.
    pub(crate) used: SystemTime,
}

/// Returns the least recently used of `held` that take `bytes` together, or all if they take less.
/// Pinned segments are never among them.
pub(crate) fn choose(
    mut held: Vec<CachedSegment>,
    pinned: &HashSet<SegmentKey>,
    bytes: u64,
) -> Vec<CachedSegment> {
    held.retain(|segment| !pinned.contains(&segment.key));
    held.sort_by_key(|segment| segment.used);
    let mut freed = 0;
    held.into_iter()
        .take_while(|segment| {
            let wanted = freed < bytes;
            freed += segment.bytes;
            wanted
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::object::PackId;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn the_oldest_go_as_few_as_will_do_and_none_that_is_pinned(
            segments in prop::collection::vec((0u64..100, 0u64..50, any::<bool>()), 0..60),
            bytes in 0u64..500,
        ) {
            let all: Vec<CachedSegment> = segments.iter().enumerate().map(|(index, &(bytes, age, _))| CachedSegment {
                key: SegmentKey { pack: PackId([index as u8; 16]), number: 0 },
                bytes,
                used: SystemTime::UNIX_EPOCH + Duration::from_secs(age),
            }).collect();
            let pinned: HashSet<_> = all.iter().zip(&segments)
                .filter(|(_, (_, _, pinned))| *pinned).map(|(held, _)| held.key).collect();
            let gone = choose(all.clone(), &pinned, bytes);
            prop_assert!(gone.iter().all(|held| !pinned.contains(&held.key)));
            let freed: u64 = gone.iter().map(|held| held.bytes).sum();
            let free: u64 = all.iter().filter(|h| !pinned.contains(&h.key)).map(|h| h.bytes).sum();
            prop_assert!(freed >= bytes.min(free));
            if let Some(last) = gone.last() {
                prop_assert!(freed - last.bytes < bytes, "one too many");
                let kept = all.iter().filter(|h| !pinned.contains(&h.key) && !gone.contains(h));
                prop_assert!(kept.clone().all(|held| held.used >= last.used));
            }
        }
    }
}
