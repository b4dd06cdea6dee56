//! BLAKE3-256 digests, the names of objects.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::NameError;
use super::object_kind::ObjectKind;
use super::zone::{ZONE_BYTES, Zone};

/// The number of bytes in a digest.
pub(crate) const DIGEST_BYTES: usize = 32;

/// Contexts that keep a chunk from passing for a node (BLAKE3's derive-key mode).
const RECIPE_CONTEXT: &str = "artifactfs 2026-11 recipe";
const TREE_CONTEXT: &str = "artifactfs 2026-11 tree";

/// The digest of an object. A chunk's is the plain BLAKE3 of its bytes, as `b3sum` prints it;
/// recipes and trees are hashed in contexts of their own. In a zone the last three bytes are its
/// number: 232 bits of the hash are left, and a collision takes 2^116 attempts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest([u8; DIGEST_BYTES]);

impl Digest {
    /// Returns the digest of an object of `kind` with this body.
    pub fn of(kind: ObjectKind, body: &[u8]) -> Self {
        let context = match kind {
            ObjectKind::Chunk => return Self(*blake3::hash(body).as_bytes()),
            ObjectKind::Recipe => RECIPE_CONTEXT,
            ObjectKind::Tree => TREE_CONTEXT,
        };
        Self(*blake3::Hasher::new_derive_key(context).update(body).finalize().as_bytes())
    }

    /// Returns the digest of the same body in a zone.
    #[must_use]
    pub(crate) const fn in_zone(self, zone: Zone) -> Self {
        let Self(mut bytes) = self;
        if zone.number() != 0 {
            [bytes[DIGEST_BYTES - 3], bytes[DIGEST_BYTES - 2], bytes[DIGEST_BYTES - 1]] =
                zone.to_bytes();
        }
        Self(bytes)
    }

    /// Returns the zone to which an object of a zoned repository belongs.
    pub(crate) const fn zone(&self) -> Zone {
        let [.., a, b, c] = self.0;
        Zone::from_bytes([a, b, c])
    }

    /// Returns whether this is the digest of an object of `kind` with this body, in whatever zone. It
    /// compares 232 bits, also in a repository that is one zone.
    pub fn is_of(&self, kind: ObjectKind, body: &[u8]) -> bool {
        self.has_content_of(&Self::of(kind, body))
    }

    /// Returns whether two digests are those of the same body, whatever their zones are.
    pub(crate) fn has_content_of(&self, other: &Self) -> bool {
        self.0[..DIGEST_BYTES - ZONE_BYTES] == other.0[..DIGEST_BYTES - ZONE_BYTES]
    }

    /// Returns the digest of raw bytes, as they are in a node or an index.
    pub const fn from_bytes(bytes: [u8; DIGEST_BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the raw bytes.
    pub(crate) const fn as_bytes(&self) -> &[u8; DIGEST_BYTES] {
        &self.0
    }

    /// Returns the first eight bytes as a number: evenly spread, for tables and boundaries.
    pub(crate) fn spread(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Digest {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let hash = blake3::Hash::from_hex(text)
            .map_err(|_| NameError::new("digest", text.as_bytes(), "64 hexadecimal digits"))?;
        Ok(Self(*hash.as_bytes()))
    }
}
