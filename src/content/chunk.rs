//! Content-defined chunks: FastCDC (v2020) cuts files so that equal pieces are equal chunks.

use fastcdc::v2020::{Normalization, cut, select_masks};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// The name of the algorithm, as it stands in a repository's settings.
pub(crate) const ALGORITHM: &str = "fastcdc-v2020";

/// The chunk sizes in bytes, written into a repository once and never changed there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkerSettings {
    /// The name of the algorithm: [`ALGORITHM`].
    pub(crate) algorithm: String,
    /// The minimum; only the last chunk of a file may be shorter.
    pub(crate) min_bytes: u32,
    /// The average at which the boundaries aim.
    pub(crate) average_bytes: u32,
    /// The maximum.
    pub(crate) max_bytes: u32,
}

impl Default for ChunkerSettings {
    fn default() -> Self {
        Self {
            algorithm: ALGORITHM.to_owned(),
            min_bytes: 64 << 10,
            average_bytes: 256 << 10,
            max_bytes: 1 << 20,
        }
    }
}

/// A finder of cuts, which depend only on the bytes from one cut to the next.
#[derive(Debug, Clone)]
pub(crate) struct Cutter {
    settings: ChunkerSettings,
    mask_small: u64,
    mask_large: u64,
}

impl Cutter {
    /// Returns a cutter with a repository's settings.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for an algorithm or sizes that this release does not support.
    pub(crate) fn new(settings: ChunkerSettings) -> Result<Self> {
        let sizes = [settings.min_bytes, settings.average_bytes, settings.max_bytes];
        let sane = settings.algorithm == ALGORITHM
            && sizes.is_sorted()
            && sizes.iter().all(|size| size % 2 == 0 && (256..=1 << 24).contains(size));
        if !sane {
            let found = format!("chunker settings {settings:?}");
            return Err(Error::new(Kind::Unsupported, found).hint(
                "the repository was made by a newer artifactfs, or its settings are damaged",
            ));
        }
        let average = settings.average_bytes as usize;
        let (mask_small, mask_large) = select_masks(average, Normalization::Level1);
        Ok(Self { settings, mask_small, mask_large })
    }

    /// Returns the length of the longest chunk, which is how far ahead a cut has to look.
    pub(crate) fn max_bytes(&self) -> usize {
        self.settings.max_bytes as usize
    }

    /// Returns the length of the chunk at the start of `window`, which is 0 for an empty window.
    /// The window holds at least [`max_bytes`](Self::max_bytes) bytes or all that is left of the
    /// file.
    pub(crate) fn cut(&self, window: &[u8]) -> usize {
        let (_, length) = cut(
            window,
            self.settings.min_bytes as usize,
            self.settings.average_bytes as usize,
            self.settings.max_bytes as usize,
            self.mask_small,
            self.mask_large,
            self.mask_small << 1,
            self.mask_large << 1,
        );
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(cutter: &Cutter, mut data: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while !data.is_empty() {
            let length = cutter.cut(&data[..data.len().min(cutter.max_bytes())]);
            lengths.push(length);
            data = &data[length..];
        }
        lengths
    }

    #[test]
    fn cuts_are_those_of_the_published_algorithm() {
        let cutter = Cutter::new(ChunkerSettings::default()).unwrap();
        let mut data = vec![0u8; 5_000_000];
        blake3::Hasher::new().update(b"seed").finalize_xof().fill(&mut data);
        let settings = ChunkerSettings::default();
        let expected: Vec<_> = fastcdc::v2020::FastCDC::new(
            &data,
            settings.min_bytes as usize,
            settings.average_bytes as usize,
            settings.max_bytes as usize,
        )
        .map(|chunk| chunk.length)
        .collect();
        assert_eq!(cuts(&cutter, &data), expected);
    }

    #[test]
    fn an_insertion_moves_only_the_cuts_around_it() {
        let cutter = Cutter::new(ChunkerSettings::default()).unwrap();
        // The bytes are the same each time, since they decide how soon the cuts meet again.
        for (seed, at) in (0u64..).zip([0, 1, 70_000, 500_000, 1_234_567, 2_999_999]) {
            let mut data = vec![0u8; 6_000_000];
            blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
            let before = cuts(&cutter, &data);
            data.splice(at..at, *b"inserted");
            let after = cuts(&cutter, &data);
            let same_tail = before.iter().rev().zip(after.iter().rev()).take_while(|(a, b)| a == b);
            let tail: usize = same_tail.map(|(a, _)| a).sum();
            assert!(tail + at + 2 * cutter.max_bytes() >= 6_000_000, "{seed}: {tail}");
        }
    }
}
