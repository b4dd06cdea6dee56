//! Recipes: the ordered chunks of one file that has more than one.
//!
//! ```text
//! node   := format:u8  level:u8  item*
//! item   := bytes:varint  digest         level 0: a chunk; above: a recipe node
//! digest := 32 bytes in format 1; 29 in format 2, that of a zone
//! ```

use super::digest::{DIGEST_BYTES, Digest};
use super::merkle::Item;
use super::node;
use super::object_kind::ObjectKind;
use super::varint;
use super::zone::Zone;

/// A piece of a file: a chunk, or above level 0 a run of pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The bytes of the file that it stands for.
    pub(crate) size_bytes: u64,
    /// The chunk, or the recipe node one level down.
    pub(crate) digest: Digest,
}

impl Item for Piece {
    const KIND: ObjectKind = ObjectKind::Recipe;

    fn spread(&self) -> u64 {
        self.digest.spread()
    }

    fn encode(zone: Zone, level: u8, run: &[Self]) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 + run.len() * (DIGEST_BYTES + 4));
        out.extend([node::format_of(zone), level]);
        for piece in run {
            varint::put(&mut out, piece.size_bytes);
            node::put_child(&mut out, zone, piece.digest);
        }
        out
    }

    fn summary(run: &[Self], digest: Digest) -> Self {
        Self { size_bytes: run.iter().map(|piece| piece.size_bytes).sum(), digest }
    }

    fn children(run: &[Self]) -> Vec<Digest> {
        run.iter().map(|piece| piece.digest).collect()
    }
}

/// One decoded recipe node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RecipeNode {
    /// The level: at 0 the pieces are chunks, above they are recipe nodes of the level below.
    pub(crate) level: u8,
    /// The pieces, in the order of the file.
    pub(crate) pieces: Vec<Piece>,
}

impl RecipeNode {
    /// Decodes the body of the node with this digest, which was checked; `None` for a format that
    /// this release does not support.
    pub(crate) fn decode(digest: Digest, body: &[u8]) -> Option<Self> {
        let mut reader = varint::Reader::new(body);
        let zone = node::zone_of(reader.byte()?, digest)?;
        let level = reader.byte()?;
        let mut pieces = Vec::new();
        while !reader.is_empty() {
            let size_bytes = reader.number()?;
            pieces.push(Piece { size_bytes, digest: node::take_child(&mut reader, zone)? });
        }
        Some(Self { level, pieces })
    }

    /// Returns the objects that it points at, each once, sorted.
    pub(crate) fn children(&self) -> Vec<Digest> {
        let mut children: Vec<_> = self.pieces.iter().map(|piece| piece.digest).collect();
        children.sort_unstable();
        children.dedup();
        children
    }
}
