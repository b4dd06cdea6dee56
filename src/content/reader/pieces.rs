//! The pieces of files, and their places in packs.

use std::ops::Range;

use super::Reader;
use crate::error::{Error, Kind, Result};
use crate::model::digest::Digest;
use crate::model::object::{Located, PackId};
use crate::model::recipe::Piece;
use crate::model::tree::Content;

/// The maximum gap between pieces of a file in a pack that are fetched as one range.
const NEAR_BYTES: u64 = 64 << 10;

impl Reader {
    /// Returns the pieces of a file that lie in bytes `range` of it.
    ///
    /// # Errors
    /// As [`Reader::body`].
    pub(crate) fn pieces_in(&self, node: Digest, range: &Range<u64>) -> Result<Vec<Piece>> {
        let mut found = Vec::new();
        self.add_pieces(node, 0, range, &mut found)?;
        Ok(found)
    }

    fn add_pieces(
        &self,
        node: Digest,
        mut start: u64,
        range: &Range<u64>,
        found: &mut Vec<Piece>,
    ) -> Result<()> {
        let node = self.recipe(node)?;
        for piece in &node.pieces {
            let end = start + piece.size_bytes;
            if end > range.start && start < range.end {
                match node.level {
                    0 => found.push(*piece),
                    _ => self.add_pieces(piece.digest, start, range, found)?,
                }
            }
            start = end;
        }
        Ok(())
    }

    /// Returns the bytes of packs that hold `digests`, to be fetched ahead. Those near each other are
    /// one range. A place that is remembered is not looked up again, so it may be an old one.
    ///
    /// # Errors
    /// The errors of the registry.
    pub(crate) fn extents(&self, digests: &[Digest]) -> Result<Vec<(PackId, Range<u64>)>> {
        let located = match self.remembers_places() {
            true => {
                self.look_ahead(digests)?;
                digests.iter().map(|digest| self.known_location(digest)).collect()
            }
            false => self.locate(digests)?,
        };
        let mut ranges: Vec<_> = located
            .into_iter()
            .flatten()
            .map(|Located { extent, .. }| {
                (extent.pack, extent.offset..extent.offset + u64::from(extent.stored_bytes))
            })
            .collect();
        ranges.sort_unstable_by_key(|(pack, range)| (*pack, range.start));
        ranges.dedup_by(|(pack, range), (before, joined)| {
            let joins = pack == before && range.start <= joined.end + NEAR_BYTES;
            if joins {
                joined.end = joined.end.max(range.end);
            }
            joins
        });
        Ok(ranges)
    }

    /// Calls `each` with every chunk of a file in order; stops at the first error.
    ///
    /// # Errors
    /// As [`Reader::body`], and those of `each`.
    pub(crate) fn each_piece(
        &self,
        content: &Content,
        each: &mut dyn FnMut(Piece) -> Result<()>,
    ) -> Result<()> {
        match *content {
            Content::Empty => Ok(()),
            Content::Chunk { digest, size_bytes } => each(Piece { size_bytes, digest }),
            Content::Recipe { digest, .. } => self.each_recipe_piece(digest, each),
            Content::External { .. } => {
                Err(Error::new(Kind::Unsupported, "an external file has no chunks"))
            }
        }
    }

    fn each_recipe_piece(
        &self,
        node: Digest,
        each: &mut dyn FnMut(Piece) -> Result<()>,
    ) -> Result<()> {
        let node = self.recipe(node)?;
        for piece in &node.pieces {
            match node.level {
                0 => each(*piece)?,
                _ => self.each_recipe_piece(piece.digest, each)?,
            }
        }
        Ok(())
    }
}
