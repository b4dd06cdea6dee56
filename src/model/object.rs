//! Objects and the places of their bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::name::NameError;
use super::object_kind::ObjectKind;
use super::zone::{ZONE_BYTES, Zone};

/// The number of bytes in a pack id.
pub(crate) const PACK_ID_BYTES: usize = 16;

/// The name of a pack: random, never derived from content, never reused. In a zoned repository the
/// last three bytes are the number of the zone to which all its objects belong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PackId(pub [u8; PACK_ID_BYTES]);

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for PackId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let number = (text.len() == 2 * PACK_ID_BYTES)
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten()
            .ok_or_else(|| NameError::new("pack id", text.as_bytes(), "32 hexadecimal digits"))?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// The place of an object's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The pack.
    pub pack: PackId,
    /// The first byte within the pack's body.
    pub offset: u64,
    /// The bytes in the pack.
    pub stored_bytes: u32,
}

impl PackId {
    /// The pack that is never in a store: the place of an object whose bytes were lost.
    pub(crate) const NONE: Self = Self([0; PACK_ID_BYTES]);

    /// Returns a new pack id from random bits.
    pub(crate) fn new(random: u128, zone: Zone) -> Self {
        let mut bytes = random.to_be_bytes();
        if zone != Zone::WHOLE {
            bytes[PACK_ID_BYTES - ZONE_BYTES..].copy_from_slice(&zone.to_bytes());
        }
        Self(bytes)
    }

    /// Returns the zone to which a pack of a zoned repository belongs.
    pub(crate) const fn zone(&self) -> Zone {
        let [.., a, b, c] = self.0;
        Zone::from_bytes([a, b, c])
    }
}

/// The state of an object's bytes in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// The bytes are good, as far as is known.
    Present,
    /// The bytes are damaged or lost. The object is counted as before: its children still have its
    /// reference.
    Absent,
    /// The bytes are damaged or lost. The children were never counted, since the object could not
    /// be read.
    AbsentUncounted,
}

impl Presence {
    /// Returns the byte that stands for it in records.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Present => 0,
            Self::Absent => 1,
            Self::AbsentUncounted => 2,
        }
    }

    /// Returns the presence that a byte stands for, if there is one.
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Present),
            1 => Some(Self::Absent),
            2 => Some(Self::AbsentUncounted),
            _ => None,
        }
    }
}

/// An object and its place, as the registry holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// The kind of the object.
    pub kind: ObjectKind,
    /// The codec of the bytes in the pack; see `content::codec`.
    pub codec: u8,
    /// The bytes once decoded.
    pub body_bytes: u32,
    /// The place of the bytes.
    pub extent: Extent,
    /// The number of parents (trees, recipes, version roots) that point at it.
    pub refs: u64,
    /// The state of its bytes. An absent object keeps its last place, or has [`PackId::NONE`]. A
    /// read there is harmless, since every byte is verified. The next `put` that brings the object
    /// stores it again.
    pub presence: Presence,
}

impl Located {
    /// Returns the record of an object of which only the digest is known: it points at nothing that
    /// was counted.
    pub(crate) fn lost(refs: u64) -> Self {
        let extent = Extent { pack: PackId::NONE, offset: 0, stored_bytes: 0 };
        let presence = Presence::AbsentUncounted;
        Self { kind: ObjectKind::Chunk, codec: 0, body_bytes: 0, extent, refs, presence }
    }

    /// Returns whether its bytes have to be stored again.
    pub(crate) fn is_absent(&self) -> bool {
        self.presence != Presence::Present
    }
}

/// An object that was written to a pack and is to be registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewObject {
    /// The digest of the object.
    pub digest: Digest,
    /// The kind of the object.
    pub kind: ObjectKind,
    /// The codec of the bytes in the pack.
    pub codec: u8,
    /// The bytes once decoded.
    pub body_bytes: u32,
    /// The first byte within its pack's body.
    pub offset: u64,
    /// The bytes in the pack.
    pub stored_bytes: u32,
    /// The objects that a recipe or tree points at, each once.
    pub children: Vec<Digest>,
}
