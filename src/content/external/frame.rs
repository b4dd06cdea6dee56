//! External bytes in the form of the cache: no digest of the repository covers them, so each block
//! carries a proof of its own. Pure.
//!
//! ```text
//! block := tag:16  byte{1,4080}     tag := the first half of BLAKE3, keyed with the descriptor's
//!                                          digest, of the block's number (u64le) and bytes
//! ```
//! A pack of such blocks stands for an external file; all but the last are full. A block of another
//! file, of another place, or damaged, is found by its tag.

use std::ops::Range;

use super::super::cache::BLOCK_BYTES;
use crate::model::digest::Digest;

const TAG_BYTES: usize = 16;
/// The bytes of the file in a block.
pub(crate) const DATA_BYTES: u64 = BLOCK_BYTES - TAG_BYTES as u64;

/// Returns the length of the pack of a file of `size_bytes`.
pub(crate) fn pack_bytes(size_bytes: u64) -> u64 {
    size_bytes + size_bytes.div_ceil(DATA_BYTES) * TAG_BYTES as u64
}

/// Returns the blocks that hold bytes `range` of a file.
pub(crate) fn blocks_of(range: &Range<u64>) -> Range<u64> {
    range.start / DATA_BYTES..range.end.div_ceil(DATA_BYTES)
}

/// Returns the bytes of the pack of a file of `size_bytes` that hold `blocks`.
pub(crate) fn place_of(blocks: &Range<u64>, size_bytes: u64) -> Range<u64> {
    let end = (blocks.end * BLOCK_BYTES).min(pack_bytes(size_bytes));
    (blocks.start * BLOCK_BYTES).min(end)..end
}

/// Returns the bytes of a file of `size_bytes` that bytes `place` of its pack hold; `place` begins
/// with a block.
pub fn source_of(place: &Range<u64>, size_bytes: u64) -> Range<u64> {
    let blocks = place.start / BLOCK_BYTES..place.end.div_ceil(BLOCK_BYTES);
    let end = (blocks.end * DATA_BYTES).min(size_bytes);
    (blocks.start * DATA_BYTES).min(end)..end
}

fn tag(file: &Digest, number: u64, data: &[u8]) -> [u8; TAG_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(file.as_bytes());
    let hash = hasher.update(&number.to_le_bytes()).update(data).finalize();
    let mut tag = [0; TAG_BYTES];
    tag.copy_from_slice(&hash.as_bytes()[..TAG_BYTES]);
    tag
}

/// Returns bytes of `file` as blocks, of which the first has the number `first`.
pub fn frame(file: &Digest, first: u64, data: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(pack_bytes(data.len() as u64) as usize);
    for (number, data) in (first..).zip(data.chunks(DATA_BYTES as usize)) {
        framed.extend_from_slice(&tag(file, number, data));
        framed.extend_from_slice(data);
    }
    framed
}

/// Fills `buffer` from byte `offset` of `file` on with the bytes in `framed`, which begins with
/// block `first`. Returns `false` if a block has a wrong tag or bytes are missing.
#[must_use]
pub(crate) fn unframe(
    file: &Digest,
    first: u64,
    framed: &[u8],
    offset: u64,
    buffer: &mut [u8],
) -> bool {
    let end = offset + buffer.len() as u64;
    let mut filled = 0;
    for (number, block) in (first..).zip(framed.chunks(BLOCK_BYTES as usize)) {
        let Some((found, data)) = block.split_at_checked(TAG_BYTES) else { return false };
        if tag(file, number, data) != found {
            return false;
        }
        let start = number * DATA_BYTES;
        let (from, to) = (offset.max(start), end.min(start + data.len() as u64));
        if from < to {
            let part = &data[(from - start) as usize..(to - start) as usize];
            buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(part);
            filled += part.len();
        }
    }
    filled == buffer.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::object_kind::ObjectKind;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_part_of_any_file_comes_back_and_damage_does_not(
            size in 1usize..20_000, from in 0usize..20_000, length in 1usize..9_000, hurt in any::<usize>()
        ) {
            let data: Vec<u8> = (0..size).map(|n| (n * 7 % 251) as u8).collect();
            let file = Digest::of(ObjectKind::Chunk, b"file");
            let pack = frame(&file, 0, &data);
            prop_assert_eq!(pack.len() as u64, pack_bytes(size as u64));
            let range = (from % size) as u64..((from % size) + length).min(size) as u64;
            let blocks = blocks_of(&range);
            let place = place_of(&blocks, size as u64);
            let source = source_of(&place, size as u64);
            prop_assert!(source.start <= range.start && source.end >= range.end);
            let part = &data[source.start as usize..source.end as usize];
            let mut framed = frame(&file, blocks.start, part);
            prop_assert_eq!(&framed[..], &pack[place.start as usize..place.end as usize]);
            let mut buffer = vec![0; (range.end - range.start) as usize];
            prop_assert!(unframe(&file, blocks.start, &framed, range.start, &mut buffer));
            prop_assert_eq!(&buffer[..], &data[range.start as usize..range.end as usize]);
            prop_assert!(!unframe(&file, blocks.start + 1, &framed, range.start, &mut buffer));
            let other = Digest::of(ObjectKind::Chunk, b"other");
            prop_assert!(!unframe(&other, blocks.start, &framed, range.start, &mut buffer));
            let hurt = hurt % framed.len();
            framed[hurt] ^= 1;
            prop_assert!(!unframe(&file, blocks.start, &framed, range.start, &mut buffer));
            let cut = &framed[..framed.len() - 1];
            prop_assert!(!unframe(&file, blocks.start, cut, range.start, &mut buffer));
        }
    }
}
