//! Packs: the bodies of many objects end to end, and beside each an index.
//!
//! ```text
//! <id>.pack  body of object 0, body of object 1, …            nothing else
//! <id>.idx   magic "AFSPKIDX"  format:u32le (1)  pack id:16  count:u64le  entry*  blake3:32
//! entry      digest:32  offset:u64le  stored bytes:u32le  body bytes:u32le  kind:u8  codec:u8
//! ```
//! The last 32 bytes are the BLAKE3 of everything before them. Entries are in the order of their
//! offsets. The registry's object table can be rebuilt from the indexes alone.

use crate::error::{Error, Kind, Result};
use crate::model::digest::{DIGEST_BYTES, Digest};
use crate::model::object::{NewObject, PACK_ID_BYTES, PackId};
use crate::model::object_kind::ObjectKind;

/// The maximum length of a usual pack. It is large enough for few requests, and small enough to be
/// rewritten when half of it is dead. One segment of a cache holds it.
pub(crate) const PACK_MAX_BYTES: u64 = 32 << 20;
/// The length at which a pack is sealed: one more chunk would still fit.
pub(crate) const PACK_TARGET_BYTES: u64 = PACK_MAX_BYTES - (1 << 20);
/// The length at which a big file in a remote store goes on in another pack. So an interrupted put
/// does not repeat all of it.
pub(crate) const SOLO_REMOTE_BYTES: u64 = 256 << 20;
/// The length at which a big file goes on in another pack if a server takes each pack in one
/// request. With the segment that follows, the pack is shorter than [`PACK_MAX_BYTES`].
pub(crate) const SOLO_SERVED_BYTES: u64 = 16 << 20;
/// The minimum bytes of a file that gets a pack of its own, if its chunks are new.
pub(crate) const SOLO_MIN_BYTES: u64 = 8 << 20;

const MAGIC: &[u8; 8] = b"AFSPKIDX";
const FORMAT: u32 = 1;
const HEAD_BYTES: usize = MAGIC.len() + 4 + PACK_ID_BYTES + 8;
const ENTRY_BYTES: usize = DIGEST_BYTES + 8 + 4 + 4 + 1 + 1;

/// One object of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// The digest of the object.
    pub digest: Digest,
    /// The first byte within the pack.
    pub offset: u64,
    /// The bytes in the pack.
    pub stored_bytes: u32,
    /// The bytes once decoded.
    pub body_bytes: u32,
    /// The kind of the object.
    pub kind: ObjectKind,
    /// The codec of the bytes in the pack.
    pub codec: u8,
}

impl From<&NewObject> for IndexEntry {
    fn from(object: &NewObject) -> Self {
        Self {
            digest: object.digest,
            offset: object.offset,
            stored_bytes: object.stored_bytes,
            body_bytes: object.body_bytes,
            kind: object.kind,
            codec: object.codec,
        }
    }
}

/// Returns the bytes of the index of pack `id`.
pub(crate) fn encode_index(id: PackId, entries: &[IndexEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + entries.len() * ENTRY_BYTES + DIGEST_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&id.0);
    out.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    for entry in entries {
        out.extend_from_slice(entry.digest.as_bytes());
        out.extend_from_slice(&entry.offset.to_le_bytes());
        out.extend_from_slice(&entry.stored_bytes.to_le_bytes());
        out.extend_from_slice(&entry.body_bytes.to_le_bytes());
        out.extend([entry.kind.code(), entry.codec]);
    }
    let check = blake3::hash(&out);
    out.extend_from_slice(check.as_bytes());
    out
}

/// Decodes the index of pack `id`.
///
/// # Errors
/// [`Kind::Corrupt`] if the bytes are not what was written, [`Kind::Unsupported`] for a newer
/// format.
pub(crate) fn decode_index(id: PackId, bytes: &[u8]) -> Result<Vec<IndexEntry>> {
    let damaged = || Error::new(Kind::Corrupt, format!("the index of pack {id} is damaged"));
    let body_end = bytes.len().checked_sub(DIGEST_BYTES).ok_or_else(damaged)?;
    let (body, check) = bytes.split_at(body_end);
    if body.len() < HEAD_BYTES || blake3::hash(body).as_bytes()[..] != *check {
        return Err(damaged());
    }
    let (head, entries) = body.split_at(HEAD_BYTES);
    if head[8..12] != FORMAT.to_le_bytes() {
        let format = u32::from_le_bytes(head[8..12].try_into().map_err(|_| damaged())?);
        return Err(Error::new(Kind::Unsupported, format!("index format {format} in pack {id}"))
            .hint("it was written by a newer artifactfs: upgrade this one"));
    }
    if &head[..8] != MAGIC || head[12..28] != id.0 || entries.len() % ENTRY_BYTES != 0 {
        return Err(damaged());
    }
    entries.chunks_exact(ENTRY_BYTES).map(|e| decode_entry(e).ok_or_else(damaged)).collect()
}

fn decode_entry(bytes: &[u8]) -> Option<IndexEntry> {
    let number =
        |from: usize| Some(u32::from_le_bytes(bytes.get(from..from + 4)?.try_into().ok()?));
    Some(IndexEntry {
        digest: Digest::from_bytes(bytes[..32].try_into().ok()?),
        offset: u64::from_le_bytes(bytes[32..40].try_into().ok()?),
        stored_bytes: number(40)?,
        body_bytes: number(44)?,
        kind: ObjectKind::from_code(bytes[48])?,
        codec: bytes[49],
    })
}

/// Returns the key of a pack's object; `extension` is `pack` or `idx`.
pub(crate) fn pack_key(pack: PackId, extension: &str) -> String {
    let name = pack.to_string();
    format!("packs/{}/{name}.{extension}", &name[..2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_comes_back_and_a_flipped_bit_does_not() {
        let id = PackId([7; 16]);
        let entries: Vec<_> = (0..5u8)
            .map(|n| IndexEntry {
                digest: Digest::of(ObjectKind::Chunk, &[n]),
                offset: u64::from(n) * 10,
                stored_bytes: 10,
                body_bytes: 10,
                kind: ObjectKind::Chunk,
                codec: 0,
            })
            .collect();
        let bytes = encode_index(id, &entries);
        assert_eq!(decode_index(id, &bytes).unwrap(), entries);
        assert!(decode_index(PackId([8; 16]), &bytes).is_err());
        for position in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[position] ^= 1;
            assert_eq!(decode_index(id, &flipped).unwrap_err().kind(), Kind::Corrupt);
        }
    }
}
