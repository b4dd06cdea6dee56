//! Segments: packs are cached in pieces of one size, each a sparse file.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::str::FromStr;

use rustix::fs::{SeekFrom, seek};

use crate::model::name::NameError;
use crate::model::object::PackId;

/// The unit of fetching and accounting in bytes: a page of usual file systems.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// The bytes of a segment. A usual pack fits in one segment and is evicted as a whole.
pub(crate) const SEGMENT_BYTES: u64 = 32 << 20;
/// The number of blocks in a segment.
pub(crate) const SEGMENT_BLOCKS: u32 = (SEGMENT_BYTES / BLOCK_BYTES) as u32;

const WORDS: usize = SEGMENT_BLOCKS as usize / 64;

/// A segment of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SegmentKey {
    /// The pack.
    pub(crate) pack: PackId,
    /// The number of the segment in its pack, from 0.
    pub(crate) number: u32,
}

impl fmt::Display for SegmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pack, self.number)
    }
}

impl FromStr for SegmentKey {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::new("segment", text.as_bytes(), "PACK-NUMBER");
        let (pack, number) = text.split_once('-').ok_or_else(wrong)?;
        let number: u32 = number.parse().map_err(|_| wrong())?;
        let key = Self { pack: pack.parse()?, number };
        if key.to_string() == text { Ok(key) } else { Err(wrong()) }
    }
}

/// Splits bytes `range` of a pack at the bounds of segments: number of the segment, and bytes
/// within it.
pub(crate) fn part_of(range: Range<u64>) -> impl Iterator<Item = (u32, Range<u64>)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let number = at / SEGMENT_BYTES;
        let start = number * SEGMENT_BYTES;
        let end = range.end.min(start + SEGMENT_BYTES);
        let part = at - start..end - start;
        at = end;
        Some((u32::try_from(number).unwrap_or(u32::MAX), part))
    })
}

/// A set of blocks of a segment.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Blocks([u64; WORDS]);

impl Default for Blocks {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} blocks", self.count())
    }
}

/// Returns the blocks that bytes `range` of a segment touch.
pub(crate) fn blocks_of(range: &Range<u64>) -> Range<u32> {
    let start = range.start / BLOCK_BYTES;
    let end = range.end.div_ceil(BLOCK_BYTES);
    start as u32..end as u32
}

impl Blocks {
    /// Returns the blocks of a segment's file that hold data, as the file system reports.
    pub(crate) fn of_file(file: &File) -> Self {
        let mut blocks = Self::default();
        let mut at = 0;
        // The seek fails behind the last data, and if the file system does not support holes.
        while let Ok(data) = seek(file, SeekFrom::Data(at)) {
            let Ok(hole) = seek(file, SeekFrom::Hole(data)) else { break };
            let end = hole.min(SEGMENT_BYTES);
            if data >= end {
                break;
            }
            blocks.add(blocks_of(&(data..end)));
            at = end;
        }
        blocks
    }

    /// Returns the number of blocks in the set.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Returns whether block `index` is in the set.
    pub(crate) fn has(&self, index: u32) -> bool {
        self.0[index as usize / 64] >> (index % 64) & 1 == 1
    }

    /// Returns whether all of `range` is in the set.
    pub(crate) fn has_all(&self, mut range: Range<u32>) -> bool {
        range.all(|index| self.has(index))
    }

    /// Returns how many blocks of `range` are not in the set.
    pub(crate) fn lacking(&self, range: Range<u32>) -> u64 {
        range.filter(|index| !self.has(*index)).count() as u64
    }

    /// Adds `range`.
    pub(crate) fn add(&mut self, range: Range<u32>) {
        range.for_each(|index| self.0[index as usize / 64] |= 1 << (index % 64));
    }

    /// Removes `range`.
    pub(crate) fn take(&mut self, range: Range<u32>) {
        range.for_each(|index| self.0[index as usize / 64] &= !(1 << (index % 64)));
    }

    /// Returns the runs of `range` that are not in the set.
    pub(crate) fn gaps(&self, range: Range<u32>) -> Vec<Range<u32>> {
        let mut gaps: Vec<Range<u32>> = Vec::new();
        for index in range.filter(|index| !self.has(*index)) {
            match gaps.last_mut() {
                Some(gap) if gap.end == index => gap.end += 1,
                _ => gaps.push(index..index + 1),
            }
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::os::unix::fs::FileExt;

    proptest! {
        #[test]
        fn blocks_are_a_set(
            steps in prop::collection::vec((any::<bool>(), 0u32..SEGMENT_BLOCKS, 0u32..600), 0..60)
        ) {
            let mut blocks = Blocks::default();
            let mut model = BTreeSet::new();
            for (adds, start, length) in steps {
                let range = start..(start + length).min(SEGMENT_BLOCKS);
                if adds {
                    blocks.add(range.clone());
                    model.extend(range.clone());
                } else {
                    blocks.take(range.clone());
                    model.retain(|index| !range.contains(index));
                }
                prop_assert_eq!(blocks.count(), model.len() as u64);
                let gaps: Vec<u32> = blocks.gaps(range.clone()).into_iter().flatten().collect();
                let lacking: Vec<u32> = range.filter(|index| !model.contains(index)).collect();
                prop_assert_eq!(gaps, lacking);
            }
        }

        #[test]
        fn parts_cover_a_range_once(start in 0u64..(200 << 20), length in 0u64..(100 << 20)) {
            let mut at = start;
            for (number, part) in part_of(start..start + length) {
                prop_assert_eq!(u64::from(number) * SEGMENT_BYTES + part.start, at);
                prop_assert!(part.end <= SEGMENT_BYTES && part.start < part.end);
                at += part.end - part.start;
            }
            prop_assert_eq!(at, start + length);
        }
    }

    #[test]
    fn the_file_system_says_what_is_there() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SEGMENT_BYTES).unwrap();
        assert_eq!(Blocks::of_file(&file).count(), 0);
        file.write_all_at(&[1; 8192], 40_960).unwrap();
        file.write_all_at(&[1; 100], SEGMENT_BYTES - 4096).unwrap();
        let blocks = Blocks::of_file(&file);
        assert_eq!(blocks.gaps(0..SEGMENT_BLOCKS), [0..10, 12..SEGMENT_BLOCKS - 1]);
    }
}
